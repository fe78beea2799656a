"""What a factory was called with: checked, remembered, compared, printed, pickled.

A factory is a public function that makes something callable from settings: a gradient
transformation, a schedule. `recorded` turns a plain function into one, so that its
product knows the call that made it. Arguments are checked by their names, once, here:
`b1` means the same in every method.
"""

import functools
import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar, overload

import jax
import jax.numpy as jnp
import numpy as np

from .base import Rules, Schedule, WeightDecay
from .compat import ShapedArray, Tracer
from .words import misfit_of_one, name_mixed_keys

__all__ = []

F = TypeVar("F", bound=Callable[..., Any])


# ------------------------------------------------------------------ checks by name


class Range(NamedTuple):
    """The numbers that an argument may be: `low <= x <= high`, strict where open.

    NaN is in none, infinity only in one that is not `finite`.

    With `per_leaf` a tree of such numbers and of schedules, or a mapping from path
    patterns to them; with `kinds` weight decay of another kind too.
    """

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    per_leaf: bool = False
    kinds: bool = False
    finite: bool = True

    def __contains__(self, x: float) -> bool:
        above = x > self.low if self.open_low else x >= self.low
        below = x < self.high if self.open_high else x <= self.high
        return above and below and (math.isfinite(x) or not self.finite)

    def __str__(self) -> str:
        if self.low == -math.inf and self.high == math.inf:
            return "a finite number" if self.finite else "a number"
        if self.high == math.inf:
            above = f"more than {self.low:g}" if self.low else "positive"
            return above if self.open_low else f"at least {self.low:g}"
        left, right = "(["[not self.open_low], ")]"[not self.open_high]
        return f"in {left}{self.low:g}, {self.high:g}{right}"


FINITE = Range()
ANY = Range(finite=False)
NOT_NEGATIVE = Range(0)
POSITIVE = Range(0, open_low=True)
DECAY = Range(0, 1, open_high=True)  # a weight on the past; at one nothing is learned
FRACTION = Range(0, 1)
COUNT = Range(1)
RATE = Range(per_leaf=True)
OWN_DECAY = Range(0, per_leaf=True)  # where a method has its own place for it
WEIGHT_DECAY = Range(0, per_leaf=True, kinds=True)

_RANGES = dict(
    learning_rate=RATE,
    step_size=FINITE,
    **dict.fromkeys(("b1", "b2", "b3", "beta", "rho"), DECAY),
    **dict.fromkeys(("decay", "momentum"), FRACTION),
    **dict.fromkeys(("eps", "eps_root", "epsilon"), NOT_NEGATIVE),
    **dict.fromkeys(("min_norm", "min_scale"), NOT_NEGATIVE),
    **dict.fromkeys(("max_norm", "max_delta", "threshold", "clipping"), NOT_NEGATIVE),
    **dict.fromkeys(("clip_threshold", "clipping_threshold"), NOT_NEGATIVE),
    **dict.fromkeys(("eta", "trust_coefficient", "adam_eps_root"), NOT_NEGATIVE),
    **dict.fromkeys(("initial_accumulator_value", "initial_scale"), NOT_NEGATIVE),
    **dict.fromkeys(("adam_b1", "adam_b2"), DECAY),
    **dict.fromkeys(("weight_decay", "adam_weight_decay"), WEIGHT_DECAY),
    weight_decay_rate=OWN_DECAY,
    adam_learning_rate=RATE,
)


def range_of(name: str) -> Range:
    """The numbers that an argument of this name may usually be."""
    return _RANGES.get(name, FINITE)


def check_number(where: str, name: str, value: Any, allowed: Range) -> None:
    """Refuse what is not one number in the range. Traced values are not looked at."""
    if isinstance(value, (bool, np.bool_, str, bytes, complex)) or value is None:
        got = "None" if value is None else f"{_kind(value)} {value!r}"
        raise TypeError(f"{where}: {name} must be a number, got {got}")
    if not isinstance(value, (int, float, np.number, np.ndarray, jax.Array)):
        raise TypeError(f"{where}: {name} must be a number, got {_kind(value)}")
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{where}: {name} must be a number, got {_kind(value)}")
    shape, dtype = np.shape(value), jax.dtypes.result_type(value)
    if shape != ():
        raise ValueError(
            f"{where}: {name} must be a scalar, got an array of shape {shape}"
        )
    real = jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)
    if not real:
        raise TypeError(f"{where}: {name} must be a real number, got dtype {dtype}")
    if isinstance(value, Tracer) or not _on_hand(value):
        return
    if float(value) not in allowed:
        raise ValueError(f"{where}: {name} must be {allowed}, got {value}")


def check_real(where: str, name: str, value: Any, complexes: bool = False) -> None:
    """Refuse what is neither an array of real numbers, or complex ones, nor one."""
    scalars = (int, float, complex) if complexes else (int, float)
    if not isinstance(value, (*scalars, np.generic, np.ndarray, jax.Array)):
        raise TypeError(
            f"{where}: {name} must be an array or a number, got {type(value).__name__}"
        )
    dtype = getattr(value, "dtype", np.dtype(type(value)))
    kinds = (jnp.inexact if complexes else jnp.floating, jnp.integer, jnp.bool_)
    if not any(jnp.issubdtype(dtype, kind) for kind in kinds):
        wanted = "numbers" if complexes else "real"
        raise TypeError(
            f"{where}: {name} must be {wanted}, got {dtype}{[*np.shape(value)]}"
        )


def check_function(where: str, name: str, value: Any) -> None:
    if not callable(value):
        raise TypeError(f"{where}: {name} must be a function, got {value!r:.40}")


def check_array(where: str, name: str, value: Any, allowed: Range) -> None:
    """Refuse an array with a number outside the range, if its values are known."""
    if isinstance(value, Tracer) or not _on_hand(value) or not np.size(value):
        return
    value = np.asarray(value)  # so that the least is found, and not traced
    for x in (value.min(), value.max()):
        if float(x) not in allowed:
            raise ValueError(f"{where}: {name} must be {allowed}, got {x}")


def check_numbers(where: str, name: str, value: Any, allowed: Range) -> None:
    """Refuse what is not a number in the range, or a tree or mapping if these may be.

    Of a schedule it is looked at how it is called; its value is checked at the step.
    """
    if isinstance(value, WeightDecay):
        if not allowed.kinds:
            raise TypeError(
                f"{where}: {name} must be a number and no {value!r}: "
                f"{where} has a place of its own for it"
            )
        value = value.value
    flat = [((), value)]
    if allowed.per_leaf:
        flat = jax.tree_util.tree_flatten_with_path(value)[0] or flat
        if isinstance(value, Rules) and None in value.values():
            flat = [((jax.tree_util.DictKey(k),), v) for k, v in value.items()]
    for path, x in flat:
        at = f"{name} at {jax.tree_util.keystr(path)}" if path else name
        if _is_function(x):
            _check_schedule(where, at, x)
        else:
            check_number(where, at, x, allowed)


def _check_schedule(where: str, name: str, value: Any) -> None:
    """Refuse what cannot be called with the number of a step."""
    if isinstance(value, type):
        raise TypeError(
            f"{where}: {name} must be a number or a schedule, got the class "
            f"{value.__name__}"
        )
    misfit = misfit_of_one(value)
    if misfit is not None:
        called = getattr(value, "__name__", _kind(value))
        hint = "; did you forget to call it?" if "missing" in misfit else ""
        raise TypeError(
            f"{where}: {name} must be a schedule, a function of the step alone, got "
            f"{called}: {misfit}{hint}"
        )


def rules_as_tree(name: str, value: Any, ranges: Mapping[str, Range] = _RANGES) -> Any:
    """A mapping with its order, where a number of each leaf may be given."""
    allowed = ranges.get(name)
    if allowed is None or not allowed.per_leaf or not isinstance(value, Mapping):
        return value
    return value if isinstance(value, Rules) else Rules(value)


def _on_hand(value: Any) -> bool:
    return not isinstance(value, jax.Array) or value.is_fully_addressable


def check_floating_dtype(where: str, name: str, dtype: Any) -> None:
    """Refuse what is not the dtype of a float: a moment in integers never moves."""
    is_array = isinstance(dtype, (jax.Array, np.ndarray, np.generic))
    try:
        floating = not is_array and jnp.issubdtype(jnp.dtype(dtype), jnp.inexact)
    except TypeError:
        floating = False
    if not floating:
        got = _kind(dtype) if is_array else repr(dtype)
        raise TypeError(f"{where}: {name} must be a floating dtype, got {got}")


def check_integer(where: str, name: str, value: Any, low: int | None = 1) -> None:
    """Refuse what is not a Python or NumPy integer, of at least `low`."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(
            f"{where}: {name} must be an integer, got {_kind(value)} {value!r}"
        )
    if low is not None and value < low:
        raise ValueError(f"{where}: {name} must be at least {low}, got {value}")


def check_bool(where: str, name: str, value: Any) -> None:
    """Refuse what is neither True nor False, as "False" is not."""
    is_bool = isinstance(value, (bool, np.bool_)) or (
        isinstance(value, int) and value in (0, 1)
    )
    if not is_bool:
        raise TypeError(
            f"{where}: {name} must be True or False, got {_kind(value)}"
            + (f" {value!r}" if isinstance(value, (str, int, float)) else "")
        )


class NeedsValue(jax.errors.ConcretizationTypeError):
    """A function that the user gave looks at a value where JAX traces it."""

    def __init__(self, message: str):
        TypeError.__init__(self, message)


def called(where: str, name: str, function: Callable, *args: Any, **kwargs: Any) -> Any:
    """What a schedule returns; it is named if it looks at what it is traced with."""
    try:
        return function(*args, **kwargs)
    except _LOOKS as error:
        function = getattr(function, "schedule_fn", function)  # of a WrappedSchedule
        code = getattr(function, "__code__", None)
        line = f" at {code.co_filename}:{code.co_firstlineno}" if code else ""
        raise NeedsValue(
            f"{where}: {name}, the function {show(function)}{line}, looks at the value "
            "of an argument, which is not known where it is traced, as under jit: use "
            "jnp.where or jax.lax.cond in place of a Python `if`, jax.numpy in place "
            "of NumPy and of float() or int(), or join schedules by join_schedules"
        ) from error


_LOOKS = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)


def _check_arguments(signature: inspect.Signature, call: "Call", ranges: dict) -> None:
    """Refuse what is not in the range of its name, or is no dtype where one is due."""
    for parameter, kinds, value in _given(signature, call):
        name = parameter.name
        if name in ranges:
            _refuse_function(call.name, name, value, kinds)
            check_numbers(call.name, name, value, ranges[name])
        elif value is not None and (
            name.endswith("_dtype") or name.startswith("dtype_")
        ):
            check_floating_dtype(call.name, name, value)


def _check_kinds(signature: inspect.Signature, call: "Call", ranges: dict) -> None:
    """Refuse what does not fit its annotation, where the name has no range."""
    for parameter, kinds, value in _given(signature, call):
        where, name = call.name, parameter.name
        if name in ranges:
            continue
        if _are_of_numbers(kinds):
            _refuse_function(where, name, value, kinds)
            check_numbers(where, name, value, ANY if float in kinds else FINITE)
        elif kinds == (bool,):
            check_bool(where, name, value)
        functions = tuple(kind for kind in kinds if kind is not type(None))
        if functions and all(map(_is_of_functions, functions)):
            check_function(where, name, value)
            if functions == (Schedule,):
                _check_schedule(where, name, value)


def _given(signature: inspect.Signature, call: "Call") -> Iterator[tuple]:
    """Each parameter that was given, the types that it names, and the value."""
    for name, value in call.arguments.items():
        parameter = signature.parameters[name]
        kinds = _kinds_of(parameter)
        may_be_none = value is None and type(None) in kinds
        if value is not parameter.default and not may_be_none:
            yield parameter, kinds, value


_OURS = re.compile(r"\w+: ")  # how our messages begin


def _kinds_of(parameter: inspect.Parameter) -> tuple:
    """The types that the annotation of one value names; none where all may come."""
    said = parameter.annotation
    many = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    if many or said is parameter.empty or isinstance(said, str):
        return ()
    kinds = typing.get_args(said) if _is_union(said) else (said,)
    return () if Any in kinds else kinds


def _is_union(said: Any) -> bool:
    return typing.get_origin(said) in (typing.Union, types.UnionType)


def _is_of_functions(kind: Any) -> bool:
    return typing.get_origin(kind) is Callable


def _are_of_numbers(kinds: tuple) -> bool:
    numbers = {int, float, jax.Array, type(None)}
    known = all(kind in numbers or _is_of_functions(kind) for kind in kinds)
    return known and not {int, float}.isdisjoint(kinds)


def _refuse_function(where: str, name: str, value: Any, kinds: tuple) -> None:
    """Refuse a function where the annotation says that only a number is known."""
    if kinds and not any(map(_is_of_functions, kinds)) and _is_function(value):
        raise TypeError(
            f"{where}: {name} must be a number, got {_kind(value)}; "
            f"inject_hyperparams({where}) takes a schedule for it"
        )


def _is_function(x: Any) -> bool:
    return callable(x) and not isinstance(x, jax.Array)


def _kind(value: Any) -> str:
    if value is None or isinstance(value, Rules):
        return repr(value)
    return f"a {type(value).__name__}"


# ------------------------------------------------------------- remembering the call


class Call:
    """A factory and the arguments it was given; equal if those are.

    Arrays compare by value, trees by structure and leaves, functions by identity.
    """

    __slots__ = ("_hash", "arguments", "factory")

    def __init__(self, factory: Callable, arguments: dict[str, Any]):
        self.factory = factory
        self.arguments = arguments
        self._hash = None

    @property
    def name(self) -> str:
        return self.factory.__name__

    def without_arrays(self) -> tuple[list[jax.Array], "Call"]:
        """Its arrays, and the call with their types alone in their places."""
        leaves, treedef = jax.tree.flatten(self.arguments)
        arrays = [x for x in leaves if isinstance(x, jax.Array)]
        types = [jax.typeof(x) if isinstance(x, jax.Array) else x for x in leaves]
        return arrays, Call(self.factory, treedef.unflatten(types))

    def with_arrays(self, arrays: list[jax.Array]) -> "Call":
        """The call with these arrays again where their types stand."""
        leaves, treedef = jax.tree.flatten(self.arguments)
        left = iter(arrays)
        is_type = [isinstance(x, ShapedArray) for x in leaves]
        full = [next(left) if t else x for t, x in zip(is_type, leaves)]
        return Call(self.factory, treedef.unflatten(full))

    def replace(self, **arguments: Any) -> "Call":
        """The call with some other arguments."""
        return Call(self.factory, {**self.arguments, **arguments})

    def bound(self) -> inspect.BoundArguments:
        """The arguments, bound to the factory's signature."""
        bound = inspect.signature(self.factory).bind_partial()
        bound.arguments.update(self.arguments)
        return bound

    def again(self) -> Any:
        """What the factory makes of these arguments."""
        bound = self.bound()
        return self.factory(*bound.args, **bound.kwargs)

    def inside(self) -> Any:
        """What the factory made before it was recorded as a product of this call."""
        bound = self.bound()
        return self.factory.__wrapped__(*bound.args, **bound.kwargs)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return (
            isinstance(other, Call)
            and self.factory is other.factory
            and hash(self) == hash(other)
            and same(self.arguments, other.arguments)
        )

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash((self.name, _hash_of(self.arguments)))
        return self._hash

    def __repr__(self) -> str:
        """Reads like the call: required arguments, then what is not the default."""
        parts = []
        by_keyword = False
        for parameter in inspect.signature(self.factory).parameters.values():
            if parameter.name not in self.arguments:
                by_keyword = True
                continue
            value = self.arguments[parameter.name]
            if parameter.kind is parameter.VAR_POSITIONAL:
                parts += [show(v) for v in value]
            elif parameter.kind is parameter.VAR_KEYWORD:
                parts += [f"{k}={show(v)}" for k, v in value.items()]
            elif parameter.default is not parameter.empty and same(
                value, parameter.default
            ):
                by_keyword = True
            elif by_keyword or parameter.kind is parameter.KEYWORD_ONLY:
                parts.append(f"{parameter.name}={show(value)}")
            elif parameter.default is not parameter.empty:
                parts.append(f"{parameter.name}={show(value)}")
                by_keyword = True
            else:
                parts.append(show(value))
        return f"{self.name}({', '.join(parts)})"

    def __reduce__(self):
        return Call, (self.factory, self.arguments)


class Static(type):
    """The class of classes that JAX cannot trace, whose text says what to do.

    JAX's own errors show of such an argument the class, and where it was passed.
    """

    def __repr__(cls) -> str:
        return (
            f"<class '{cls.__module__}.{cls.__qualname__}', a transformation or a "
            "schedule, which is no array: close over it, or name its argument in "
            "static_argnames>"
        )


class Recorded(metaclass=Static):
    """A function that knows the call that made it, and compares and prints as it.

    Without a call it is equal to itself alone.
    """

    __slots__ = ("__weakref__", "__wrapped__", "call")

    def __init__(self, function: Callable, call: Call | None):
        self.__wrapped__ = function
        self.call = call

    def __call__(self, *args, **kwargs):
        return self.__wrapped__(*args, **kwargs)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Recorded) or type(self) is not type(other):
            return False
        return self.call is not None and self.call == other.call

    def __hash__(self) -> int:
        return id(self) if self.call is None else hash(self.call)

    def __repr__(self) -> str:
        return object.__repr__(self) if self.call is None else repr(self.call)

    def __reduce__(self):
        if self.call is None:
            raise TypeError("only what a decorated factory made can be pickled")
        return self._again, (self.call,)

    @staticmethod
    def _again(call: Call) -> Any:
        return call.again()


class Decorator(Protocol):
    """What `recorded` makes; for a type checker a factory stays the function it is."""

    @overload
    def __call__(self, function: F, /) -> F: ...

    @overload
    def __call__(
        self, *, normal: Any = None, **ranges: Range | None
    ) -> Callable[[F], F]: ...


def recorded(record: Callable[[Any, Call], Any]) -> Decorator:
    """The decorator of factories whose product `record(product, call)` makes knowing.

    The factory's arguments are checked by name first; keyword arguments of the
    decorator replace a name's range, or drop its check with `None`. `normal`, if given,
    brings arguments into the form that is recorded.
    """

    def decorator(
        function: Any = None,
        /,
        *,
        normal: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        **ranges: Range | None,
    ) -> Any:
        if function is None:
            return functools.partial(decorator, normal=normal, **ranges)
        signature = inspect.signature(function)
        rules = {k: v for k, v in (_RANGES | ranges).items() if v is not None}

        @functools.wraps(function)
        def factory(*args, **kwargs):
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError:
                return function(*args, **kwargs)  # Python's own words name it
            if normal is not None:
                bound.arguments.update(normal(bound.arguments))
            for name, value in bound.arguments.items():
                bound.arguments[name] = rules_as_tree(name, value, rules)
            args, kwargs = bound.args, bound.kwargs
            try:
                for name, value in [*bound.arguments.items()]:
                    if same(value, signature.parameters[name].default):
                        del bound.arguments[name]  # equal to the call without it
            except ValueError as error:
                name_mixed_keys(error, bound.arguments, f"{function.__name__}: ")
                raise
            call = Call(factory, bound.arguments)
            _check_arguments(signature, call, rules)
            try:  # what the factory checks itself, it says best
                product = function(*args, **kwargs)
            except Exception as error:
                if not _OURS.match(str(error)):
                    _check_kinds(signature, call, rules)
                raise
            _check_kinds(signature, call, rules)
            return record(product, call)

        return factory

    return decorator


schedule = recorded(Recorded)


# ------------------------------------------------------------------ comparing values


def same(a: Any, b: Any) -> bool:
    """Whether two settings are equal: trees leaf by leaf, arrays by value."""
    if a is b:
        return True
    leaves_a, tree_a = jax.tree.flatten(a)
    leaves_b, tree_b = jax.tree.flatten(b)
    return tree_a == tree_b and all(map(_same_leaf, leaves_a, leaves_b))


def _same_leaf(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if isinstance(a, Tracer) or isinstance(b, Tracer):
        return False
    if isinstance(a, (np.ndarray, np.generic, jax.Array)):
        if type(a) is not type(b) or a.shape != b.shape or a.dtype != b.dtype:
            return False
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            key_data: Any = jax.random.key_data
            a, b = key_data(a), key_data(b)
        return np.asarray(a).tobytes() == np.asarray(b).tobytes()
    return type(a) is type(b) and bool(a == b)


def _hash_of(settings: Any) -> int:
    leaves, tree = jax.tree.flatten(settings)
    return hash((_hash_or_type(tree), *map(_hash_or_type, leaves)))


def _hash_or_type(x: Any) -> int:
    if isinstance(x, (np.ndarray, jax.Array)):
        return hash((x.shape, x.dtype))
    try:
        return hash((type(x), x))
    except TypeError:
        return hash(type(x))


def has_tracers(settings: Any) -> bool:
    """Whether a setting is being traced, so that it must not outlive the trace."""
    return any(isinstance(x, Tracer) for x in jax.tree.leaves(settings))


def show(value: Any) -> str:
    """A setting as one would write it: functions and types by their names."""
    if isinstance(value, (jax.Array, np.ndarray)):
        text = np.array2string(np.asarray(value)) if _printable(value) else "..."
        return text if value.ndim == 0 else f"{value.dtype}{list(value.shape)}"
    if isinstance(value, type) or inspect.isroutine(value):
        return getattr(value, "__name__", repr(value))
    if isinstance(value, jnp.dtype):
        return value.name
    if type(value) is dict:
        items = (f"{show(k)}: {show(v)}" for k, v in value.items())
        return "{" + ", ".join(items) + "}"
    if type(value) is list:
        return "[" + ", ".join(map(show, value)) + "]"
    if type(value) is tuple:
        return "(" + ", ".join(map(show, value)) + ("," * (len(value) == 1)) + ")"
    return repr(value)


def _printable(value: Any) -> bool:
    is_key = jnp.issubdtype(value.dtype, jax.dtypes.extended)
    return not is_key and not isinstance(value, Tracer) and _on_hand(value)

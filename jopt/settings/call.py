"""A factory and the arguments it was given: compared, hashed, printed, pickled."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..compat import ShapedArray, Tracer
from ..kinds import is_key, is_known

__all__ = []


# A factory's own, read when it is called first: no import waits for 200 of them.
signature_of = functools.lru_cache(maxsize=1024)(inspect.signature)


_PLAIN = (int, float, str, type(None))


class Call:
    """A factory and the arguments it was given; equal if those are.

    Arrays compare by value, trees by structure and leaves, functions by identity.
    """

    __slots__ = ("arguments", "factory", "hash")

    def __init__(self, factory: Callable, arguments: dict[str, Any]):
        self.factory = factory
        self.arguments = arguments
        # Of what is quick to hash: equal calls have equal ones.
        plain = [x for x in arguments.items() if isinstance(x[1], _PLAIN)]
        self.hash = hash((factory.__name__, len(arguments), *plain))

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
        bound = signature_of(self.factory).bind_partial()
        bound.arguments.update(self.arguments)
        return bound

    def again(self) -> Any:
        """What the factory makes of these arguments."""
        bound = self.bound()
        return self.factory(*bound.args, **bound.kwargs)

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
        return self.hash

    def __repr__(self) -> str:
        """Reads like the call: required arguments, then what is not the default."""
        parts = []
        by_keyword = False
        for parameter in signature_of(self.factory).parameters.values():
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
        if is_key(a):
            key_data: Any = jax.random.key_data
            a, b = key_data(a), key_data(b)
        return np.asarray(a).tobytes() == np.asarray(b).tobytes()
    return type(a) is type(b) and bool(a == b)


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
    return not is_key and is_known(value)

"""Hyperparameters in the state, where a program can read them and change them."""

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from .. import settings
from ..base import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    OptState,
    Schedule,
    with_extra_args_support,
)
from ..compat import with_weak_type
from ..engine import Inside, from_node, in_types_of, keep_types, strong
from ..kinds import is_function
from ..numerics import safe_increment
from ..parts.combine import check_transformation
from ..plan import Whole, names_taken, node_of
from ..settings import scheduled
from .branch import check_state

__all__ = [
    "InjectHyperparamsState",
    "InjectStatefulHyperparamsState",
    "StatefulSchedule",
    "WrappedSchedule",
    "WrappedScheduleState",
    "inject_hyperparams",
]


class InjectStatefulHyperparamsState(NamedTuple):
    """The hyperparameters of the last step, the schedules' states, the inner state."""

    count: jax.Array
    hyperparams: dict[str, jax.Array]
    hyperparams_states: dict[str, Any]
    inner_state: OptState


InjectHyperparamsState = InjectStatefulHyperparamsState


# ------------------------------------------------------------------------- schedules


class StatefulSchedule(Protocol):
    """A schedule that keeps a state, and may look at the update's keyword arguments."""

    def init(self) -> Any: ...

    def update(self, state: Any, **extra_args: Any) -> Any: ...

    def __call__(self, state: Any, **extra_args: Any) -> ArrayLike: ...


class WrappedScheduleState(NamedTuple):
    """How many steps were taken."""

    count: jax.Array


@dataclasses.dataclass(frozen=True)
class WrappedSchedule:
    """A function of the step as a stateful schedule: its state is the step.

    Example:
        >>> schedule = jopt.WrappedSchedule(lambda count: 0.5**count)
        >>> schedule(schedule.update(schedule.init()))
        Array(0.5, dtype=float32, weak_type=True)
    """

    schedule_fn: Schedule

    def init(self) -> WrappedScheduleState:
        """The state before the first step."""
        return WrappedScheduleState(jnp.zeros((), jnp.int32))

    def update(
        self, state: WrappedScheduleState, **extra_args: Any
    ) -> WrappedScheduleState:
        """The state at the next step."""
        return state._replace(count=safe_increment(state.count))

    def __call__(self, state: WrappedScheduleState, **extra_args: Any) -> ArrayLike:
        """The value at this step."""
        return self.schedule_fn(state.count)


def _is_stateful(x: Any) -> bool:
    methods = (getattr(x, name, None) for name in ("init", "update"))
    return callable(x) and all(callable(m) for m in methods)


# --------------------------------------------------------- what an argument is, by name


def _is_schedule(parameter: inspect.Parameter, value: Any) -> bool:
    """Whether to call it once a step for a number: not if it makes a mask, say."""
    if _is_stateful(value):
        return True
    if not is_function(value) or isinstance(value, type):
        return False
    no_number = ("mask", "labels", "_numbers", "_fn", "_fun", "_function")
    return not parameter.name.endswith(no_number)


def is_number(parameter: inspect.Parameter, value: Any) -> bool:
    """Whether it is a hyperparameter: a number, but for those that count or choose.

    An integer counts if its annotation says so, or else if its default is one.
    """
    if isinstance(value, (bool, np.bool_)) or parameter.name.endswith("dtype"):
        return False
    if parameter.name in ("key", "seed"):  # an integer that names a random stream
        return False
    if not isinstance(value, (int, float, np.number, np.ndarray, jax.Array)):
        return False
    dtype = jax.dtypes.result_type(value)
    if jnp.issubdtype(dtype, jnp.floating):
        return True
    if not jnp.issubdtype(dtype, jnp.integer) or np.ndim(value):
        return False
    kinds = typing.get_args(parameter.annotation) or (parameter.annotation,)
    if (int in kinds) != (float in kinds):
        return float in kinds
    return type(parameter.default) is not int


# ------------------------------------------------------------------------- the wrapper

_WHERE = "inject_hyperparams"


class _Call(settings.Call):
    """A call of what another call made: `inject_hyperparams(adam)(0.001)`."""

    __slots__ = ()

    @property
    def name(self) -> str:
        return repr(self.factory)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Call)
            and self.factory == other.factory
            and settings.same(self.arguments, other.arguments)
        )

    __hash__ = settings.Call.__hash__

    def __reduce__(self):
        return _Call, (self.factory, self.arguments)


class _Injected(settings.Recorded):
    """The factory that `inject_hyperparams` makes of another one."""

    def __init__(self, make: Callable, call: settings.Call):
        functools.update_wrapper(self, call.arguments["inner_factory"])
        self.make, self.call = make, call

    def __call__(self, *args: Any, **kwargs: Any) -> GradientTransformationExtraArgs:
        try:
            bound = inspect.signature(self).bind(*args, **kwargs)
        except TypeError:
            return self.__wrapped__(*args, **kwargs)  # Python's own words name it
        for name, value in bound.arguments.items():
            bound.arguments[name] = settings.rules_as_tree(name, value)
        call = _Call(self, dict(bound.arguments))
        return from_node(self.make(bound), call)


@settings.recorded(_Injected)
def inject_hyperparams(
    inner_factory: Callable[..., GradientTransformation],
    static_args: str | Iterable[str] = (),
    hyperparam_dtype: DTypeLike | None = None,
) -> Callable[..., GradientTransformationExtraArgs]:
    """Makes a factory keep its numbers in the state, where they can be changed.

        h    = state.hyperparams, with every schedule's value at this step
        u, s = inner_factory(**h).update(g, s)

    `state.hyperparams` is a dict: what a program writes there holds from the next step
    on, in the dtype that was there: a number of Python or NumPy, or an array. What is
    of another type than an array of that dtype costs one trace, the first time. A
    schedule's value is written there at each step.

    An argument is a hyperparameter if it is a floating number, or an integer that does
    not count. It is a schedule if it is a function or a `StatefulSchedule`. Everything
    else stays as it is: booleans, `None`, dtypes, integers that count (so annotated, or
    with an integer as default), trees of numbers and mappings from paths to them,
    modules that are callable, and functions for an argument named `...mask`,
    `...labels` or `..._fn`.

    Args:
        inner_factory: a function that makes a transformation of its arguments. It is
            called again whenever a step is traced.
        static_args: names of further arguments to leave as they are.
        hyperparam_dtype: dtype of the hyperparameters; float32 if `None` (float64 with
            `jax_enable_x64`), whatever the parameters are. In arithmetic they act as
            Python numbers do: they take the dtype of the array that they meet.

    Returns:
        A factory with the arguments of `inner_factory`. The state of what it makes is
        `InjectStatefulHyperparamsState(count: i32[], hyperparams, hyperparams_states,
        inner_state)`: the number of steps, a dict of scalars, a dict of the schedules'
        states, and the state of the inner transformation.

    Raises:
        TypeError: `inner_factory` is no function.
        ValueError: `static_args` names no argument of it.

    Example:
        >>> tx = jopt.inject_hyperparams(jopt.sgd)(learning_rate=1.0)
        >>> state = tx.init(jnp.zeros(2))
        >>> state.hyperparams["learning_rate"] = jnp.float32(0.5)
        >>> tx.update(jnp.ones(2), state)[0]
        Array([-0.5, -0.5], dtype=float32)
    """
    if not callable(inner_factory):
        raise TypeError(
            f"{_WHERE}: inner_factory must be a function that makes a transformation, "
            f"such as jopt.adam, got {inner_factory!r}"
        )
    parameters = inspect.signature(inner_factory).parameters
    static = {static_args} if isinstance(static_args, str) else set(static_args)
    unknown = sorted(static - set(parameters))
    if unknown:
        raise ValueError(
            f"{_WHERE}: static_args names {unknown}, which {_name(inner_factory)} "
            f"does not take; it takes {list(parameters)}"
        )
    make: Any = functools.partial(_make, inner_factory, static, hyperparam_dtype)
    return make  # of which `_Injected` makes the factory


def _make(
    factory: Callable,
    static: set[str],
    hyperparam_dtype: DTypeLike | None,
    bound: inspect.BoundArguments,
) -> Whole:
    where = f"{_WHERE}({_name(factory)})"
    bound.apply_defaults()
    arguments = {k: v for k, v in flat_arguments(bound).items() if k not in static}
    schedules = {
        name: value if _is_stateful(value) else WrappedSchedule(value)
        for name, (parameter, value) in arguments.items()
        if _is_schedule(parameter, value)
    }
    numbers = {k: v for k, (p, v) in arguments.items() if is_number(p, v)}

    def inner(values):
        # As Python numbers: 0.999 stays float32 beside bfloat16 and does not become 1,
        # updates keep their dtypes, and strict promotion allows it.
        weak = {k: with_weak_type(v) for k, v in values.items()}
        tx = _call(factory, bound, weak)
        check_transformation(where, "what inner_factory made", tx)
        return with_extra_args_support(tx)

    def number(x):
        # The default is looked up late: equal transformations share a program, and
        # one may have been made before 64 bits were enabled.
        return jnp.array(x, hyperparam_dtype or jnp.result_type(float))

    def value(name, state, extra_args):
        return number(scheduled(where, name, schedules[name], state, **extra_args))

    def init(params):
        states = {name: schedule.init() for name, schedule in schedules.items()}
        values = {name: value(name, state, {}) for name, state in states.items()}
        return InjectStatefulHyperparamsState(
            count=jnp.zeros((), jnp.int32),
            hyperparams={k: number(v) for k, v in numbers.items()} | values,
            hyperparams_states=states,
            inner_state=jax.tree.map(strong, inner(values).init(params)),
        )

    def expected(state):
        """What is not the inner transformation's to check."""
        check_state(where, state, InjectStatefulHyperparamsState)
        _check_names(where, "hyperparams", state.hyperparams, {**numbers, **schedules})
        _check_names(where, "hyperparams_states", state.hyperparams_states, schedules)
        real = jnp.result_type(float)
        one_of: Any = jax.ShapeDtypeStruct
        return InjectStatefulHyperparamsState(
            count=one_of((), jnp.int32),
            hyperparams={
                name: one_of(np.shape(numbers.get(name, 0)), _whole_or(real, x))
                for name, x in state.hyperparams.items()
            },
            hyperparams_states=jax.eval_shape(
                lambda: {name: s.init() for name, s in schedules.items()}
            ),
            inner_state=Inside(),
        )

    def update(updates, state, params=None, **extra_args):
        values, states = {}, {}
        for name, old in state.hyperparams_states.items():
            values[name] = value(name, old, extra_args)
            states[name] = schedules[name].update(old, **extra_args)
        for name in numbers:
            values[name] = number(state.hyperparams[name])
        updates, inner_state = inner(values).update(
            updates, state.inner_state, params, **extra_args
        )
        return updates, state._replace(
            count=safe_increment(state.count),
            hyperparams=values,
            hyperparams_states=keep_types(
                states, state.hyperparams_states, f"{where}: hyperparams_states"
            ),
            inner_state=in_types_of(state.inner_state, inner_state),
        )

    takes, inside = frozenset(), {}
    try:
        inside = {"inner_state": inner({})}
    except Exception:  # the factory wants numbers where there are schedules
        names = []

        def first(values):
            names[:] = [names_taken(node_of(inner(values)))]

        # Called once, so that a number out of its range is refused here.
        like = jax.ShapeDtypeStruct((), jnp.result_type(float))
        jax.eval_shape(first, dict.fromkeys(schedules, like))
        takes = names[0]
    if any(not isinstance(s, WrappedSchedule) for s in schedules.values()):
        takes = None  # a stateful schedule sees them all
    return Whole(
        init, update, inside, takes=takes, expected=expected, leaf_by_leaf=True
    )


def _whole_or(dtype: Any, x: Any) -> Any:
    """The dtype that a hyperparameter may have: whole numbers are real ones too."""
    if not isinstance(x, (int, np.generic, np.ndarray, jax.Array)):
        return dtype
    kind = jax.dtypes.result_type(x)
    return kind if jnp.issubdtype(kind, jnp.integer) else dtype


def flat_arguments(
    bound: inspect.BoundArguments,
) -> dict[str, tuple[inspect.Parameter, Any]]:
    """The arguments by name, those of `**kwargs` too, each with what is said of it."""
    flat = {}
    for name, value in bound.arguments.items():
        parameter = bound.signature.parameters[name]
        if parameter.kind is parameter.VAR_KEYWORD:
            plain = functools.partial(inspect.Parameter, kind=parameter.KEYWORD_ONLY)
            flat |= {k: (plain(k), v) for k, v in value.items()}
        else:
            flat[name] = parameter, value
    return flat


def _call(factory: Callable, bound: inspect.BoundArguments, values: dict) -> Any:
    """The factory's product for the bound arguments with other values for some."""
    again = bound.signature.bind_partial()
    for name, value in bound.arguments.items():
        parameter = bound.signature.parameters[name]
        if parameter.kind is parameter.VAR_KEYWORD:
            again.arguments[name] = {k: values.get(k, v) for k, v in value.items()}
        else:
            again.arguments[name] = values.get(name, value)
    return factory(*again.args, **again.kwargs)


def _check_names(where: str, field: str, found: dict, expected: dict) -> None:
    if set(found) != set(expected):
        raise ValueError(
            f"{where}: state.{field} must hold {sorted(expected)}, got {sorted(found)}"
        )


def _name(factory: Callable) -> str:
    return getattr(factory, "__name__", repr(factory))

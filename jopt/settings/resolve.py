"""What a setting is at a step: a number, an array, a schedule, or one for each leaf.

Steps of rules count from 1, those of schedules from 0.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..kinds import is_leaf, is_schedule
from ..tree import values_of
from ..words import spell
from .call import show

__all__ = []


# ------------------------------------------------------------------ of one schedule


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


_REAL = (jnp.floating, jnp.integer, jnp.bool_)


def scalar(where: str, name: str, value: Any, *, returned: bool = True) -> jax.Array:
    """What a schedule returned, or the caller gave: refused unless one real number."""
    must = "must return" if returned else "must be"
    if isinstance(value, float) and returned and not math.isfinite(value):
        raise ValueError(f"{where}: {name} must return a finite number, got {value}")
    try:
        number = jnp.asarray(value)
    except (TypeError, ValueError):
        number = jnp.zeros((0,))
    is_real = any(jnp.issubdtype(number.dtype, kind) for kind in _REAL)
    if number.shape != () or not is_real:
        raise ValueError(f"{where}: {name} {must} a real scalar, got {spell(value)}")
    return number.astype(jnp.result_type(float))


def scheduled(where: str, name: str, schedule: Callable, *args: Any, **kwargs: Any):
    """What a schedule is at a step, as `scalar` makes it."""
    value = called(where, name, schedule, *args, **kwargs)
    return scalar(where, name, value)


def at_step(where: str, name: str, value: Any, *t: jax.Array) -> Any:
    """What a setting is at step `t`, from 1: a number stays what it is."""
    if not is_schedule(value):
        return value
    return scheduled(where, name, value, *(x - 1 for x in t))


def setting_at(where: str, name: str, setting: Any, t: jax.Array, like: jax.Array):
    """What a number or a schedule is at step `t`, from 1, in the dtype of `like`."""
    return jnp.asarray(at_step(where, name, setting, t), like.dtype)


# -------------------------------------------------------------- of one for each leaf

# Of leaves that a mapping leaves out.
_ELSEWHERE = dict(weight_decay=dict(default=0.0), step_size=dict(default=1.0))


def is_scheduled(*settings: Any) -> bool:
    """Whether there is a schedule among the values of the settings."""
    return any(map(is_schedule, jax.tree.leaves(settings)))


def products(where: str, factor: float, **settings: Any) -> Callable[..., list]:
    """What `per_leaf` takes as `by_leaf`: the product of settings, leaf by leaf.

    A setting is a number or a schedule, or several of them as `values_of` takes them.
    """

    def by_leaf(tree, *t):
        @once_each  # leaves of the same settings have the same product
        def of_row(*row):
            numbers = (at_step(where, *x, *t) for x in zip(settings, row))
            return math.prod(numbers, start=factor)

        return [*map(of_row, *_columns(where, settings, tree))]

    return by_leaf


def product(where: str, factor: float, **settings: Any) -> dict[str, Any]:
    """That as arguments of `per_leaf`: numbers if it is one at every step."""
    if all(is_leaf(x) and not is_schedule(x) for x in settings.values()):
        return dict(numbers=math.prod(settings.values(), start=factor))
    return dict(by_leaf=products(where, factor, **settings))


def _columns(where: str, settings: dict[str, Any], tree: Any) -> list[list]:
    """What each setting is for every leaf of the tree."""
    return [
        values_of(value, tree, name=f"{where}: {name}", **_ELSEWHERE.get(name, {}))
        for name, value in settings.items()
    ]


def once_each(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, called once for the same objects, which have to live meanwhile."""
    made = {}

    def once(*args):
        key = tuple(map(id, args))
        if key not in made:
            made[key] = function(*args)
        return made[key]

    return once


class Own(NamedTuple):
    """A learning rate and a decay, each one or by path; or what one leaf has of them.

    Called with what a step is about, it is that of every leaf at the step: one object
    where they are equal. Numbers of Python stay such, but for a rate.
    """

    learning_rate: Any
    weight_decay: Any

    def __call__(self, at: Any) -> "list[Own]":
        like = jnp.zeros((), at.dtype)

        @once_each
        def now(name, value):
            if isinstance(value, (int, float)) and name != "learning_rate":
                return value
            return setting_at(at.name, name, value, at.t, like)

        @once_each
        def of_row(*row):
            return Own(*map(now, self._fields, row))

        return [*map(of_row, *_columns(at.name, self._asdict(), at.params))]


def largest(numbers: list) -> Any:
    """The largest of some numbers, many of which are one object."""
    first, *others = {id(x): x for x in numbers}.values() or [0.0]
    for x in others:
        first = jnp.maximum(first, x)
    return first

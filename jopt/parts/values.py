"""Settings that are one for all leaves or one for each, at a step."""

import math
from collections.abc import Callable
from typing import Any

import jax

from ..engine import scheduled
from ..tree import values_of

__all__ = []

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
        columns = [
            values_of(value, tree, name=f"{where}: {name}", **_ELSEWHERE.get(name, {}))
            for name, value in settings.items()
        ]
        made = {}  # leaves of the same settings have the same product
        for row in zip(*columns):
            if (key := tuple(map(id, row))) not in made:
                numbers = (at_step(*x, *t) for x in zip(settings, row))
                made[key] = math.prod(numbers, start=factor)
        return [made[tuple(map(id, row))] for row in zip(*columns)]

    def at_step(name, value, *t):
        if not is_schedule(value):
            return value
        return scheduled(where, name, value, *(x - 1 for x in t))

    return by_leaf


def once_for_each(function: Callable[[Any], Any], values: list) -> list:
    """The function of every value, called once for those that are one object."""
    made = {}
    for x in values:
        if id(x) not in made:
            made[id(x)] = function(x)
    return [made[id(x)] for x in values]


def is_schedule(x: Any) -> bool:
    """Whether a value is a function of the step."""
    return callable(x) and not isinstance(x, jax.Array)

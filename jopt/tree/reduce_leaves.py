"""One number from the elements of many arrays, in few instructions.

XLA's time grows with the kernels of a program, and with the square of the operands of
one. A small array of its own would cost three kernels, and two thousand parts joined
in a row one kernel of two thousand operands: 20 s of compile time, against 3 s so.
"""

import collections
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..numerics import SMALL, cast
from .devices import place_of, together

__all__ = []

_GROUP = 32  # how many arrays or numbers are joined in one kernel
_TRACED = 8  # and how many of these in a call that is traced once


class Reduction(NamedTuple):
    """`reduce(join(element(x), element(y), ...))`, of numbers that are not negative."""

    element: Callable[..., jax.Array]  # of an array, and of what else is given
    join: Callable[[jax.Array, jax.Array], jax.Array]
    reduce: Callable[[jax.Array], jax.Array]


def reduce_leaves(
    reduction: Reduction, leaves: Sequence[jax.Array], dtype: Any, *more: Any
) -> Any:
    """All elements of all leaves reduced in `dtype`, `[]`; 0 if there are none."""
    groups = _groups(leaves)
    repeats = collections.Counter(map(_signature, groups))
    parts = []
    for group in groups:
        once = repeats[_signature(group)] == 1
        part = (_of_group if once else _of_group_jitted)(reduction, group, *more)
        parts.append(cast(part, dtype))
    parts = together(parts)
    while len(parts) > _GROUP:
        # The maximum changes nothing but keeps XLA from writing a row of operations.
        stacks = [jnp.stack(some) for some in _chunks(parts, _GROUP)]
        parts = [reduction.reduce(jnp.maximum(stack, -1)) for stack in stacks]
    return functools.reduce(reduction.join, parts, jnp.zeros((), dtype))


def _groups(leaves: Sequence[jax.Array]) -> list[list[jax.Array]]:
    """Small arrays of one type and on the same devices together, large ones alone."""
    alike = collections.defaultdict(list)
    for i, x in enumerate(leaves):
        alike[(jax.typeof(x), place_of(x)) if x.size <= SMALL else i].append(x)
    return [chunk for group in alike.values() for chunk in _chunks(group, _GROUP)]


def _chunks(xs: list, n: int) -> list[list]:
    return [xs[i : i + n] for i in range(0, len(xs), n)]


def _signature(group: list[jax.Array]) -> tuple:
    return len(group), jax.typeof(group[0])


def _of_group(reduction: Reduction, group: list[jax.Array], *more: Any) -> jax.Array:
    n = len(group) // _TRACED * _TRACED
    joins = [_join_jitted(reduction, xs, *more) for xs in _chunks(group[:n], _TRACED)]
    joins += [_join(reduction, [x], *more) for x in group[n:]]
    return reduction.reduce(functools.reduce(reduction.join, joins))


def _join(reduction: Reduction, xs: list[jax.Array], *more: Any) -> jax.Array:
    return functools.reduce(reduction.join, (reduction.element(x, *more) for x in xs))


_of_group_jitted = jax.jit(_of_group, static_argnums=0)
_join_jitted = jax.jit(_join, static_argnums=0)

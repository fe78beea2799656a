"""Many calls of one function, traced and lowered once for each type of arguments.

A call costs more to trace and to lower than its arguments do, so up to sixteen are
written as one call of a function that makes them.
"""

import collections
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

__all__ = []

WIDTH = 16  # how many calls are one, at the most


def traced_once(function: Callable) -> Callable[..., list]:
    """`[function(*row, *more) for row in rows]`; a row is a tuple of arrays."""
    one = jax.jit(function)

    @jax.jit
    def many(rows, more):
        return [one(*row, *more) for row in rows]

    def calls(rows: Sequence[tuple[jax.Array, ...]], *more: Any) -> list:
        alike = collections.defaultdict(list)
        for i, row in enumerate(rows):
            alike[tuple(map(jax.typeof, row))].append(i)
        results = {}
        for group in alike.values():
            alone = function if len(group) == 1 else one
            for some in (group[chunk] for chunk in chunks(len(group))):
                given = [rows[i] for i in some]
                several = len(given) > 1
                made = many(given, more) if several else [alone(*given[0], *more)]
                results.update(zip(some, made))
        return [results[i] for i in range(len(rows))]

    return calls


def chunks(n: int, width: int | None = None) -> Iterator[slice]:
    """Slices of n calls: as many of the width as there are, and what is left alone."""
    width = width or _best_width(n)
    whole = n // width * width
    yield from (slice(i, i + width) for i in range(0, whole, width))
    yield from (slice(i, i + 1) for i in range(whole, n))


@functools.cache
def _best_width(n: int) -> int:
    """The one with the fewest calls to trace in all.

    That is the inner calls of one, the calls of that one, and what is left over.
    """
    return min(range(1, WIDTH + 1), key=lambda w: w * (w > 1) + n // w + n % w)

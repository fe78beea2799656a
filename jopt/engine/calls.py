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
        results: list[Any] = [None] * len(rows)
        for group in alike.values():
            if len(group) == 1:
                results[group[0]] = function(*rows[group[0]], *more)
                continue
            for some in (group[chunk] for chunk in chunks(len(group))):
                if len(some) == 1:
                    results[some[0]] = one(*rows[some[0]], *more)
                else:
                    for i, x in zip(some, many([rows[i] for i in some], more)):
                        results[i] = x
        return results

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

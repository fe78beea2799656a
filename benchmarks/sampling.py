"""Samples in turns, and what they come to."""

import gc
import math
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

Samples = dict[str, dict[str, list[float]]]  # figure -> side -> values


class Effort(NamedTuple):
    """How long to sample each figure: for so many seconds, but at least and at most.

    A sample is of steps in a row, as programs take them, for so many seconds at least:
    the first one comes after the other library and finds nothing in the caches.
    """

    seconds: float
    least: int
    most: int
    in_a_row: float


FULL = Effort(seconds=5.0, least=3, most=100, in_a_row=0.1)
QUICK = Effort(seconds=0.4, least=3, most=30, in_a_row=0.02)


def alternate(
    sides: dict[str, Any], sample: Callable[[Any], dict[str, float]], effort: Effort
) -> Samples:
    """Samples of the sides in turns, so that what disturbs one disturbs the other."""
    taken: Samples = {}
    deadline = time.perf_counter() + effort.seconds
    order = list(sides)
    gc.collect()
    gc.freeze()  # what is there already need not be looked through between samples
    gc.disable()
    try:
        for i in range(effort.most):
            if i >= effort.least and time.perf_counter() > deadline:
                break
            for name in order:
                gc.collect()
                for figure, value in sample(sides[name]).items():
                    taken.setdefault(figure, {k: [] for k in sides})[name].append(value)
            order.reverse()  # neither side always runs on the other's heels
    finally:
        gc.enable()
        gc.unfreeze()
    return taken


def summary(
    jopt: list[float], optax: list[float], **others: list[float]
) -> dict[str, Any]:
    """Medians of all sides; median and quartiles of jopt / optax; and over the others.

    Ratios are of samples taken side by side.
    """
    both = {"jopt": jopt, "optax": optax}
    ratios = _ratios(jopt, optax)
    low, _, high = (
        statistics.quantiles(ratios, method="inclusive") if ratios[1:] else ratios * 3
    )
    return {
        **{name: statistics.median(x) for name, x in (both | others).items()},
        "ratio": statistics.median(ratios),
        "quartiles": [low, high],
        "samples": len(ratios),
        **{
            f"over_{other}": {
                name: statistics.median(_ratios(x, y)) for name, x in both.items()
            }
            for other, y in others.items()
        },
    }


def _ratios(a: list[float], b: list[float]) -> list[float]:
    return [x / y if y else math.nan if x else 1.0 for x, y in zip(a, b)]

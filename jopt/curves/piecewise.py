"""One schedule after another, and steps or curves through given values."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike

from ..base import Curve, Schedule
from ..settings import NOT_NEGATIVE
from .decay import constant_schedule, cosine_to, linear_schedule
from .factory import number, schedule, whole
from .steps import as_count, elapsed, reached, value_dtype

__all__ = [
    "join_schedules",
    "piecewise_constant_schedule",
    "piecewise_interpolate_schedule",
]


@schedule
def join_schedules(schedules: Sequence[Schedule], boundaries: Sequence[int]) -> Curve:
    """One schedule after another, each with its own count from 0.

        value = schedules[0](count)                        if count < boundaries[0]
                schedules[i](count - boundaries[i - 1])    from boundaries[i - 1] on

    Args:
        schedules: the schedules in order, at least one.
        boundaries: the count at which each but the first begins: increasing integers,
            the first at least 0.

    Returns:
        A schedule.

    Raises:
        ValueError: `boundaries` do not increase, or are not one fewer than `schedules`.
        TypeError: a boundary is no integer, or a schedule no function.

    Example:
        >>> warmup = jopt.linear_schedule(0.0, 1.0, 2)
        >>> hold = jopt.constant_schedule(1.0)
        >>> jopt.join_schedules([warmup, hold], [2])(jnp.arange(4))
        Array([0. , 0.5, 1. , 1. ], dtype=float32)
    """
    schedules, boundaries = list(schedules), list(boundaries)
    for i, part in enumerate(schedules):
        if not callable(part):
            raise TypeError(
                f"join_schedules: schedules[{i}] must be a function of the step count, "
                f"got {part!r}; for a number use constant_schedule"
            )
    if len(boundaries) != len(schedules) - 1:
        raise ValueError(
            "join_schedules: boundaries must be one fewer than schedules, got "
            f"{len(boundaries)} boundaries for {len(schedules)} schedules"
        )
    boundaries = [
        whole("join_schedules", f"boundaries[{i}]", b, low=0)
        for i, b in enumerate(boundaries)
    ]
    if any(b >= later for b, later in itertools.pairwise(boundaries)):
        raise ValueError(f"join_schedules: boundaries must increase, got {boundaries}")

    def joined(count):
        t = as_count(count)
        first, *others = schedules
        values = [first(t)]
        values += [part(elapsed(t, b)) for part, b in zip(others, boundaries)]
        dtype = value_dtype(*values)
        value, *values = [jnp.asarray(v, dtype) for v in values]
        for b, later in zip(boundaries, values):
            value = jnp.where(reached(t, b), later, value)
        return value

    return joined


@schedule
def piecewise_constant_schedule(
    init_value: ArrayLike, boundaries_and_scales: dict[int, float] | None = None
) -> Curve:
    """A constant that is multiplied by a scale at each boundary.

        value = init_value * product of scale_i with boundary_i <= count

    Args:
        init_value: the value before the first boundary, finite.
        boundaries_and_scales: `{boundary: scale}`, in any order: integers of at least
            0, and numbers of at least 0.

    Returns:
        A schedule.

    Raises:
        ValueError: an argument is NaN or outside its range.
        TypeError: one is no number, or a boundary no integer.

    Example:
        >>> schedule = jopt.piecewise_constant_schedule(1.0, {2: 0.5, 4: 0.5})
        >>> schedule(jnp.arange(6))
        Array([1.  , 1.  , 0.5 , 0.5 , 0.25, 0.25], dtype=float32)
    """
    points = _scaled("piecewise_constant_schedule", init_value, boundaries_and_scales)
    boundaries = [boundary for boundary, _ in points]
    return join_schedules([constant_schedule(v) for _, v in points], boundaries[1:])


@schedule
def piecewise_interpolate_schedule(
    interpolate_type: str,
    init_value: ArrayLike,
    boundaries_and_scales: dict[int, float] | None = None,
) -> Curve:
    """Through values that are multiplied by a scale at each boundary.

    The value at a boundary is `init_value` times the scales so far. Between two
    boundaries it goes from the one value to the other in a straight line or along half
    a cosine; after the last it stays.

    Args:
        interpolate_type: `"linear"` or `"cosine"`.
        init_value: the value at count 0, finite.
        boundaries_and_scales: `{boundary: scale}`, in any order: integers of at least
            0, and numbers of at least 0.

    Returns:
        A schedule.

    Raises:
        ValueError: an argument is NaN or outside its range, or the type is another.
        TypeError: one is no number, or a boundary no integer.

    Example:
        >>> scales = {2: 0.5, 4: 0.0}
        >>> jopt.piecewise_interpolate_schedule("linear", 1.0, scales)(jnp.arange(6))
        Array([1.  , 0.75, 0.5 , 0.25, 0.  , 0.  ], dtype=float32)
    """
    name = "piecewise_interpolate_schedule"
    curves = dict(linear=linear_schedule, cosine=cosine_to)
    if interpolate_type not in curves:
        raise ValueError(
            f"{name}: interpolate_type must be 'linear' or 'cosine', "
            f"got {interpolate_type!r}"
        )
    points = _scaled(name, init_value, boundaries_and_scales)
    return through(points, curves[interpolate_type])


def _scaled(where: str, value: ArrayLike, boundaries_and_scales: Any) -> list[tuple]:
    """The first value and those after each boundary, as `(boundary, value)`."""
    name = "boundaries_and_scales"
    if boundaries_and_scales is None:
        boundaries_and_scales = {}
    if not isinstance(boundaries_and_scales, Mapping):
        raise TypeError(
            f"{where}: {name} must be a dict of scales by boundary, "
            f"got {boundaries_and_scales!r}"
        )
    scales = {
        whole(where, f"the boundary {b!r} in {name}", b, low=0): number(
            where, f"{name}[{b}]", scale, NOT_NEGATIVE
        )
        for b, scale in boundaries_and_scales.items()
    }
    points = [(0, value)]
    for boundary in sorted(scales):
        value = value * scales[boundary]
        points.append((boundary, value))
    if 0 in scales:  # the first value is scaled at once
        del points[0]
    return points


def through(points: list[tuple], curve: Callable[..., Schedule]) -> Curve:
    """Through the values at `(count, value)`, in order from count 0, then constant.

    Of several values at one count, the curve arrives at the first and leaves from the
    last.
    """
    parts, begins = [], []
    for (begin, value), (end, later) in itertools.pairwise(points):
        if begin < end:
            parts.append(curve(value, later, end - begin))
            begins.append(begin)
    last, value = points[-1]
    return join_schedules([*parts, constant_schedule(value)], [*begins, last][1:])

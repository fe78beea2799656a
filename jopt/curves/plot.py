"""Schedules to look at."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..base import Schedule
from .factory import whole

__all__ = ["plot_schedule"]


def plot_schedule(
    schedule: Schedule | Mapping[str, Schedule], steps: int, ax: Any = None
) -> Any:
    """Draws the values at the counts 0 to `steps`, both included.

    Args:
        schedule: a schedule, or a dict of several by the names for the legend.
        steps: the last count, at least 1. At most 10,000 counts are computed, evenly
            spaced.
        ax: the matplotlib `Axes` to draw in; those of a new figure if `None`.

    Returns:
        The matplotlib `Axes`.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: `steps` is less than 1.
        TypeError: `steps` is no integer, or a schedule no function.

    Example:
        >>> ax = jopt.plot_schedule({"rex": jopt.rex(1e-3, 100)}, 100)
        >>> ax.figure.savefig("schedule.png")  # doctest: +SKIP
    """
    steps = whole("plot_schedule", "steps", steps, 1)
    several = isinstance(schedule, Mapping)
    schedules = dict(schedule) if several else {"schedule": schedule}
    for name, curve in schedules.items():
        if not callable(curve):
            raise TypeError(
                f"plot_schedule: {name!r} must be a function of the step count, got "
                f"{curve!r}; for a number use constant_schedule"
            )
    if ax is None:
        ax = _new_axes()
    counts = np.unique(np.linspace(0, steps, min(steps + 1, 10_000)).astype(np.int64))
    for name, curve in schedules.items():
        values = np.asarray(curve(jnp.asarray(counts, jnp.int32)), np.float64)
        ax.plot(counts, np.broadcast_to(values, counts.shape), label=name)
    ax.set_xlabel("count")
    if several:
        ax.legend()
    return ax


def _new_axes() -> Any:
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            "plot_schedule draws with matplotlib: pip install jopt[plot]"
        ) from error
    return pyplot.subplots()[1]

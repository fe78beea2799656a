"""Schedules that rise and fall: one cycle, and warm restarts."""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from jax.typing import ArrayLike

from ..base import Curve
from ..compat import Tracer
from ..settings import check_integer
from .decay import cosine_to, linear_schedule
from .factory import schedule
from .piecewise import join_schedules, through
from .warmup import warmup_cosine_decay_schedule

__all__ = [
    "cosine_onecycle_schedule",
    "linear_onecycle_schedule",
    "sgdr_schedule",
]


@schedule
def sgdr_schedule(cosine_kwargs: Iterable[dict[str, Any]]) -> Curve:
    """Cosine decays with warm-up, one after another.

    Cycle i is `warmup_cosine_decay_schedule(**cosine_kwargs[i])`. It begins at count
    `decay_steps[0] + ... + decay_steps[i - 1]`; the last one stays at its end.

    Args:
        cosine_kwargs: the arguments of each cycle, at least one. A list, so that the
            schedule can be compared and pickled.

    Returns:
        A schedule.

    Raises:
        ValueError: there is no cycle, or a cycle's argument is outside its range.
        TypeError: an argument is missing, unknown or of a wrong type.

    Example:
        >>> cycle = dict(init_value=0.0, peak_value=1.0, warmup_steps=1, decay_steps=3)
        >>> schedule = jopt.sgdr_schedule([cycle, cycle | dict(peak_value=0.5)])
        >>> schedule(jnp.arange(7)).round(3)
        Array([0.  , 1.  , 0.5 , 0.  , 0.5 , 0.25, 0.  ], dtype=float32)

    Reference:
        Loshchilov & Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts,
        ICLR 2017, arXiv:1608.03983.
    """
    cycles, lengths = [], []
    for i, kwargs in enumerate(cosine_kwargs):
        if not isinstance(kwargs, Mapping):
            raise TypeError(
                f"sgdr_schedule: cosine_kwargs[{i}] must be a dict of the arguments of "
                f"warmup_cosine_decay_schedule, got {kwargs!r}"
            )
        try:
            cycles.append(warmup_cosine_decay_schedule(**kwargs))
        except (TypeError, ValueError) as error:
            raise type(error)(f"sgdr_schedule: cosine_kwargs[{i}]: {error}") from None
        lengths.append(int(kwargs["decay_steps"]))
    if not cycles:
        raise ValueError("sgdr_schedule: cosine_kwargs must have at least one cycle")
    return join_schedules(cycles, list(itertools.accumulate(lengths[:-1])))


@schedule
def linear_onecycle_schedule(
    transition_steps: int,
    peak_value: ArrayLike,
    pct_start: float = 0.3,
    pct_final: float = 0.85,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
) -> Curve:
    """Up and down again in straight lines, then down to nearly nothing.

        value = peak_value / div_factor                         at count 0
                peak_value                                      pct_start
                peak_value / div_factor                         pct_final
                peak_value / div_factor / final_div_factor      1

    where the fractions are of `transition_steps`, rounded down to a count.

    Args:
        transition_steps: steps of the whole, at least 1.
        peak_value: the largest value, finite.
        pct_start: the fraction of the steps that rises, in [0, 1].
        pct_final: the fraction at which it is down again, in [pct_start, 1].
        div_factor: positive.
        final_div_factor: positive.

    Returns:
        A schedule.

    Raises:
        ValueError: an argument is NaN or outside its range.
        TypeError: one is no number, or `transition_steps` no integer.

    Example:
        >>> schedule = jopt.linear_onecycle_schedule(10, 1.0, 0.2, 0.4, 4.0)
        >>> schedule(jnp.arange(5))
        Array([0.25 , 0.625, 1.   , 0.625, 0.25 ], dtype=float32)

    Reference:
        Smith & Topin, Super-Convergence: Very Fast Training of Neural Networks Using
        Large Learning Rates, 2017, arXiv:1708.07120.
    """
    name = "linear_onecycle_schedule"
    rise = _part(name, transition_steps, "pct_start", pct_start)
    fall = _part(name, transition_steps, "pct_final", pct_final)
    if pct_final < pct_start:
        raise ValueError(
            f"{name}: pct_final must be at least pct_start={pct_start}, got {pct_final}"
        )
    first = peak_value / div_factor
    last = first / final_div_factor
    points = [(0, first), (rise, peak_value), (fall, first), (transition_steps, last)]
    return through(points, linear_schedule)


@schedule
def cosine_onecycle_schedule(
    transition_steps: int,
    peak_value: ArrayLike,
    pct_start: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
) -> Curve:
    """Up along half a cosine, then down along half a cosine to nearly nothing.

        value = peak_value / div_factor                         at count 0
                peak_value                                      pct_start
                peak_value / div_factor / final_div_factor      1

    where the fractions are of `transition_steps`, rounded down to a count.

    Args:
        transition_steps: steps of the whole, at least 1.
        peak_value: the largest value, finite.
        pct_start: the fraction of the steps that rises, in [0, 1].
        div_factor: positive.
        final_div_factor: positive.

    Returns:
        A schedule.

    Raises:
        ValueError: an argument is NaN or outside its range.
        TypeError: one is no number, or `transition_steps` no integer.

    Example:
        >>> schedule = jopt.cosine_onecycle_schedule(10, 1.0, 0.2, 4.0)
        >>> schedule(jnp.array([0, 1, 2])).round(3)
        Array([0.25 , 0.625, 1.   ], dtype=float32)

    Reference:
        Smith & Topin, Super-Convergence: Very Fast Training of Neural Networks Using
        Large Learning Rates, 2017, arXiv:1708.07120.
    """
    rise = _part("cosine_onecycle_schedule", transition_steps, "pct_start", pct_start)
    first = peak_value / div_factor
    last = first / final_div_factor
    points = [(0, first), (rise, peak_value), (transition_steps, last)]
    return through(points, cosine_to)


def _part(where: str, steps: int, name: str, fraction: float) -> int:
    check_integer(where, "transition_steps", steps)
    if isinstance(fraction, Tracer):
        raise TypeError(
            f"{where}: {name} must not be traced: it gives a count of steps"
        )
    return int(fraction * steps)

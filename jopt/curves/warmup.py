"""A linear warm-up, and what comes after it."""

import jax
from jax.typing import ArrayLike

from ..base import Curve, Schedule
from .decay import constant_schedule, cosine_to, exponential_decay, linear_schedule
from .factory import schedule
from .piecewise import join_schedules

__all__ = [
    "warmup_constant_schedule",
    "warmup_cosine_decay_schedule",
    "warmup_exponential_decay_schedule",
]


def _warmup(
    init_value: ArrayLike, peak_value: ArrayLike, steps: int, after: Schedule
) -> Curve:
    return join_schedules(
        [linear_schedule(init_value, peak_value, steps), after], [steps]
    )


@schedule
def warmup_constant_schedule(
    init_value: ArrayLike, peak_value: ArrayLike, warmup_steps: int
) -> Curve:
    """Up in a straight line, then constant.

        x     = min(count / warmup_steps, 1)
        value = init_value (1 - x) + peak_value x

    Args:
        init_value: the value at count 0, finite.
        peak_value: the value from `warmup_steps` on, finite.
        warmup_steps: at least 0. Without any the value is `peak_value` at once (optax
            stays at `init_value`).

    Returns:
        A schedule.

    Raises:
        ValueError: an argument is NaN or outside its range.
        TypeError: one is no number, or `warmup_steps` no integer.

    Example:
        >>> jopt.warmup_constant_schedule(0.0, 1.0, 4)(jnp.arange(6))
        Array([0.  , 0.25, 0.5 , 0.75, 1.  , 1.  ], dtype=float32)
    """
    return _warmup(init_value, peak_value, warmup_steps, constant_schedule(peak_value))


@schedule
def warmup_cosine_decay_schedule(
    init_value: ArrayLike,
    peak_value: ArrayLike,
    warmup_steps: int,
    decay_steps: int,
    end_value: ArrayLike = 0.0,
    exponent: ArrayLike = 1.0,
) -> Curve:
    """Up in a straight line, then down along half a cosine.

        x     = (count - warmup_steps) / (decay_steps - warmup_steps)
        c     = (1 + cos(pi min(x, 1))) / 2
        value = peak_value c^exponent + end_value (1 - c^exponent)    after the warm-up

    Args:
        init_value: the value at count 0, finite.
        peak_value: the value at `warmup_steps`, finite.
        warmup_steps: steps from `init_value` to `peak_value`, at least 0.
        decay_steps: steps of the whole, the warm-up included, more than `warmup_steps`.
        end_value: the value from `decay_steps` on, finite.
        exponent: at least 0.

    Returns:
        A schedule.

    Raises:
        ValueError: an argument is NaN or outside its range, or `warmup_steps` are not
            fewer than `decay_steps`.
        TypeError: one is no number, or a number of steps no integer.

    Example:
        >>> schedule = jopt.warmup_cosine_decay_schedule(0.0, 1.0, 2, 6)
        >>> schedule(jnp.array([0, 1, 2, 4, 6])).round(3)
        Array([0. , 0.5, 1. , 0.5, 0. ], dtype=float32)

    Reference:
        Loshchilov & Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts,
        ICLR 2017, arXiv:1608.03983.
    """
    if warmup_steps >= decay_steps:
        raise ValueError(
            "warmup_cosine_decay_schedule: warmup_steps must be fewer than "
            f"decay_steps={decay_steps}, which includes them, got {warmup_steps}"
        )
    decay = cosine_to(peak_value, end_value, decay_steps - warmup_steps, exponent)
    return _warmup(init_value, peak_value, warmup_steps, decay)


@schedule
def warmup_exponential_decay_schedule(
    init_value: ArrayLike,
    peak_value: ArrayLike,
    warmup_steps: int,
    transition_steps: int,
    decay_rate: float | jax.Array,
    transition_begin: int = 0,
    staircase: bool = False,
    end_value: ArrayLike | None = None,
) -> Curve:
    """Up in a straight line, then down exponentially.

        x     = max(count - warmup_steps - transition_begin, 0) / transition_steps
        value = peak_value decay_rate^x         (floor(x) for a staircase)

    Args:
        init_value: the value at count 0, finite.
        peak_value: the value at `warmup_steps`, finite.
        warmup_steps: steps from `init_value` to `peak_value`, at least 0.
        transition_steps: steps in which the value falls by `decay_rate`, at least 0;
            with none it stays at `peak_value`.
        decay_rate: at least 0. Above 1 the value grows; at 0, as in optax, it stays.
        transition_begin: steps at the peak, after the warm-up, at least 0.
        staircase: whether the value falls at once after every `transition_steps`.
        end_value: bounds the value after the warm-up: from below if `decay_rate < 1`,
            else from above; no bound if `None`.

    Returns:
        A schedule.

    Raises:
        ValueError: an argument is NaN or outside its range.
        TypeError: one is no number, a number of steps no integer, `staircase` no bool.

    Example:
        >>> schedule = jopt.warmup_exponential_decay_schedule(0.0, 1.0, 2, 4, 0.5)
        >>> schedule(jnp.array([0, 1, 2, 6, 10])).round(3)
        Array([0.  , 0.5 , 1.  , 0.5 , 0.25], dtype=float32)
    """
    decay = exponential_decay(
        peak_value, transition_steps, decay_rate, transition_begin, staircase, end_value
    )
    return _warmup(init_value, peak_value, warmup_steps, decay)

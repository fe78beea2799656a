"""How long runs end: hold and cool down, or fall from the warm-up on."""

from typing import Any, Literal

import jax.numpy as jnp
from jax.typing import ArrayLike

from ..base import Curve, Schedule
from ..settings import POSITIVE
from .decay import exponential_decay, linear_schedule
from .factory import number, schedule, whole
from .piecewise import join_schedules
from .steps import as_count, cosine, elapsed, fit, transition, value_dtype

__all__ = ["inverse_sqrt", "linear_to_zero", "power", "rex", "wsd"]


@schedule
def wsd(
    init_value: ArrayLike,
    peak_value: ArrayLike,
    warmup_steps: int,
    total_steps: int,
    decay_begin: int | None = None,
    end_value: ArrayLike = 0.0,
    cooldown: Literal["linear", "1-sqrt", "cosine", "exponential"] = "1-sqrt",
) -> Curve:
    """Warm up, stay at the peak, and cool down over the last part of the run.

        x     = (count - decay_begin) / (total_steps - decay_begin)
        value = peak_value f(x) + end_value (1 - f(x))     from decay_begin on
        f(x)  = 1 - x, 1 - sqrt(x) or (1 + cos(pi x)) / 2
        value = peak_value (end_value / peak_value)^x      if exponential

    Up to `decay_begin` the value does not depend on `total_steps`: a run that was long
    enough serves all shorter ones. Take its state at step `n` and go on with
    `decay_begin=n`.

    Args:
        init_value: the value at count 0, finite.
        peak_value: the value from `warmup_steps` to `decay_begin`, finite.
        warmup_steps: steps from `init_value` to `peak_value` in a straight line, at
            least 0.
        total_steps: steps of the whole, at least 1.
        decay_begin: the last step at the peak, at least `warmup_steps` and less than
            `total_steps`. The last fifth of the steps decays if `None`.
        end_value: the value from `total_steps` on, finite; positive as the peak is if
            the cooldown is exponential, which never reaches 0.
        cooldown: `"linear"`, `"1-sqrt"`, `"cosine"` or `"exponential"`.

    Returns:
        A schedule.

    Raises:
        ValueError: an argument is NaN or outside its range, or the cooldown is another.
        TypeError: one is no number, or a number of steps no integer.

    Example:
        >>> schedule = jopt.wsd(0.0, 1.0, 2, 10, decay_begin=6, cooldown="linear")
        >>> schedule(jnp.array([0, 1, 2, 6, 8, 10]))
        Array([0. , 0.5, 1. , 1. , 0.5, 0. ], dtype=float32)

    Reference:
        Hu et al., MiniCPM, 2024, arXiv:2404.06395; the shapes: Hägele et al., Scaling
        Laws and Compute-Optimal Training Beyond Fixed Training Durations, NeurIPS 2024,
        arXiv:2405.18392.
    """
    total_steps = _total("wsd", total_steps, warmup_steps)
    if decay_begin is None:
        decay_begin = max(warmup_steps, total_steps * 4 // 5)
    decay_begin = whole("wsd", "decay_begin", decay_begin, 0)
    if not warmup_steps <= decay_begin < total_steps:
        raise ValueError(
            f"wsd: decay_begin must be at least warmup_steps={warmup_steps} and less "
            f"than total_steps={total_steps}, got {decay_begin}"
        )
    steps, hold = total_steps - decay_begin, decay_begin - warmup_steps
    if cooldown in _FADES:
        down = transition(peak_value, end_value, steps, hold, _FADES[cooldown])
    elif cooldown == "exponential":
        number("wsd", "peak_value of an exponential cooldown", peak_value, POSITIVE)
        number("wsd", "end_value of an exponential cooldown", end_value, POSITIVE)
        rate: Any = end_value / peak_value
        down = exponential_decay(peak_value, steps, rate, hold, False, end_value)
    else:
        names = ", ".join(map(repr, [*_FADES, "exponential"]))
        raise ValueError(f"wsd: cooldown must be one of {names}, got {cooldown!r}")
    return _warmup(init_value, peak_value, warmup_steps, down)


# The weights of the two values by the fractions of the steps that are left and done.
_FADES = {
    "linear": lambda left, done: (left, done),
    # 1 - sqrt(x) = (1 - x) / (1 + sqrt(x))
    "1-sqrt": lambda left, done: (left / (1 + _sqrt(done)), _sqrt(done)),
    "cosine": cosine,
}


def _sqrt(x):
    """The root, with the slope 0 where it would be infinite."""
    return jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1)), 0)


@schedule
def rex(init_value: ArrayLike, decay_steps: int, end_value: ArrayLike = 0.0) -> Curve:
    """Slowly at first, then ever faster: between a straight line and holding.

        x     = min(count / decay_steps, 1)
        f     = (1 - x) / (1/2 + (1 - x) / 2)
        value = init_value f + end_value (1 - f)

    Args:
        init_value: the value at count 0, finite.
        decay_steps: steps until the value stays, at least 1.
        end_value: the value from `decay_steps` on, finite.

    Returns:
        A schedule.

    Raises:
        ValueError: an argument is NaN or outside its range.
        TypeError: one is no number, or `decay_steps` no integer.

    Example:
        >>> jopt.rex(1.0, 3)(jnp.arange(5)).round(3)
        Array([1. , 0.8, 0.5, 0. , 0. ], dtype=float32)

    Reference:
        Chen, Wolfe & Kyrillidis, REX: Revisiting Budgeted Training with an Improved
        Schedule, MLSys 2022, arXiv:2107.04197.
    """

    def fade(left, done):
        return 2 * left / (1 + left), done / (1 + left)

    return transition(init_value, end_value, decay_steps, 0, fade)


@schedule
def inverse_sqrt(
    init_value: ArrayLike, peak_value: ArrayLike, warmup_steps: int
) -> Curve:
    """Up in a straight line, then down as one over the root of the count.

        value = peak_value sqrt(warmup_steps / count)        from warmup_steps on

    It has no end, so a run can always go on. With `init_value=peak_value` there is no
    warm-up: the value stays at the peak for `warmup_steps` and then falls.

    Args:
        init_value: the value at count 0, finite.
        peak_value: the value at `warmup_steps`, finite.
        warmup_steps: at least 1.

    Returns:
        A schedule.

    Raises:
        ValueError: an argument is NaN or outside its range.
        TypeError: one is no number, or `warmup_steps` no integer.

    Example:
        >>> jopt.inverse_sqrt(0.0, 1.0, 2)(jnp.array([0, 1, 2, 8, 200]))
        Array([0. , 0.5, 1. , 0.5, 0.1], dtype=float32)

    Reference:
        Vaswani et al., Attention Is All You Need, NeurIPS 2017, arXiv:1706.03762, sec.
        5.3, where the peak is `(model_size * warmup_steps)**-0.5`.
    """
    warmup_steps = whole("inverse_sqrt", "warmup_steps", warmup_steps, 1)

    def after(count):
        t = as_count(count)
        dtype = value_dtype(t, peak_value)
        ratio = 1 + elapsed(t, 0).astype(dtype) / float(warmup_steps)
        return jnp.asarray(peak_value, dtype) / jnp.sqrt(ratio)

    return _warmup(init_value, peak_value, warmup_steps, after)


@schedule
def linear_to_zero(
    init_value: ArrayLike, peak_value: ArrayLike, warmup_steps: int, total_steps: int
) -> Curve:
    """Up in a straight line, then down to zero in another one.

        x     = (count - warmup_steps) / (total_steps - warmup_steps)
        value = peak_value (1 - min(x, 1))                   from warmup_steps on

    Args:
        init_value: the value at count 0, finite.
        peak_value: the value at `warmup_steps`, finite.
        warmup_steps: at least 0; the paper warms up for a tenth of the steps.
        total_steps: steps of the whole, more than `warmup_steps`.

    Returns:
        A schedule.

    Raises:
        ValueError: an argument is NaN or outside its range.
        TypeError: one is no number, or a number of steps no integer.

    Example:
        >>> jopt.linear_to_zero(0.0, 1.0, 2, 6)(jnp.arange(8))
        Array([0.  , 0.5 , 1.  , 0.75, 0.5 , 0.25, 0.  , 0.  ], dtype=float32)

    Reference:
        Bergsma et al., Straight to Zero: Why Linearly Decaying the Learning Rate to
        Zero Works Best for LLMs, ICLR 2025, arXiv:2502.15938.
    """
    total_steps = _total("linear_to_zero", total_steps, warmup_steps)
    down = linear_schedule(peak_value, 0.0, total_steps - warmup_steps)
    return _warmup(init_value, peak_value, warmup_steps, down)


@schedule
def power(
    peak_value: ArrayLike, total_steps: int, scale: ArrayLike, exponent: ArrayLike = 1.2
) -> Curve:
    """Stays at the peak until a power of the steps that are left is less.

        value = min(peak_value, scale max(total_steps - count, 0)^exponent)

    The cooldown takes `(peak_value / scale)^(1 / exponent)` steps: the higher the peak,
    the longer, along one and the same curve.

    Args:
        peak_value: the largest value, finite.
        total_steps: steps until the value is 0, at least 1.
        scale: the value one step before the end, positive.
        exponent: positive.

    Returns:
        A schedule.

    Raises:
        ValueError: an argument is NaN or outside its range.
        TypeError: one is no number, or `total_steps` no integer.

    Example:
        >>> jopt.power(4.0, 6, scale=1.0, exponent=1.0)(jnp.arange(8))
        Array([4., 4., 4., 3., 2., 1., 0., 0.], dtype=float32)
    """
    total_steps = whole("power", "total_steps", total_steps, 1)
    scale = number("power", "scale", scale, POSITIVE)
    exponent = number("power", "exponent", exponent, POSITIVE)

    def value(count):
        t = as_count(count)
        dtype = value_dtype(t, peak_value, scale, exponent)
        whole_steps = fit(total_steps, t)
        left = (whole_steps - elapsed(t, 0, total_steps)).astype(dtype)
        left += float(total_steps - int(whole_steps))
        curve = jnp.asarray(scale, dtype) * left ** jnp.asarray(exponent, dtype)
        return jnp.minimum(jnp.asarray(peak_value, dtype), curve)

    return value


def _total(where: str, total_steps: int, warmup_steps: int) -> int:
    total_steps = whole(where, "total_steps", total_steps, 1)
    if warmup_steps >= total_steps:
        raise ValueError(
            f"{where}: warmup_steps must be fewer than total_steps={total_steps}, "
            f"which includes them, got {warmup_steps}"
        )
    return total_steps


def _warmup(
    init_value: ArrayLike, peak_value: ArrayLike, steps: int, after: Schedule
) -> Curve:
    up = linear_schedule(init_value, peak_value, steps)
    return join_schedules([up, after], [steps])

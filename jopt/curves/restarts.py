"""Schedules that come back: triangles, and cosines with warm restarts."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ..base import Curve
from ..settings import POSITIVE
from .decay import exponential_decay
from .factory import number, schedule, whole
from .steps import as_count, cosine, divide, elapsed, fit, value_dtype

__all__ = ["cosine_restarts", "cyclic"]


@schedule
def cyclic(
    init_value: ArrayLike,
    peak_value: ArrayLike,
    transition_steps: int,
    mode: Literal["triangular", "triangular2", "exp_range"] = "triangular",
    decay_rate: float | jax.Array | None = None,
) -> Curve:
    """Up and down in straight lines, again and again.

        cycle = floor(count / (2 transition_steps))
        x     = |count / transition_steps - 2 cycle - 1|
        value = init_value + (peak_value - init_value) (1 - x) scale
        scale = 1                       triangular
                2^-cycle                triangular2
                decay_rate^count        exp_range

    Args:
        init_value: the value at the ends of a cycle, finite.
        peak_value: the value in the middle of the first cycle (but for exp_range's
            scale), finite.
        transition_steps: steps from the one to the other, half a cycle, at least 1.
        mode: `"triangular"`, `"triangular2"` or `"exp_range"`.
        decay_rate: positive. Needed by exp_range, and by no other mode.

    Returns:
        A schedule.

    Raises:
        ValueError: an argument is NaN or outside its range, the mode is another, or
            `decay_rate` is missing or not used.
        TypeError: one is no number, or `transition_steps` no integer.

    Example:
        >>> jopt.cyclic(0.0, 1.0, 2, "triangular2")(jnp.arange(8))
        Array([0.  , 0.5 , 1.  , 0.5 , 0.  , 0.25, 0.5 , 0.25], dtype=float32)

    Reference:
        Smith, Cyclical Learning Rates for Training Neural Networks, WACV 2017,
        arXiv:1506.01186.
    """
    steps = whole("cyclic", "transition_steps", transition_steps, 1)
    modes = ("triangular", "triangular2", "exp_range")
    if mode not in modes:
        names = ", ".join(map(repr, modes))
        raise ValueError(f"cyclic: mode must be one of {names}, got {mode!r}")
    if (decay_rate is None) == (mode == "exp_range"):
        raise ValueError(
            "cyclic: decay_rate must be given for mode='exp_range' and for no other, "
            f"got {decay_rate!r} for {mode!r}"
        )
    if decay_rate is not None:
        decay_rate = number("cyclic", "decay_rate", decay_rate, POSITIVE)
    scale_of = exponential_decay(1.0, 1, 0.5 if decay_rate is None else decay_rate)

    def value(count):
        t = elapsed(as_count(count), 0)
        dtype = value_dtype(t, init_value, peak_value, decay_rate)
        half = fit(steps, t)
        cycle, place = divide(t, 2 * steps)
        away = jnp.maximum(place, half) - jnp.minimum(place, half)
        down = (away.astype(dtype) + float(steps - int(half))) / float(steps)
        up = (half - away).astype(dtype) / float(steps)
        if mode != "triangular":
            scale = scale_of(cycle if decay_rate is None else t).astype(dtype)
            up, down = up * scale, down + up * (1 - scale)
        return (
            jnp.asarray(init_value, dtype) * down + jnp.asarray(peak_value, dtype) * up
        )

    return value


@schedule
def cosine_restarts(
    init_value: ArrayLike,
    decay_steps: int,
    cycle_factor: int = 1,
    decay_rate: float | jax.Array = 1.0,
    end_value: ArrayLike = 0.0,
) -> Curve:
    """Down along half a cosine, then again from a lower start, and so on for ever.

        T_i   = decay_steps cycle_factor^i              steps of cycle i = 0, 1, ...
        x     = (count - T_0 - ... - T_(i - 1)) / T_i   in [0, 1)
        c     = (1 + cos(pi x)) / 2
        value = init_value decay_rate^i c + end_value (1 - c)

    For restarts with a warm-up or lengths of their own see `sgdr_schedule`.

    Args:
        init_value: the value at count 0, finite.
        decay_steps: steps of the first cycle, at least 1.
        cycle_factor: how many times longer each cycle is, an integer of at least 1.
        decay_rate: what each restart multiplies the start by, positive.
        end_value: the value that each cycle comes down to, finite.

    Returns:
        A schedule.

    Raises:
        ValueError: an argument is NaN or outside its range.
        TypeError: one is no number, or `decay_steps` or `cycle_factor` no integer.

    Example:
        >>> schedule = jopt.cosine_restarts(1.0, 2, cycle_factor=2, decay_rate=0.5)
        >>> schedule(jnp.array([0, 1, 2, 4, 6, 10])).round(3)
        Array([1.   , 0.5  , 0.5  , 0.25 , 0.25 , 0.125], dtype=float32)

    Reference:
        Loshchilov & Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts,
        ICLR 2017, arXiv:1608.03983: `T_0`, `T_mult`, and starts that decay (sec. 3).
    """
    cycle_factor = whole("cosine_restarts", "cycle_factor", cycle_factor, 1)
    decay_rate = number("cosine_restarts", "decay_rate", decay_rate, POSITIVE)
    scale_of = exponential_decay(1.0, 1, decay_rate)

    def value(count):
        t = elapsed(as_count(count), 0)
        dtype = value_dtype(t, init_value, decay_rate, end_value)
        cycle, left, done = _cycle(t, decay_steps, cycle_factor, dtype)
        a, b = cosine(left, done)
        start = jnp.asarray(init_value, dtype) * scale_of(cycle).astype(dtype)
        return start * a + jnp.asarray(end_value, dtype) * b

    return value


def _cycle(
    t: jax.Array, first: int, factor: int, dtype: np.dtype
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Which cycle a count is in, and the fractions of its steps left and done."""
    if factor == 1:
        cycle, done = divide(t, first)
        steps, total = fit(first, t), float(first)
        beyond = float(first - int(steps))
    else:
        begins, lengths = [0], [first]
        last = jnp.iinfo(t.dtype).max if jnp.issubdtype(t.dtype, jnp.integer) else 2**63
        while begins[-1] + lengths[-1] <= last:
            begins.append(begins[-1] + lengths[-1])
            lengths.append(lengths[-1] * factor)
        wholes = [int(fit(length, t)) for length in lengths]
        rests = [length - whole for length, whole in zip(lengths, wholes)]
        starts = jnp.asarray(begins, t.dtype)
        cycle = jnp.searchsorted(starts, t, side="right", method="compare_all") - 1
        steps, done = jnp.asarray(wholes, t.dtype)[cycle], t - starts[cycle]
        total, beyond = (jnp.asarray(x, dtype)[cycle] for x in (lengths, rests))
    left = (steps - done).astype(dtype) + beyond
    return cycle, left / total, done.astype(dtype) / total

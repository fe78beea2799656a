"""From one value to another: constant, polynomial, exponential, cosine."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ..base import Curve
from .factory import schedule
from .steps import (
    as_count,
    cosine,
    divide,
    elapsed,
    power_of,
    transition,
    value_dtype,
)

__all__ = [
    "constant_schedule",
    "cosine_decay_schedule",
    "exponential_decay",
    "linear_schedule",
    "polynomial_schedule",
]


@schedule
def constant_schedule(value: ArrayLike) -> Curve:
    """The same value at every step.

    Args:
        value: any finite number.

    Returns:
        A schedule.

    Raises:
        ValueError: the value is NaN, infinite or no scalar.
        TypeError: it is no number.

    Example:
        >>> jopt.constant_schedule(0.5)(1000)
        Array(0.5, dtype=float32)
    """

    def constant(count):
        t = as_count(count)
        return jnp.full(t.shape, value, value_dtype(t, value))

    return constant


@schedule
def polynomial_schedule(
    init_value: ArrayLike,
    end_value: ArrayLike,
    power: ArrayLike,
    transition_steps: int,
    transition_begin: int = 0,
) -> Curve:
    """From one value to another as a power of the steps that are left.

        x     = clip((count - transition_begin) / transition_steps, 0, 1)
        value = init_value (1 - x)^power + end_value (1 - (1 - x)^power)

    Args:
        init_value: the value up to `transition_begin`, finite.
        end_value: the value from `transition_begin + transition_steps` on, finite.
        power: at least 0; 1 is a straight line.
        transition_steps: steps from the one value to the other, at least 0; with none
            the value stays at `init_value`.
        transition_begin: the last step at `init_value`, at least 0.

    Returns:
        A schedule.

    Raises:
        ValueError: an argument is NaN or outside its range.
        TypeError: one is no number, or a number of steps no integer.

    Example:
        >>> jopt.polynomial_schedule(1.0, 0.0, 2, 10)(jnp.array([0, 5, 10]))
        Array([1.  , 0.25, 0.  ], dtype=float32)

    Reference:
        Chen et al., DeepLab, 2016, arXiv:1606.00915 ("poly", power 0.9).
    """
    if transition_steps == 0:
        return constant_schedule(init_value)
    fade = functools.partial(power_of, power=power)
    return transition(init_value, end_value, transition_steps, transition_begin, fade)


@schedule
def linear_schedule(
    init_value: ArrayLike,
    end_value: ArrayLike,
    transition_steps: int,
    transition_begin: int = 0,
) -> Curve:
    """From one value to another in a straight line.

        x     = clip((count - transition_begin) / transition_steps, 0, 1)
        value = init_value (1 - x) + end_value x

    Args:
        init_value: the value up to `transition_begin`, finite.
        end_value: the value from `transition_begin + transition_steps` on, finite.
        transition_steps: steps from the one value to the other, at least 0; with none
            the value stays at `init_value`.
        transition_begin: the last step at `init_value`, at least 0.

    Returns:
        A schedule.

    Raises:
        ValueError: an argument is NaN or outside its range.
        TypeError: one is no number, or a number of steps no integer.

    Example:
        >>> jopt.linear_schedule(1.0, 0.0, 4)(jnp.arange(6))
        Array([1.  , 0.75, 0.5 , 0.25, 0.  , 0.  ], dtype=float32)
    """
    return polynomial_schedule(
        init_value, end_value, 1, transition_steps, transition_begin
    )


@schedule
def exponential_decay(
    init_value: ArrayLike,
    transition_steps: int,
    decay_rate: float | jax.Array,
    transition_begin: int = 0,
    staircase: bool = False,
    end_value: ArrayLike | None = None,
) -> Curve:
    """Multiplied by `decay_rate` once in `transition_steps` steps.

        x     = max(count - transition_begin, 0) / transition_steps
        value = init_value decay_rate^x         (floor(x) for a staircase)

    Args:
        init_value: the value up to `transition_begin`, finite.
        transition_steps: steps in which the value falls by `decay_rate`, at least 0;
            with none it stays at `init_value`.
        decay_rate: at least 0. Above 1 the value grows; at 0, as in optax, it stays.
        transition_begin: the last step at `init_value`, at least 0.
        staircase: whether the value falls at once after every `transition_steps`.
        end_value: bounds the value, also the first: from below if `decay_rate < 1`,
            else from above; no bound if `None`.

    Returns:
        A schedule.

    Raises:
        ValueError: an argument is NaN or outside its range.
        TypeError: one is no number, a number of steps no integer, `staircase` no bool.

    Example:
        >>> jopt.exponential_decay(1.0, 10, 0.5)(jnp.array([0, 10, 20])).round(3)
        Array([1.  , 0.5 , 0.25], dtype=float32)
    """
    if not isinstance(staircase, (bool, np.bool_)):
        raise TypeError(
            f"exponential_decay: staircase must be True or False, got {staircase!r}"
        )
    still = not isinstance(decay_rate, jax.Array) and decay_rate == 0
    if transition_steps == 0 or still:
        return constant_schedule(init_value)

    def decayed(count):
        t = as_count(count)
        dtype = value_dtype(t, init_value, decay_rate, end_value)
        n, steps = elapsed(t, transition_begin), transition_steps
        if staircase:
            n, steps = divide(n, steps)[0], 1
        value = jnp.asarray(init_value, dtype) * _power(decay_rate, n, steps, dtype)
        if end_value is None:
            return value
        end = jnp.asarray(end_value, dtype)
        above, below = jnp.maximum(value, end), jnp.minimum(value, end)
        return jnp.where(decay_rate < 1, above, below)

    return decayed


def _power(rate: float | jax.Array, n: jax.Array, steps: int, dtype) -> jax.Array:
    """`rate**(n / steps)` for a count `n`, as `2**(n slope)`.

    In float32 that product, near -100 in long runs, would be off by 1e-5, and so would
    the power. `n` is cut into two parts of 16 bits and the slope into 8 bits and a
    rest, so that the large products and their fractions are exact.
    """
    if isinstance(rate, jax.Array):
        return jnp.asarray(rate, dtype) ** (n.astype(dtype) / float(steps))
    slope = math.log2(rate) / steps
    mantissa, exponent = math.frexp(slope)
    coarse = math.ldexp(round(mantissa * 256), exponent - 8)
    low = n % 65536
    large, small = (n - low).astype(dtype) * coarse, low.astype(dtype) * coarse
    whole = jnp.floor(large) + jnp.floor(small)
    rest = jnp.clip(n.astype(dtype) * (slope - coarse), -20, 20)  # past all range
    rest += (large - jnp.floor(large)) + (small - jnp.floor(small))
    return jnp.ldexp(jnp.exp2(rest), jnp.clip(whole, -2000, 2000).astype(jnp.int32))


@schedule
def cosine_decay_schedule(
    init_value: ArrayLike,
    decay_steps: int,
    alpha: ArrayLike = 0.0,
    exponent: ArrayLike = 1.0,
) -> Curve:
    """Down to `alpha init_value` along half a cosine.

        c     = (1 + cos(pi min(count / decay_steps, 1))) / 2
        value = init_value (alpha + (1 - alpha) c^exponent)

    Args:
        init_value: the value at count 0, finite.
        decay_steps: steps until the value stays, at least 1.
        alpha: the last value as a fraction of the first.
        exponent: at least 0.

    Returns:
        A schedule.

    Raises:
        ValueError: an argument is NaN or outside its range.
        TypeError: one is no number, or `decay_steps` no integer.

    Example:
        >>> jopt.cosine_decay_schedule(1.0, 10, alpha=0.5)(jnp.array([0, 10]))
        Array([1. , 0.5], dtype=float32)

    Reference:
        Loshchilov & Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts,
        ICLR 2017, arXiv:1608.03983.
    """
    return cosine_to(init_value, alpha * init_value, decay_steps, exponent)


def cosine_to(
    start: ArrayLike, end: ArrayLike, steps: int, exponent: ArrayLike = 1
) -> Curve:
    """From `start` to `end` along half a cosine."""

    def fade(left, done):
        return power_of(*cosine(left, done), exponent)

    return transition(start, end, steps, 0, fade)

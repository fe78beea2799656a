"""Arithmetic on step counts: in integers as long as they cancel, then in floats."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ..base import Curve
from ..numerics import compute_dtype

__all__ = []


def as_count(count: ArrayLike) -> jax.Array:
    """The count as an array of at least 32 bits, in which differences are exact."""
    t = jnp.asarray(count)
    integer = jnp.issubdtype(t.dtype, jnp.integer)
    if not (integer or jnp.issubdtype(t.dtype, jnp.floating)):
        raise TypeError(f"a schedule's count must be a real number, got {t.dtype}")
    return t if t.dtype.itemsize >= 4 else t.astype(jnp.int32 if integer else "float32")


def value_dtype(*inputs: Any) -> Any:
    """What the floating arrays among the inputs promote to, or JAX's default float."""
    dtypes = [x.dtype for x in inputs if isinstance(x, jax.Array)]
    dtypes = [d for d in dtypes if jnp.issubdtype(d, jnp.floating)]
    return compute_dtype(*dtypes) if dtypes else jnp.result_type(float)


def elapsed(t: jax.Array, begin: int, steps: float = math.inf) -> jax.Array:
    """How many steps have passed since `begin`, from 0 to `steps`."""
    first = fit(begin, t)
    return jnp.clip(t, first, fit(begin + steps, t)) - first


def reached(t: jax.Array, boundary: int) -> jax.Array:
    possible = fit(boundary, t) >= boundary
    return t >= fit(boundary, t) if possible else jnp.zeros_like(t, bool)


def fit(steps: float, t: jax.Array) -> Any:
    """The number in the dtype of `t`, or the largest that this holds."""
    integer = jnp.issubdtype(t.dtype, jnp.integer)
    return t.dtype.type(min(steps, jnp.iinfo(t.dtype).max) if integer else steps)


def divide(t: jax.Array, steps: int) -> tuple[jax.Array, jax.Array]:
    """How often a count holds these steps, and what is left over."""
    if jnp.issubdtype(t.dtype, jnp.integer) and steps > jnp.iinfo(t.dtype).max:
        return jnp.zeros_like(t), t
    return t // fit(steps, t), t % fit(steps, t)


def transition(
    start: ArrayLike,
    end: ArrayLike,
    steps: int,
    begin: int,
    fade: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]],
) -> Curve:
    """From `start` to `end` in `steps` steps, held before and after.

    `fade(left, done)` makes the weights of the two values from the fractions of the
    steps that are left and done. Each pair sums to one and neither is computed as one
    minus the other, so that the small one is as accurate as the large.
    """

    def value(count):
        t = as_count(count)
        dtype = value_dtype(t, start, end)
        done = elapsed(t, begin, steps)
        whole = fit(steps, t)
        left = (whole - done).astype(dtype) + float(steps - int(whole))
        a, b = fade(left / float(steps), done.astype(dtype) / float(steps))
        return jnp.asarray(start, dtype) * a + jnp.asarray(end, dtype) * b

    return value


def power_of(
    a: jax.Array, b: jax.Array, power: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """`a**power` and one minus it, for `a + b = 1`, both accurate."""
    if not isinstance(power, jax.Array) and power == 1:
        return a, b
    power = jnp.asarray(power, a.dtype)
    near_one = jnp.log1p(-jnp.minimum(b, 0.5))  # bounded, so that no derivative is NaN
    log = jnp.where(b < 0.5, near_one, jnp.log(jnp.where(a > 0, a, 1)))
    return a**power, jnp.where(a > 0, -jnp.expm1(power * log), 1 - a**power)


def cosine(left: jax.Array, done: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Half a cosine, `(1 + cos(pi done)) / 2`, and one minus it."""
    return jnp.sin(jnp.pi / 2 * left) ** 2, jnp.sin(jnp.pi / 2 * done) ** 2

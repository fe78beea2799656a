"""Arithmetic that keeps losses finite and their sign right."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

__all__ = []


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def within(x: jax.Array, low: float | None, high: float | None = None) -> jax.Array:
    """`x` where only rounding can leave the range; it differentiates as `x`."""
    return jnp.clip(x, low, high)


@within.defjvp
def _within_jvp(low, high, primals, tangents):
    return within(*primals, low, high), tangents[0]


def saturated(x: jax.Array, dtype: Any) -> jax.Array:
    """`x` with no number beyond the largest of a dtype; it differentiates as `x`."""
    most = float(jnp.finfo(dtype).max)
    return jnp.where(jnp.isinf(x), x, within(x, -most, most))


def masked(x: jax.Array, where: jax.Array | None) -> jax.Array:
    """`x`, zero where it is masked."""
    return x if where is None else jnp.where(where, x, 0)


def weighted(weight: jax.Array, x: jax.Array) -> jax.Array:
    """`weight * x`, with nothing of an infinite `x` where the weight is zero."""
    return weight * jnp.where((weight == 0) & jnp.isinf(x), 0, x)


def power(x: jax.Array, exponent: Any) -> jax.Array:
    """`x**exponent` for `x >= 0`; zero, with derivative zero, at zero."""
    positive = x > 0
    return jnp.where(positive, jnp.where(positive, x, 1) ** exponent, 0)


def below_top(x: jax.Array, top: jax.Array) -> jax.Array:
    """`x - top`, which is zero where both are infinite."""
    return jnp.where(x == jnp.inf, 0, x - top)


def log_total(x: jax.Array, axis: Any, where: Any) -> tuple[jax.Array, jax.Array]:
    """The logarithm of the sum of exponentials as a sum `top + rest`, axes kept.

    Both are zero where there is nothing to add.
    """
    if where is not None:
        x = jnp.where(where, x, -jnp.inf)
    top = jnp.max(x, axis, keepdims=True, initial=-jnp.inf)
    top = jax.lax.stop_gradient(jnp.where(top == -jnp.inf, 0, top))
    total = jnp.sum(jnp.exp(below_top(x, top)), axis, keepdims=True)
    return top, jnp.log(jnp.where(total == 0, 1, total))


def log_add(a: jax.Array, b: jax.Array) -> jax.Array:
    """The logarithm of `exp(a) + exp(b)`, where either or both may be minus infinity.

    The derivatives by what is minus infinity are zero, and not NaN.
    """
    top = jnp.maximum(a, b)
    nothing = top == -jnp.inf
    apart = jnp.abs(jnp.where(nothing, 0, a) - jnp.where(nothing, 0, b))
    return top + jnp.log1p(jnp.exp(-apart))


def surprisal(x: jax.Array, axis: Any, where: Any = None) -> jax.Array:
    """`-log(softmax(x))`, never negative; zero where masked.

    Elements of plus infinity share the whole probability, those of minus infinity
    have none.
    """
    top, rest = log_total(x, axis, where)
    return masked(rest - below_top(x, top), where)

"""Distributions to differentiate through."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

__all__ = ["MultiNormalDiagFromLogScale", "multi_normal"]


class MultiNormalDiagFromLogScale:
    """Independent normal variables; see `multi_normal`."""

    def __init__(self, loc: ArrayLike, log_scale: ArrayLike):
        loc, log_scale = jnp.asarray(loc), jnp.asarray(log_scale)
        try:
            shape = jnp.broadcast_shapes(loc.shape, log_scale.shape)
        except ValueError:
            raise ValueError(
                "multi_normal: loc and log_scale must broadcast, got shapes "
                f"{loc.shape} and {log_scale.shape}"
            ) from None
        self._loc, self._log_scale, self._shape = loc, log_scale, shape

    @property
    def params(self) -> list[jax.Array]:
        """The means and the logarithms of the scales, in the shapes given."""
        return [self._loc, self._log_scale]

    @property
    def log_scale(self) -> jax.Array:
        """The logarithms of the scales, in the shape given."""
        return self._log_scale

    def sample(self, shape: Sequence[int], key: jax.Array) -> jax.Array:
        """Draws, `[*shape, *event]`, differentiable by `params`."""
        loc, log_scale = self._full((*shape, *self._shape))
        return loc + jnp.exp(log_scale) * jax.random.normal(key, loc.shape, loc.dtype)

    def log_prob(self, x: ArrayLike) -> jax.Array:
        """The logarithm of the joint density of x, which is `[..., *event]`."""
        x = jnp.asarray(x)
        shape = jnp.broadcast_shapes(x.shape, self._shape)
        loc, log_scale = self._full(shape)
        z = (jnp.broadcast_to(x, shape) - loc) * jnp.exp(-log_scale)
        density = -0.5 * z**2 - log_scale - 0.5 * math.log(2 * math.pi)
        first = len(shape) - len(self._shape)
        return jnp.sum(density, tuple(range(first, len(shape))))

    def _full(self, shape: Sequence[int]) -> list[jax.Array]:
        return [jnp.broadcast_to(x, shape) for x in self.params]


def multi_normal(loc: ArrayLike, log_scale: ArrayLike) -> MultiNormalDiagFromLogScale:
    """Independent normal variables, by their means and the logarithms of their scales.

        x = loc + exp(log_scale) noise

    Args:
        loc: the means.
        log_scale: the logarithms of the standard deviations, of the same shape or one
            that broadcasts with it.

    Returns:
        A distribution with `sample(shape, key)`, `log_prob(x)` and `params`, the list
        `[loc, log_scale]` in the shapes given; an event has the shape that both
        broadcast to.

    Raises:
        ValueError: the shapes do not broadcast.

    Example:
        >>> normal = jopt.multi_normal(jnp.zeros(3), jnp.zeros(3))
        >>> normal.sample((2,), jax.random.key(0)).shape
        (2, 3)
        >>> normal.log_prob(jnp.zeros(3))
        Array(-2.7568154, dtype=float32)
    """
    return MultiNormalDiagFromLogScale(loc, log_scale)

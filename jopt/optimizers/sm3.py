"""SM3: Adagrad with one accumulator for each row, column, slice."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..base import GradientTransformationExtraArgs, MaskOrFn, PerLeaf, Updates
from ..engine import per_leaf, transformation
from ..numerics import abs_sq, bounded, ema, finite, safe_sqrt
from ..parts.scale import descend
from ..settings import FRACTION
from ..sharding import zeros_of

__all__ = ["ScaleBySM3State", "scale_by_sm3", "sm3"]


class ScaleBySM3State(NamedTuple):
    """The accumulators of each axis, and the mean direction."""

    mu: Updates
    nu: Updates


@transformation(b2=FRACTION)
def scale_by_sm3(
    b1: float = 0.9, b2: float = 1.0, eps: float = 1e-8
) -> GradientTransformationExtraArgs:
    """SM3's direction: Adagrad's, with sums kept along the axes alone.

        v       = b2 min over axes a of mu_a, broadcast, + (1 - b2) |g|^2
        mu_a    = max of v over all axes but a
        nu     <- b1 nu + (1 - b1) g / sqrt(v + eps)
        u       = nu

    with `|g|^2` itself for `(1 - b2) |g|^2` if `b2` is 1; 0 where `v` is 0.

    Args:
        b1: decay of the mean direction, in [0, 1).
        b2: decay of the accumulators, in [0, 1]; 1 sums, as the paper does.
        eps: added inside the root, not negative.

    Returns:
        A transformation whose state is `ScaleBySM3State(mu, nu)`; `mu` holds for each
        parameter a list of one `f32[d]` an axis (one `f32[]` for a scalar), `nu` has
        the shapes of the parameters (memory: a little over one copy).

    Example:
        >>> tx = jopt.chain(jopt.scale_by_sm3(), jopt.scale(-0.1))

    Reference:
        Anil, Gupta, Koren & Singer, Memory-Efficient Adaptive Optimization, NeurIPS
        2019, arXiv:1901.11150.
    """

    def init(p):
        others = [tuple(a for a in range(p.ndim) if a != b) for b in range(p.ndim)]
        axes = [zeros_of(p, axes) for axes in others or [()]]
        return dict(mu=axes, nu=jnp.zeros_like(p))

    def scale_by_sm3(g, s, p):
        along = [_along(mu, axis, g.ndim) for axis, mu in enumerate(s.mu)]
        least = functools.reduce(jnp.minimum, along)
        weight = jnp.where(b2 == 1, 1, 1 - b2).astype(least.dtype)
        g = bounded(g)
        v = finite(b2 * least + weight * abs_sq(g))
        root = safe_sqrt(v + eps)
        direction = g / jnp.where(root == 0, 1, root)
        nu = ema(direction, s.nu, b1)
        return nu, s._replace(mu=[_most(v, i) for i in range(len(s.mu))], nu=nu)

    return per_leaf(ScaleBySM3State, init, scale_by_sm3)


def _along(x: jax.Array, axis: int, ndim: int) -> jax.Array:
    """A vector as an array whose only long axis is `axis`."""
    return jnp.reshape(x, [-1 if i == axis else 1 for i in range(ndim)])


def _most(x: jax.Array, axis: int) -> jax.Array:
    others = tuple(i for i in range(x.ndim) if i != axis)
    return jnp.max(x, axis=others, initial=0)


@transformation
def sm3(
    learning_rate: PerLeaf,
    momentum: float = 0.9,
    *,
    weight_decay: PerLeaf | None = None,
    mask: MaskOrFn = None,
) -> GradientTransformationExtraArgs:
    """SM3: Adagrad in the memory of momentum.

        p <- p - learning_rate u        with u of `scale_by_sm3`

    Args:
        learning_rate: as `descend` takes it.
        momentum: decay of the mean direction, in [0, 1).
        weight_decay, mask: as `descend` takes them; no decay if `None`.

    Returns:
        A transformation whose state is `(ScaleBySM3State, EmptyState)` (memory: a
        little over one copy of the parameters).

    Example:
        >>> tx = jopt.sm3(0.1)

    Reference:
        Anil, Gupta, Koren & Singer, Memory-Efficient Adaptive Optimization, NeurIPS
        2019, arXiv:1901.11150.
    """
    return descend(scale_by_sm3(momentum), learning_rate, weight_decay, mask)

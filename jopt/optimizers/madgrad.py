"""MADGRAD: dual averaging over the cube root of the summed squared gradients."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..base import (
    GradientTransformationExtraArgs,
    MaskOrFn,
    Params,
    PerLeaf,
    Updates,
)
from ..engine import per_leaf, transformation
from ..numerics import abs_sq, bounded, finite
from ..parts.combine import chain
from ..parts.decay import add_decayed_weights
from ..settings import DECAY, PLAIN_DECAY, once_each, products

__all__ = ["MadgradState", "madgrad", "scale_by_madgrad"]


class MadgradState(NamedTuple):
    """The step count, both weighted sums, and where the parameters began."""

    count: jax.Array
    grad_sum_sq: Updates
    s: Updates
    x0: Params


@transformation(momentum=DECAY)
def scale_by_madgrad(
    learning_rate: PerLeaf, momentum: float = 0.9, eps: float = 1e-6
) -> GradientTransformationExtraArgs:
    """MADGRAD's whole step: dual averaging with momentum.

        l    = (learning_rate + eps) sqrt(t)
        s   <- s + l g
        nu  <- nu + l |g|^2                      `grad_sum_sq` in the state
        z    = x0 - s / (cbrt(nu) + eps)
        p   <- momentum p + (1 - momentum) z

    The weights `l` grow, so that the first gradients do not rule the sums. The update
    is the change of `p`: the learning rate and its sign are in it.

    Args:
        learning_rate: as `descend` takes it.
        momentum: the weight of the past, in [0, 1).
        eps: added to the root and to the learning rate, not negative.

    Returns:
        A transformation whose state is `MadgradState(count: i32[], grad_sum_sq, s,
        x0)`, all in the shapes of the parameters (memory: three copies). The update
        needs the parameters.

    Raises:
        ValueError: a number is outside its range.

    Example:
        >>> tx = jopt.scale_by_madgrad(1e-2)

    Reference:
        Defazio & Jelassi, Adaptivity without Compromise: A Momentumized, Adaptive, Dual
        Averaged Gradient Method for Stochastic Optimization, 2021, arXiv:2101.11075.
        `eps` beside the learning rate is of the authors' code.
    """

    def init(p):
        zero = jnp.zeros_like(p)
        return dict(grad_sum_sq=abs_sq(zero), s=zero, x0=p)

    rates = products("scale_by_madgrad", 1, learning_rate=learning_rate)

    def by_leaf(tree, t):
        root = jnp.sqrt(t.astype(jnp.result_type(float)))
        return [*map(once_each(lambda rate: (rate + eps) * root), rates(tree, t))]

    def scale_by_madgrad(g, s, p, weight):
        g = bounded(g)
        total = s.s + weight * g
        square = finite(s.grad_sum_sq + weight * abs_sq(g))
        root = jnp.cbrt(square) + eps
        way = (s.x0 - p) - total / jnp.where(root == 0, 1, root)  # z - p
        return (1 - momentum) * way, s._replace(grad_sum_sq=square, s=total)

    return per_leaf(
        MadgradState, init, scale_by_madgrad, by_leaf=by_leaf, needs_params=True
    )


@transformation(momentum=DECAY, weight_decay=PLAIN_DECAY)
def madgrad(
    learning_rate: PerLeaf,
    momentum: float = 0.9,
    weight_decay: PerLeaf = 0.0,
    eps: float = 1e-6,
    *,
    mask: MaskOrFn = None,
) -> GradientTransformationExtraArgs:
    """MADGRAD: dual averaging with an adaptive step and momentum.

        p <- p + u        with u of `scale_by_madgrad` for g + weight_decay p

    Args:
        learning_rate: as `descend` takes it.
        momentum: the weight of the past, in [0, 1).
        weight_decay: an L2 penalty, not negative, as `descend` takes it; smaller ones
            suit than for other methods.
        eps: added to the root and to the learning rate, not negative.
        mask: which leaves decay, as `descend` takes it.

    Returns:
        A transformation whose state is `(EmptyState, MadgradState)` (memory: three
        copies of the parameters). The update needs the parameters.

    Raises:
        ValueError: a number is outside its range.

    Example:
        >>> tx = jopt.madgrad(1e-2)

    Reference:
        Defazio & Jelassi, Adaptivity without Compromise: A Momentumized, Adaptive, Dual
        Averaged Gradient Method for Stochastic Optimization, 2021, arXiv:2101.11075.
    """
    direction = scale_by_madgrad(learning_rate, momentum, eps)
    return chain(add_decayed_weights(weight_decay, mask), direction)

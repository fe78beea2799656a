"""COCOB: every parameter bets on the sign of its gradient."""

from typing import NamedTuple

import jax.numpy as jnp

from ..base import GradientTransformationExtraArgs, MaskOrFn, Params, PerLeaf, Updates
from ..engine import per_leaf, transformation
from ..parts.combine import chain
from ..parts.decay import add_decayed_weights
from ..parts.scale import scale_by_learning_rate
from ..settings import PLAIN_DECAY, POSITIVE

__all__ = ["COCOBState", "cocob", "scale_by_cocob"]


class COCOBState(NamedTuple):
    """Where it began, sums of gradients and of their sizes, the largest, the reward."""

    init_particles: Params
    cumulative_gradients: Updates
    scale: Updates
    subgradients: Updates
    reward: Updates


@transformation(alpha=POSITIVE, eps=POSITIVE)
def scale_by_cocob(
    alpha: float = 100.0, eps: float = 1e-8
) -> GradientTransformationExtraArgs:
    """COCOB's step: every parameter bets what it has won on its gradient's sign.

        L <- max(L, |g|)
        G <- G + |g|
        R <- max(R - (p - p0) g, 0)
        h <- h - g
        p <- p0 + h / (L max(G + L, alpha L)) (L + R)

    for each element. The updates are the whole step, already downhill. An element
    whose gradients have all been zero stays.

    Args:
        alpha: how little is bet at first, positive: the first step is `1 / alpha`.
        eps: where `L` starts, positive.

    Returns:
        A transformation whose state is `COCOBState(init_particles,
        cumulative_gradients, scale, subgradients, reward)`: `p0`, `h`, `L`, `G` and
        `R` in the shapes of the parameters (memory: five copies). The update needs the
        parameters.

    Raises:
        ValueError: a number is outside its range.

    Example:
        >>> tx = jopt.scale_by_cocob(alpha=10.0)

    Reference:
        Orabona & Tommasi, Training Deep Networks without Learning Rates Through Coin
        Betting, NeurIPS 2017, arXiv:1705.07795, algorithm 2.
    """

    def init(p):
        sizes = jnp.zeros_like(p.real)
        return dict(
            init_particles=p,
            cumulative_gradients=jnp.zeros_like(p),
            scale=jnp.full_like(sizes, eps),
            subgradients=sizes,
            reward=sizes,
        )

    def scale_by_cocob(g, s, p):
        won = jnp.real((s.init_particles - p) * jnp.conj(g))
        scale = jnp.maximum(s.scale, jnp.abs(g))
        total = s.subgradients + jnp.abs(g)
        reward = jnp.maximum(s.reward + won, 0)
        against = s.cumulative_gradients - g
        # Two quotients: the product of both divisors may overflow.
        wealth = (scale + reward) / jnp.maximum(total + scale, alpha * scale)
        u = s.init_particles + against / scale * wealth - p
        return u, s._replace(
            cumulative_gradients=against,
            scale=scale,
            subgradients=total,
            reward=reward,
        )

    return per_leaf(COCOBState, init, scale_by_cocob, needs_params=True)


@transformation(alpha=POSITIVE, eps=POSITIVE, weight_decay=PLAIN_DECAY)
def cocob(
    learning_rate: PerLeaf = 1.0,
    alpha: float = 100.0,
    eps: float = 1e-8,
    weight_decay: PerLeaf = 0.0,
    mask: MaskOrFn = None,
) -> GradientTransformationExtraArgs:
    """COCOB: every parameter bets what it has won on its gradient's sign.

        p <- p + u        with u of `scale_by_cocob` for
        g  = learning_rate (g + weight_decay p)

    Args:
        learning_rate: factor of the gradients, which only their relation to `eps` and
            to each other can feel; a number, or a schedule of the steps taken so far.
        alpha: how little is bet at first, positive: the first step is `1 / alpha`.
        eps: the least that the largest gradient is taken for, positive.
        weight_decay: added to the gradient, not negative.
        mask: which leaves decay, as `add_decayed_weights` takes it.

    Returns:
        A transformation whose state is `(EmptyState, EmptyState, COCOBState)` (memory:
        five copies of the parameters). The update needs the parameters.

    Raises:
        ValueError: a number is outside its range.

    Example:
        >>> tx = jopt.cocob()

    Reference:
        Orabona & Tommasi, Training Deep Networks without Learning Rates Through Coin
        Betting, NeurIPS 2017, arXiv:1705.07795.
    """
    return chain(
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate, flip_sign=False),
        scale_by_cocob(alpha, eps),
    )

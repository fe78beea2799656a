"""AdaBelief: Adam over the deviation of the gradient from its mean."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..base import GradientTransformationExtraArgs, MaskOrFn, PerLeaf, Updates
from ..engine import per_leaf, transformation
from ..numerics import (
    abs_sq,
    bounded,
    ema,
    finite,
    one_minus_power,
    safe_increment,
    safe_sqrt,
)
from ..parts.scale import descend

__all__ = ["ScaleByBeliefState", "adabelief", "scale_by_belief"]


class ScaleByBeliefState(NamedTuple):
    """The step count, the mean gradient and the mean squared deviation from it."""

    count: jax.Array
    mu: Updates
    nu: Updates


@transformation
def scale_by_belief(
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-16,
    eps_root: float = 1e-16,
    *,
    nesterov: bool = False,
) -> GradientTransformationExtraArgs:
    """AdaBelief's direction: the mean gradient over its own deviation.

        mu <- b1 mu + (1 - b1) g
        nu <- b2 nu + (1 - b2) |g - mu|^2 + eps_root        with the new mu
        m   = mu / (1 - b1^t),  b1 mu / (1 - b1^(t+1)) + (1 - b1) g / (1 - b1^t) if
              `nesterov`
        u   = m / (sqrt(nu / (1 - b2^t)) + eps)

    Args:
        b1: decay of the mean gradient, in [0, 1).
        b2: decay of the mean squared deviation, in [0, 1).
        eps: added outside the root, not negative.
        eps_root: added to `nu` at every step, not negative.
        nesterov: whether to look ahead.

    Returns:
        A transformation whose state is `ScaleByBeliefState(count: i32[], mu, nu)`; `mu`
        and `nu` have the shapes of the parameters (memory: two copies).

    Example:
        >>> tx = jopt.chain(jopt.scale_by_belief(), jopt.scale(-1e-3))

    Reference:
        Zhuang et al., AdaBelief Optimizer: Adapting Stepsizes by the Belief in
        Observed Gradients, NeurIPS 2020, arXiv:2010.07468.
    """

    def init(p):
        return dict(mu=jnp.zeros_like(p), nu=abs_sq(jnp.zeros_like(p)))

    def each(t):
        scale_nu = 1 / one_minus_power(b2, t)
        if not nesterov:
            return 1 / one_minus_power(b1, t), scale_nu, None
        scale_g = (1 - b1) / one_minus_power(b1, t)
        return b1 / one_minus_power(b1, safe_increment(t)), scale_nu, scale_g

    def scale_by_belief(g, s, p, scales):
        scale_mu, scale_nu, scale_g = scales
        g = bounded(g)
        mu = ema(g, s.mu, b1)
        nu = ema(finite(abs_sq(g - mu)), s.nu, b2) + eps_root
        m = scale_mu * mu if scale_g is None else scale_mu * mu + scale_g * g
        return m / (safe_sqrt(scale_nu * nu) + eps), s._replace(mu=mu, nu=nu)

    return per_leaf(ScaleByBeliefState, init, scale_by_belief, each=each)


@transformation
def adabelief(
    learning_rate: PerLeaf,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-16,
    eps_root: float = 1e-16,
    weight_decay: PerLeaf | None = None,
    weight_decay_mask: MaskOrFn = None,
    *,
    nesterov: bool = False,
) -> GradientTransformationExtraArgs:
    """AdaBelief: long steps where the gradient is as its mean said, short ones else.

        p <- p - learning_rate (u + weight_decay p)        with u of `scale_by_belief`

    Args:
        learning_rate: as `descend` takes it.
        b1, b2, eps, eps_root, nesterov: as `scale_by_belief` takes them.
        weight_decay, weight_decay_mask: decoupled decay and its mask, as `descend`
            takes them; no decay, and no state of it, if `None`.

    Returns:
        A transformation whose state is `(ScaleByBeliefState, EmptyState)` (memory: two
        copies of the parameters), with one `EmptyState` more for a decay.

    Example:
        >>> tx = jopt.adabelief(1e-3)

    Reference:
        Zhuang et al., AdaBelief Optimizer: Adapting Stepsizes by the Belief in
        Observed Gradients, NeurIPS 2020, arXiv:2010.07468.
    """
    direction = scale_by_belief(b1, b2, eps, eps_root, nesterov=nesterov)
    return descend(direction, learning_rate, weight_decay, weight_decay_mask)

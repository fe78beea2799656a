"""ACProp: the gradient over the deviation that was known before it came."""

import jax.numpy as jnp

from ..base import GradientTransformationExtraArgs, MaskOrFn, PerLeaf
from ..engine import per_leaf, transformation
from ..numerics import abs_sq, bounded, ema, finite, one_minus_power, safe_sqrt
from ..parts.scale import descend
from .adabelief import ScaleByBeliefState

__all__ = ["ScaleByAcpropState", "acprop", "scale_by_acprop"]


class ScaleByAcpropState(ScaleByBeliefState):
    """The step count, the mean gradient and the mean squared deviation from it."""

    __slots__ = ()


@transformation
def scale_by_acprop(
    b1: float = 0.9, b2: float = 0.999, eps: float = 1e-16, eps_root: float = 1e-16
) -> GradientTransformationExtraArgs:
    """ACProp's direction: the gradient over the deviation up to the step before.

        u   = g / (sqrt(nu / (1 - b2^(t-1))) + eps)        g / (1 + eps) at first
        nu <- b2 nu + (1 - b2) |g - mu|^2 + eps_root
        mu <- b1 mu + (1 - b1) g

    in this order: neither `nu` nor `mu` knows this step's gradient when it is used.

    Args:
        b1: decay of the mean gradient, in [0, 1).
        b2: decay of the mean squared deviation, in [0, 1).
        eps: added outside the root, not negative.
        eps_root: added to `nu` at every step, not negative.

    Returns:
        A transformation whose state is `ScaleByAcpropState(count: i32[], mu, nu)`; `mu`
        and `nu` have the shapes of the parameters (memory: two copies).

    Example:
        >>> tx = jopt.chain(jopt.scale_by_acprop(), jopt.scale(-1e-3))

    Reference:
        Zhuang et al., Momentum Centering and Asynchronous Update for Adaptive Gradient
        Methods, NeurIPS 2021, arXiv:2110.05454, with `mu` after the step in the
        deviation: that makes `nu` smaller by `b1^2`, and every step longer by `1 / b1`.
        The first step and the old `mu` are those of optax.
    """

    def init(p):
        return dict(mu=jnp.zeros_like(p), nu=abs_sq(jnp.zeros_like(p)))

    def each(t):
        first = t == 1
        return first, 1 / one_minus_power(b2, jnp.where(first, 1, t - 1))

    def scale_by_acprop(g, s, p, numbers):
        first, scale = numbers
        g = bounded(g)
        root = jnp.where(first, 1, safe_sqrt(scale * s.nu)) + eps
        nu = ema(finite(abs_sq(g - s.mu)), s.nu, b2) + eps_root
        u = g / jnp.where(root == 0, 1, root)
        return u, s._replace(mu=ema(g, s.mu, b1), nu=nu)

    return per_leaf(ScaleByAcpropState, init, scale_by_acprop, each=each)


@transformation
def acprop(
    learning_rate: PerLeaf,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-16,
    eps_root: float = 1e-16,
    weight_decay: PerLeaf = 0.0,
    mask: MaskOrFn = None,
) -> GradientTransformationExtraArgs:
    """ACProp: the gradient over the deviation that was known before it came.

        p <- p - learning_rate (u + weight_decay p)        with u of `scale_by_acprop`

    As the divisor does not depend on the gradient, the step is unbiased.

    Args:
        learning_rate: as `descend` takes it.
        b1, b2, eps, eps_root: as `scale_by_acprop` takes them.
        weight_decay, mask: as `descend` takes them.

    Returns:
        A transformation whose state is `(ScaleByAcpropState, EmptyState, EmptyState)`
        (memory: two copies of the parameters). The update needs the parameters.

    Example:
        >>> tx = jopt.acprop(1e-3)

    Reference:
        Zhuang et al., Momentum Centering and Asynchronous Update for Adaptive Gradient
        Methods, NeurIPS 2021, arXiv:2110.05454.
    """
    direction = scale_by_acprop(b1, b2, eps, eps_root)
    return descend(direction, learning_rate, weight_decay, mask)

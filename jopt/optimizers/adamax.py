"""Adamax and AdamaxW: Adam with the largest gradient for the mean square."""

import jax.numpy as jnp

from ..base import GradientTransformationExtraArgs, MaskOrFn, PerLeaf
from ..engine import per_leaf, transformation
from ..numerics import ema, one_minus_power
from ..parts.scale import descend
from .adam import ScaleByAdamState

__all__ = ["ScaleByAdamaxState", "adamax", "adamaxw", "scale_by_adamax"]


class ScaleByAdamaxState(ScaleByAdamState):
    """The step count, the mean gradient and the decaying largest gradient."""

    __slots__ = ()


@transformation
def scale_by_adamax(
    b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> GradientTransformationExtraArgs:
    """Adamax's direction: the mean gradient over its decaying largest absolute value.

        mu <- b1 mu + (1 - b1) g
        nu <- max(b2 nu, |g| + eps)
        u   = mu / (1 - b1^t) / nu

    Args:
        b1: decay of the mean gradient, in [0, 1).
        b2: decay of the largest gradient, in [0, 1).
        eps: added to the absolute gradient, not negative.

    Returns:
        A transformation whose state is `ScaleByAdamaxState(count: i32[], mu, nu)`; `mu`
        and `nu` have the shapes of the parameters (memory: two copies).

    Example:
        >>> tx = jopt.chain(jopt.scale_by_adamax(), jopt.scale(-1e-3))

    Reference:
        Kingma & Ba, Adam: A Method for Stochastic Optimization, ICLR 2015,
        arXiv:1412.6980 (section 7.1).
    """

    def init(p):
        return dict(mu=jnp.zeros_like(p), nu=jnp.zeros_like(p.real))

    def each(t):
        return 1 / one_minus_power(b1, t)

    def scale_by_adamax(g, s, p, scale):
        mu = ema(g, s.mu, b1)
        nu = jnp.maximum(b2 * s.nu, jnp.abs(g) + eps)
        u = scale * mu / jnp.where(nu > 0, nu, 1)
        return u, s._replace(mu=mu, nu=nu)

    return per_leaf(ScaleByAdamaxState, init, scale_by_adamax, each=each)


@transformation
def adamax(
    learning_rate: PerLeaf,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    *,
    weight_decay: PerLeaf | None = None,
    mask: MaskOrFn = None,
) -> GradientTransformationExtraArgs:
    """Adamax: Adam with the largest gradient in place of the root mean square.

        p <- p - learning_rate u        with u of `scale_by_adamax`

    Args:
        learning_rate: as `descend` takes it.
        b1, b2, eps: as `scale_by_adamax` takes them.
        weight_decay, mask: as `descend` takes them; no decay if `None`.

    Returns:
        A transformation whose state is `(ScaleByAdamaxState, EmptyState)` (memory: two
        copies of the parameters).

    Example:
        >>> tx = jopt.adamax(2e-3)

    Reference:
        Kingma & Ba, Adam: A Method for Stochastic Optimization, ICLR 2015,
        arXiv:1412.6980 (section 7.1).
    """
    return descend(scale_by_adamax(b1, b2, eps), learning_rate, weight_decay, mask)


@transformation
def adamaxw(
    learning_rate: PerLeaf,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: PerLeaf = 1e-4,
    mask: MaskOrFn = None,
) -> GradientTransformationExtraArgs:
    """AdamaxW: Adamax with decoupled weight decay.

        p <- p - learning_rate (u + weight_decay p)        with u of `scale_by_adamax`

    Args:
        learning_rate, weight_decay, mask: as `descend` takes them.
        b1, b2, eps: as `scale_by_adamax` takes them.

    Returns:
        A transformation whose state is `(ScaleByAdamaxState, EmptyState, EmptyState)`
        (memory: two copies of the parameters). The update needs the parameters.

    Example:
        >>> tx = jopt.adamaxw(2e-3, weight_decay=0.01)

    Reference:
        Loshchilov & Hutter, Decoupled Weight Decay Regularization, ICLR 2019,
        arXiv:1711.05101.
    """
    return descend(scale_by_adamax(b1, b2, eps), learning_rate, weight_decay, mask)

"""NovoGrad: momentum of gradients normalized leaf by leaf."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ..base import GradientTransformationExtraArgs, MaskOrFn, PerLeaf, Updates
from ..engine import per_leaf, transformation
from ..numerics import bounded_norm, ema, safe_sqrt, zeros_in
from ..parts.decay import which_decay
from ..parts.scale import descend
from ..settings import PLAIN_DECAY, once_each, products

__all__ = ["ScaleByNovogradState", "novograd", "scale_by_novograd"]


class ScaleByNovogradState(NamedTuple):
    """The step count, the momentum and the mean squared norm of each leaf."""

    count: jax.Array
    mu: Updates
    nu: Updates


@transformation(weight_decay=PLAIN_DECAY)
def scale_by_novograd(
    b1: float = 0.9,
    b2: float = 0.25,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    weight_decay: PerLeaf = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    mask: MaskOrFn = None,
) -> GradientTransformationExtraArgs:
    """NovoGrad's direction: momentum of gradients over the mean norm of their leaf.

        nu <- b2 nu + (1 - b2) |g|^2        over the whole leaf; |g|^2 at first
        mu <- b1 mu + g / (sqrt(nu + eps_root) + eps) + weight_decay p
        u   = mu

    Args:
        b1: the weight of the past in the momentum, in [0, 1).
        b2: decay of the squared norm, in [0, 1); the paper has 0.98 at its end.
        eps: added outside the root, not negative.
        eps_root: added inside the root, not negative.
        weight_decay: added to the normalized gradient, not negative, as `descend`
            takes it.
        mu_dtype: dtype `mu` is stored in. The parameter's, or float32 if that has 16
            bits, if `None`.
        mask: which leaves decay, as `descend` takes it.

    Returns:
        A transformation whose state is `ScaleByNovogradState(count: i32[], mu, nu)`,
        `mu` in the shapes of the parameters, `nu` one number a leaf (memory: one copy).
        It needs the parameters.

    Example:
        >>> tx = jopt.chain(jopt.scale_by_novograd(), jopt.scale(-1e-2))

    Reference:
        Ginsburg et al., Stochastic Gradient Methods with Layer-wise Adaptive Moments
        for Training of Deep Networks, 2019, arXiv:1905.11286.
    """

    def init(p):
        return dict(mu=zeros_in(p, mu_dtype), nu=jnp.zeros((), p.real.dtype))

    decays_of = products("scale_by_novograd", 1, weight_decay=weight_decay)

    def by_leaf(tree, t):
        first = t == 1
        return [*map(once_each(lambda x: (first, x)), decays_of(tree, t))]

    def scale_by_novograd(g, s, p, numbers, decays):
        first, weight_decay = numbers
        square, share = bounded_norm(g)
        nu = jnp.where(first, square, ema(square, s.nu, b2))
        below = safe_sqrt(nu + eps_root) + eps
        u = share * g / jnp.where(below == 0, 1, below)
        mu = b1 * s.mu + (u + weight_decay * p if decays else u)
        return mu, s._replace(mu=mu, nu=nu)

    return per_leaf(
        ScaleByNovogradState,
        init,
        scale_by_novograd,
        by_leaf=by_leaf,
        hint=which_decay(mask),
        needs_params=True,
    )


@transformation(weight_decay=PLAIN_DECAY)
def novograd(
    learning_rate: PerLeaf,
    b1: float = 0.9,
    b2: float = 0.25,
    eps: float = 1e-6,
    eps_root: float = 0.0,
    weight_decay: PerLeaf = 0.0,
    *,
    mask: MaskOrFn = None,
) -> GradientTransformationExtraArgs:
    """NovoGrad: momentum of gradients normalized leaf by leaf.

        p <- p - learning_rate u        with u of `scale_by_novograd`

    Args:
        learning_rate: as `descend` takes it.
        b1, b2, eps, eps_root, weight_decay: as `scale_by_novograd` takes them.
        mask: which leaves decay, as `descend` takes it.

    Returns:
        A transformation whose state is `(ScaleByNovogradState, EmptyState)` (memory:
        one copy of the parameters). The update needs the parameters.

    Example:
        >>> tx = jopt.novograd(1e-2)

    Reference:
        Ginsburg et al., Stochastic Gradient Methods with Layer-wise Adaptive Moments
        for Training of Deep Networks, 2019, arXiv:1905.11286.
    """
    direction = scale_by_novograd(b1, b2, eps, eps_root, weight_decay, mask=mask)
    return descend(direction, learning_rate)

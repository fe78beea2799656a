"""ADOPT: Adam with the last step's mean square, before the momentum."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ..base import GradientTransformationExtraArgs, MaskOrFn, PerLeaf
from ..engine import per_leaf, transformation
from ..numerics import abs_sq, bounded, ema, safe_sqrt, zeros_in
from ..parts.scale import descend
from ..settings import POSITIVE, scheduled
from .adam import ScaleByAdamState

__all__ = ["ScaleByAdoptState", "adopt", "scale_by_adopt"]


class ScaleByAdoptState(ScaleByAdamState):
    """The step count, the mean normalized gradient and the mean squared gradient."""

    __slots__ = ()


def fourth_root(count: jax.Array) -> jax.Array:
    """The bound that the paper proposes, `count^(1/4)`."""
    return jnp.asarray(count).astype(jnp.result_type(float)) ** 0.25


@transformation(eps=POSITIVE)
def scale_by_adopt(
    b1: float = 0.9,
    b2: float = 0.9999,
    eps: float = 1e-6,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Callable[[jax.Array], jax.Array] = fourth_root,
) -> GradientTransformationExtraArgs:
    """ADOPT's direction: the mean of gradients over the root of the *last* square.

        c   = clip(g / max(sqrt(nu), eps), -bound, bound)        bound of t - 1
        mu <- b1 mu + (1 - b1) c
        nu <- b2 nu + (1 - b2) |g|^2
        u   = mu,  or b1 mu + (1 - b1) c if `nesterov`

    The first step takes `nu = |g|^2` and does not move. Complex numbers are clipped in
    absolute value.

    Args:
        b1: decay of the mean, in [0, 1).
        b2: decay of the mean squared gradient, in [0, 1).
        eps: lower bound of the root, positive.
        mu_dtype: dtype `mu` is stored in. The parameter's, or float32 if that has 16
            bits, if `None`.
        nesterov: whether to look ahead.
        use_clipping: whether to clip the normalized gradient.
        clip_value_fn: from the number of moves, this one included, to the bound.

    Returns:
        A transformation whose state is `ScaleByAdoptState(count: i32[], mu, nu)`; `mu`
        and `nu` have the shapes of the parameters (memory: two copies).

    Example:
        >>> tx = jopt.chain(jopt.scale_by_adopt(), jopt.scale(-1e-3))

    Reference:
        Taniguchi et al., ADOPT: Modified Adam Can Converge with Any beta2 with the
        Optimal Rate, NeurIPS 2024, arXiv:2411.02853.
    """

    def init(p):
        return dict(mu=zeros_in(p, mu_dtype), nu=abs_sq(jnp.zeros_like(p)))

    def each(t):
        if not use_clipping:
            return t == 1, None
        return t == 1, scheduled(
            "scale_by_adopt", "clip_value_fn", clip_value_fn, t - 1
        )

    def scale_by_adopt(g, s, p, numbers):
        first, bound = numbers
        g = bounded(g)
        c = g / jnp.maximum(safe_sqrt(s.nu), eps)
        if bound is not None:
            c = _clip(c, bound)
        mu = jnp.where(first, 0, ema(c, s.mu, b1))
        nu = jnp.where(first, abs_sq(g), ema(abs_sq(g), s.nu, b2))
        u = jnp.where(first, 0, ema(c, mu, b1)) if nesterov else mu
        return u, s._replace(mu=mu, nu=nu)

    return per_leaf(ScaleByAdoptState, init, scale_by_adopt, each=each)


def _clip(x: jax.Array, bound: jax.Array) -> jax.Array:
    if not jnp.iscomplexobj(x):
        return jnp.clip(x, -bound, bound)
    size = jnp.abs(x)
    return jnp.where(size > bound, x * (bound / jnp.where(size > bound, size, 1)), x)


@transformation(eps=POSITIVE)
def adopt(
    learning_rate: PerLeaf,
    b1: float = 0.9,
    b2: float = 0.9999,
    eps: float = 1e-6,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Callable[[jax.Array], jax.Array] = fourth_root,
    weight_decay: PerLeaf | None = None,
    mask: MaskOrFn = None,
) -> GradientTransformationExtraArgs:
    """ADOPT: Adam that converges whatever its decays are.

        p <- p - learning_rate u        with u of `scale_by_adopt`

    Args:
        learning_rate: as `descend` takes it.
        b1, b2, eps, mu_dtype, nesterov: as `scale_by_adopt` takes them.
        use_clipping, clip_value_fn: likewise.
        weight_decay, mask: as `descend` takes them; no decay if `None`.

    Returns:
        A transformation whose state is `(ScaleByAdoptState, EmptyState)` (memory: two
        copies of the parameters).

    Example:
        >>> tx = jopt.adopt(1e-3)

    Reference:
        Taniguchi et al., ADOPT: Modified Adam Can Converge with Any beta2 with the
        Optimal Rate, NeurIPS 2024, arXiv:2411.02853.
    """
    direction = scale_by_adopt(
        b1,
        b2,
        eps,
        mu_dtype,
        nesterov=nesterov,
        use_clipping=use_clipping,
        clip_value_fn=clip_value_fn,
    )
    return descend(direction, learning_rate, weight_decay, mask)

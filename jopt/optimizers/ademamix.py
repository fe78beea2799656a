"""AdEMAMix: Adam with a second, much longer mean of the gradient."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ..base import GradientTransformationExtraArgs, MaskOrFn, PerLeaf, Schedule, Updates
from ..engine import per_leaf, transformation
from ..numerics import abs_sq, bounded, ema, one_minus_power, safe_sqrt, zeros_in
from ..parts.scale import descend
from ..settings import NOT_NEGATIVE, at_step

__all__ = [
    "ScaleByAdemamixState",
    "ScaleBySimplifiedAdEMAMixState",
    "ademamix",
    "scale_by_ademamix",
    "scale_by_simplified_ademamix",
    "simplified_ademamix",
]


class ScaleByAdemamixState(NamedTuple):
    """The step counts, the short and the long mean gradient, the mean square."""

    count: jax.Array
    count_m2: jax.Array
    m1: Updates
    m2: Updates
    nu: Updates


class ScaleBySimplifiedAdEMAMixState(NamedTuple):
    """The step count, the momentum and the mean square."""

    t: jax.Array
    m: Updates
    n: Updates


@transformation(alpha=NOT_NEGATIVE)
def scale_by_ademamix(
    b1: float = 0.9,
    b2: float = 0.999,
    b3: float | Schedule = 0.9999,
    alpha: float | Schedule = 6.0,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    mu_dtype: DTypeLike | None = None,
) -> GradientTransformationExtraArgs:
    """AdEMAMix's direction: Adam's, with a long mean of the gradient added.

        m1 <- b1 m1 + (1 - b1) g
        m2 <- b3 m2 + (1 - b3) g
        nu <- b2 nu + (1 - b2) |g|^2
        u   = (m1 / (1 - b1^t) + alpha m2) / (sqrt(nu / (1 - b2^t) + eps_root) + eps)

    Args:
        b1: decay of the short mean, in [0, 1).
        b2: decay of the mean square, in [0, 1).
        b3: decay of the long mean in [0, 1), or a schedule of it over the steps taken.
        alpha: weight of the long mean, not negative, or a schedule of it.
        eps: added outside the root, not negative.
        eps_root: added inside the root, not negative.
        mu_dtype: dtype both means are stored in. The parameter's, or float32 if that
            has 16 bits, if `None`.

    Returns:
        A transformation whose state is `ScaleByAdemamixState(count: i32[], count_m2:
        i32[], m1, m2, nu)`, the last three in the shapes of the parameters (memory:
        three copies).

    Example:
        >>> tx = jopt.chain(jopt.scale_by_ademamix(), jopt.scale(-1e-3))

    Reference:
        Pagliardini, Ablin & Grangier, The AdEMAMix Optimizer: Better, Faster, Older,
        ICLR 2025, arXiv:2409.03137.
    """

    def init(p):
        zeros = zeros_in(p, mu_dtype)
        return dict(m1=zeros, m2=zeros, nu=abs_sq(jnp.zeros_like(p)))

    def each(t, t_m2):
        return (
            1 / one_minus_power(b1, t),
            1 / one_minus_power(b2, t),
            at_step("scale_by_ademamix", "b3", b3, t_m2),
            at_step("scale_by_ademamix", "alpha", alpha, t_m2),
        )

    def scale_by_ademamix(g, s, p, numbers):
        scale_m1, scale_nu, b3, alpha = numbers
        g = bounded(g)
        m1, m2 = ema(g, s.m1, b1), ema(g, s.m2, b3)
        nu = ema(abs_sq(g), s.nu, b2)
        below = safe_sqrt(scale_nu * nu + eps_root) + eps
        u = (scale_m1 * m1 + alpha * m2) / below
        return u, s._replace(m1=m1, m2=m2, nu=nu)

    counts = ("count", "count_m2")
    return per_leaf(
        ScaleByAdemamixState, init, scale_by_ademamix, each=each, counts=counts
    )


@transformation(alpha=NOT_NEGATIVE)
def ademamix(
    learning_rate: PerLeaf,
    b1: float = 0.9,
    b2: float = 0.999,
    b3: float | Schedule = 0.9999,
    alpha: float | Schedule = 5.0,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: PerLeaf = 0.0,
    mask: MaskOrFn = None,
) -> GradientTransformationExtraArgs:
    """AdEMAMix: AdamW that also remembers gradients of long ago.

        p <- p - learning_rate (u + weight_decay p)      with u of `scale_by_ademamix`

    The authors warm `alpha` and `b3` up over the whole run: pass schedules.

    Args:
        learning_rate, weight_decay, mask: as `descend` takes them.
        b1, b2, b3, alpha, eps, eps_root, mu_dtype: as `scale_by_ademamix` takes them.

    Returns:
        A transformation whose state is `(ScaleByAdemamixState, EmptyState,
        EmptyState)` (memory: three copies of the parameters). The update needs the
        parameters.

    Example:
        >>> tx = jopt.ademamix(1e-3, alpha=jopt.linear_schedule(0.0, 5.0, 1000))

    Reference:
        Pagliardini, Ablin & Grangier, The AdEMAMix Optimizer: Better, Faster, Older,
        ICLR 2025, arXiv:2409.03137.
    """
    direction = scale_by_ademamix(b1, b2, b3, alpha, eps, eps_root, mu_dtype)
    return descend(direction, learning_rate, weight_decay, mask)


@transformation(alpha=NOT_NEGATIVE)
def scale_by_simplified_ademamix(
    b1: float = 0.99,
    b2: float = 0.95,
    alpha: float | Schedule = 0.0,
    eps: float = 1e-8,
    eps_root: float = 0.0,
) -> GradientTransformationExtraArgs:
    """AdEMAMix's direction with one momentum: a decaying sum, and the gradient on top.

        m <- b1 m + g
        n <- b2 n + (1 - b2) |g|^2
        u  = (m + alpha g) / (sqrt(n / (1 - b2^t) + eps_root) + eps)

    The sum is `1 / (1 - b1)` times a mean: take a learning rate so much smaller.

    Args:
        b1: decay of the momentum, in [0, 1).
        b2: decay of the mean square, in [0, 1).
        alpha: weight of the gradient itself, not negative, or a schedule of it.
        eps: added outside the root, not negative.
        eps_root: added inside the root, not negative.

    Returns:
        A transformation whose state is `ScaleBySimplifiedAdEMAMixState(t: i32[], m,
        n)`; `m` and `n` have the shapes of the parameters (memory: two copies).

    Example:
        >>> tx = jopt.chain(jopt.scale_by_simplified_ademamix(), jopt.scale(-1e-5))

    Reference:
        Morwani et al., Connections between Schedule-Free Optimizers, AdEMAMix, and
        Accelerated SGD Variants, 2025, arXiv:2502.02431.
    """

    def init(p):
        return dict(m=jnp.zeros_like(p), n=abs_sq(jnp.zeros_like(p)))

    def each(t):
        weight = at_step("scale_by_simplified_ademamix", "alpha", alpha, t)
        return weight, 1 / one_minus_power(b2, t)

    def scale_by_simplified_ademamix(g, s, p, numbers):
        alpha, scale_n = numbers
        g = bounded(g)
        m, n = b1 * s.m + g, ema(abs_sq(g), s.n, b2)
        u = (m + alpha * g) / (safe_sqrt(scale_n * n + eps_root) + eps)
        return u, s._replace(m=m, n=n)

    return per_leaf(
        ScaleBySimplifiedAdEMAMixState,
        init,
        scale_by_simplified_ademamix,
        each=each,
        counts=("t",),
    )


@transformation(alpha=NOT_NEGATIVE)
def simplified_ademamix(
    learning_rate: PerLeaf,
    b1: float = 0.99,
    b2: float = 0.95,
    alpha: float | Schedule = 0.0,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    weight_decay: PerLeaf = 0.0,
    mask: MaskOrFn = None,
) -> GradientTransformationExtraArgs:
    """Simplified AdEMAMix: AdEMAMix with one momentum in place of two.

        p <- p - learning_rate (u + weight_decay p)

    with u of `scale_by_simplified_ademamix`.

    Args:
        learning_rate, weight_decay, mask: as `descend` takes them.
        b1, b2, alpha, eps, eps_root: as `scale_by_simplified_ademamix` takes them.

    Returns:
        A transformation whose state is `(ScaleBySimplifiedAdEMAMixState, EmptyState,
        EmptyState)` (memory: two copies of the parameters). The update needs the
        parameters.

    Example:
        >>> tx = jopt.simplified_ademamix(1e-5, alpha=100.0)

    Reference:
        Morwani et al., Connections between Schedule-Free Optimizers, AdEMAMix, and
        Accelerated SGD Variants, 2025, arXiv:2502.02431.
    """
    direction = scale_by_simplified_ademamix(b1, b2, alpha, eps, eps_root)
    return descend(direction, learning_rate, weight_decay, mask)

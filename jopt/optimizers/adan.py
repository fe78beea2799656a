"""Adan: Nesterov momentum by the difference of gradients."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..base import (
    GradientTransformationExtraArgs,
    MaskOrFn,
    PerLeaf,
    Updates,
    WeightDecay,
)
from ..engine import per_leaf, transformation
from ..numerics import abs_sq, bounded, ema, finite, one_minus_power, safe_sqrt
from ..parts.combine import chain
from ..parts.decay import proximal_decay
from ..parts.scale import descend, scale_by_learning_rate

__all__ = ["ScaleByAdanState", "adan", "scale_by_adan"]


class ScaleByAdanState(NamedTuple):
    """Three means, the last gradient and the step count."""

    m: Updates
    v: Updates
    n: Updates
    g: Updates
    t: jax.Array


@transformation
def scale_by_adan(
    b1: float = 0.98,
    b2: float = 0.92,
    b3: float = 0.99,
    eps: float = 1e-8,
    eps_root: float = 0.0,
) -> GradientTransformationExtraArgs:
    """Adan's direction: means of the gradient and of its change, over their size.

        d   = g - (last g),  0 at first
        m  <- b1 m + (1 - b1) g
        v  <- b2 v + (1 - b2) d
        n  <- b3 n + (1 - b3) |g + b2 d|^2
        u   = (m / (1 - b1^t) + b2 v / (1 - b2^t)) / (sqrt(n / (1 - b3^t) + eps_root)
              + eps)

    The paper writes `1 - b` for each `b`. optax weights `d` in `n` by `1 - b2`; the
    paper and its authors' code by `b2`.

    Args:
        b1: decay of the mean gradient, in [0, 1).
        b2: decay of the mean change of the gradient, in [0, 1).
        b3: decay of the mean square, in [0, 1).
        eps: added outside the root, not negative.
        eps_root: added inside the root, not negative.

    Returns:
        A transformation whose state is `ScaleByAdanState(m, v, n, g, t: i32[])`, the
        first four in the shapes of the parameters (memory: four copies).

    Example:
        >>> tx = jopt.chain(jopt.scale_by_adan(), jopt.scale(-1e-3))

    Reference:
        Xie, Zhou, Li, Lin & Yan, Adan: Adaptive Nesterov Momentum Algorithm for
        Faster Optimizing Deep Models, TPAMI 2024, arXiv:2208.06677.
    """

    def init(p):
        zeros = jnp.zeros_like(p)
        return dict(m=zeros, v=zeros, n=abs_sq(zeros), g=zeros)

    def each(t):
        scales = tuple(1 / one_minus_power(b, t) for b in (b1, b2, b3))
        return t == 1, scales

    def scale_by_adan(g, s, p, numbers):
        first, (scale_m, scale_v, scale_n) = numbers
        g = bounded(g)
        d = jnp.where(first, 0, g - s.g)
        m, v = ema(g, s.m, b1), ema(d, s.v, b2)
        n = ema(finite(abs_sq(g + b2 * d)), s.n, b3)
        above = scale_m * m + b2 * scale_v * v
        u = above / (safe_sqrt(scale_n * n + eps_root) + eps)
        return u, s._replace(m=m, v=v, n=n, g=g)

    return per_leaf(ScaleByAdanState, init, scale_by_adan, each=each, counts=("t",))


@transformation
def adan(
    learning_rate: PerLeaf,
    b1: float = 0.98,
    b2: float = 0.92,
    b3: float = 0.99,
    eps: float = 1e-8,
    eps_root: float = 1e-8,
    weight_decay: PerLeaf = 0.0,
    mask: MaskOrFn = None,
    *,
    proximal: bool = False,
) -> GradientTransformationExtraArgs:
    """Adan: Adam with Nesterov momentum by the difference of gradients.

        p <- p - learning_rate (u + weight_decay p)        with u of `scale_by_adan`

    or with `proximal`, as the paper and its authors' code have it,

        p <- (p - learning_rate u) / (1 + learning_rate weight_decay)

    Args:
        learning_rate, weight_decay, mask: as `descend` takes them.
        b1, b2, b3, eps, eps_root: as `scale_by_adan` takes them.
        proximal: whether the decay is implicit, that of the parameters after the step.

    Returns:
        A transformation whose state is `(ScaleByAdanState, EmptyState, EmptyState)`
        (memory: four copies of the parameters). The update needs the parameters.

    Example:
        >>> tx = jopt.adan(1e-3)

    Reference:
        Xie, Zhou, Li, Lin & Yan, Adan: Adaptive Nesterov Momentum Algorithm for
        Faster Optimizing Deep Models, TPAMI 2024, arXiv:2208.06677.
    """
    direction = scale_by_adan(b1, b2, b3, eps, eps_root)
    if not proximal:
        return descend(direction, learning_rate, weight_decay, mask)
    if isinstance(weight_decay, WeightDecay):
        raise ValueError(
            "adan: weight_decay must be numbers with proximal=True, got "
            f"{weight_decay!r}"
        )
    return chain(
        direction,
        scale_by_learning_rate(learning_rate),
        proximal_decay(mask, learning_rate=learning_rate, weight_decay=weight_decay),
    )

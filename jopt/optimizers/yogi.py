"""Yogi: Adam whose mean square moves by additions of bounded size."""

import jax.numpy as jnp

from ..base import GradientTransformationExtraArgs, MaskOrFn, PerLeaf
from ..engine import per_leaf, transformation
from ..numerics import abs_sq, bounded, ema, finite, one_minus_power, safe_sqrt
from ..parts.scale import descend
from .adam import ScaleByAdamState

__all__ = ["ScaleByYogiState", "scale_by_yogi", "yogi"]


class ScaleByYogiState(ScaleByAdamState):
    """The step count, the mean gradient and Yogi's estimate of its square."""

    __slots__ = ()


@transformation
def scale_by_yogi(
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-3,
    eps_root: float = 0.0,
    initial_accumulator_value: float = 1e-6,
) -> GradientTransformationExtraArgs:
    """Yogi's direction: Adam's, with a square that grows fast and falls slowly.

        mu <- b1 mu + (1 - b1) g
        nu <- nu - (1 - b2) sign(nu - |g|^2) |g|^2
        u   = mu / (1 - b1^t) / (sqrt(nu / (1 - b2^t) + eps_root) + eps)

    Args:
        b1: decay of the mean gradient, in [0, 1).
        b2: decay of the squared gradient, in [0, 1).
        eps: added outside the root, not negative.
        eps_root: added inside the root, not negative.
        initial_accumulator_value: where `mu` and `nu` start, not negative.

    Returns:
        A transformation whose state is `ScaleByYogiState(count: i32[], mu, nu)`; `mu`
        and `nu` have the shapes of the parameters (memory: two copies).

    Example:
        >>> tx = jopt.chain(jopt.scale_by_yogi(), jopt.scale(-1e-2))

    Reference:
        Zaheer, Reddi, Sachan, Kale & Kumar, Adaptive Methods for Nonconvex
        Optimization, NeurIPS 2018.
    """

    def init(p):
        start = initial_accumulator_value
        return dict(mu=jnp.zeros_like(p) + start, nu=jnp.zeros_like(p.real) + start)

    def each(t):
        return 1 / one_minus_power(b1, t), 1 / one_minus_power(b2, t)

    def scale_by_yogi(g, s, p, scales):
        scale_mu, scale_nu = scales
        g = bounded(g)
        square = abs_sq(g)
        mu = ema(g, s.mu, b1)
        nu = s.nu - (1 - b2) * jnp.sign(s.nu - square) * square
        u = scale_mu * mu / (safe_sqrt(finite(scale_nu * nu) + eps_root) + eps)
        return u, s._replace(mu=mu, nu=nu)

    return per_leaf(ScaleByYogiState, init, scale_by_yogi, each=each)


@transformation
def yogi(
    learning_rate: PerLeaf,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-3,
    *,
    weight_decay: PerLeaf | None = None,
    mask: MaskOrFn = None,
) -> GradientTransformationExtraArgs:
    """Yogi: Adam whose effective learning rate cannot grow fast.

        p <- p - learning_rate u        with u of `scale_by_yogi`

    Args:
        learning_rate: as `descend` takes it.
        b1, b2, eps: as `scale_by_yogi` takes them.
        weight_decay, mask: as `descend` takes them; no decay if `None`.

    Returns:
        A transformation whose state is `(ScaleByYogiState, EmptyState)` (memory: two
        copies of the parameters).

    Example:
        >>> tx = jopt.yogi(1e-2)

    Reference:
        Zaheer, Reddi, Sachan, Kale & Kumar, Adaptive Methods for Nonconvex
        Optimization, NeurIPS 2018.
    """
    return descend(scale_by_yogi(b1, b2, eps), learning_rate, weight_decay, mask)

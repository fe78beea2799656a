"""RAdam: Adam that waits for its mean square to be worth something."""

import jax
import jax.numpy as jnp

from ..base import GradientTransformationExtraArgs, MaskOrFn, PerLeaf
from ..engine import per_leaf, transformation
from ..numerics import abs_sq, bounded, ema, one_minus_power, safe_increment, safe_sqrt
from ..parts.scale import descend
from ..settings import Range
from .adam import Scalar, ScaleByAdamState

__all__ = ["ScaleByRadamState", "radam", "scale_by_radam"]

# The Laurent series of coth(x) without its 1 / x: odd powers from 1.
_COTH = (1 / 3, -1 / 45, 2 / 945, -1 / 4725, 2 / 93555, -1382 / 638512875)


class ScaleByRadamState(ScaleByAdamState):
    """The step count, the mean gradient and the mean squared gradient."""

    __slots__ = ()


def average_length(decay: Scalar, t: jax.Array) -> jax.Array:
    """How many gradients a moving average of so many steps weighs in effect.

        r = 2 / (1 - decay) - 1 - 2 t decay^t / (1 - decay^t)

    At first this is nearly `t`, the difference of two numbers near `2 / (1 - decay)`:
    in float32 it is off by 3e-4 for a decay of 0.9999, enough to pass a threshold a
    step early. With `a = -log(decay)` it is `coth(a / 2) + t - t coth(a t / 2)`, whose
    large parts cancel before anything is rounded.
    """
    once, weight = one_minus_power(decay, 1), one_minus_power(decay, t)
    t = t.astype(weight.dtype)
    x = -0.5 * jnp.log1p(-weight)  # a t / 2
    early = t + _coth_rest(-0.5 * jnp.log1p(-once)) - t * _coth_rest(x)
    late = 2 / once - 1 - 2 * t * (1 - weight) / weight
    return jnp.where(x < 0.5, early, late)


def _coth_rest(x: jax.Array) -> jax.Array:
    x = jnp.minimum(x, 0.5)  # beyond, the series is not used
    terms = (c * x ** (2 * i + 1) for i, c in enumerate(_COTH))
    return sum(terms, jnp.zeros_like(x))


@transformation(threshold=Range(4))
def scale_by_radam(
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    threshold: float = 5.0,
    *,
    nesterov: bool = False,
    eps_after_correction: bool = True,
) -> GradientTransformationExtraArgs:
    """RAdam's direction: Adam's by the confidence in its mean square.

        mu <- b1 mu + (1 - b1) g
        nu <- b2 nu + (1 - b2) |g|^2
        m   = mu / (1 - b1^t)
        r_inf = 2 / (1 - b2) - 1
        r     = r_inf - 2 t b2^t / (1 - b2^t)
        c     = sqrt((r - 4) (r - 2) r_inf / ((r_inf - 4) (r_inf - 2) r))
        u   = c m / (sqrt(nu / (1 - b2^t) + eps_root) + eps)   if r >= threshold
        u   = m                                                otherwise

    Args:
        b1: decay of the mean gradient, in [0, 1).
        b2: decay of the mean squared gradient, in [0, 1).
        eps: added outside the root, not negative.
        eps_root: added inside the root, not negative.
        threshold: the length of the average from which its variance counts, at least
            4; the paper has 4, the authors' code 5.
        nesterov: whether `m` looks ahead, as in `scale_by_adam`.
        eps_after_correction: whether `eps` stands beside the corrected root. PyTorch
            has `sqrt(1 - b2^t) / (sqrt(nu + eps_root) + eps)` instead, in which it
            weighs more in early steps.

    Returns:
        A transformation whose state is `ScaleByRadamState(count: i32[], mu, nu)`; `mu`
        and `nu` have the shapes of the parameters (memory: two copies).

    Example:
        >>> tx = jopt.chain(jopt.scale_by_radam(), jopt.scale(-1e-3))

    Reference:
        Liu et al., On the Variance of the Adaptive Learning Rate and Beyond, ICLR
        2020, arXiv:1908.03265.
    """

    def init(p):
        return dict(mu=jnp.zeros_like(p), nu=abs_sq(jnp.zeros_like(p)))

    def each(t):
        r_inf, r = 2 / (1 - b2) - 1, average_length(b2, t)
        settled = r >= threshold
        safe = jnp.where(settled, r, 5)
        ratio = (safe - 4) * (safe - 2) * r_inf / ((r_inf - 4) * (r_inf - 2) * safe)
        scale_mu, scale_g = 1 / one_minus_power(b1, t), None
        if nesterov:
            scale_g = (1 - b1) * scale_mu
            scale_mu = b1 / one_minus_power(b1, safe_increment(t))
        confidence, scale_nu = safe_sqrt(ratio), 1 / one_minus_power(b2, t)
        if not eps_after_correction:
            confidence, scale_nu = confidence / safe_sqrt(scale_nu), 1
        return settled, confidence, scale_mu, scale_nu, scale_g

    def scale_by_radam(g, s, p, numbers):
        settled, confidence, scale_mu, scale_nu, scale_g = numbers
        g = bounded(g)
        mu, nu = ema(g, s.mu, b1), ema(abs_sq(g), s.nu, b2)
        m = scale_mu * mu if scale_g is None else scale_mu * mu + scale_g * g
        adaptive = confidence * m / (safe_sqrt(scale_nu * nu + eps_root) + eps)
        return jnp.where(settled, adaptive, m), s._replace(mu=mu, nu=nu)

    return per_leaf(ScaleByRadamState, init, scale_by_radam, each=each)


@transformation(threshold=Range(4))
def radam(
    learning_rate: PerLeaf,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    threshold: float = 5.0,
    *,
    nesterov: bool = False,
    weight_decay: PerLeaf | None = None,
    mask: MaskOrFn = None,
    eps_after_correction: bool = True,
) -> GradientTransformationExtraArgs:
    """RAdam: Adam with a warm-up that its own variance prescribes.

        p <- p - learning_rate u        with u of `scale_by_radam`

    Args:
        learning_rate: as `descend` takes it.
        b1, b2, eps, eps_root, threshold, nesterov: as `scale_by_radam` takes them.
        weight_decay, mask: as `descend` takes them; no decay if `None`.
        eps_after_correction: as `scale_by_radam` takes it; PyTorch's if false.

    Returns:
        A transformation whose state is `(ScaleByRadamState, EmptyState)` (memory: two
        copies of the parameters).

    Example:
        >>> tx = jopt.radam(1e-3)

    Reference:
        Liu et al., On the Variance of the Adaptive Learning Rate and Beyond, ICLR
        2020, arXiv:1908.03265.
    """
    direction = scale_by_radam(
        b1,
        b2,
        eps,
        eps_root,
        threshold,
        nesterov=nesterov,
        eps_after_correction=eps_after_correction,
    )
    return descend(direction, learning_rate, weight_decay, mask)

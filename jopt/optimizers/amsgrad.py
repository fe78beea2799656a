"""AMSGrad: Adam whose mean square never falls."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ..base import GradientTransformationExtraArgs, MaskOrFn, PerLeaf, Updates
from ..engine import per_leaf, transformation
from ..numerics import abs_sq, bounded, ema, one_minus_power, safe_sqrt, zeros_in
from ..parts.scale import descend

__all__ = ["ScaleByAmsgradState", "amsgrad", "scale_by_amsgrad"]


class ScaleByAmsgradState(NamedTuple):
    """The step count, both means and the largest mean square so far."""

    count: jax.Array
    mu: Updates
    nu: Updates
    nu_max: Updates


@transformation
def scale_by_amsgrad(
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    mu_dtype: DTypeLike | None = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    *,
    correct_after_max: bool = False,
) -> GradientTransformationExtraArgs:
    """AMSGrad's direction: Adam's, over the largest root mean square so far.

        mu     <- b1 mu + (1 - b1) g
        nu     <- b2 nu + (1 - b2) |g|^2
        nu_max <- max(nu_max, nu / (1 - b2^t))
        u       = mu / (1 - b1^t) / (sqrt(nu_max + eps_root) + eps)

    The paper takes neither correction.

    Args:
        b1: decay of the mean gradient, in [0, 1).
        b2: decay of the mean squared gradient, in [0, 1).
        eps: added outside the root, not negative.
        eps_root: added inside the root, not negative.
        mu_dtype: dtype `mu` is stored in. The parameter's, or float32 if that has 16
            bits, if `None`.
        bias_correction_mu: whether to divide `mu` by `1 - b1^t`.
        bias_correction_nu: whether to divide `nu` by `1 - b2^t`.
        correct_after_max: whether `nu_max` is the largest `nu`, and divided then, as
            PyTorch has it.

    Returns:
        A transformation whose state is `ScaleByAmsgradState(count: i32[], mu, nu,
        nu_max)`, the last three in the shapes of the parameters (memory: three copies).

    Example:
        >>> tx = jopt.chain(jopt.scale_by_amsgrad(), jopt.scale(-1e-3))

    Reference:
        Reddi, Kale & Kumar, On the Convergence of Adam and Beyond, ICLR 2018,
        arXiv:1904.09237.
    """

    def init(p):
        zeros = abs_sq(jnp.zeros_like(p))
        return dict(mu=zeros_in(p, mu_dtype), nu=zeros, nu_max=zeros)

    def each(t):
        scale_mu = 1 / one_minus_power(b1, t) if bias_correction_mu else 1
        scale_nu = 1 / one_minus_power(b2, t) if bias_correction_nu else 1
        return scale_mu, scale_nu

    def scale_by_amsgrad(g, s, p, scales):
        scale_mu, scale_nu = scales
        g = bounded(g)
        mu, nu = ema(g, s.mu, b1), ema(abs_sq(g), s.nu, b2)
        before, after = (1, scale_nu) if correct_after_max else (scale_nu, 1)
        nu_max = jnp.maximum(s.nu_max, before * nu)
        u = scale_mu * mu / (safe_sqrt(after * nu_max + eps_root) + eps)
        return u, s._replace(mu=mu, nu=nu, nu_max=nu_max)

    return per_leaf(ScaleByAmsgradState, init, scale_by_amsgrad, each=each)


@transformation
def amsgrad(
    learning_rate: PerLeaf,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    mu_dtype: DTypeLike | None = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    *,
    weight_decay: PerLeaf | None = None,
    mask: MaskOrFn = None,
    correct_after_max: bool = False,
) -> GradientTransformationExtraArgs:
    """AMSGrad: Adam whose mean square never falls, so that it converges.

        p <- p - learning_rate u        with u of `scale_by_amsgrad`

    Args:
        learning_rate: as `descend` takes it.
        b1, b2, eps, eps_root, mu_dtype: as `scale_by_amsgrad` takes them.
        bias_correction_mu, bias_correction_nu, correct_after_max: likewise.
        weight_decay, mask: as `descend` takes them; no decay if `None`.

    Returns:
        A transformation whose state is `(ScaleByAmsgradState, EmptyState)` (memory:
        three copies of the parameters).

    Example:
        >>> tx = jopt.amsgrad(1e-3)

    Reference:
        Reddi, Kale & Kumar, On the Convergence of Adam and Beyond, ICLR 2018,
        arXiv:1904.09237.
    """
    direction = scale_by_amsgrad(
        b1,
        b2,
        eps,
        eps_root,
        mu_dtype,
        bias_correction_mu,
        bias_correction_nu,
        correct_after_max=correct_after_max,
    )
    return descend(direction, learning_rate, weight_decay, mask)

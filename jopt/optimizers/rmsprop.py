"""RMSProp: the gradient over its root mean square, or its standard deviation."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..base import GradientTransformationExtraArgs, MaskOrFn, PerLeaf, Updates
from ..engine import per_leaf, transformation
from ..numerics import abs_sq, bounded, ema, one_minus_power, safe_sqrt
from ..parts.average import trace
from ..parts.combine import chain, identity
from ..parts.decay import decay_parts
from ..parts.scale import scale_by_learning_rate
from ..settings import DECAY

__all__ = [
    "ScaleByRStdDevState",
    "ScaleByRStdDevWithCountState",
    "ScaleByRmsState",
    "ScaleByRmsWithCountState",
    "rmsprop",
    "scale_by_rms",
    "scale_by_stddev",
]


class ScaleByRmsState(NamedTuple):
    """The mean squared gradient."""

    nu: Updates


class ScaleByRmsWithCountState(NamedTuple):
    """The step count and the mean squared gradient."""

    count: jax.Array
    nu: Updates


class ScaleByRStdDevState(NamedTuple):
    """The mean gradient and the mean squared gradient."""

    mu: Updates
    nu: Updates


class ScaleByRStdDevWithCountState(NamedTuple):
    """The step count, the mean gradient and the mean squared gradient."""

    count: jax.Array
    mu: Updates
    nu: Updates


@transformation(decay=DECAY)
def scale_by_rms(
    decay: float = 0.9,
    eps: float = 1e-8,
    initial_scale: float = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
) -> GradientTransformationExtraArgs:
    """RMSProp's direction: the gradient over its root mean square.

        nu <- decay nu + (1 - decay) |g|^2
        u   = g / sqrt(nu + eps),  or g / (sqrt(nu) + eps) unless `eps_in_sqrt`

    with `nu / (1 - decay^t)` for `nu` in the second line with `bias_correction`.

    Args:
        decay: decay of the mean square, in [0, 1).
        eps: added inside or outside the root, not negative.
        initial_scale: where `nu` starts, not negative.
        eps_in_sqrt: whether `eps` is inside the root.
        bias_correction: whether to divide the weight of the start out.

    Returns:
        A transformation whose state is `ScaleByRmsState(nu)`, with the correction
        `ScaleByRmsWithCountState(count: i32[], nu)`; `nu` in the shapes of the
        parameters (memory: one copy).

    Example:
        >>> tx = jopt.chain(jopt.scale_by_rms(), jopt.scale(-1e-3))

    Reference:
        Tieleman & Hinton, Lecture 6.5: RMSProp, COURSERA, 2012. Graves, Generating
        Sequences With Recurrent Neural Networks, 2013, arXiv:1308.0850.
    """

    def init(p):
        return dict(nu=abs_sq(jnp.zeros_like(p)) + initial_scale)

    def each(*t):
        return 1 / one_minus_power(decay, *t) if bias_correction else 1

    def scale_by_rms(g, s, p, scale):
        g = bounded(g)
        nu = ema(abs_sq(g), s.nu, decay)
        return _over_root(g, scale * nu, eps, eps_in_sqrt), s._replace(nu=nu)

    state = ScaleByRmsWithCountState if bias_correction else ScaleByRmsState
    return per_leaf(state, init, scale_by_rms, each=each)


@transformation(decay=DECAY)
def scale_by_stddev(
    decay: float = 0.9,
    eps: float = 1e-8,
    initial_scale: float = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
) -> GradientTransformationExtraArgs:
    """Centred RMSProp's direction: the gradient over its standard deviation.

        mu <- decay mu + (1 - decay) g
        nu <- decay nu + (1 - decay) |g|^2
        u   = g / sqrt(max(nu - |mu|^2, 0) + eps)

    with `eps` outside the root unless `eps_in_sqrt`. The variance is a difference and
    is kept from falling below zero by rounding. With `bias_correction` it is 0 at the
    first step, so that `eps` alone bounds that step.

    Args:
        decay: decay of both means, in [0, 1).
        eps: added inside or outside the root, not negative.
        initial_scale: where `nu` starts, not negative.
        eps_in_sqrt: whether `eps` is inside the root.
        bias_correction: whether to divide the weight of the start out of both means.

    Returns:
        A transformation whose state is `ScaleByRStdDevState(mu, nu)`, with the
        correction `ScaleByRStdDevWithCountState(count: i32[], mu, nu)`; both in the
        shapes of the parameters (memory: two copies).

    Example:
        >>> tx = jopt.chain(jopt.scale_by_stddev(), jopt.scale(-1e-3))

    Reference:
        Graves, Generating Sequences With Recurrent Neural Networks, 2013,
        arXiv:1308.0850.
    """

    def init(p):
        return dict(mu=jnp.zeros_like(p), nu=abs_sq(jnp.zeros_like(p)) + initial_scale)

    def each(*t):
        return 1 / one_minus_power(decay, *t) if bias_correction else 1

    def scale_by_stddev(g, s, p, scale):
        g = bounded(g)
        mu, nu = ema(g, s.mu, decay), ema(abs_sq(g), s.nu, decay)
        rms, size = safe_sqrt(scale * nu), jnp.abs(scale * mu)
        variance = jnp.maximum((rms - size) * (rms + size), 0)  # inf is not inf - inf
        u = _over_root(g, variance, eps, eps_in_sqrt)
        return u, s._replace(mu=mu, nu=nu)

    state = ScaleByRStdDevWithCountState if bias_correction else ScaleByRStdDevState
    return per_leaf(state, init, scale_by_stddev, each=each)


def _over_root(g, square, eps, eps_in_sqrt):
    root = safe_sqrt(square + eps) if eps_in_sqrt else safe_sqrt(square) + eps
    return g / jnp.where(root == 0, 1, root)


@transformation(decay=DECAY)
def rmsprop(
    learning_rate: PerLeaf,
    decay: float = 0.9,
    eps: float = 1e-8,
    initial_scale: float = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: float | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
    *,
    weight_decay: PerLeaf | None = None,
    mask: MaskOrFn = None,
) -> GradientTransformationExtraArgs:
    """RMSProp: the gradient over its root mean square, with or without momentum.

        p <- p - learning_rate u        with u of `scale_by_rms`

    of `scale_by_stddev` if `centered`. Momentum acts on the scaled steps.

    Args:
        learning_rate: as `descend` takes it.
        decay, eps, initial_scale, eps_in_sqrt, bias_correction: as `scale_by_rms`
            takes them.
        centered: whether to divide by the standard deviation.
        momentum: the weight of past steps in [0, 1], or `None` for none.
        nesterov: whether to look ahead along the momentum.
        weight_decay, mask: as `descend` takes them, outside the momentum;
            no decay if `None`.

    Returns:
        A transformation whose state is `(ScaleByRmsState, EmptyState, EmptyState)`
        (memory: one copy of the parameters); the last is `TraceState` with momentum.

    Example:
        >>> tx = jopt.rmsprop(1e-3, momentum=0.9)

    Reference:
        Tieleman & Hinton, Lecture 6.5: RMSProp, COURSERA, 2012. Graves, Generating
        Sequences With Recurrent Neural Networks, 2013, arXiv:1308.0850.
    """
    direction = scale_by_stddev if centered else scale_by_rms
    # Momentum comes after the learning rate, and decoupled decay after that.
    before, _, after = decay_parts(weight_decay, mask, learning_rate=learning_rate)
    return chain(
        *before,
        direction(decay, eps, initial_scale, eps_in_sqrt, bias_correction),
        scale_by_learning_rate(learning_rate),
        identity() if momentum is None else trace(momentum, nesterov),
        *after,
    )

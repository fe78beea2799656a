"""Adadelta: gradients in the units of the parameters."""

from typing import NamedTuple

import jax.numpy as jnp

from ..base import GradientTransformationExtraArgs, MaskOrFn, PerLeaf, Updates
from ..engine import per_leaf, transformation
from ..numerics import abs_sq, bounded, ema, finite, safe_sqrt
from ..parts.combine import chain
from ..parts.decay import add_decayed_weights
from ..parts.scale import scale_by_learning_rate
from ..settings import PLAIN_DECAY

__all__ = ["ScaleByAdaDeltaState", "adadelta", "scale_by_adadelta"]


class ScaleByAdaDeltaState(NamedTuple):
    """The mean squared gradient and the mean squared update."""

    e_g: Updates
    e_x: Updates


@transformation
def scale_by_adadelta(
    rho: float = 0.9, eps: float = 1e-6
) -> GradientTransformationExtraArgs:
    """Adadelta's direction: the gradient by the ratio of two root mean squares.

        e_g <- rho e_g + (1 - rho) |g|^2
        u    = sqrt(e_x + eps) / sqrt(e_g + eps) g
        e_x <- rho e_x + (1 - rho) |u|^2

    Args:
        rho: decay of both means, in [0, 1).
        eps: added inside both roots, not negative.

    Returns:
        A transformation whose state is `ScaleByAdaDeltaState(e_g, e_x)`, in the shapes
        of the parameters (memory: two copies).

    Example:
        >>> tx = jopt.chain(jopt.scale_by_adadelta(), jopt.scale(-1.0))

    Reference:
        Zeiler, ADADELTA: An Adaptive Learning Rate Method, 2012, arXiv:1212.5701.
    """

    def init(p):
        return dict(e_g=abs_sq(jnp.zeros_like(p)), e_x=abs_sq(jnp.zeros_like(p)))

    def scale_by_adadelta(g, s, p):
        g = bounded(g)
        e_g = ema(abs_sq(g), s.e_g, rho)
        below = safe_sqrt(e_g + eps)
        u = safe_sqrt(s.e_x + eps) / jnp.where(below == 0, 1, below) * g
        return u, s._replace(e_g=e_g, e_x=ema(finite(abs_sq(u)), s.e_x, rho))

    return per_leaf(ScaleByAdaDeltaState, init, scale_by_adadelta)


@transformation(weight_decay=PLAIN_DECAY)
def adadelta(
    learning_rate: PerLeaf | None = None,
    rho: float = 0.9,
    eps: float = 1e-6,
    weight_decay: PerLeaf = 0.0,
    weight_decay_mask: MaskOrFn = None,
) -> GradientTransformationExtraArgs:
    """Adadelta: Adagrad with a window, and steps in the units of the parameters.

        p <- p - learning_rate u        with u of `scale_by_adadelta`

    Args:
        learning_rate: as `descend` takes it; 1 if `None`.
        rho: decay of both means, in [0, 1).
        eps: added inside both roots, not negative.
        weight_decay: an L2 penalty, added to the gradient; not negative.
        weight_decay_mask: which leaves it holds for, all if `None`.

    Returns:
        A transformation whose state is `(EmptyState, ScaleByAdaDeltaState,
        EmptyState)` (memory: two copies of the parameters). The update needs the
        parameters.

    Example:
        >>> tx = jopt.adadelta(1.0)

    Reference:
        Zeiler, ADADELTA: An Adaptive Learning Rate Method, 2012, arXiv:1212.5701.
    """
    return chain(
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_adadelta(rho, eps),
        scale_by_learning_rate(learning_rate),
    )

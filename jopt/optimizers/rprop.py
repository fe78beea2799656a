"""Rprop: step sizes that grow while the sign of the gradient stays."""

from typing import NamedTuple

import jax.numpy as jnp

from ..base import (
    GradientTransformationExtraArgs,
    MaskOrFn,
    PerLeaf,
    Updates,
)
from ..engine import per_leaf, transformation
from ..parts.combine import chain
from ..parts.decay import decay_parts
from ..parts.scale import scale
from ..settings import FINITE, FRACTION, POSITIVE, Range

__all__ = ["ScaleByRpropState", "rprop", "scale_by_rprop"]

_RANGES = dict(
    learning_rate=FINITE,
    eta_minus=FRACTION,
    eta_plus=Range(1),
    min_step_size=POSITIVE,
    max_step_size=POSITIVE,
)


class ScaleByRpropState(NamedTuple):
    """The step sizes, and the last updates for their signs."""

    step_sizes: Updates
    prev_updates: Updates


@transformation(**_RANGES)
def scale_by_rprop(
    learning_rate: float,
    eta_minus: float = 0.5,
    eta_plus: float = 1.2,
    min_step_size: float = 1e-6,
    max_step_size: float = 50.0,
) -> GradientTransformationExtraArgs:
    """Rprop's direction: the sign of the gradient times a step size of its own.

        step <- min(eta_plus step, max_step_size)     where the sign stayed
        step <- max(eta_minus step, min_step_size)    where it turned
        u     = sign(g) step,  0 where it turned

    After a turn the last sign counts as 0, so that the next step keeps its size
    (Rprop-, without backtracking).

    Args:
        learning_rate: the first step size.
        eta_minus: the factor after a turn, in [0, 1].
        eta_plus: the factor while the sign stays, at least 1.
        min_step_size: the smallest step size, positive.
        max_step_size: the largest step size, positive.

    Returns:
        A transformation whose state is `ScaleByRpropState(step_sizes, prev_updates)`,
        in the shapes of the parameters (memory: two copies).

    Example:
        >>> tx = jopt.scale_by_rprop(0.1)
        >>> tx.update(jnp.array([2.0, -1.0]), tx.init(jnp.zeros(2)))[0]
        Array([ 0.1, -0.1], dtype=float32)

    Reference:
        Riedmiller & Braun, A Direct Adaptive Method for Faster Backpropagation
        Learning: The RPROP Algorithm, ICNN 1993. Igel & Huesken, Improving the Rprop
        Learning Algorithm, 2000.
    """

    def init(p):
        return dict(
            step_sizes=jnp.zeros_like(p.real) + learning_rate,
            prev_updates=jnp.zeros_like(p),
        )

    def scale_by_rprop(g, s, p):
        sign = (jnp.sign(g) * jnp.sign(s.prev_updates)).real
        grown = jnp.minimum(s.step_sizes * eta_plus, max_step_size)
        shrunk = jnp.maximum(s.step_sizes * eta_minus, min_step_size)
        steps = jnp.where(sign > 0, grown, jnp.where(sign < 0, shrunk, s.step_sizes))
        u = jnp.where(sign < 0, 0, jnp.sign(g) * steps)
        return u, s._replace(step_sizes=steps, prev_updates=u)

    return per_leaf(ScaleByRpropState, init, scale_by_rprop)


@transformation(**_RANGES)
def rprop(
    learning_rate: float,
    eta_minus: float = 0.5,
    eta_plus: float = 1.2,
    min_step_size: float = 1e-6,
    max_step_size: float = 50.0,
    *,
    weight_decay: PerLeaf | None = None,
    mask: MaskOrFn = None,
) -> GradientTransformationExtraArgs:
    """Rprop: step sizes that grow while the sign of the gradient stays.

        p <- p - u        with u of `scale_by_rprop`

    For whole batches: the sign of a mini-batch's gradient turns by chance.

    Args:
        learning_rate: the first step size, a number.
        eta_minus, eta_plus, min_step_size, max_step_size: as `scale_by_rprop` takes
            them.
        weight_decay, mask: as `descend` takes them, decoupled decay times
            `learning_rate` for good; no decay if `None`.

    Returns:
        A transformation whose state is `(ScaleByRpropState, EmptyState)` (memory: two
        copies of the parameters).

    Example:
        >>> tx = jopt.rprop(0.1)

    Reference:
        Riedmiller & Braun, A Direct Adaptive Method for Faster Backpropagation
        Learning: The RPROP Algorithm, ICNN 1993. Igel & Huesken, Improving the Rprop
        Learning Algorithm, 2000.
    """
    before, _, after = decay_parts(weight_decay, mask, learning_rate=learning_rate)
    return chain(
        *before,
        scale_by_rprop(
            learning_rate, eta_minus, eta_plus, min_step_size, max_step_size
        ),
        scale(-1.0),
        *after,
    )

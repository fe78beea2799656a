"""Rprop: step sizes that grow while the sign of the gradient stays."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..base import (
    GradientTransformationExtraArgs,
    MaskOrFn,
    PerLeaf,
    Schedule,
    Updates,
)
from ..compat import Tracer
from ..engine import per_leaf, transformation, whole_tree
from ..kinds import is_leaf, is_masked, is_schedule
from ..parts.combine import chain
from ..parts.decay import decay_parts
from ..parts.scale import scale, scale_by_learning_rate
from ..settings import FRACTION, POSITIVE, Range, is_scheduled, scalar, schedule
from ..tree import values_of

__all__ = ["ScaleByRpropState", "rprop", "scale_by_rprop"]

_RANGES = dict(
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
    learning_rate: PerLeaf,
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
        learning_rate: the first step size, a number; or several, as `descend` takes
            them.
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

    if is_scheduled(learning_rate):
        raise TypeError(
            "scale_by_rprop: learning_rate must be a number, the first step size; "
            "rprop takes a schedule"
        )
    is_one = is_leaf(learning_rate)
    first: Any = learning_rate if is_one else 0

    def init(p):
        return dict(
            step_sizes=jnp.zeros_like(p.real) + first,
            prev_updates=jnp.zeros_like(p),
        )

    def scale_by_rprop(g, s, p):
        sign = (jnp.sign(g) * jnp.sign(s.prev_updates)).real
        grown = jnp.minimum(s.step_sizes * eta_plus, max_step_size)
        shrunk = jnp.maximum(s.step_sizes * eta_minus, min_step_size)
        steps = jnp.where(sign > 0, grown, jnp.where(sign < 0, shrunk, s.step_sizes))
        u = jnp.where(sign < 0, 0, jnp.sign(g) * steps)
        return u, s._replace(step_sizes=steps, prev_updates=u)

    tx = per_leaf(ScaleByRpropState, init, scale_by_rprop)
    return tx if is_one else _begun_at(learning_rate, tx)


def _begun_at(learning_rate: Any, tx: Any) -> GradientTransformationExtraArgs:
    """The same with the first step sizes of the leaves."""

    def init(params):
        state = tx.init(params)
        where = "scale_by_rprop: learning_rate"
        rates = values_of(learning_rate, params, name=where)
        rates = jax.tree.structure(params).unflatten(rates)

        def begun(rate, steps):
            if is_masked(steps):
                return steps
            return steps + jnp.asarray(rate, steps.dtype)

        return state._replace(step_sizes=jax.tree.map(begun, rates, state.step_sizes))

    def update(updates, state, params=None, **extra_args):
        return tx.update(updates, state, params)

    return whole_tree(init, update)


@transformation(**_RANGES)
def rprop(
    learning_rate: PerLeaf,
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
        learning_rate: the first step size, as `descend` takes it. A schedule begins
            with it, other than zero, and multiplies all steps by what it is of that:
            `u schedule(t - 1) / schedule(0)`; the bounds are of steps before.
        eta_minus, eta_plus, min_step_size, max_step_size: as `scale_by_rprop` takes
            them.
        weight_decay, mask: as `descend` takes them, decoupled decay times
            `learning_rate`, whatever the step sizes are; no decay if `None`.

    Returns:
        A transformation whose state is `(ScaleByRpropState, EmptyState)` (memory: two
        copies of the parameters); the second is `ScaleByScheduleState` with a schedule.

    Raises:
        ValueError: a number is outside its range, or a schedule begins at zero.

    Example:
        >>> tx = jopt.rprop(0.1)

    Reference:
        Riedmiller & Braun, A Direct Adaptive Method for Faster Backpropagation
        Learning: The RPROP Algorithm, ICNN 1993. Igel & Huesken, Improving the Rprop
        Learning Algorithm, 2000.
    """
    before, _, after = decay_parts(weight_decay, mask, learning_rate=learning_rate)
    first, last = learning_rate, scale(-1.0)
    if is_scheduled(learning_rate):
        first = jax.tree.map(_first, learning_rate)
        last = scale_by_learning_rate(jax.tree.map(_relative, learning_rate))
    direction = scale_by_rprop(first, eta_minus, eta_plus, min_step_size, max_step_size)
    return chain(*before, direction, last, *after)


def _first(rate: Any) -> Any:
    """What a rate is at first."""
    if not is_schedule(rate):
        return rate
    first = scalar("rprop", "learning_rate", rate(jnp.zeros((), jnp.int32)))
    if not isinstance(first, Tracer) and float(first) == 0:
        raise ValueError(
            "rprop: learning_rate must not begin at zero: its first value is the first "
            "step size, which all others are made of"
        )
    return first


def _relative(rate: Any) -> Any:
    return relative(rate) if is_schedule(rate) else 1.0


@schedule
def relative(rate: Schedule) -> Schedule:
    """What a schedule is of its first value."""
    return lambda count: rate(count) / rate(jnp.zeros_like(count))

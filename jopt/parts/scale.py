"""Scaling: by a number, by a schedule, by a ratio of norms; and how optimizers end."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..base import (
    EmptyState,
    GradientTransformation,
    GradientTransformationExtraArgs,
    MaskOrFn,
    PerLeaf,
    Schedule,
)
from ..engine import per_leaf, stateless_leaf, transformation
from ..numerics import norm
from ..plan import Rule, node_of, stages
from ..settings import Range, is_scheduled, product, scheduled
from .combine import chain
from .decay import decay_parts

__all__ = [
    "ScaleByScheduleState",
    "ScaleByTrustRatioState",
    "ScaleState",
    "descend",
    "scale",
    "scale_by_learning_rate",
    "scale_by_schedule",
    "scale_by_trust_ratio",
]

ScaleState = EmptyState
ScaleByTrustRatioState = EmptyState


class ScaleByScheduleState(NamedTuple):
    """How many steps were taken."""

    count: jax.Array


@transformation(step_size=Range(per_leaf=True))
def scale(step_size: PerLeaf) -> GradientTransformationExtraArgs:
    """Multiplies the updates by a number.

    Args:
        step_size: the factor; or several, as `descend` takes its learning rate: 1 for
            leaves that no pattern chooses.

    Returns:
        A transformation whose state is `EmptyState()`.

    Raises:
        ValueError: a pattern chooses no leaf.
        TypeError: there is something that is no number.

    Example:
        >>> jopt.scale(-0.5).update(jnp.ones(2), jopt.EmptyState())[0]
        Array([-0.5, -0.5], dtype=float32)
    """
    if is_scheduled(step_size):
        raise TypeError(
            "scale: step_size must be a number, got a function; for a schedule use "
            "scale_by_schedule, or scale_by_learning_rate with flip_sign=False"
        )
    numbers = product("scale", 1, step_size=step_size)
    return per_leaf(EmptyState, lambda p: {}, _times, **numbers)


@transformation(step_size_fn=None)
def scale_by_schedule(
    step_size_fn: Schedule | None,
) -> GradientTransformationExtraArgs:
    """Multiplies the updates by a function of the step.

    Args:
        step_size_fn: from the number of steps taken so far (`i32[]`, 0 at the first)
            to the factor, a scalar. `None` says so at the first step, as in optax, and
            not before.

    Returns:
        A transformation whose state is `ScaleByScheduleState(count: i32[])`.

    Raises:
        TypeError: `step_size_fn` is no function.
        ValueError: it returned something other than a scalar.

    Example:
        >>> tx = jopt.scale_by_schedule(jopt.constant_schedule(-0.5))
        >>> tx.update(jnp.ones(2), tx.init(jnp.ones(2)))[0]
        Array([-0.5, -0.5], dtype=float32)
    """

    def checked() -> Schedule:
        if not callable(step_size_fn):
            raise TypeError(
                "scale_by_schedule: step_size_fn must be a function of the step, "
                f"got {step_size_fn!r}; for a number use scale"
            )
        return step_size_fn

    if step_size_fn is not None:
        checked()

    def each(t):
        return scheduled("scale_by_schedule", "step_size_fn", checked(), t - 1)

    return per_leaf(ScaleByScheduleState, lambda p: {}, _times, each=each)


def _times(g, s, p, factor):
    return factor * g, s


_times.__qualname__ = "scale"


@transformation
def scale_by_learning_rate(
    learning_rate: PerLeaf | None = None, *, flip_sign: bool = True
) -> GradientTransformationExtraArgs:
    """Multiplies the updates by the learning rate, negated to descend.

    Args:
        learning_rate: as `descend` takes it; 1 if `None`.
        flip_sign: whether to negate.

    Returns:
        A transformation whose state is `EmptyState()` for numbers and
        `ScaleByScheduleState(count: i32[])` if there is a schedule.

    Raises:
        ValueError: a leaf has no learning rate, or a pattern chooses no leaf.
        TypeError: `learning_rate` holds something that is no number or schedule.

    Example:
        >>> jopt.scale_by_learning_rate(0.1).update(jnp.ones(2), jopt.EmptyState())[0]
        Array([-0.1, -0.1], dtype=float32)
    """
    sign = -1 if flip_sign else 1
    if learning_rate is None:
        return scale(sign)
    state = ScaleByScheduleState if is_scheduled(learning_rate) else EmptyState
    numbers = product("scale_by_learning_rate", sign, learning_rate=learning_rate)
    return per_leaf(state, lambda p: {}, _times_rate, **numbers)


def _times_rate(g, s, p, learning_rate):
    return learning_rate * g, s


_times_rate.__qualname__ = "scale_by_learning_rate"


def ends_in_learning_rate(tx: GradientTransformation) -> bool:
    """Whether a learning rate is the last factor of the updates, of all leaves."""
    *_, last = (None, *stages(node_of(tx)))
    rule = last is not None and not last.masks and last.part
    return isinstance(rule, Rule) and rule.update is _times_rate


@transformation
def scale_by_trust_ratio(
    min_norm: float = 0.0, trust_coefficient: float = 1.0, eps: float = 0.0
) -> GradientTransformationExtraArgs:
    """Gives each leaf's update the size of its parameter, layer-wise.

        u = trust_coefficient |p| / (|g| + eps) g,  or g where a norm is zero

    with norms of at least `min_norm`, over all elements of a leaf.

    Args:
        min_norm: lower bound of both norms, not negative.
        trust_coefficient: the factor, not negative.
        eps: added to the update's norm, not negative.

    Returns:
        A transformation whose state is `EmptyState()`; it needs the parameters.

    Example:
        >>> tx = jopt.scale_by_trust_ratio()
        >>> p = jnp.array([3.0, 4.0])
        >>> tx.update(jnp.array([0.0, 1.0]), tx.init(p), p)[0]
        Array([0., 5.], dtype=float32)

    Reference:
        You, Gitman & Ginsburg, Large Batch Training of Convolutional Networks, 2017,
        arXiv:1708.03888.
    """

    def scale_by_trust_ratio(g, p):
        p_norm = jnp.maximum(norm(p), min_norm)
        g_norm = jnp.maximum(norm(g), min_norm)
        no_ratio = (p_norm == 0) | (g_norm == 0)
        below = jnp.where(no_ratio, 1, g_norm + eps)
        return g * jnp.where(no_ratio, 1, trust_coefficient * p_norm / below)

    return stateless_leaf(scale_by_trust_ratio, needs_params=True)


def descend(
    direction: GradientTransformation,
    learning_rate: PerLeaf,
    weight_decay: PerLeaf | None = None,
    mask: MaskOrFn = None,
) -> GradientTransformationExtraArgs:
    """How optimizers end: a direction, decoupled weight decay, the learning rate.

        p <- p - learning_rate (direction(g) + weight_decay p)

    Args:
        direction: the transformation that makes the direction of ascent.
        learning_rate: a number, or a schedule of the steps taken so far; or several:
            a tree prefix of the parameters, or a mapping from path patterns, as
            `tree.select` takes them, of which the first that chooses a leaf counts.
            `"default"` is for the leaves that none chooses; without it they are an
            error.
        weight_decay: decoupled decay (times the learning rate), given as the learning
            rate is, but that leaves that no pattern chooses do not decay without a
            `"default"`; or decay of another kind, `l2` or `independent`. No such part
            if `None`.
        mask: which leaves decay: a tree of booleans or a function that makes one; all
            if `None`.

    Returns:
        The chain of the two or three: the decay stands before the learning rate, `l2`
        before the direction, `independent` last. The states of the learning rate and
        of the decay count steps if there is a schedule among their values.

    Raises:
        ValueError: a leaf has no learning rate, or a pattern chooses no leaf.
        TypeError: there is something that is no number or schedule.

    Example:
        >>> tx = jopt.descend(jopt.scale_by_lion(), 1e-4, weight_decay=1e-3)
        >>> tx = jopt.descend(
        ...     jopt.identity(), {"head": 0.1, "default": 0.01}, {"**/w": 1e-3})

    Reference:
        Loshchilov & Hutter, Decoupled Weight Decay Regularization, ICLR 2019,
        arXiv:1711.05101.
    """
    before, beside, after = decay_parts(weight_decay, mask)
    rate = scale_by_learning_rate(learning_rate)
    return chain(*before, direction, *beside, rate, *after)

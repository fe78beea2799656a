"""Scaling: by a number, by a schedule, by a ratio of norms; and how optimizers end."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ..base import (
    EmptyState,
    GradientTransformation,
    GradientTransformationExtraArgs,
    MaskOrFn,
    ScalarOrSchedule,
    Schedule,
)
from ..engine import per_leaf, scalar, stateless_leaf, transformation
from ..numerics import norm
from .combine import chain
from .decay import add_decayed_weights

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


@transformation
def scale(step_size: ArrayLike) -> GradientTransformationExtraArgs:
    """Multiplies the updates by a number.

    Args:
        step_size: the factor.

    Returns:
        A transformation whose state is `EmptyState()`.

    Example:
        >>> jopt.scale(-0.5).update(jnp.ones(2), jopt.EmptyState())[0]
        Array([-0.5, -0.5], dtype=float32)
    """

    def scale(g, p, factor):
        return factor * g

    return stateless_leaf(scale, each=lambda: step_size)


@transformation(step_size_fn=None)
def scale_by_schedule(step_size_fn: Schedule) -> GradientTransformationExtraArgs:
    """Multiplies the updates by a function of the step.

    Args:
        step_size_fn: from the number of steps taken so far (`i32[]`, 0 at the first)
            to the factor, a scalar.

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
    if not callable(step_size_fn):
        raise TypeError(
            "scale_by_schedule: step_size_fn must be a function of the step, "
            f"got {step_size_fn!r}; for a number use scale"
        )

    def scale_by_schedule(g, s, p, factor):
        return factor * g, s

    def each(t):
        return scalar("scale_by_schedule", "step_size_fn", step_size_fn(t - 1))

    return per_leaf(ScaleByScheduleState, lambda p: {}, scale_by_schedule, each=each)


@transformation
def scale_by_learning_rate(
    learning_rate: ScalarOrSchedule | None = None, *, flip_sign: bool = True
) -> GradientTransformationExtraArgs:
    """Multiplies the updates by the learning rate, negated to descend.

    Args:
        learning_rate: a number, or a schedule of the steps taken so far; 1 if `None`.
        flip_sign: whether to negate.

    Returns:
        A transformation whose state is `EmptyState()` for a number and
        `ScaleByScheduleState(count: i32[])` for a schedule.

    Example:
        >>> jopt.scale_by_learning_rate(0.1).update(jnp.ones(2), jopt.EmptyState())[0]
        Array([-0.1, -0.1], dtype=float32)
    """
    sign = -1 if flip_sign else 1
    if learning_rate is None:
        return scale(sign)
    if callable(learning_rate):

        def rate(count):
            value = learning_rate(count)
            return sign * scalar("scale_by_learning_rate", "learning_rate", value)

        return scale_by_schedule(rate)
    return scale(sign * learning_rate)


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
    learning_rate: ScalarOrSchedule,
    weight_decay: float | Schedule | None = None,
    mask: MaskOrFn = None,
) -> GradientTransformationExtraArgs:
    """How optimizers end: a direction, decoupled weight decay, the learning rate.

        p <- p - learning_rate (direction(g) + weight_decay p)

    Args:
        direction: the transformation that makes the direction of ascent.
        learning_rate: a number, or a schedule of the steps taken so far.
        weight_decay: decoupled decay (times the learning rate); no such part if `None`.
        mask: which leaves decay: a tree of booleans or a function that makes one; all
            if `None`.

    Returns:
        The chain of the two or three.

    Example:
        >>> tx = jopt.descend(jopt.scale_by_lion(), 1e-4, weight_decay=1e-3)

    Reference:
        Loshchilov & Hutter, Decoupled Weight Decay Regularization, ICLR 2019,
        arXiv:1711.05101.
    """
    decay = [] if weight_decay is None else [add_decayed_weights(weight_decay, mask)]
    return chain(direction, *decay, scale_by_learning_rate(learning_rate))

"""Weight decay."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from ..base import (
    EmptyState,
    GradientTransformationExtraArgs,
    MaskOrFn,
    PerLeaf,
    WeightDecay,
)
from ..engine import per_leaf, transformation
from ..settings import (
    PLAIN_DECAY,
    Range,
    check_numbers,
    is_scheduled,
    product,
    rules_as_tree,
)
from ..tree import select, values_of
from .combine import masked

__all__ = [
    "AddDecayedWeightsState",
    "WeightDecaySchedule",
    "add_decayed_weights",
    "independent",
    "l2",
]

AddDecayedWeightsState = EmptyState


class WeightDecaySchedule(NamedTuple):
    """How many steps were taken."""

    count: jax.Array


@transformation(weight_decay=Range(per_leaf=True))
def add_decayed_weights(
    weight_decay: PerLeaf = 0.0, mask: MaskOrFn = None
) -> GradientTransformationExtraArgs:
    """Adds a multiple of the parameters to the updates.

        u = g + weight_decay p

    After a direction and before the learning rate this is decoupled decay; before a
    direction it is an L2 penalty.

    Args:
        weight_decay: the multiple, or a schedule of it over the steps taken so far; or
            several, as `descend` takes them: 0 for leaves that no pattern chooses.
        mask: which leaves decay: a tree of booleans or a function that makes one; all
            if `None`.

    Returns:
        A transformation whose state is `EmptyState()`, or
        `WeightDecaySchedule(count: i32[])` with a schedule; in a `MaskedState` with a
        mask. It needs the parameters.

    Raises:
        ValueError: a pattern chooses no leaf.
        TypeError: `weight_decay` holds something that is no number or schedule.

    Example:
        >>> tx = jopt.add_decayed_weights(0.1)
        >>> tx.update(jnp.zeros(2), tx.init(jnp.ones(2)), jnp.ones(2))[0]
        Array([0.1, 0.1], dtype=float32)

    Reference:
        Loshchilov & Hutter, Decoupled Weight Decay Regularization, ICLR 2019,
        arXiv:1711.05101.
    """
    return decayed(1, mask, weight_decay=weight_decay)


def decayed(
    factor: float, mask: MaskOrFn, **settings: Any
) -> GradientTransformationExtraArgs:
    """Adds a multiple of the parameters: the factor times all of the settings."""
    state = WeightDecaySchedule if is_scheduled(settings) else EmptyState
    numbers = product("add_decayed_weights", factor, **settings)
    tx = per_leaf(state, lambda p: {}, _plus_decay, **numbers, needs_params=True)
    return tx if mask is None else masked(tx, mask)


def _plus_decay(g, s, p, weight_decay):
    return g + weight_decay * p, s


_plus_decay.__qualname__ = "add_decayed_weights"


def proximal_decay(mask: MaskOrFn, **settings: Any) -> GradientTransformationExtraArgs:
    """Decay of the parameters after the step `u`: `p <- (p + u) / (1 + k)`.

    `k` is the product of the settings. It comes last, for it takes whole steps.
    """
    state = WeightDecaySchedule if is_scheduled(settings) else EmptyState
    numbers = product("add_decayed_weights", 1, **settings)
    tx = per_leaf(state, lambda p: {}, _proximal, **numbers, needs_params=True)
    return tx if mask is None else masked(tx, mask)


def _proximal(g, s, p, decay):
    return (g - decay * p) / (1 + decay), s


_proximal.__qualname__ = "add_decayed_weights"


# -------------------------------------------------------------------------- its kinds


def l2(weight_decay: PerLeaf) -> WeightDecay:
    """Weight decay as an L2 penalty: it is added to the gradient.

        g <- g + weight_decay p        before the direction is made of it

    So the moments of the method see it, and an adaptive method scales it as it does the
    gradient. The penalty is `weight_decay |p|^2 / 2`.

    Args:
        weight_decay: not negative, as `descend` takes it.

    Returns:
        What optimizers take as `weight_decay`.

    Raises:
        ValueError: a number is negative or not finite.
        TypeError: there is something that is no number or schedule.

    Example:
        >>> jopt.adam(1e-3, weight_decay=jopt.l2(1e-4))
        adam(0.001, weight_decay=l2(0.0001))
    """
    return _of_kind("l2", weight_decay)


def independent(weight_decay: PerLeaf) -> WeightDecay:
    """Weight decay that does not depend on the learning rate.

        p <- p - u - weight_decay p        with u the step of the method

    The learning rate can be tuned without it. The paper's decay follows the schedule of
    the learning rate, not its size: give a schedule to have that.

    Args:
        weight_decay: not negative, as `descend` takes it.

    Returns:
        What optimizers take as `weight_decay`.

    Raises:
        ValueError: a number is negative or not finite.
        TypeError: there is something that is no number or schedule.

    Example:
        >>> tx = jopt.adamw(1e-3, weight_decay=jopt.independent(1e-5))

    Reference:
        Loshchilov & Hutter, Decoupled Weight Decay Regularization, ICLR 2019,
        arXiv:1711.05101.
    """
    return _of_kind("independent", weight_decay)


def _of_kind(kind: str, weight_decay: Any) -> WeightDecay:
    weight_decay = rules_as_tree("weight_decay", weight_decay)
    check_numbers(kind, "weight_decay", weight_decay, PLAIN_DECAY)
    return WeightDecay(weight_decay, kind)


def which_decay(mask: MaskOrFn) -> Callable[[Any], Any]:
    """What `per_leaf` takes as `hint`: whether each leaf decays."""

    def hint(params):
        shown = select(params, True if mask is None else mask, name="mask")
        decays = map(bool, values_of(shown, params, name="mask"))
        return jax.tree.structure(params).unflatten(decays)

    return hint


def decay_parts(
    weight_decay: Any, mask: MaskOrFn, **of_step: Any
) -> tuple[list, list, list]:
    """The decay of each kind: parts before the direction, beside it and at the end.

    Beside a direction it is times the learning rate that follows. Where none follows,
    decoupled decay comes last, times the settings `of_step`.
    """
    if weight_decay is None:
        return [], [], []
    if not isinstance(weight_decay, WeightDecay):
        if not of_step:
            return [], [add_decayed_weights(weight_decay, mask)], []
        return [], [], [decayed(-1, mask, **of_step, weight_decay=weight_decay)]
    if weight_decay.kind == "l2":
        return [add_decayed_weights(weight_decay.value, mask)], [], []
    return [], [], [decayed(-1, mask, weight_decay=weight_decay.value)]

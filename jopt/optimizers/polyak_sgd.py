"""SGD with Polyak's step: how far the loss has to fall, over the squared gradient."""

from typing import Any

import jax
import jax.numpy as jnp

from .. import tree
from ..base import (
    EmptyState,
    GradientTransformationExtraArgs,
    MaskOrFn,
    PerLeaf,
    WeightDecay,
)
from ..engine import from_plan, transformation
from ..engine.stages import in_sequence, plan_of
from ..engine.whole import per_tree
from ..parts.combine import as_tuple
from ..settings import FINITE, POSITIVE, RATE
from ..words import spell
from .sgd import sgd

__all__ = ["polyak_sgd", "scale_by_polyak"]

VARIANTS = ("sps", "sps+")


@transformation(f_min=FINITE, max_learning_rate=POSITIVE)
def scale_by_polyak(
    f_min: float = 0.0,
    max_learning_rate: float = 1.0,
    eps: float = 0.0,
    variant: str = "sps",
) -> GradientTransformationExtraArgs:
    """Multiplies the gradients by Polyak's step.

        u = min((value - f_min) / (|g|^2 + eps), max_learning_rate) g

    with the norm over the whole tree. Zero gradients stay zero.

    Args:
        f_min: the least loss, or a lower bound of it.
        max_learning_rate: the longest step, positive.
        eps: added to the squared norm, not negative.
        variant: `"sps"`, or `"sps+"` for no step where the loss is below `f_min`; the
            other climbs there.

    Returns:
        A transformation whose state is `EmptyState()`. Its update takes the loss:
        `update(grads, state, params, value=loss)`.

    Raises:
        ValueError: a number is outside its range, `variant` is another, or `value` is
            missing.

    Example:
        >>> tx = jopt.scale_by_polyak()
        >>> g = jnp.array([3.0, 4.0])
        >>> tx.update(g, tx.init(g), value=jnp.array(5.0))[0]
        Array([0.6, 0.8], dtype=float32)

    Reference:
        Loizou et al., Stochastic Polyak Step-size for SGD: An Adaptive Learning Rate
        for Fast Convergence, AISTATS 2021, arXiv:2002.10542.
    """
    if variant not in VARIANTS:
        raise ValueError(
            f"scale_by_polyak: variant must be one of {VARIANTS}, got {variant!r}"
        )

    def reduce(gs, s, ps, *, value=None, **extra_args):
        size = tree.norm(gs)
        gap = loss_value("scale_by_polyak", value, size) - f_min
        gap = jnp.maximum(gap, 0) if variant == "sps+" else gap
        return jnp.minimum(over_square(gap, size, eps), max_learning_rate), {}

    def scale_by_polyak(g, s, p, step):
        return step * g, s

    return per_tree(EmptyState, lambda p: {}, scale_by_polyak, reduce=reduce)


@transformation(f_min=FINITE, max_learning_rate=POSITIVE, scaling=RATE)
def polyak_sgd(
    max_learning_rate: float = 1.0,
    scaling: PerLeaf = 1.0,
    f_min: float = 0.0,
    eps: float = 0.0,
    variant: str = "sps",
    *,
    weight_decay: PerLeaf | None = None,
    mask: MaskOrFn = None,
) -> GradientTransformationExtraArgs:
    """SGD with Polyak's step: how far the loss has to fall, over the squared gradient.

        p <- p - scaling min((value - f_min) / (|g|^2 + eps), max_learning_rate) g

    with the norm over the whole tree.

    Args:
        max_learning_rate: the longest step before `scaling`, positive.
        scaling: factor of the step: a number, or a schedule of the steps taken so far;
            or several, as `descend` takes its learning rate.
        f_min: the least loss, or a lower bound of it: 0 for a model that can fit its
            data. Too high a value stops short of the minimum, too low a one diverges.
        eps: added to the squared norm, not negative.
        variant: `"sps"`, or `"sps+"` for no step where the loss is below `f_min`; the
            other climbs there.
        weight_decay, mask: as `descend` takes them, but not `l2`: decay times
            `scaling`, which the step knows nothing of. No decay if `None`.

    Returns:
        A transformation whose state is `((EmptyState, EmptyState), EmptyState)`; the
        second is `ScaleByScheduleState` with a schedule. Its update takes the loss:
        `update(grads, state, params, value=loss)`.

    Raises:
        ValueError: a number is outside its range, `variant` is another, or `value` is
            missing.

    Example:
        >>> tx = jopt.polyak_sgd()
        >>> p = jnp.array([1.0, 2.0])
        >>> loss, g = jax.value_and_grad(lambda p: jnp.sum(p**2))(p)
        >>> u, state = tx.update(g, tx.init(p), p, value=loss)
        >>> jopt.apply_updates(p, u)
        Array([0.5, 1. ], dtype=float32)

    Reference:
        Loizou et al., Stochastic Polyak Step-size for SGD: An Adaptive Learning Rate
        for Fast Convergence, AISTATS 2021, arXiv:2002.10542. Garrigos, Gower &
        Schaipp, Function Value Learning, 2023, arXiv:2307.14528, for `"sps+"`.
    """
    step = scale_by_polyak(f_min, max_learning_rate, eps, variant)
    if isinstance(weight_decay, WeightDecay) and weight_decay.kind == "l2":
        raise TypeError(
            "polyak_sgd: weight_decay must not be l2: the step is found from the loss, "
            "so add the penalty to the loss"
        )
    last = sgd(scaling, weight_decay=weight_decay, mask=mask)
    # The step is that of the gradient itself, so it comes first; in the state, last.
    return from_plan(
        in_sequence(
            [plan_of(step), plan_of(last)],
            wrap=lambda parts: tuple(reversed(parts)),
            unwrap=lambda state: as_tuple(state)[::-1],
        )
    )


def loss_value(where: str, value: Any, like: jax.Array) -> jax.Array:
    """The loss that the caller gave, one number in the dtype of `like`."""
    if value is None:
        raise ValueError(
            f"{where}: value is missing; call update(grads, state, params, value=loss)"
        )
    value = jnp.asarray(value)
    if value.shape != () or jnp.iscomplexobj(value):
        raise ValueError(
            f"{where}: value must be one real number, the loss, got {spell(value)}"
        )
    return value.astype(like.dtype)


def over_square(x: jax.Array, size: jax.Array, eps: Any = 0.0) -> jax.Array:
    """`x / (size^2 + eps)`; zero where the square would underflow."""
    some = size > float(jnp.finfo(size.dtype).tiny) ** 0.5
    return jnp.where(some, x / (jnp.where(some, size, 1) ** 2 + eps), 0)

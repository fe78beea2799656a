"""A smaller step when a metric stops improving."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..base import EmptyState, GradientTransformationExtraArgs
from ..engine import transformation, whole_tree
from ..numerics import safe_increment
from ..settings import COUNT, FRACTION, NOT_NEGATIVE, Range, scalar
from .scale import scale as scale_by

__all__ = ["ReduceLROnPlateauState", "reduce_on_plateau"]


class ReduceLROnPlateauState(NamedTuple):
    """The factor, the best metric, and what is counted until the next judgement."""

    scale: jax.Array
    best_value: jax.Array
    plateau_count: jax.Array
    cooldown_count: jax.Array
    count: jax.Array
    avg_value: jax.Array

    measured = ("scale",)  # what `metrics` shows


@transformation(
    factor=Range(0, 1, open_low=True, open_high=True),
    patience=NOT_NEGATIVE,
    rtol=FRACTION,
    atol=NOT_NEGATIVE,
    cooldown=NOT_NEGATIVE,
    accumulation_size=COUNT,
)
def reduce_on_plateau(
    factor: float = 0.1,
    patience: int | jax.Array = 10,
    rtol: float = 1e-4,
    atol: float = 0.0,
    cooldown: int | jax.Array = 0,
    accumulation_size: int | jax.Array = 1,
    min_scale: float = 0.0,
    *,
    mode: str = "min",
) -> GradientTransformationExtraArgs:
    """Scales the updates down when a metric stops improving.

        u      = scale g
        scale <- max(factor scale, min_scale)

    the latter after `patience` values in a row that were not better than

        best - (rtol |best| + atol),  or best + (rtol |best| + atol) in mode `"max"`

    The margin has the size of the best value, whatever its sign, and NaN is never
    better. The factor of this step is in `state.scale`.

    Args:
        factor: what to reduce by, in (0, 1).
        patience: how many values in a row are borne, not negative; 0 is as 1.
        rtol: the relative margin, in [0, 1].
        atol: the absolute margin, not negative.
        cooldown: for how many values after a reduction none is held against it, not
            negative.
        accumulation_size: how many values are averaged to one, at least 1: 1 for a
            validation metric at each step, more for the loss of a batch.
        min_scale: the smallest scale, not negative.
        mode: `"min"` for a metric to be small, as a loss; `"max"` for one to be large,
            as an accuracy.

    Returns:
        A transformation whose state is `ReduceLROnPlateauState(scale: f32[],
        best_value: f32[], plateau_count: i32[], cooldown_count: i32[], count: i32[],
        avg_value: f32[])`. The update needs the metric: `update(grads, state, params,
        value=metric)`.

    Raises:
        ValueError: a number is outside its range, `mode` is another word, or `value` is
            missing or no scalar.

    Example:
        >>> tx = jopt.chain(
        ...     jopt.adam(1e-3), jopt.reduce_on_plateau(patience=2, mode="max"))
        >>> p = jnp.zeros(2)
        >>> u, state = tx.update(jnp.ones(2), tx.init(p), p, value=0.5)
        >>> state[-1].scale
        Array(1., dtype=float32)
    """
    if mode not in ("min", "max"):
        raise ValueError(
            f'reduce_on_plateau: mode must be "min" or "max", got {mode!r}'
        )
    sign = 1 if mode == "min" else -1

    def init(params):
        dtype = jnp.result_type(float)
        return ReduceLROnPlateauState(
            scale=jnp.ones((), dtype),
            best_value=jnp.full((), sign * math.inf, dtype),
            plateau_count=jnp.zeros((), jnp.int32),
            cooldown_count=jnp.zeros((), jnp.int32),
            count=jnp.zeros((), jnp.int32),
            avg_value=jnp.zeros((), dtype),
        )

    def update(updates, state, params=None, *, value=None, **extra_args):
        if value is None:
            raise ValueError(
                "reduce_on_plateau: value is missing; "
                "call update(grads, state, params, value=metric)"
            )
        value = scalar("reduce_on_plateau", "value", value, returned=False)
        value = value.astype(state.avg_value.dtype)
        count = safe_increment(state.count)
        mean = state.avg_value + (value - state.avg_value) / count.astype(value.dtype)
        collected = state._replace(count=count, avg_value=mean)
        enough = count >= jnp.asarray(accumulation_size, count.dtype)
        judged = judge(mean, state)
        state = type(state)(
            *(
                jnp.where(enough, x.astype(y.dtype), y)
                for x, y in zip(judged, collected)
            )
        )
        updates, _ = scale_by(state.scale).update(updates, EmptyState(), params)
        return updates, state

    def judge(value, state):
        best = state.best_value
        margin = jnp.where(jnp.isfinite(best), rtol * jnp.abs(best), 0) + atol
        better = sign * value < sign * best - margin
        stale = jnp.where(better, 0, safe_increment(state.plateau_count))
        cooling = state.cooldown_count > 0
        reduce = ~(better | cooling) & (stale >= jnp.asarray(patience, stale.dtype))
        smaller = jnp.maximum(state.scale * factor, min_scale)
        return state._replace(
            scale=jnp.where(reduce, smaller, state.scale),
            best_value=jnp.where(better, value, best),
            plateau_count=jnp.where(cooling | reduce, 0, stale),
            cooldown_count=jnp.where(
                reduce,
                jnp.asarray(cooldown, stale.dtype),
                jnp.maximum(state.cooldown_count - 1, 0),
            ),
            count=jnp.zeros_like(state.count),
            avg_value=jnp.zeros_like(state.avg_value),
        )

    return whole_tree(init, update)

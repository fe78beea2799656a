"""Steps left out while gradients are infinite or not a number."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..base import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    OptState,
)
from ..engine import transformation, wrap
from ..numerics import safe_increment
from ..parts.combine import check_transformation
from ..settings import check_integer
from .branch import all_finite, check_state, step_if

__all__ = ["ApplyIfFiniteState", "apply_if_finite"]


class ApplyIfFiniteState(NamedTuple):
    """How many steps were left out in a row and in all, and the inner state."""

    notfinite_count: jax.Array
    last_finite: jax.Array
    total_notfinite: jax.Array
    inner_state: OptState

    measured = ("notfinite_count", "total_notfinite")  # what `metrics` shows


@transformation
def apply_if_finite(
    inner: GradientTransformation, max_consecutive_errors: int
) -> GradientTransformationExtraArgs:
    """Leaves a step out, whole, if a gradient is infinite or not a number.

        u, s = inner(g, s)    if all of g is finite, or too many in a row were not
        u, s = 0, s           otherwise

    A step left out does not touch the inner state: its moments and counts keep their
    bits. To never let such a gradient through, give a bound beyond the run's length.

    Args:
        inner: the transformation to guard.
        max_consecutive_errors: how many steps in a row are left out; the next one is
            taken whatever its gradients, so that trouble shows. At least 0.

    Returns:
        A transformation whose state is `ApplyIfFiniteState(notfinite_count: i32[],
        last_finite: bool[], total_notfinite: i32[], inner_state)`; the first counts
        those left out in a row, the third all. Memory: what `inner` needs.

    Raises:
        TypeError: `inner` is no transformation, or `max_consecutive_errors` no integer.
        ValueError: `max_consecutive_errors` is negative.

    Example:
        >>> tx = jopt.apply_if_finite(jopt.adam(1e-3), max_consecutive_errors=5)
        >>> updates, state = tx.update(jnp.array(jnp.nan), tx.init(jnp.array(1.0)))
        >>> updates, state.notfinite_count
        (Array(0., dtype=float32), Array(1, dtype=int32))
    """
    check_transformation("apply_if_finite", "inner", inner)
    check_integer(
        "apply_if_finite", "max_consecutive_errors", max_consecutive_errors, 0
    )

    def build(inner):
        def init(params):
            return ApplyIfFiniteState(
                notfinite_count=jnp.zeros((), jnp.int32),
                last_finite=jnp.ones((), bool),
                total_notfinite=jnp.zeros((), jnp.int32),
                inner_state=inner.init(params),
            )

        def update(updates, state, params=None, **extra_args):
            check_state("apply_if_finite", state, ApplyIfFiniteState)
            finite = all_finite(updates)
            in_a_row = jnp.where(finite, 0, safe_increment(state.notfinite_count))
            updates, inner_state = step_if(
                finite | (in_a_row > max_consecutive_errors),
                inner,
                updates,
                state.inner_state,
                params,
                extra_args,
            )
            total = state.total_notfinite
            return updates, state._replace(
                notfinite_count=in_a_row,
                last_finite=finite,
                total_notfinite=jnp.where(finite, total, safe_increment(total)),
                inner_state=inner_state,
            )

        return init, update

    return wrap(build, inner_state=inner)

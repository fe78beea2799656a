"""The norms of gradients, updates and parameters, kept at every step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .. import tree
from ..base import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    OptState,
)
from ..engine import keep_types, transformation, wrap
from ..parts.clip import clip_by_global_norm, clip_factors
from ..parts.combine import check_transformation
from ..plan import node_of, stages
from .branch import check_state, inexact_leaves

__all__ = ["MetricsState", "with_metrics"]


class MetricsState(NamedTuple):
    """What the last step measured, by its name, and the inner state."""

    metrics: dict[str, jax.Array]
    inner_state: OptState

    measured = ("metrics",)  # what `metrics` shows


@transformation
def with_metrics(
    inner: GradientTransformation, *, axis_name: str | tuple[str, ...] | None = None
) -> GradientTransformationExtraArgs:
    """Leaves a transformation as it is, and keeps what there is to log of every step.

        gradient_norm   |g|         of the gradients as they come
        update_norm     |u|         of the updates as they leave
        update_ratio    |u| / |p|   which is the ratio of their root mean squares too
        clip_factor                 of the gradients, if `inner` begins with
                                    `clip_by_global_norm`: 1 if it does not clip

    `metrics(state)` finds them. Put it outermost, so that it sees the gradients before
    any other part and the updates after it. The gradients' norm is computed once for
    this and for clipping.

    Args:
        inner: the transformation.
        axis_name: within `shard_map`, the mesh axes along which every leaf is split.

    Returns:
        A transformation whose state is `MetricsState(metrics, inner_state)`, the first
        a dict of scalars, `f32[]` (`f64[]` if a leaf has 64 bits); zero before the
        first step. The ratio is NaN where the update is not given the parameters,
        and infinite where these are all 0.

    Raises:
        TypeError: `inner` is no transformation.

    Example:
        >>> tx = jopt.with_metrics(jopt.sgd(0.1))
        >>> p = jnp.array([3.0, 4.0])
        >>> _, state = tx.update(p, tx.init(p), p)
        >>> state.metrics["gradient_norm"]
        Array(5., dtype=float32)
    """
    check_transformation("with_metrics", "inner", inner)
    factor_of = _clip_factor(inner)

    def build(inner):
        def norm(leaves):
            return tree.norm(leaves, axis_name=axis_name)

        def measured(gradients, updates, params):
            gs, us, ps = map(inexact_leaves, (gradients, updates, params))
            update_norm = norm(us)
            found = dict(gradient_norm=norm(gs), update_norm=update_norm)
            missing = jnp.full_like(update_norm, jnp.nan)
            found["update_ratio"] = _ratio(update_norm, norm(ps)) if ps else missing
            return (
                found if factor_of is None else found | dict(clip_factor=factor_of(gs))
            )

        def init(params):
            like = jax.eval_shape(lambda: measured(params, params, params))
            zeros = {name: jnp.zeros(x.shape, x.dtype) for name, x in like.items()}
            return MetricsState(zeros, inner.init(params))

        def update(updates, state, params=None, **extra_args):
            check_state("with_metrics", state, MetricsState)
            new, inner_state = inner.update(
                updates, state.inner_state, params, **extra_args
            )
            found = keep_types(measured(updates, new, params), state.metrics)
            return new, MetricsState(found, inner_state)

        return init, update

    return wrap(build, leaf_by_leaf=True, inner_state=inner)


def _ratio(size: jax.Array, of: jax.Array) -> jax.Array:
    return jnp.where(of == 0, jnp.inf, size / jnp.where(of == 0, 1, of))


def _clip_factor(tx: GradientTransformation) -> Any:
    """A function of the gradients, if the first thing done is to clip all of them."""
    first: Any = next(stages(node_of(tx)), None)
    call = first and first.call
    if not call or call.factory is not clip_by_global_norm or first.masks:
        return None

    def factor(gs):  # two, since their product may be out of range
        scale, shrink = clip_factors(gs, **call.arguments)
        return scale * shrink

    return factor

"""Steps that a function of the step number may leave out."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

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
from ..settings import called
from .branch import check_state, step_if

__all__ = [
    "ConditionFn",
    "ConditionallyMaskState",
    "ConditionallyTransformState",
    "conditionally_mask",
    "conditionally_transform",
]


class ConditionFn(Protocol):
    """Whether to take a step: `condition(step, **extra_args) -> bool[]`."""

    def __call__(self, step: jax.Array, **extra_args: Any) -> jax.Array: ...


class ConditionallyTransformState(NamedTuple):
    """The inner state and how many steps went by, taken or not."""

    inner_state: OptState
    step: jax.Array


class ConditionallyMaskState(NamedTuple):
    """How many steps went by, taken or not, and the inner state."""

    step: jax.Array
    inner_state: OptState


@transformation
def conditionally_transform(
    inner: GradientTransformation,
    should_transform_fn: Callable[..., jax.Array],
    forward_extra_args: bool = False,
) -> GradientTransformationExtraArgs:
    """Applies a transformation at some steps; passes the updates on at the others.

        u, s = inner(g, s)    if should_transform_fn(step)
        u, s = g, s           otherwise

    Args:
        inner: the transformation.
        should_transform_fn: from the number of steps before this one (`i32[]`) to
            whether to apply `inner`, `bool[]`.
        forward_extra_args: whether `should_transform_fn` is given the update's further
            keyword arguments too.

    Returns:
        A transformation whose state is `ConditionallyTransformState(inner_state,
        step: i32[])`. Memory: what `inner` needs.

    Raises:
        TypeError: `inner` is no transformation or `should_transform_fn` no function.
        ValueError: `should_transform_fn` returned something else than one boolean.

    Example:
        >>> tx = jopt.conditionally_transform(jopt.scale(-1.0), lambda step: step > 0)
        >>> u, state = tx.update(jnp.array(1.0), tx.init(jnp.array(1.0)))
        >>> u, tx.update(jnp.array(1.0), state)[0]
        (Array(1., dtype=float32), Array(-1., dtype=float32))
    """
    return _conditionally(
        "conditionally_transform",
        ConditionallyTransformState,
        inner,
        should_transform_fn,
        forward_extra_args,
        otherwise=lambda updates: updates,
    )


@transformation
def conditionally_mask(
    inner: GradientTransformation,
    should_transform_fn: Callable[..., jax.Array],
    forward_extra_args: bool = False,
) -> GradientTransformationExtraArgs:
    """Applies a transformation at some steps; makes the updates zero at the others.

        u, s = inner(g, s)    if should_transform_fn(step)
        u, s = 0, s           otherwise

    Args:
        inner, should_transform_fn, forward_extra_args: as `conditionally_transform`
            takes them.

    Returns:
        A transformation whose state is `ConditionallyMaskState(step: i32[],
        inner_state)`. Memory: what `inner` needs.

    Raises:
        TypeError, ValueError: as `conditionally_transform`.

    Example:
        >>> tx = jopt.conditionally_mask(jopt.sgd(1.0), lambda step: step % 2 == 1)
    """
    return _conditionally(
        "conditionally_mask",
        ConditionallyMaskState,
        inner,
        should_transform_fn,
        forward_extra_args,
        otherwise=None,
    )


def _conditionally(
    name: str,
    state_class: Any,
    inner: GradientTransformation,
    should_transform_fn: Callable[..., jax.Array],
    forward_extra_args: bool,
    otherwise: Callable[[Any], Any] | None,
) -> GradientTransformationExtraArgs:
    check_transformation(name, "inner", inner)
    if not callable(should_transform_fn):
        raise TypeError(
            f"{name}: should_transform_fn must be a function of the step, "
            f"got {should_transform_fn!r}"
        )

    def build(inner):
        def init(params):
            return state_class(
                step=jnp.zeros((), jnp.int32), inner_state=inner.init(params)
            )

        def update(updates, state, params=None, **extra_args):
            check_state(name, state, state_class)
            forwarded = extra_args if forward_extra_args else {}
            test, at = should_transform_fn, state.step
            condition = jnp.asarray(
                called(name, "should_transform_fn", test, at, **forwarded)
            )
            if condition.shape != () or condition.dtype != bool:
                raise ValueError(
                    f"{name}: should_transform_fn must return one boolean, got "
                    f"{condition.dtype}{list(condition.shape)}"
                )
            updates, inner_state = step_if(
                condition,
                inner,
                updates,
                state.inner_state,
                params,
                extra_args,
                otherwise,
            )
            step = safe_increment(state.step)
            return updates, state._replace(step=step, inner_state=inner_state)

        return init, update

    takes = None if forward_extra_args else ()
    return wrap(build, takes=takes, count="step", inner_state=inner)

"""Lookahead: slow weights that follow the fast ones every few steps."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ..base import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    OptState,
    Params,
    with_extra_args_support,
)
from ..engine import transformation
from ..engine.leaves import Leaves
from ..engine.types import in_types_of
from ..numerics import cast, compute_dtype
from ..parts.combine import check_transformation
from ..settings import COUNT, FRACTION, check_integer
from .gate import check_state, choose, zeros

__all__ = ["LookaheadParams", "LookaheadState", "lookahead"]


class LookaheadParams(NamedTuple):
    """Two copies of the parameters: gradients belong to `fast`, `slow` is the result.

    Example:
        >>> params = jopt.LookaheadParams.init_synced(jnp.zeros(2))
        >>> params.slow
        Array([0., 0.], dtype=float32)
    """

    fast: Params
    slow: Params

    @classmethod
    def init_synced(cls, params: Params) -> "LookaheadParams":
        """Both copies equal, in buffers of their own, so that both can be donated."""

        def copy(x):
            return jnp.array(x, copy=True) if isinstance(x, jax.Array) else x

        return cls(fast=params, slow=jax.tree.map(copy, params))


class LookaheadState(NamedTuple):
    """The state of the fast optimizer, and its steps since both copies were equal."""

    fast_state: OptState
    steps_since_sync: jax.Array


@transformation(sync_period=COUNT, slow_step_size=FRACTION)
def lookahead(
    fast_optimizer: GradientTransformation,
    sync_period: int | jax.Array,
    slow_step_size: ArrayLike,
    reset_state: bool = False,
) -> GradientTransformationExtraArgs:
    """Lookahead: k steps forward, one step back.

        fast <- fast + u                            with u of `fast_optimizer`
        slow <- slow + slow_step_size (fast - slow)  and then
        fast <- slow                                every `sync_period` steps

    Args:
        fast_optimizer: the transformation of the fast parameters.
        sync_period: steps from one synchronization to the next, at least 1.
        slow_step_size: how far the slow parameters go, in [0, 1].
        reset_state: whether the fast optimizer starts anew at each synchronization.

    Returns:
        A transformation of `LookaheadParams`: the gradients are a tree like
        `params.fast`, the updates are `LookaheadParams`, and the state is
        `LookaheadState(fast_state, steps_since_sync: i32[])`. Memory: what
        `fast_optimizer` needs; the slow copy is in the parameters.

    Raises:
        TypeError: `sync_period` is no integer, or the update was given other
            parameters than `LookaheadParams`.
        ValueError: a number is outside its range.

    Example:
        >>> tx = jopt.lookahead(jopt.scale(-1.0), sync_period=5, slow_step_size=0.5)
        >>> params = jopt.LookaheadParams.init_synced(jnp.array(0.0))
        >>> updates, state = tx.update(jnp.array(1.0), tx.init(params), params)
        >>> jopt.apply_updates(params, updates).fast
        Array(-1., dtype=float32)

    Reference:
        Zhang et al., Lookahead Optimizer: k steps forward, 1 step back, NeurIPS 2019,
        arXiv:1907.08610.
    """
    check_transformation("lookahead", "fast_optimizer", fast_optimizer)
    if not isinstance(sync_period, jax.Array):
        check_integer("lookahead", "sync_period", sync_period)
    fast = with_extra_args_support(fast_optimizer)

    def init(params):
        _check_params(params)
        return LookaheadState(
            fast_state=fast.init(params.fast),
            steps_since_sync=jnp.zeros((), jnp.int32),
        )

    def update(updates, state, params: Any = None, **extra_args):
        check_state("lookahead", state, LookaheadState)
        _check_params(params)
        updates, fast_state = fast.update(
            updates, state.fast_state, params.fast, **extra_args
        )
        fast_state = in_types_of(state.fast_state, fast_state)
        steps = state.steps_since_sync + 1

        def go_on():
            moved = params._replace(fast=updates, slow=zeros(updates))
            return moved, state._replace(fast_state=fast_state, steps_since_sync=steps)

        def synchronize():
            after = fast_state
            if reset_state:
                after = in_types_of(fast_state, fast.init(params.fast))
            return _meet(updates, params, slow_step_size), state._replace(
                fast_state=after, steps_since_sync=jnp.zeros_like(steps)
            )

        return choose(steps >= sync_period, go_on, synchronize)

    return GradientTransformationExtraArgs(init, update)


def _meet(updates, params: LookaheadParams, slow_step_size) -> LookaheadParams:
    """The updates after which both copies are where the slow one goes."""
    fast, slow = Leaves(updates, params.fast), Leaves(updates, params.slow)
    for i, live in enumerate(fast.live):
        if not live:
            continue
        u = fast.g[i]
        dtype = compute_dtype(u.dtype, fast.p[i].dtype)
        x, y = cast(fast.p[i], dtype), cast(slow.p[i], dtype)
        rate = jnp.asarray(slow_step_size).astype(dtype)
        step = rate * (x + cast(u, dtype) - y)
        slow.g[i] = cast(step, u.dtype)
        fast.g[i] = cast(y + step - x, u.dtype)
    return params._replace(fast=fast.tree(fast.g), slow=slow.tree(slow.g))


def _check_params(params) -> None:
    if getattr(type(params), "_fields", None) != LookaheadParams._fields:
        raise TypeError(
            "lookahead: params must be LookaheadParams(fast, slow), got "
            f"{type(params).__name__}; make them with "
            "LookaheadParams.init_synced(params)"
        )

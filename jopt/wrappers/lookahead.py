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
)
from ..engine import Leaves, begun_anew, in_types_of, per_leaf, transformation, wrap
from ..numerics import cast, compute_dtype, safe_increment
from ..parts.apply import apply_updates
from ..parts.combine import check_transformation
from ..settings import COUNT, FRACTION, check_integer
from ..tree.states import stands_for_both
from .branch import check_state, choose, zeros

__all__ = ["LookaheadParams", "LookaheadPlainState", "LookaheadState", "lookahead"]


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


class LookaheadPlainState(NamedTuple):
    """The same for plain parameters, which are the fast ones, and the slow ones."""

    fast_state: OptState
    steps_since_sync: jax.Array
    slow: Params


class _Slow(NamedTuple):
    slow: Params


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
        A transformation as any other, of the fast parameters. Its state is
        `LookaheadPlainState(fast_state, steps_since_sync: i32[], slow)`, `slow` in the
        shapes of the parameters (memory: one copy more than `fast_optimizer`), which
        `eval_params` finds. The update needs the parameters.

        Given `LookaheadParams` in `init` and `update` it is optax's: the gradients are
        a tree like `params.fast`, the updates are `LookaheadParams`, and the state is
        `LookaheadState(fast_state, steps_since_sync: i32[])`; if `init` was given the
        fast ones alone it is as above.

    Raises:
        TypeError: `sync_period` is no integer.
        ValueError: a number is outside its range, `params` is missing, or `init` was
            given `LookaheadParams` and `update` was not.

    Example:
        >>> tx = jopt.lookahead(jopt.scale(-1.0), sync_period=5, slow_step_size=0.5)
        >>> params = jnp.array(0.0)
        >>> updates, state = tx.update(jnp.array(1.0), tx.init(params), params)
        >>> params = jopt.apply_updates(params, updates)
        >>> float(params), float(jopt.eval_params(state, params))
        (-1.0, 0.0)

    Reference:
        Zhang et al., Lookahead Optimizer: k steps forward, 1 step back, NeurIPS 2019,
        arXiv:1907.08610.
    """
    check_transformation("lookahead", "fast_optimizer", fast_optimizer)
    if not isinstance(sync_period, jax.Array):
        check_integer("lookahead", "sync_period", sync_period)
    slow = _slow(slow_step_size)

    def build(fast):
        def init(params):
            steps = jnp.zeros((), jnp.int32)
            if are_both(params) or stands_for_both(params):
                return LookaheadState(fast.init(params.fast), steps)
            return LookaheadPlainState(fast.init(params), steps, slow.init(params).slow)

        def update(updates, state, params: Any = None, **extra_args):
            if params is None:
                raise ValueError(
                    "lookahead: params is missing; call update(updates, state, params)"
                )
            both = are_both(params)
            keeps = not both or hasattr(state, "slow")
            check_state(
                "lookahead", state, LookaheadPlainState if keeps else LookaheadState
            )
            p = params.fast if both else params
            u, fast_state = fast.update(updates, state.fast_state, p, **extra_args)
            fast_state = in_types_of(state.fast_state, fast_state)
            steps = safe_increment(state.steps_since_sync)

            def go_on():
                moved = params._replace(fast=u, slow=zeros(u)) if both else u
                return moved, state._replace(
                    fast_state=fast_state, steps_since_sync=steps
                )

            def synchronize():
                after = fast_state
                if reset_state:
                    after = begun_anew(fast_state, fast.init(p))
                now = state._replace(
                    fast_state=after, steps_since_sync=jnp.zeros_like(steps)
                )
                if both:
                    return _meet_both(u, params, slow_step_size), now
                moved, kept = slow.update(u, _Slow(state.slow), p)
                return moved, now._replace(slow=kept.slow)

            moved, now = choose(steps >= sync_period, go_on, synchronize)
            if both and keeps:
                kept = slow.init(apply_updates(params.slow, moved.slow))
                now = in_types_of(state, now._replace(slow=kept.slow))
            return moved, now

        return init, update

    return wrap(
        build, began_with=_of_init, leaf_by_leaf=True, fast_state=fast_optimizer
    )


def _meet(u, fast, slow, rate) -> tuple[jax.Array, jax.Array]:
    """The updates after which both copies are where the slow one goes."""
    step = rate * (fast + u - slow)
    return slow + step - fast, step


def _slow(rate) -> GradientTransformationExtraArgs:
    """Turns the fast updates into those that meet the slow parameters it keeps."""

    def init(p):
        return dict(slow=p)

    def lookahead(u, s, p, rate):
        u, step = _meet(u, p, s.slow, rate)
        return u, s._replace(slow=s.slow + step)

    return per_leaf(_Slow, init, lookahead, numbers=rate, needs_params=True)


def _meet_both(updates, params: LookaheadParams, slow_step_size) -> LookaheadParams:
    fast, slow = Leaves(updates, params.fast), Leaves(updates, params.slow)
    for i, live in enumerate(fast.optimized):
        if not live:
            continue
        u = fast.g[i]
        dtype = compute_dtype(u.dtype, fast.p[i].dtype)
        rate = jnp.asarray(slow_step_size).astype(dtype)
        x, y = cast(fast.p[i], dtype), cast(slow.p[i], dtype)
        moves = _meet(cast(u, dtype), x, y, rate)
        fast.g[i], slow.g[i] = (cast(move, u.dtype) for move in moves)
    return params._replace(fast=fast.tree(fast.g), slow=slow.tree(slow.g))


def _of_init(state: Any, params: Any) -> Any:
    """The fast parameters alone, if `init` saw no others."""
    return params.fast if are_both(params) and hasattr(state, "slow") else params


def are_both(params: Any) -> bool:
    """Whether these are `LookaheadParams`, ours or optax's."""
    return getattr(type(params), "_fields", None) == LookaheadParams._fields

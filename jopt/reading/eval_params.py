"""The parameters to evaluate with, whatever averages them."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from ..base import OptState, Params
from ..boxes import boxed_as, has_boxes, unboxed
from ..engine import Leaves, in_types_of, is_class
from ..kinds import is_namedtuple
from ..parts.average import ParamsEmaState
from ..tree.states import walk
from ..wrappers.branch import slots_of
from ..wrappers.lookahead import LookaheadPlainState, LookaheadState, are_both
from ..wrappers.sam import SAMState
from ..wrappers.schedule_free import ScheduleFreeState, average_of

__all__ = ["eval_params"]

# Which field of a state holds an average, or what one is made of.
_SLOTS = {
    ScheduleFreeState: "z",
    ParamsEmaState: "average",
    LookaheadPlainState: "slow",
}


def eval_params(state: OptState, params: Params) -> Params:
    """The parameters to evaluate with: averaged, if the optimizer averages them.

    Args:
        state: the state of the optimizer: of `params_ema`, `schedule_free`,
            `lookahead` or `sam`, or one that holds it, through any wrapper. Several
            may be in it, of the groups of a partition say.
        params: the parameters that are trained; `LookaheadParams` if these are.

    Returns:
        A tree like `params`, in their dtypes: the moving average, the average x of
        schedule-free learning, or lookahead's slow parameters. Where nothing averages
        they are as they are, but for `sam`, where they are those before its ascent.
        State and parameters may stand in boxes of flax's, such as nnx's variables; the
        tree has those of `params`.

    Raises:
        ValueError: two parts average the same parameter, or the state is of others.
        TypeError: the state is of `LookaheadParams` and the parameters are not.

    Example:
        >>> tx = jopt.chain(jopt.sgd(1.0), jopt.params_ema(1.0))
        >>> p = jnp.array(3.0)
        >>> state = tx.init(p)
        >>> for _ in range(2):
        ...     u, state = tx.update(jnp.array(1.0), state, p)
        ...     p = jopt.apply_updates(p, u)
        >>> float(p), float(jopt.eval_params(state, p))
        (1.0, 1.5)
    """
    if has_boxes((state, params)):
        found = eval_params(unboxed(state), unboxed(params))
        return boxed_as(params.slow if are_both(params) else params, found)
    nodes = [node for _, node in walk(state) if is_namedtuple(node)]
    of_pairs: set[type] = {LookaheadState}
    if are_both(params):  # these hold the slow ones, whatever the state began with
        of_pairs.add(LookaheadPlainState)
    both = [x for x in nodes if _kind(x, of_pairs)]
    averages = [x for x in nodes if _kind(x, _SLOTS.keys() - of_pairs)]
    if both:
        return _slow(params, both + averages)
    for node in nodes:
        if is_class(node, SAMState) and node.cache is not None:
            params = _before_ascent(node, params)
    if not averages:
        return params
    leaves = Leaves(params, params)
    owners: dict[int, str] = {}
    for part in averages:
        name = type(part).__name__
        slots = slots_of(getattr(part, _SLOTS[_kind(part, _SLOTS)]), params)
        for i, slot in enumerate(slots):
            if slot is None or not leaves.optimized[i]:
                continue
            if i in owners:
                raise ValueError(
                    f"eval_params: 2 parts of state average params at {leaves.path(i)}:"
                    f" {owners[i]} and {name}; give the state of one of them"
                )
            owners[i] = name
            leaves.g[i] = _average(part, slot, leaves.p[i])
    return leaves.tree(leaves.g)


def _average(part: Any, slot: Any, p: jax.Array) -> jax.Array:
    if is_class(part, ScheduleFreeState):
        return average_of(p, slot, part.b1)
    return in_types_of(p, slot, f"eval_params: the {type(part).__name__}")


def _slow(params: Any, found: list) -> Params:
    if len(found) > 1:
        names = " and ".join(type(x).__name__ for x in found)
        raise ValueError(
            f"eval_params: {len(found)} parts of state average params: {names}; give "
            "the state of one of them"
        )
    if not are_both(params):
        raise TypeError(
            "eval_params: the state is of lookahead, so params must be "
            f"LookaheadParams(fast, slow), got {type(params).__name__}"
        )
    return params.slow


def _before_ascent(state: Any, params: Params) -> Params:
    """The parameters that the ascent began at, which wait in the state meanwhile."""
    leaves = Leaves(params, params)
    for i, start in enumerate(slots_of(state.cache, params)):
        if start is not None and leaves.optimized[i]:
            p: Any = leaves.p[i]
            begun = jnp.asarray(state.steps_since_sync) > 0
            start = in_types_of(p, start, "eval_params: the SAMState")
            leaves.g[i] = jnp.where(begun, start, p)
    return leaves.tree(leaves.g)


def _kind(node: Any, kinds: Iterable[type]) -> Any:
    """Of which of the classes it is, ours or optax's."""
    return next((kind for kind in kinds if is_class(node, kind)), None)

"""The parameters to evaluate with, whatever averages them."""

from typing import Any

import jax

from ..base import OptState, Params
from .lookahead import LookaheadParams, LookaheadState
from .schedule_free import ScheduleFreeState, schedule_free_eval_params

__all__ = ["eval_params"]


def eval_params(state: OptState, params: Params) -> Params:
    """The parameters to evaluate with: averaged, if the optimizer averages them.

    Args:
        state: the state of the optimizer: of `schedule_free` or `lookahead`, say, or
            one that holds it, through any wrapper.
        params: the parameters that are trained; `LookaheadParams` for `lookahead`.

    Returns:
        The average x of schedule-free learning, lookahead's slow parameters, or
        `params` as they are if nothing averages them.

    Raises:
        ValueError: several parts average them.
        TypeError: the state is of `lookahead`, the parameters are no `LookaheadParams`.

    Example:
        >>> p = jnp.ones(2)
        >>> jopt.eval_params(jopt.adam(0.1).init(p), p) is p
        True
    """
    averages = (ScheduleFreeState, LookaheadState)

    def is_average(x: Any) -> bool:
        return getattr(type(x), "_fields", None) in [a._fields for a in averages]

    found = [x for x in _nodes(state) if is_average(x)]
    if len(found) > 1:
        names = ", ".join(type(x).__name__ for x in found)
        raise ValueError(
            f"eval_params: {len(found)} parts of state average the parameters: "
            f"{names}; give the state of one of them"
        )
    if not found:
        return params
    if type(found[0])._fields == ScheduleFreeState._fields:
        return schedule_free_eval_params(state, params)
    if getattr(type(params), "_fields", None) != LookaheadParams._fields:
        raise TypeError(
            "eval_params: the state is of lookahead, so params must be "
            f"LookaheadParams(fast, slow), got {type(params).__name__}"
        )
    return params.slow


def _nodes(state: Any) -> list:
    """Every NamedTuple of a state, the inner ones too."""
    is_node = lambda x: x is not state and hasattr(type(x), "_fields")  # noqa: E731
    nodes = [x for x in jax.tree.leaves(state, is_leaf=is_node) if is_node(x)]
    own = [state] if hasattr(type(state), "_fields") else []
    return own + [inner for node in nodes for inner in _nodes(node)]

"""The state of an optimizer for parameters, where these are."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from ..base import OptState, Params
from ..compat import Tracer, shard_alike
from ..kinds import is_own_object
from ..numerics import compute_dtype
from ..plan import AsMade, Rule, Stage, join
from .leaves import Leaves, hide, resolve, types_of
from .once import precision_of, widened
from .placement import at_home
from .step import Plan

__all__ = []


def init(plan: Plan, params: Params) -> OptState:
    """The state of every stage for these parameters; abstract if they are."""
    leaves = jax.tree.leaves(params)
    if any(isinstance(x, jax.ShapeDtypeStruct) for x in leaves):
        return at_home(types_of(lambda params: _init(plan, params), params), params)
    return at_home(_init(plan, params), params)


def _init(plan: Plan, params: Params) -> OptState:
    states = [_init_stage(stage, params) for stage in plan.stages]
    return join(plan.node, iter(states))


def _init_stage(stage: Stage, params: Params) -> OptState:
    if not jax.tree.leaves(params):  # nothing to hide; see `tree.map_params`
        stage = stage._replace(masks=())
    if isinstance(stage.part, Rule):
        return _init_rule(stage.part, stage.masks, params)
    for mask in stage.masks:
        params = hide(resolve(mask, params), params, mask.name)
    return stage.part.init(params)


def _init_rule(rule: Rule, masks: tuple, params: Params) -> OptState:
    typed = params
    if not rule.needs_params:  # no value is read then, so that the types are enough
        typed = jax.tree.map(_typed, params)
    leaves = Leaves(typed, typed)
    leaves.reference = params
    view = leaves.view(masks)
    ps: list[Any] = [leaves.p[i] for i in view.indices]
    slots = []
    for p in ps:
        slot = rule.slots_of(rule.init(p.astype(compute_dtype(p.dtype))), "init")
        slots.append(jax.tree.map(functools.partial(_own, p, set()), slot))
    trees = {f: view.treedef.unflatten([s[f] for s in slots]) for f in rule.slots}
    counts = {f: jnp.zeros((), jnp.int32) for f in rule.counts}
    return rule.state(**trees, **counts, **_begun(rule, ps))


def _begun(rule: Rule, ps: list) -> dict[str, jax.Array]:
    """The whole fields at their start: truths, or floats as wide as the parameters."""
    if not rule.whole:
        return {}
    dtype = precision_of(ps)
    begun = {}
    for field, start in rule.whole.items():
        if isinstance(start, AsMade):
            begun[field] = start.make()
            continue
        value = start(widened(ps, dtype)) if callable(start) else start
        kind = bool if isinstance(value, bool) else dtype
        begun[field] = jnp.array(value, kind, copy=True)
    return begun


def _typed(p: Any) -> Any:
    """Zeros in place of an object of the program's own that stands for an array."""
    return jnp.zeros(p.shape, p.dtype) if is_own_object(p) else p


def _own(p: jax.Array, seen: set[int], slot: jax.Array) -> jax.Array:
    """The slot in a buffer of its own, sharded as its parameter if it has its shape."""
    if isinstance(p, Tracer):
        if slot.shape == p.shape:
            return shard_alike(p, slot)
        return slot
    if slot is p or id(slot) in seen:  # a donated step needs every buffer once
        return jnp.array(slot, copy=True)
    seen.add(id(slot))
    return slot

"""A step taken or left out as a whole, and what else the wrappers share."""

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ..base import (
    GradientTransformationExtraArgs,
    OptState,
    Params,
    Updates,
)
from ..compat import Tracer
from ..engine import (
    Leaves,
    fixed,
    freed,
    in_types_of,
    keep_types,
    remember,
    strong,
    sums_of,
)
from ..kinds import is_inexact_value, is_leaf, is_masked, is_numeric
from ..numerics import is_traced
from ..tree.matching import beside
from ..tree.reduce_leaves import Reduction, reduce_leaves
from ..words import explain, keystr, spell

__all__ = []


def check_state(where: str, state: Any, state_class: type) -> None:
    """Refuse the state of another transformation."""
    if getattr(type(state), "_fields", None) != state_class._fields:
        raise ValueError(
            f"{where}: expected a {state_class.__name__}, got a "
            f"{type(state).__name__}: was the state made by another transformation?"
        )


def step_if(
    condition: ArrayLike,
    inner: GradientTransformationExtraArgs,
    updates: Updates,
    state: OptState,
    params: Params | None,
    extra_args: dict[str, Any],
    otherwise: Callable[[Updates], Updates] | None = None,
) -> tuple[Updates, OptState]:
    """A step of `inner` if the condition holds; else its state stays, bit for bit.

    The updates are then what `otherwise` makes of the gradients, zeros if `None`.
    """

    def step():
        new, after = inner.update(updates, state, params, **extra_args)
        return as_updates(new, updates), in_types_of(state, after)

    def stay():
        return None if otherwise is None else otherwise(updates), state

    return choose_step(condition, updates, params, stay, step)


def choose_step(
    index: ArrayLike,
    updates: Updates,
    params: Params | None,
    *steps: Callable[[], tuple[Updates | None, OptState]],
) -> tuple[Updates, OptState]:
    """The updates and the state of the step of that number; `None` are no updates.

    Each branch adds its updates to the parameters as well, for `apply_updates` to find:
    where nothing is updated the parameters are not touched, and what a step makes is
    used where it is made. Whatever is not used then, JAX leaves out.
    """
    here = _changed(params, updates) if len(steps) > 1 else []

    def with_sums(step):
        def results():
            u, state = step()
            if u is None:
                return zeros(updates), state, here
            return u, state, sums_of(params, u) if here else []

        return results

    u, state, new = choose(index, *map(with_sums, steps))
    if here:
        for (p, of_leaf), total in zip(Leaves(u, params).pairs(), new):
            remember(p, of_leaf, total)
    return u, state


def _changed(params: Params | None, updates: Updates) -> list[jax.Array]:
    """The parameters that updates change, in a trace, where alone sums are of use."""
    if getattr(jax.config, "jax_disable_jit", False) or not is_traced(params):
        return []
    try:
        return [p for p, _ in Leaves(updates, params).pairs()]
    except (ValueError, TypeError):
        return []  # these are no updates of the parameters


def choose(index: ArrayLike, *branches: Callable[[], Any]) -> Any:
    """The branch of that number (or truth), alone computed; leaves may be no arrays."""

    def arrays_of(branch):
        def arrays():
            tree = fixed(branch(), is_numeric)
            return jax.tree.map(lambda x: strong(jnp.asarray(x)), tree)

        return arrays

    if not isinstance(index, Tracer):  # outside of `jit`, Python is Python
        chosen = branches[np.clip(int(np.asarray(index)), 0, len(branches) - 1)]
        return freed(arrays_of(chosen)())
    index = jnp.asarray(index).astype(jnp.int32)
    return freed(jax.lax.switch(index, [arrays_of(branch) for branch in branches]))


def zeros(updates: Updates) -> Updates:
    """Updates that change nothing."""
    return jax.tree.map(
        lambda g: jnp.zeros_like(g) if is_inexact_value(g) else g, updates
    )


def as_updates(new: Any, updates: Updates) -> Updates:
    """What an inner update returned in the types of what it was given.

    A leaf that it has no state of, and so no update, gets zeros.
    """

    def one(g, u):
        return jnp.zeros_like(g) if u is None and is_inexact_value(g) else u

    if jax.tree.structure(new) != jax.tree.structure(updates):
        with contextlib.suppress(ValueError):  # the next line says how they differ
            new = jax.tree.map(one, updates, new)
    return keep_types(new, updates)


def of_slots(updates: Updates, slots: Any) -> Updates:
    """The gradients of the leaves that have a slot, `None` for the others."""
    gs, treedef = jax.tree.flatten(updates)
    try:
        column, _ = beside(treedef, slots)
    except ValueError:
        return updates  # whoever reads them says how they differ
    left_out = [s is None and is_inexact_value(g) for g, s in zip(gs, column)]
    if all(left_out) or not any(left_out):
        return updates
    return treedef.unflatten([None if x else g for x, g in zip(left_out, gs)])


def slots_of(slot: Any, params: Params) -> list:
    """What a tree in a state has for each leaf of the parameters, `None` if masked."""
    nodes = []
    try:
        jax.tree_util.tree_map_with_path(
            lambda *node: nodes.append(node), slot, params, is_leaf=is_masked
        )
    except (TypeError, ValueError):
        raise ValueError(explain("the state", slot, "params", params)) from None
    slots = []
    for path, x, p in nodes:
        if not is_numeric(x):
            slots += [None] * len(jax.tree.leaves(p))
        elif is_leaf(p) and jnp.shape(x) == jnp.shape(p):
            slots.append(x)
        else:
            raise ValueError(
                f"the state has {spell(x)} where params at {keystr(path)} is "
                f"{spell(p)}: was it made for others, or inside of flatten?"
            )
    return slots


def inexact_leaves(tree: Any) -> list[jax.Array]:
    """The floating and complex leaves."""
    return [jnp.asarray(x) for x in jax.tree.leaves(tree) if is_inexact_value(x)]


def all_finite(tree: Any) -> jax.Array:
    """Whether no element of any leaf is infinite or not a number, `bool[]`."""
    return reduce_leaves(_NOTHING, inexact_leaves(tree), jnp.float32) == 0


def _nothing(x: jax.Array) -> jax.Array:
    """Zeros, and NaN where `x` is not finite: on CPU sums are the fast reduction."""
    return x.real * 0 + x.imag * 0 if jnp.iscomplexobj(x) else x * 0


_NOTHING = Reduction(_nothing, jax.lax.add, jnp.sum)

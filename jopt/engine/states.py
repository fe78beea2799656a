"""Reading a state: is it this method's, made for these parameters?"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..numerics import compute_dtype, safe_increment
from ..tree.matching import beside
from ..words import explain, of_a_pair
from .checks import COUNT, check_leaf, is_class, is_like
from .leaves import Leaves, View
from .stages import LeafStage

__all__ = []


class StateParts(NamedTuple):
    """The state of a stage, taken apart."""

    stage: LeafStage
    state: Any  # as it came: its class may be another library's
    treedefs: dict[str, Any]  # of the fields that have a slot for each leaf
    whole: dict[str, Any]  # fields that are one for the tree, the counts advanced
    slots: dict[int, dict[str, Any]]  # the other fields, by visible leaf
    forms: dict[tuple[int, str], Any]  # structures of slots whose containers are others


def read(stage: Any, state: Any, leaves: Leaves) -> StateParts:
    """The parts of a state, after a look at its method, structure and shapes.

    A stage that keeps nothing asks for nothing. A leaf for which the state has `None`
    takes no part.
    """
    view = leaves.view(stage.masks)
    slots: dict = {i: {} for i in view.indices}
    if not stage.state._fields:
        return StateParts(stage, state, {}, {}, slots, {})
    _check_class(stage, state)
    treedefs = {}
    for f in stage.slots:
        column, treedefs[f] = _column(stage, f, getattr(state, f), view, leaves)
        for i, x in zip(view.indices, column):
            slots[i][f] = x
    live = [i for i in slots if leaves.live[i]] if stage.slots else []
    present = [i for i in live if not is_absent(slots[i])]
    forms = {}
    for i in present or live:  # a state without any slot was made for something else
        _check_slot(stage, slots[i], leaves, i, forms)
    whole = {f: getattr(state, f) for f in (*(stage.shared or ()), *stage.counts)}
    for f, x in whole.items():
        check_leaf(f"{stage.name}: the state's {f!r}", x, _expected_whole(stage, f))
    whole |= {f: _advanced(whole[f]) for f in stage.counts}
    return StateParts(stage, state, treedefs, whole, slots, forms)


def is_absent(slot: dict[str, Any]) -> bool:
    """Whether the state was made where this leaf was left out."""
    return bool(slot) and all(x is None for x in slot.values())


_advanced = jax.jit(safe_increment, inline=True)  # one call to trace, not three


def write(parts: StateParts) -> Any:
    """The state of these parts."""
    if not parts.stage.state._fields:
        return parts.state
    for (i, f), form in parts.forms.items():
        parts.slots[i][f] = form.unflatten(jax.tree.leaves(parts.slots[i][f]))
    trees = {
        f: treedef.unflatten([slot[f] for slot in parts.slots.values()])
        for f, treedef in parts.treedefs.items()
    }
    return type(parts.state)(**trees, **parts.whole)


def _column(
    stage: LeafStage, field: str, tree: Any, view: View, leaves: Leaves
) -> tuple[list, Any]:
    """What a field has for each visible leaf, and its structure above that."""
    try:
        return beside(view.treedef, tree)
    except ValueError:
        pass
    like = leaves.p if leaves.has_params else leaves.g
    message = explain(
        f"the state's {field!r}",
        tree,
        "params" if leaves.has_params else "updates",
        view.treedef.unflatten([like[i] for i in view.indices]),
    )
    updates = leaves.treedef.unflatten(leaves.g)
    hint = of_a_pair(updates, jax.tree.structure(tree))
    raise ValueError(f"{stage.name}: {message}{hint or '; ' + _made_for(stage)}")


def _made_for(stage: LeafStage) -> str:
    question = "was the state made for other parameters"
    if not stage.masks:
        return question + "?"
    return f"{question}, or did the {stage.masks[-1].name} choose other leaves at init?"


def _check_class(stage: LeafStage, state) -> None:
    if not is_class(state, stage.state):
        raise ValueError(
            f"{stage.name}: expected a {stage.state.__name__}, got a "
            f"{type(state).__name__}: was the state made by another transformation?"
        )


def _check_slot(
    stage: LeafStage, slot: dict, leaves: Leaves, i: int, forms: dict
) -> None:
    """Refuse a slot that is not as `init` makes it, but for the containers in it.

    flax's nnx makes mappings of lists. The rule gets the lists, the state its mappings.
    """
    p: Any = leaves.p[i] if leaves.has_params else leaves.g[i]
    expected = _expected(stage.init, p.shape, compute_dtype(p.dtype))
    for field, tree in slot.items():
        want, structure = expected[field]
        got, form = [tree], None
        if not isinstance(tree, jax.Array):
            got, form = jax.tree.flatten(tree)
        # A mapping has a level that the leaf has not, but for a list of the leaf's own.
        mapping = isinstance(tree, Mapping) and jax.tree_util.treedef_is_leaf(structure)
        if len(got) != len(want) or mapping:
            raise ValueError(
                f"{stage.name}: the state's {field!r} at {leaves.path(i)} has "
                f"{len(got)} arrays where {len(want)} are expected: {_made_for(stage)}"
            )
        for x, like in zip(got, want):
            if not is_like(x, like):
                where = f"{stage.name}: the state's {field!r} at {leaves.path(i)}"
                same = like.shape == leaves.g[i].shape
                check_leaf(where, x, like, "the gradient is" if same else "expected")
        if form is not None and form != structure:
            forms[i, field] = form
            slot[field] = structure.unflatten(got)


@functools.lru_cache(maxsize=8192)
def _expected(init, shape, dtype) -> dict[str, tuple[list, Any]]:
    """The types and structures of the slots that `init` makes for such a leaf."""
    slots = jax.eval_shape(init, jax.ShapeDtypeStruct(shape, dtype))
    return {field: jax.tree.flatten(tree) for field, tree in slots.items()}


def _expected_whole(stage: LeafStage, field: str) -> Any:
    if field in stage.counts:
        return COUNT
    return jax.eval_shape(lambda: jnp.asarray((stage.shared or {})[field]()))

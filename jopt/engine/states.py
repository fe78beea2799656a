"""Reading a state: is it this method's, made for these parameters?"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..base import MaskedNode
from ..numerics import compute_dtype, safe_increment
from ..tree.messages import explain
from .checks import COUNT, check_leaf, is_class, is_like
from .leaves import Leaves, View
from .stages import LeafStage

__all__ = []


class StateParts(NamedTuple):
    """The state of a stage, taken apart."""

    stage: LeafStage
    type: type  # the state's own: it may be another library's
    view: View
    whole: dict[str, Any]  # fields that are one for the tree, the counts advanced
    slots: dict[int, dict[str, Any]]  # the other fields, by visible leaf


def read(stage: Any, state: Any, leaves: Leaves) -> StateParts:
    """The parts of a state, after a look at its method, structure and shapes."""
    _check_class(stage, state)
    view = leaves.view(stage.masks)
    columns = {
        f: _column(stage, f, getattr(state, f), view, leaves) for f in stage.slots
    }
    slots = {
        i: {f: column[k] for f, column in columns.items()}
        for k, i in enumerate(view.indices)
    }
    if columns:
        for i, slot in slots.items():
            if leaves.live[i]:
                _check_slot(stage, slot, leaves, i)
    whole = {f: getattr(state, f) for f in (*(stage.shared or ()), *stage.counts)}
    for f, x in whole.items():
        check_leaf(f"{stage.name}: the state's {f!r}", x, _expected_whole(stage, f))
    whole |= {f: _advanced(whole[f]) for f in stage.counts}
    return StateParts(stage, type(state), view, whole, slots)


_advanced = jax.jit(safe_increment, inline=True)  # one call to trace, not three


def write(parts: StateParts) -> Any:
    """The state of these parts."""
    trees = {
        f: parts.view.treedef.unflatten([slot[f] for slot in parts.slots.values()])
        for f in parts.stage.slots
    }
    return parts.type(**trees, **parts.whole)


def _column(
    stage: LeafStage, field: str, tree: Any, view: View, leaves: Leaves
) -> list:
    for candidate in (lambda: tree, lambda: _with_our_masks(tree)):
        try:
            return view.treedef.flatten_up_to(candidate())
        except (ValueError, TypeError):
            continue
    like = leaves.p if leaves.has_params else leaves.g
    message = explain(
        f"the state's {field!r}",
        tree,
        "params" if leaves.has_params else "updates",
        view.treedef.unflatten([like[i] for i in view.indices]),
    )
    raise ValueError(
        f"{stage.name}: {message}; was the state made for other parameters?"
    )


def _with_our_masks(tree: Any) -> Any:
    """The tree with jopt's `MaskedNode` for another library's."""

    def is_mask(x):
        return type(x).__name__ == "MaskedNode"

    return jax.tree.map(
        lambda x: MaskedNode() if is_mask(x) else x, tree, is_leaf=is_mask
    )


def _check_class(stage: LeafStage, state) -> None:
    if not is_class(state, stage.state):
        raise ValueError(
            f"{stage.name}: expected a {stage.state.__name__}, got a "
            f"{type(state).__name__}: was the state made by another transformation?"
        )


def _check_slot(stage: LeafStage, slot: dict, leaves: Leaves, i: int) -> None:
    p: Any = leaves.p[i] if leaves.has_params else leaves.g[i]
    expected = _expected(stage.init, p.shape, compute_dtype(p.dtype))
    for field, tree in slot.items():
        want = expected[field]
        got = [tree] if isinstance(tree, jax.Array) else jax.tree.leaves(tree)
        if len(got) != len(want):
            raise ValueError(
                f"{stage.name}: the state's {field!r} at {leaves.path(i)} has "
                f"{len(got)} arrays where {len(want)} are expected: "
                "was the state made for other parameters?"
            )
        for x, like in zip(got, want):
            if not is_like(x, like):
                where = f"{stage.name}: the state's {field!r} at {leaves.path(i)}"
                same = like.shape == leaves.g[i].shape
                check_leaf(where, x, like, "the gradient is" if same else "expected")


@functools.lru_cache(maxsize=8192)
def _expected(init, shape, dtype) -> dict[str, list]:
    """The types of the slots that `init` makes for such a leaf."""
    slots = jax.eval_shape(init, jax.ShapeDtypeStruct(shape, dtype))
    return {field: jax.tree.leaves(tree) for field, tree in slots.items()}


def _expected_whole(stage: LeafStage, field: str) -> Any:
    if field in stage.counts:
        return COUNT
    return jax.eval_shape(lambda: jnp.asarray((stage.shared or {})[field]()))

"""Paths of leaves, types in short, and where two trees differ: words for messages."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from .boxes import content, flatten_with_path, is_box, opened

__all__ = []


def keystr(path: tuple) -> str:
    """The path of a leaf as text, `['enc']['w']`; `the root` for a bare leaf."""
    return jax.tree_util.keystr(path) or "the root"


_SHORT = (
    ("bfloat", "bf"),
    ("float", "f"),
    ("complex", "c"),
    ("uint", "u"),
    ("int", "i"),
)


def spell(x: Any) -> str:
    """The type of an array in short, `f32[8, 16]`."""
    try:
        aval: Any = jax.typeof(x)
    except TypeError:
        return type(x).__name__
    aval = x if isinstance(x, np.ndarray) else aval  # JAX's may be narrower
    name = aval.dtype.name
    for long, short in _SHORT:
        name = name.replace(long, short) if name.startswith(long) else name
    return f"{name}[{', '.join(map(str, aval.shape))}]"


def explain(name: str, tree: Any, like_name: str, like: Any) -> str:
    """Where two trees that should have one structure differ, in words."""
    ours, theirs = (
        dict(flatten_with_path(t, is_leaf=lambda x: x is None)) for t in (tree, like)
    )
    missing = [keystr(k) for k in theirs if k not in ours]
    extra = [keystr(k) for k in ours if k not in theirs]
    words = []
    if missing:
        words.append(f"missing in {name}: {listed(missing)}")
    if extra:
        words.append(f"only in {name}: {listed(extra)}")
    if not words:
        nodes = [
            f"{keystr(path)} is {_node(a)} in {name} and {_node(b)} in {like_name}"
            for path, a, b in _differing_nodes(tree, like)
        ]
        words.append(listed(nodes) or "the node types differ")
    return f"{name} must have the tree structure of {like_name}; " + "; ".join(words)


def listed(items: list[str], most: int = 5) -> str:
    rest = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + rest


def of_a_pair(tree: Any, treedef: Any) -> str:
    """A hint where one of two things has the structure that the pair should have."""
    if type(tree) is not tuple or len(tree) != 2 or not treedef.num_leaves:
        return ""
    first, second = (jax.tree.structure(x) == treedef for x in tree)
    if second and (not first or np.ndim(tree[0]) == 0):
        return (
            "; is it the pair (value, gradients) of jax.value_and_grad? "
            "Give the gradients alone"
        )
    if first:
        return (
            "; is it the pair (gradients, auxiliary) of jax.grad with has_aux? "
            "Give the gradients alone"
        )
    return ""


def _differing_nodes(a: Any, b: Any, path: tuple = ()):
    children_a, children_b = children_of(a), children_of(b)
    if children_a is None and children_b is None:
        if (a is None) != (b is None):
            yield path, a, b
    elif type(a) is not type(b):
        yield path, a, b
    elif children_a is not None and children_b is not None:
        for (key, x), (_, y) in zip(children_a, children_b):
            yield from _differing_nodes(x, y, path + key)


def children_of(node: Any) -> list | None:
    if jax.tree_util.all_leaves([node]) or node is None:
        return None
    only_this = jax.tree_util.tree_flatten_with_path(
        node, is_leaf=lambda x: x is not node
    )
    return only_this[0]


def _node(x: Any) -> str:
    if x is None:
        return "None"
    return spell(x) if children_of(x) is None else type(x).__name__


# -------------------------------------------------------------------- by path


class Matched(NamedTuple):
    """A tree, and which leaf of another one stands at each of its own."""

    treedef: Any
    leaves: list
    order: list[int | None]

    def unflatten(self, values: Sequence) -> Any:
        """The tree with these values, in the order of the other's leaves."""
        chosen = zip(self.leaves, self.order)
        return self.treedef.unflatten(
            [x if i is None else values[i] for x, i in chosen]
        )


def matched(like: Any, tree: Any) -> tuple[list, Matched]:
    """What a tree has where `like` has leaves, found by path.

    So a `dict` may stand beside a `FrozenDict`, and a value beside one in a box. Where
    `like` has `None` the tree may have what it will, and keeps it; where `like` has a
    `MaskedNode` the tree has nothing either. Where the tree alone has `None`, each leaf
    of `like` below finds `None`.

    Raises:
        ValueError: the trees do not match.
    """
    found: list = []
    places: dict[str, int] = {}

    def walk(expected, x, path):
        expected = content(expected)
        while is_box(x):
            key, x = opened(x)
            path = path + key
        if is_nothing(expected):
            if expected is not None and jax.tree.leaves(x):
                raise ValueError(f"only in the tree: {keystr(path)}")
        elif x is None:
            found.extend([None] * len(jax.tree.leaves(expected)))
        elif (children := children_of(expected)) is None:
            places[keystr(path)] = len(found)
            found.append(x)
        else:
            below = {keystr(k): (k, y) for k, y in children_of(x) or ()}
            if set(below) != {keystr(k) for k, _ in children}:
                raise ValueError(f"other nodes at {keystr(path)}")
            for k, y in children:
                walk(y, below[keystr(k)][1], path + below[keystr(k)][0])

    walk(like, tree, ())
    ids = {id(x) for x in found if x is not None}
    leaves, treedef = jax.tree_util.tree_flatten_with_path(
        tree, is_leaf=lambda x: id(x) in ids
    )
    order = [places.get(keystr(path)) for path, _ in leaves]
    return found, Matched(treedef, [x for _, x in leaves], order)


def beside(treedef: Any, tree: Any) -> tuple[list, Any]:
    """What a tree has for each leaf of a structure, and what builds it again.

    By structure, or else by path as `matched`.
    """
    try:
        return treedef.flatten_up_to(tree), treedef
    except (ValueError, TypeError):
        return matched(treedef.unflatten(range(treedef.num_leaves)), tree)


def is_nothing(x: Any) -> bool:
    """Whether it stands where a tree has no leaf: `None`, or anyone's `MaskedNode`."""
    return x is None or (type(x).__name__ == "MaskedNode" and x == ())

"""Nodes of trees one by one; boxes: nodes that stand for the one value in them.

A box holds a value and notes about it. flax has two kinds: the variables of nnx
(`Param`, `OptVariable`) and the metadata of linen (`Partitioned`,
`LogicallyPartitioned`). They are known by what their libraries promise of them, so that
none is imported here: a node with `unbox` and `replace_boxed` is metadata; one with
`get_metadata`, whose only child is called `value`, is a variable. A node of a program's
own that merely has a field `value` is none.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.tree_util import GetAttrKey

from .kinds import is_leaf

__all__ = []


def one_level(node: Any) -> tuple[list[tuple[tuple, Any]], Any]:
    """The children of a node with their keys, and the node without them."""
    return jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)


def children_of(node: Any) -> list[tuple[tuple, Any]] | None:
    """The children of a node with their keys; `None` if it is a leaf, or `None`."""
    if node is None or is_leaf(node):
        return None
    return one_level(node)[0]


def is_box(x: Any) -> bool:
    """Whether it is a node that stands for the one value in it."""
    kind = _kind_of(type(x))
    if kind is None or is_leaf(x):
        return False
    keys = [path for path, _ in one_level(x)[0]]
    return len(keys) == 1 and (kind == "metadata" or keys[0] == (GetAttrKey("value"),))


@functools.lru_cache(maxsize=4096)
def _kind_of(cls: type) -> str | None:
    def has(*methods):
        return all(callable(getattr(cls, name, None)) for name in methods)

    if has("unbox", "replace_boxed"):
        return "metadata"
    return "variable" if has("get_metadata") else None


def opened(box: Any) -> tuple[tuple, Any]:
    """The path from a box to its value, and the value."""
    return one_level(box)[0][0]


def content(x: Any) -> Any:
    """What a box holds, or a box in it; what is none stays as it is."""
    while is_box(x):
        _, x = opened(x)
    return x


def unboxed(tree: Any) -> Any:
    """The tree with the values in the places of their boxes.

    Its leaves are those of `tree`, in their order.
    """
    if not has_boxes(tree):
        return tree

    def one(x):
        return unboxed(content(x)) if is_box(x) else x

    return jax.tree.map(one, tree, is_leaf=is_box)


def has_boxes(tree: Any) -> bool:
    """Whether there are boxes anywhere in it."""
    found = False

    def look(x):
        nonlocal found
        found = found or is_box(x)
        return found  # then there is nothing to look for below

    jax.tree.leaves(tree, is_leaf=look)
    return found


def boxed_as(tree: Any, new: Any) -> Any:
    """The leaves of `new` in the structure of `tree`, boxes and all."""
    return jax.tree.unflatten(jax.tree.structure(tree), jax.tree.leaves(new))


def flatten_with_path(
    tree: Any, is_leaf: Callable[[Any], bool] | None = None
) -> list[tuple[tuple, Any]]:
    """The leaves with their paths, in which boxes have no place."""
    return jax.tree_util.tree_flatten_with_path(unboxed(tree), is_leaf=is_leaf)[0]

"""One tree beside another: what it has for each of the other's leaves."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from ..boxes import children_of, content, is_box, opened
from ..kinds import is_nothing
from ..words import keystr

__all__ = []


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

"""Trees and prefixes joined: what several arguments hold for each of their leaves.

A leaf standing where another argument has a subtree serves every leaf below it.
"""

from typing import Any

import jax

from .base import ArrayTree
from .boxes import one_level
from .words import at, in_words

__all__ = []

_LEAF = jax.tree.structure(0)


class LeafArguments:
    """What the arguments hold for one leaf of the structure that they join to."""

    __slots__ = ("leaves", "path")

    def __init__(self, path: tuple, leaves: dict[str, Any]):
        self.path, self.leaves = path, leaves

    def __getitem__(self, name: str) -> Any:
        return self.leaves[name]


def join(
    arrays: dict[str, ArrayTree],
    settings: dict[str, ArrayTree],
    fullest: str | None = None,
) -> ArrayTree:
    """The structure that trees and prefixes join to, `LeafArguments` at its leaves.

    No argument may have more structure than the one named `fullest`. `None`, an empty
    node, must be `None` in all the `arrays`; numbers among the `settings` serve it.
    """
    return _join({**arrays, **settings}, frozenset(arrays), (), fullest)


def _join(args: dict, arrays: frozenset, path: tuple, fullest: str | None) -> ArrayTree:
    """`arrays` are the names of those which do not serve this place from above."""
    structures = {name: jax.tree.structure(x) for name, x in args.items()}
    nodes = [name for name in args if structures[name] != _LEAF]
    if not nodes:
        return LeafArguments(path, args)
    if fullest is not None and fullest not in nodes:
        raise _more_structure(path, nodes[0], args[nodes[0]], fullest, args[fullest])
    nones = [name for name in nodes if args[name] is None]
    leaves = [name for name in args if name in arrays and name not in nodes]
    if nones and leaves:
        raise ValueError(
            f"{at(nones[0], path)} is None where {leaves[0]} is "
            f"{in_words(args[leaves[0]])}: give both or None for both"
        )
    first = nodes[0]
    if all(structures[name] == structures[first] for name in nodes):
        return _rows(args, nodes, path, structures[first])
    children = {name: one_level(args[name]) for name in nodes}
    for name in nodes[1:]:
        if children[name][1] != children[first][1]:
            raise _mismatch(path, name, args[name], first, args[first])
    below = [
        _join(
            {
                name: children[name][0][i][1] if name in nodes else args[name]
                for name in args
            },
            arrays.intersection(nodes),
            path + key,
            fullest,
        )
        for i, (key, _) in enumerate(children[first][0])
    ]
    return children[first][1].unflatten(below)


def _rows(args: dict, nodes: list[str], path: tuple, structure: Any) -> ArrayTree:
    """The rows of arguments that are either of one structure or a leaf."""
    paths = [p for p, _ in jax.tree_util.tree_leaves_with_path(args[nodes[0]])]
    columns = [
        jax.tree.leaves(x) if name in nodes else [x] * len(paths)
        for name, x in args.items()
    ]
    return structure.unflatten(
        LeafArguments(path + p, dict(zip(args, leaves)))
        for p, *leaves in zip(paths, *columns)
    )


def split(results: ArrayTree, structure: ArrayTree, n: int) -> tuple:
    """A tree of n-tuples, one for each row of `structure`, as n trees."""
    treedef = jax.tree.structure(structure)
    columns = zip(*treedef.flatten_up_to(results)) if treedef.num_leaves else [()] * n
    return tuple(treedef.unflatten(column) for column in columns)


def _more_structure(path, name, node, fullest, leaf) -> Exception:
    if node is None:
        error = TypeError if name == "stop_gradients" else ValueError
        return error(
            f"{at(name, path)} is None, {fullest} is {in_words(leaf)}: every array of "
            f"{fullest} needs its {name}"
        )
    return ValueError(
        f"{name} has more structure than {fullest}: {at(name, path)} is "
        f"{in_words(node)}, {fullest} is {in_words(leaf)}"
    )


def _mismatch(path, name, node, like_name, like) -> ValueError:
    keys, like_keys = ([key for key, _ in one_level(x)[0]] for x in (node, like))
    missing = [jax.tree_util.keystr(path + key) for key in like_keys if key not in keys]
    extra = [jax.tree_util.keystr(path + key) for key in keys if key not in like_keys]
    words = [f"{at(name, path)} is {in_words(node)}, {like_name} is {in_words(like)}"]
    words += [f"missing {', '.join(missing)}"] if missing else []
    words += [f"unexpected {', '.join(extra)}"] if extra else []
    return ValueError(
        f"{name} must have the tree structure of {like_name}, or be a prefix of it: "
        + "; ".join(words)
    )

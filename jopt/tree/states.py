"""Finding, replacing and mapping what states hold, by name."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.tree_util import DictKey, GetAttrKey

from ..base import MaskedNode
from .messages import children_of, keystr, listed

__all__ = ["NamedTupleKey", "get", "get_all_with_path", "map_params", "set"]

Filter = Callable[[tuple[Any, ...], Any], bool]


@dataclasses.dataclass(frozen=True)
class NamedTupleKey:
    """The key of a field of a NamedTuple in the paths of `get_all_with_path`."""

    tuple_name: str
    name: str

    def __str__(self) -> str:
        return f"{self.tuple_name}.{self.name}"


def get_all_with_path(
    tree: Any, key: Any, filtering: Filter | None = None
) -> list[tuple[tuple[Any, ...], Any]]:
    """Everything in a tree that has a name, with the paths to it.

    Args:
        tree: a pytree, the state of an optimizer say.
        key: the name: of a field, a key of a dict, or the class of a NamedTuple.
        filtering: `filtering(path, value)`, which of these to keep; all if `None`.

    Returns:
        Pairs of a path and a value. A path is a tuple of keys as
        `jax.tree_util.tree_flatten_with_path` has them, but `NamedTupleKey`s for the
        fields of NamedTuples.

    Example:
        >>> state = jopt.adam(0.1).init(jnp.zeros(2))
        >>> [(path, _)] = jopt.tree.get_all_with_path(state, "mu")
        >>> path
        (SequenceKey(idx=0), NamedTupleKey(tuple_name='ScaleByAdamState', name='mu'))
    """
    return [
        (path, node)
        for path, node in walk(tree)
        if _is_found(path, node, key, filtering)
    ]


def get(
    tree: Any, key: Any, default: Any = None, filtering: Filter | None = None
) -> Any:
    """The one value in a tree that has a name.

    Args:
        tree: a pytree, the state of an optimizer say.
        key, filtering: as `get_all_with_path` takes them.
        default: returned if there is none.

    Returns:
        The value.

    Raises:
        KeyError: there are several.

    Example:
        >>> jopt.tree.get(jopt.adam(0.1).init(jnp.zeros(2)), "count")
        Array(0, dtype=int32)
    """
    found = get_all_with_path(tree, key, filtering)
    if len(found) > 1:
        places = listed([keystr(_attributes(path)) for path, _ in found])
        raise KeyError(
            f"get: {key!r} is at {len(found)} places, {places}; choose one with "
            "filtering, or take all with get_all_with_path"
        )
    return found[0][1] if found else default


def set(tree: Any, filtering: Filter | None = None, /, **kwargs: Any) -> Any:
    """A tree in which everything that has a name is replaced.

    Args:
        tree: a pytree, the state of an optimizer say.
        filtering: `filtering(path, value)`, which to replace; all if `None`.
        **kwargs: the new values by name.

    Returns:
        The new tree; the given one stays as it is.

    Raises:
        KeyError: there is nothing of one of these names.

    Example:
        >>> state = jopt.adam(0.1).init(jnp.zeros(2))
        >>> jopt.tree.get(jopt.tree.set(state, count=jnp.int32(5)), "count")
        Array(5, dtype=int32)
    """
    for key in kwargs:
        if not get_all_with_path(tree, key, filtering):
            some = " that filtering lets through" if filtering else ""
            raise KeyError(f"set: the tree has no {key!r}{some}")

    def replaced(node, path):
        for key, value in kwargs.items():
            if _is_found(path, node, key, filtering):
                return value
        children = _children(node)
        if not children:
            return node
        _, structure = jax.tree.flatten(node, is_leaf=lambda x: x is not node)
        return structure.unflatten([replaced(x, (*path, k)) for k, x in children])

    return replaced(tree, ())


def _is_found(path: tuple, node: Any, key: Any, filtering: Filter | None) -> bool:
    """Whether a node is called `key` where it stands, or by its class or a base."""
    last: Any = path[-1] if path else None
    if isinstance(last, (NamedTupleKey, GetAttrKey)):
        named = last.name == key
    else:
        named = isinstance(last, DictKey) and last.key == key
    if not named and hasattr(node, "_fields"):
        named = key in [c.__name__ for c in type(node).__mro__ if hasattr(c, "_fields")]
    return named and (filtering is None or bool(filtering(path, node)))


def walk(node: Any, path: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    """All nodes below and this one, each before its children."""
    yield path, node
    for key, child in _children(node):
        yield from walk(child, (*path, key))


def _children(node: Any) -> list[tuple[Any, Any]]:
    children = [(path[0], child) for path, child in children_of(node) or ()]
    if hasattr(node, "_fields"):
        kind = type(node).__name__
        return [(NamedTupleKey(kind, key.name), child) for key, child in children]
    return children


def _attributes(path: tuple) -> tuple:
    """The path as JAX writes it."""
    return tuple(
        GetAttrKey(k.name) if isinstance(k, NamedTupleKey) else k for k in path
    )


# ------------------------------------------------------- what belongs to the parameters


class _Params:
    """Stands for the parameters in `init`, so that the state shows where they went."""


jax.tree_util.register_pytree_node(_Params, lambda _: ((), None), lambda *_: _Params())


def map_params(
    initable: Any,
    f: Callable[..., Any],
    state: Any,
    /,
    *rest: Any,
    transform_non_params: Callable[..., Any] | None = None,
    is_leaf: Callable[[Any], bool] | None = None,
) -> Any:
    """`jax.tree.map` over the trees in a state that are like the parameters.

    Args:
        initable: the transformation that made the state, or its `init`.
        f: a function of a leaf, and of those of `rest` that belong to its parameter.
        state: the state.
        *rest: trees in the structure of the parameters.
        transform_non_params: a function of the other leaves, counts say; they stay as
            they are if `None`.
        is_leaf: as `jax.tree.map` takes it, below the parameters.

    Returns:
        The state with the new leaves. A leaf that is masked stays so, whatever stands
        there in `rest`, unless it is a leaf to `is_leaf`.

    Raises:
        ValueError: another transformation made the state.

    Example:
        >>> tx = jopt.adam(0.1)
        >>> state = tx.init({"w": jnp.zeros(2)})
        >>> spec = {"w": "sharded"}
        >>> jopt.tree.map_params(tx, lambda x, s: s, state, spec)[0].mu
        {'w': 'sharded'}
    """
    init = getattr(initable, "init", initable)

    def is_hidden(x):
        return isinstance(x, MaskedNode) and not (is_leaf and is_leaf(x))

    def at_leaf(x, *others):
        return x if is_hidden(x) else f(x, *others)

    def at_node(node, x):
        if isinstance(node, _Params):
            stop = lambda x: is_hidden(x) or bool(is_leaf and is_leaf(x))  # noqa: E731
            return jax.tree.map(at_leaf, x, *rest, is_leaf=stop)
        return x if transform_non_params is None else transform_non_params(x)

    where = init(_Params())
    return jax.tree.map(at_node, where, state, is_leaf=lambda x: isinstance(x, _Params))


def by_param(initable: Any, state: Any, params: Any) -> tuple[list[list], list]:
    """The leaves of a state that belong to each leaf of the parameters, and the rest.

    Slots may be trees of their own below a parameter, and masked anywhere above it.
    """
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    index = {path: i for i, path in enumerate(paths)}
    mine, rest = [[] for _ in paths], []

    def sort(path, leaf, starts):
        for start, end in itertools.product(starts, range(len(path), -1, -1)):
            if path[start:end] in index:
                return mine[index[path[start:end]]].append(leaf)
        rest.append(leaf)

    def at_node(node, x):
        for path, leaf in jax.tree_util.tree_flatten_with_path(x)[0]:
            sort(path, leaf, [0] if isinstance(node, _Params) else [])

    try:
        where = getattr(initable, "init", initable)(_Params())
        jax.tree.map(at_node, where, state, is_leaf=lambda x: isinstance(x, _Params))
    except (IndexError, TypeError, ValueError):
        # Another library's, which needs the tree itself: then by the names alone.
        mine, rest = [[] for _ in paths], []
        for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
            sort(path, leaf, range(len(path)))
    return mine, rest

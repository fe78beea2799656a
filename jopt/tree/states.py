"""Finding, replacing and mapping what states hold, by name."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.tree_util import DictKey, GetAttrKey

from ..boxes import children_of, content, flatten_with_path, is_box, opened
from ..kinds import is_array_or_type, is_masked, is_namedtuple
from ..words import keystr, listed, spell

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
        fields of NamedTuples. A box of flax's, such as nnx's variables, is no part of
        a path, and where a value stands in one it is what the box holds.

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

    Where arrays and trees have one name, as a hyperparameter and the state of its
    schedule have, a number or an array replaces the arrays alone. A schedule says the
    value of the next step again.

    Args:
        tree: a pytree, the state of an optimizer say.
        filtering: `filtering(path, value)`, which to replace; all if `None`.
        **kwargs: the new values by name.

    Returns:
        The new tree; the given one stays as it is. What stands in a box of flax's, such
        as nnx's variables, stays in it.

    Raises:
        KeyError: there is nothing of one of these names.
        ValueError: an array stands there and the new one has another shape, or a tree
            of arrays and the new value is one array.

    Example:
        >>> state = jopt.adam(0.1).init(jnp.zeros(2))
        >>> jopt.tree.get(jopt.tree.set(state, count=jnp.int32(5)), "count")
        Array(5, dtype=int32)
    """
    arrays_alone = []
    for key, value in kwargs.items():
        found = get_all_with_path(tree, key, filtering)
        if not found:
            some = " that filtering lets through" if filtering else ""
            raise KeyError(f"set: the tree has no {key!r}{some}")
        trees = [path for path, old in found if not _has_shape(old)]
        if _has_shape(value) and any(
            _has_shape(old) and not any(path[: len(t)] == t for t in trees)
            for path, old in found
        ):
            arrays_alone.append(key)

    def replaced(node, path):
        if is_box(node):
            _, inner = opened(node)
            _, structure = jax.tree.flatten(node, is_leaf=lambda x: x is not node)
            new = replaced(inner, path)
            return new if is_box(new) else structure.unflatten([new])
        for key, value in kwargs.items():
            if _is_found(path, node, key, filtering):
                if key in arrays_alone and _children(node):
                    continue
                _check_replaces(key, keystr(_attributes(path)), value, node)
                return value
        children = _children(node)
        if not children:
            return node
        _, structure = jax.tree.flatten(node, is_leaf=lambda x: x is not node)
        return structure.unflatten([replaced(x, (*path, k)) for k, x in children])

    return replaced(tree, ())


def _check_replaces(key: str, place: str, new: Any, old: Any) -> None:
    """Refuse arrays of other shapes than those which stand there.

    A tree may be replaced by one of another structure, or by what is no array.
    """
    olds, news = (jax.tree_util.tree_flatten_with_path(x)[0] for x in (old, new))
    by_path: dict[Any, Any] = dict(olds)
    arrays = [keystr(path) for path, x in olds if is_array_or_type(x)]
    for path, x in news:
        y = by_path.get(path)
        if path == () and y is None and arrays and _has_shape(x):
            raise ValueError(
                f"set: {key} at {place} is a tree with arrays at {listed(arrays)}, the "
                f"new value is {spell(x)}"
            )
        if (
            is_array_or_type(y)
            and _has_shape(x)
            and np.shape(x) != getattr(y, "shape", ())
        ):
            inside = jax.tree_util.keystr(path)
            raise ValueError(
                f"set: {key} at {place}{inside} is {spell(y)}, the new value is "
                f"{spell(x)}: the shapes must be equal"
            )


def _has_shape(x: Any) -> bool:
    return hasattr(x, "shape") or isinstance(x, (bool, int, float, complex))


def _is_found(path: tuple, node: Any, key: Any, filtering: Filter | None) -> bool:
    """Whether a node is called `key` where it stands, or by its class or a base."""
    last: Any = path[-1] if path else None
    if isinstance(last, (NamedTupleKey, GetAttrKey)):
        named = last.name == key
    else:
        named = isinstance(last, DictKey) and last.key == key
    if not named and is_namedtuple(node):
        named = key in [c.__name__ for c in type(node).__mro__ if hasattr(c, "_fields")]
    return named and (filtering is None or bool(filtering(path, node)))


def walk(node: Any, path: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    """All nodes below and this one, each before its children; boxes are none."""
    node = content(node)
    yield path, node
    for key, child in _children(node):
        yield from walk(child, (*path, key))


def _children(node: Any) -> list[tuple[Any, Any]]:
    children = [(path[0], child) for path, child in children_of(node) or ()]
    if hasattr(node, "_fields"):
        name = type(node).__name__
        return [(NamedTupleKey(name, key.name), child) for key, child in children]
    return children


def _attributes(path: tuple) -> tuple:
    """The path as JAX writes it."""
    return tuple(
        GetAttrKey(k.name) if isinstance(k, NamedTupleKey) else k for k in path
    )


# ------------------------------------------------------- what belongs to the parameters


@dataclasses.dataclass(frozen=True)
class ParamsHere:
    """Stands for the parameters in `init`, so that the state shows where they went.

    `copy` is `"both"` where it stands for two copies of them, `LookaheadParams`, and
    `"fast"` or `"slow"` for one of these.
    """

    copy: str = "all"

    @property
    def fast(self) -> "ParamsHere":
        return ParamsHere("fast")

    @property
    def slow(self) -> "ParamsHere":
        return ParamsHere("slow")


jax.tree_util.register_pytree_node(
    ParamsHere, lambda x: ((), x.copy), lambda copy, _: ParamsHere(copy)
)


def stands_for_both(params: Any) -> bool:
    """Whether it stands for two copies of the parameters."""
    return isinstance(params, ParamsHere) and params.copy == "both"


def _is_here(x: Any) -> bool:
    return isinstance(x, ParamsHere)


def _where(initable: Any, state: Any) -> Any:
    """The state with a `ParamsHere` in the place of each tree like the parameters."""
    init = getattr(initable, "init", initable)
    where = init(ParamsHere())
    for candidate in (lambda: where, lambda: init(ParamsHere("both"))):
        found = candidate()
        try:
            jax.tree.structure(found, is_leaf=_is_here).flatten_up_to(state)
        except (ValueError, TypeError):
            continue
        return found
    return where  # of another transformation, which the caller will see


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
        *rest: trees in the structure of the parameters, or prefixes of it. Of
            `LookaheadParams` each slot takes the copy that it belongs to.
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

    def is_hidden(x):
        return is_masked(x) and not (is_leaf and is_leaf(x))

    def at_leaf(x, *others):
        return x if is_hidden(x) else f(x, *others)

    def stop(x):
        return is_hidden(x) or bool(is_leaf and is_leaf(x))

    def at_node(node, x):
        if _is_here(node):
            like = [_copy_for(node, tree) for tree in rest]
            return _map_below(at_leaf, x, like, stop)
        return x if transform_non_params is None else transform_non_params(x)

    return jax.tree.map(at_node, _where(initable, state), state, is_leaf=_is_here)


def _copy_for(node: ParamsHere, tree: Any) -> Any:
    """Of two copies of the parameters the one that is meant."""
    is_pair = getattr(type(tree), "_fields", None) == ("fast", "slow")
    return getattr(tree, node.copy) if is_pair and node.copy != "both" else tree


def _map_below(f: Callable, x: Any, rest: list, stop: Callable[[Any], bool]) -> Any:
    """`jax.tree.map`, also where boxes differ, or several leaves belong to one of rest.

    The result has the boxes of `x`.
    """
    structure = jax.tree.structure(x, is_leaf=stop)
    columns = [_column(x, tree, stop) for tree in rest]
    return structure.unflatten(map(f, jax.tree.leaves(x, is_leaf=stop), *columns))


def _column(x: Any, tree: Any, stop: Callable[[Any], bool]) -> list:
    """What a tree has for each leaf of `x`: in it, or at a node above."""
    try:
        return jax.tree.structure(x, is_leaf=stop).flatten_up_to(tree)
    except (ValueError, TypeError):
        column = _by_path(x, tree, stop)
        if column is None:
            raise
        return column


def _by_path(x: Any, tree: Any, stop: Callable[[Any], bool]) -> list | None:
    """The same by paths alone, whatever the boxes and mappings; if each has its own."""
    named = dict(flatten_with_path(tree, is_leaf=stop))
    column, used = [], {()}
    for path, leaf in flatten_with_path(x, is_leaf=stop):
        above = [path[:n] for n in range(len(path), -1, -1) if path[:n] in named]
        below = [p for p in named if is_masked(leaf) and p[: len(path)] == path]
        if not (above or below):
            return None
        used.update(above[:1], below)
        column.append(named[above[0]] if above else None)
    return column if used >= named.keys() else None


def by_param(initable: Any, state: Any, params: Any) -> tuple[list[list], list]:
    """The leaves of a state that belong to each leaf of the parameters, and the rest.

    Slots may be trees of their own below a parameter, and masked anywhere above it.
    """
    paths = [path for path, _ in flatten_with_path(params)]
    index = {path: i for i, path in enumerate(paths)}
    mine, rest = [[] for _ in paths], []

    def sort(path, leaf, starts):
        for start, end in itertools.product(starts, range(len(path), -1, -1)):
            if path[start:end] in index:
                return mine[index[path[start:end]]].append(leaf)
        rest.append(leaf)

    def at_node(node, x):
        before = ()
        if _is_here(node) and node.copy in ("fast", "slow"):
            before = (GetAttrKey(node.copy),)
        for path, leaf in flatten_with_path(x):
            sort((*before, *path), leaf, [0] if _is_here(node) else [])

    try:
        jax.tree.map(at_node, _where(initable, state), state, is_leaf=_is_here)
    except (IndexError, TypeError, ValueError):
        # Another library's, which needs the tree itself: then by the names alone.
        mine, rest = [[] for _ in paths], []
        for path, leaf in flatten_with_path(state):
            sort(path, leaf, range(len(path)))
    return mine, rest

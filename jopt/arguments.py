"""How the functional API reads its arguments: numbers, tree prefixes and templates.

A leaf standing where another argument has a subtree serves every leaf below it. What
has been read is a tree of Python floats and floating `jax.Array`s.
"""

import functools
import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from .base import ArrayTree
from .compat import Tracer
from .numerics import cast

__all__ = []

P = ParamSpec("P")
T = TypeVar("T")

_LEAF = jax.tree.structure(0)


# --------------------------------------------------------------------------- the call


def misfit_of_one(function: Callable) -> str | None:
    """Why a function cannot be called with one argument; `None` if it can."""
    try:
        inspect.signature(function).bind(None)
    except TypeError as error:
        return str(error)
    except ValueError:  # some functions of C have no signature
        return None
    return None


def strict_call(function: Callable[P, T]) -> Callable[P, T]:
    """Says what to do when positional and keyword arguments are mixed up."""
    parameters = inspect.signature(function).parameters.values()
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_ONLY]
    keywords = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    usage = (
        f"the arguments {', '.join(positional)} go by position, without their names; "
        f"{', '.join(keywords)} are keyword-only"
    )

    named = naming_mixed_keys(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        if len(args) > len(positional):
            raise TypeError(
                f"{function.__name__}() takes {len(positional)} positional arguments, "
                f"got {len(args)}: {usage}, as in {keywords[0]}=..."
            )
        for name in kwargs:
            if name not in keywords:
                raise TypeError(f"{function.__name__}() takes no {name}=: {usage}")
        return named(*args, **kwargs)

    return call


def check_framework(f: Any) -> None:
    if f is not None and f is not jax and not (isinstance(f, str) and f == "jax"):
        raise ValueError(f"f must be None, 'jax' or the module jax, got {f!r}")


def check_bool(name: str, x: Any) -> None:
    if not isinstance(x, bool):
        raise TypeError(f"{name} must be True or False, got {kind(x)}")


def naming_mixed_keys(function: Callable[P, T]) -> Callable[P, T]:
    """A function whose error names a dict that has keys which cannot be sorted."""

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except ValueError as error:
            bound = inspect.signature(function).bind(*args, **kwargs)
            name_mixed_keys(error, bound.arguments)
            raise

    return called


def name_mixed_keys(error: ValueError, given: dict[str, Any], where: str = "") -> None:
    """Raises the error anew with the argument that JAX cannot sort, if it is that."""
    if str(error).startswith("Comparator raised"):  # JAX says nothing else
        for words in _mixed_keys(given):
            raise ValueError(where + words) from error


def _mixed_keys(given: dict[str, Any]) -> Iterator[str]:
    """Where the arguments, or those of the factory, have such keys, in words."""
    for name, value in given.items():
        call = getattr(value, "call", None) if name == "self" else None
        if call is not None:
            for words in _mixed_keys(call.arguments):
                yield f"{call.name}: {words}"
        for path, keys in _unsortable(value, ""):
            shown = " and ".join(
                f"{key!r} ({type(key).__name__})"
                for key in {type(k): k for k in keys}.values()
            )
            yield (
                f"{name}{path and ' at ' + path} is a dict with the keys {shown}, "
                "which cannot be sorted, as JAX does: use keys of one type"
            )


def _unsortable(node: Any, path: str) -> Iterator[tuple[str, list]]:
    """The dicts that cannot be sorted, by their paths."""
    if isinstance(node, dict):
        try:
            sorted(node)
        except TypeError:
            yield path, [*node]
        children = [(f"[{key!r}]", x) for key, x in node.items()]
    elif hasattr(node, "_fields") and isinstance(node, tuple):
        fields: Any = getattr(node, "_fields", ())
        children = [(f".{name}", x) for name, x in zip(fields, node)]
    elif isinstance(node, list | tuple):
        children = [(f"[{i}]", x) for i, x in enumerate(node)]
    else:
        return
    for key, child in children:
        yield from _unsortable(child, path + key)


# ----------------------------------------------------------------------- their leaves


def read_numbers(name: str, tree: ArrayTree) -> ArrayTree:
    """Its leaves as Python numbers and as floating or integer `jax.Array`s."""
    return jax.tree_util.tree_map_with_path(lambda path, x: _real(name, path, x), tree)


def read_floats(name: str, tree: ArrayTree) -> ArrayTree:
    """Its leaves as Python floats, and as `jax.Array`s of floating dtype.

    Integer arrays are cast to the default float.
    """
    return jax.tree.map(_to_float, read_numbers(name, tree))


def _real(name: str, path: tuple, x: Any) -> Any:
    if isinstance(x, (jax.Array, np.ndarray, np.generic)):
        real = jnp.issubdtype(x.dtype, jnp.floating)
        if real or jnp.issubdtype(x.dtype, jnp.integer):
            return x if isinstance(x, jax.Array) else jnp.asarray(x)
    elif isinstance(x, (int, float)) and not isinstance(x, bool):
        return x
    raise TypeError(f"{at(name, path)} must be real numbers, got {kind(x)}")


def _to_float(x: Any) -> Any:
    if not isinstance(x, jax.Array):
        return float(x)
    floating = jnp.issubdtype(x.dtype, jnp.floating)
    return x if floating else x.astype(jnp.result_type(float))


_RANGES = {
    "step": (lambda t: t <= 0, "positive: steps count from 1"),
    "beta1": (lambda b: b < 0 or b > 1, "in [0, 1]"),
    "beta2": (lambda b: b < 0 or b > 1, "in [0, 1]"),
    "epsilon": (lambda e: e < 0, "not negative"),
    "max_trust_ratio": (lambda r: r <= 0, "positive"),
    "decay_lambda": (lambda l: l < 0, "not negative"),
}


def read_scalars(name: str, tree: ArrayTree) -> ArrayTree:
    """Its leaves, one number each, in the range of their name where they are known."""
    outside, expected = _RANGES[name]

    def read(path, x):
        scalar = _setting(name, path, x)
        if np.size(scalar) != 1:
            raise ValueError(
                f"{at(name, path)} must be one number, got an array of shape "
                f"{scalar.shape}; a tree gives one to each leaf"
            )
        if _known(x) and outside(x.item() if hasattr(x, "item") else x):
            raise ValueError(f"{at(name, path)} must be {expected}, got {x}")
        return scalar if isinstance(scalar, float) else scalar.reshape(())

    return jax.tree_util.tree_map_with_path(read, tree)


def read_rates(name: str, tree: ArrayTree) -> ArrayTree:
    """Its leaves, numbers or arrays that broadcast within a leaf."""
    return jax.tree_util.tree_map_with_path(
        lambda path, x: _setting(name, path, x), tree
    )


def _setting(name: str, path: tuple, x: Any) -> Any:
    if isinstance(x, (np.generic, np.ndarray)) and x.size == 1:
        _real(name, path, x)
        return float(x.item())  # exact, and it widens nothing
    return _to_float(_real(name, path, x))


def _known(x: Any) -> bool:
    if isinstance(x, Tracer):
        return False
    return not isinstance(x, jax.Array) or x.is_fully_addressable


def read_flags(name: str, tree: ArrayTree) -> ArrayTree:
    """Its leaves, Python bools."""
    if tree is None:
        check_bool(name, None)
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        check_bool(at(name, path), x)
    return tree


# --------------------------------------------------------------------- their structure


@dataclass(frozen=True, slots=True)
class Row:
    """What the arguments hold for one leaf of the structure that they join to."""

    path: tuple
    leaves: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.leaves[name]


def join(
    arrays: dict[str, ArrayTree],
    settings: dict[str, ArrayTree],
    fullest: str | None = None,
) -> ArrayTree:
    """The structure that trees and prefixes join to, with a `Row` at each leaf.

    No argument may have more structure than the one named `fullest`. `None`, an empty
    node, must be `None` in all the `arrays`; numbers among the `settings` serve it.
    """
    return _join({**arrays, **settings}, frozenset(arrays), (), fullest)


def _join(args: dict, arrays: frozenset, path: tuple, fullest: str | None) -> ArrayTree:
    """`arrays` are the names of those which do not serve this place from above."""
    structures = {name: jax.tree.structure(x) for name, x in args.items()}
    nodes = [name for name in args if structures[name] != _LEAF]
    if not nodes:
        return Row(path, args)
    if fullest is not None and fullest not in nodes:
        raise _more_structure(path, nodes[0], args[nodes[0]], fullest, args[fullest])
    nones = [name for name in nodes if args[name] is None]
    leaves = [name for name in args if name in arrays and name not in nodes]
    if nones and leaves:
        raise ValueError(
            f"{at(nones[0], path)} is None where {leaves[0]} is "
            f"{kind(args[leaves[0]])}: give both or None for both"
        )
    first = nodes[0]
    if all(structures[name] == structures[first] for name in nodes):
        return _rows(args, nodes, path, structures[first])
    children = {name: children_of(args[name]) for name in nodes}
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
        Row(path + p, dict(zip(args, leaves))) for p, *leaves in zip(paths, *columns)
    )


def is_leaf(x: Any) -> bool:
    return jax.tree.structure(x) == _LEAF


def children_of(node: Any) -> tuple[list, Any]:
    """The children of a node with their keys, and the node without them."""
    return jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)


def split(results: ArrayTree, structure: ArrayTree, n: int) -> tuple:
    """A tree of n-tuples, one for each row of `structure`, as n trees."""
    treedef = jax.tree.structure(structure)
    columns = zip(*treedef.flatten_up_to(results)) if treedef.num_leaves else [()] * n
    return tuple(treedef.unflatten(column) for column in columns)


def _more_structure(path, name, node, fullest, leaf) -> Exception:
    if node is None:
        error = TypeError if name == "stop_gradients" else ValueError
        return error(
            f"{at(name, path)} is None, {fullest} is {kind(leaf)}: every array of "
            f"{fullest} needs its {name}"
        )
    return ValueError(
        f"{name} has more structure than {fullest}: {at(name, path)} is "
        f"{kind(node)}, {fullest} is {kind(leaf)}"
    )


def _mismatch(path, name, node, like_name, like) -> ValueError:
    keys, like_keys = ([key for key, _ in children_of(x)[0]] for x in (node, like))
    missing = [_keystr(path + key) for key in like_keys if key not in keys]
    extra = [_keystr(path + key) for key in keys if key not in like_keys]
    words = [f"{at(name, path)} is {kind(node)}, {like_name} is {kind(like)}"]
    words += [f"missing {', '.join(missing)}"] if missing else []
    words += [f"unexpected {', '.join(extra)}"] if extra else []
    return ValueError(
        f"{name} must have the tree structure of {like_name}, or be a prefix of it: "
        + "; ".join(words)
    )


# ------------------------------------------------------------------------ their shapes


def joint_shape(
    path: tuple, name: str, x: Any, like_name: str, like: Any
) -> tuple[int, ...]:
    """The shape that two leaves broadcast to.

    One element in more dimensions than a partner of several has counts as a scalar.
    """
    shape, like_shape = np.shape(x), np.shape(like)
    one, like_one = math.prod(shape) == 1, math.prod(like_shape) == 1
    if one and not like_one:
        return like_shape
    if like_one and not one:
        return shape
    try:
        return np.broadcast_shapes(shape, like_shape)
    except ValueError:
        raise _misfit(path, name, shape, like_name, like_shape) from None


def check_fits(path: tuple, name: str, x: Any, like_name: str, like: Any) -> None:
    """Raises unless `x` broadcasts to the shape of `like`."""
    if np.size(x) == 1:
        return
    if joint_shape(path, name, x, like_name, like) != np.shape(like):
        raise _misfit(path, name, np.shape(x), like_name, np.shape(like))


def _misfit(path, name, shape, like_name, like_shape) -> ValueError:
    return ValueError(
        f"{at(name, path)} has shape {shape}, which does not broadcast to the shape "
        f"{like_shape} of {like_name}"
    )


def with_rank(x: Any, rank: int, dtype: np.dtype) -> jax.Array:
    """The array in `dtype`, ready to broadcast with one of that rank."""
    x = cast(x, dtype) if isinstance(x, jax.Array) else jnp.asarray(x, dtype)
    if x.ndim in (0, rank):
        return x
    return x.reshape((1,) * (rank - x.ndim) + x.shape if x.ndim < rank else ())


# ---------------------------------------------------------------------------- and out


def fit(results: ArrayTree, dtypes: ArrayTree, out: ArrayTree | None) -> ArrayTree:
    """Results in their dtypes, or in the shapes and dtypes of the template `out`."""
    if out is None:
        return jax.tree.map(cast, results, dtypes)
    return broadcast_like(results, out)


def broadcast_like(results: ArrayTree, out: ArrayTree) -> ArrayTree:
    """Results in the shapes and dtypes of the template `out`."""
    for path, x in jax.tree_util.tree_leaves_with_path(out):
        _check_template(path, x)
    if jax.tree.structure(out) != jax.tree.structure(results):
        raise ValueError(
            "out must have the tree structure of the result, "
            f"{jax.tree.structure(results)}, it has {jax.tree.structure(out)}"
        )

    def broadcast(path, x, template):
        x = jnp.asarray(x)
        try:
            return jnp.broadcast_to(x, template.shape).astype(template.dtype)
        except ValueError:
            raise ValueError(
                f"{at('out', path)} has shape {template.shape}, to which the result, "
                f"of shape {x.shape}, does not broadcast"
            ) from None

    return jax.tree_util.tree_map_with_path(broadcast, results, out)


def _check_template(path: tuple, x: Any) -> None:
    if not isinstance(x, jax.Array):
        raise TypeError(
            f"{at('out', path)} must be a jax.Array, got {kind(x)}: arrays are "
            "immutable here, and out is but a template for shape and dtype; use the "
            "returned value"
        )
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"{at('out', path)} must be of floating dtype, got {x.dtype}")


# --------------------------------------------------------------------------- in words


def at(name: str, path: tuple) -> str:
    return f"{name} at {_keystr(path)}" if path else name


_keystr = jax.tree_util.keystr


def kind(x: Any) -> str:
    if x is None:
        return "None"
    if isinstance(x, (jax.Array, np.ndarray)):
        return f"an array of dtype {x.dtype} and shape {x.shape}"
    if is_leaf(x):
        return f"the {type(x).__name__} {x!r:.40}"
    keys = [jax.tree_util.keystr(key) for key, _ in children_of(x)[0]]
    return f"a {type(x).__name__} of " + (", ".join(keys) or "nothing")

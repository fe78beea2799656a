"""What messages are made of: arrays, paths, trees and callables in words."""

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np

from .base import Rules
from .boxes import children_of, flatten_with_path, one_level
from .kinds import is_leaf, is_namedtuple, is_none

__all__ = []

P = ParamSpec("P")
T = TypeVar("T")


# -------------------------------------------------------------------- paths and arrays


def keystr(path: tuple) -> str:
    """The path of a leaf as text, `['enc']['w']`; `the root` for a bare leaf."""
    return jax.tree_util.keystr(path) or "the root"


def at(name: str, path: tuple) -> str:
    """An argument and the path in it, if there is one: `lr at ['enc']`."""
    return f"{name} at {jax.tree_util.keystr(path)}" if path else name


def listed(items: list[str], most: int = 5) -> str:
    rest = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + rest


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


def in_words(x: Any) -> str:
    """What a value is, at length: `an array of dtype int32 and shape (2,)`."""
    if x is None:
        return "None"
    if isinstance(x, (jax.Array, np.ndarray)):
        return f"an array of dtype {x.dtype} and shape {x.shape}"
    if is_leaf(x):
        return f"the {type(x).__name__} {x!r:.40}"
    keys = [jax.tree_util.keystr(key) for key, _ in one_level(x)[0]]
    return f"a {type(x).__name__} of " + (", ".join(keys) or "nothing")


def type_in_words(x: Any) -> str:
    """The type of a value: `a str`; `None` and rules by path as they are."""
    if x is None or isinstance(x, Rules):
        return repr(x)
    return f"a {type(x).__name__}"


# ------------------------------------------------------------------------------ trees


def explain(name: str, tree: Any, like_name: str, like: Any) -> str:
    """Where two trees that should have one structure differ, in words."""
    ours, theirs = (dict(flatten_with_path(t, is_leaf=is_none)) for t in (tree, like))
    alone = name.rpartition(": ")[2]  # without whose argument it is
    missing = [keystr(k) for k in theirs if k not in ours]
    extra = [keystr(k) for k in ours if k not in theirs]
    words = []
    if missing:
        words.append(f"missing in {alone}: {listed(missing)}")
    if extra:
        words.append(f"only in {alone}: {listed(extra)}")
    if not words:
        nodes = [
            f"{keystr(path)} is {_node(a)} in {alone} and {_node(b)} in {like_name}"
            for path, a, b in _differing_nodes(tree, like)
        ]
        words.append(listed(nodes) or "the node types differ")
    return f"{name} must have the tree structure of {like_name}; " + "; ".join(words)


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


def _node(x: Any) -> str:
    if x is None:
        return "None"
    return spell(x) if children_of(x) is None else type(x).__name__


# ------------------------------------------------------------------ functions, calls


def misfit_of_one(function: Callable) -> str | None:
    """Why a function cannot be called with one argument; `None` if it can."""
    try:
        inspect.signature(function).bind(None)
    except TypeError as error:
        return str(error)
    except ValueError:  # some functions of C have no signature
        return None
    return None


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
    elif is_namedtuple(node):
        fields: Any = getattr(node, "_fields", ())
        children = [(f".{name}", x) for name, x in zip(fields, node)]
    elif isinstance(node, list | tuple):
        children = [(f"[{i}]", x) for i, x in enumerate(node)]
    else:
        return
    for key, child in children:
        yield from _unsortable(child, path + key)

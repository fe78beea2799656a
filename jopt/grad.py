"""Derivatives: taking them, stopping them, and the names of in-place updates.

Everything is a pure function of pytrees. JAX's arrays are immutable, so what other
libraries write in place is returned here.
"""

import collections
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .base import ArrayTree
from .boxes import one_level
from .kinds import is_leaf, is_namedtuple, is_none
from .numerics import compute_dtype
from .operands import (
    broadcast_like,
    check_bool,
    check_fits,
    check_framework,
    read_floats,
    read_numbers,
    strict_call,
    with_rank,
)
from .prefixes import join
from .words import at, in_words

__all__ = [
    "execute_with_gradients",
    "inplace_decrement",
    "inplace_increment",
    "inplace_update",
    "is_variable",
    "stop_gradient",
    "variable",
]


def execute_with_gradients(
    func: Callable[..., Any],
    xs: ArrayTree,
    retain_grads: bool = False,
    f: object = None,
) -> tuple[Any, ...]:
    """Calls a function once, for its value, its gradients and whatever else it returns.

    Args:
        func: takes `xs` and returns `y`, or a tuple `(y, *extras)`; `y` is one real
            number, the extras are any trees.
        xs: the tree to differentiate by. Integers become floats before the call.
        retain_grads: whether `y` and the extras stay attached to an outer
            differentiation. The gradients always do.
        f: the framework, `None`, `"jax"` or the module `jax`.

    Returns:
        `(y, grads, *extras)`; `grads` has the structure, shapes and dtypes of `xs`.
        Gradients that are not finite are returned as they are.

    Raises:
        ValueError: `y` has not one element.
        TypeError: `func` is not callable, `y` is no real floating number, or a leaf of
            `xs` is no real number.

    Example:
        >>> y, grads = jopt.execute_with_gradients(
        ...     lambda xs: (xs["a"] ** 2).sum(), {"a": jnp.array([1.0, 3.0])})
        >>> grads
        {'a': Array([2., 6.], dtype=float32)}
    """
    check_framework(f)
    if not callable(func):
        raise TypeError(f"func must be callable, got {in_words(func)}")

    def cost(xs):
        result = func(xs)
        y, *extras = result if isinstance(result, tuple) and result else (result,)
        y = _read_cost(y)
        return y.reshape(()), (y, extras)

    xs = jax.tree.map(jnp.asarray, read_floats("xs", xs))
    (_, returned), grads = jax.value_and_grad(cost, has_aux=True)(xs)
    y, extras = (
        returned if retain_grads else stop_gradient(returned, map_sequences=True)
    )
    return (y, grads, *extras)


def _read_cost(y: Any) -> jax.Array:
    array = isinstance(y, (jax.Array, np.ndarray, np.generic))
    floating = array and jnp.issubdtype(y.dtype, jnp.floating)
    if not floating and not isinstance(y, float):
        raise TypeError(
            "func must return a real floating number y, or a tuple (y, *extras), got "
            f"{in_words(y)} for y"
        )
    y = jnp.asarray(y)
    if y.size != 1:
        raise ValueError(
            f"y, which func returns first, must be one number, got shape {y.shape}: "
            "reduce it, with its mean or its sum"
        )
    return y


def variable(x: ArrayTree, f: object = None) -> ArrayTree:
    """The tree with a `jax.Array` for each number, ready to differentiate by.

    Args:
        x: a tree of real numbers and arrays. Floats stay as they are, integers become
            the default float.
        f: the framework, `None`, `"jax"` or the module `jax`.

    Returns:
        A tree of floating `jax.Array`s.

    Raises:
        TypeError: a leaf is no real number or array of them.

    Example:
        >>> jopt.variable({"a": jnp.array([1, 2])})
        {'a': Array([1., 2.], dtype=float32)}
    """
    check_framework(f)
    return jax.tree.map(jnp.asarray, read_floats("x", x))


def is_variable(x: Any, exclusive: bool = False, f: object = None) -> bool:
    """Whether this is a `jax.Array`, which JAX can differentiate by.

    Args:
        x: anything.
        exclusive: whether to ask for a type that only variables have. JAX has none, so
            the answer is `False`.
        f: the framework, `None`, `"jax"` or the module `jax`.

    Example:
        >>> jopt.is_variable(jnp.ones(2)), jopt.is_variable(1.0)
        (True, False)
    """
    check_framework(f)
    return not exclusive and isinstance(x, jax.Array)


# ----------------------------------------------------------------------- in-place names


def inplace_update(x: ArrayTree, val: ArrayTree, f: object = None) -> ArrayTree:
    """The value in the shape and dtype of `x`, which itself does not change.

    Args:
        x: what the value would replace.
        val: the value, a tree like `x` or a prefix of it, that broadcasts to `x`.
        f: the framework, `None`, `"jax"` or the module `jax`.

    Returns:
        The new value of `x`, differentiable by `val`.

    Raises:
        ValueError: `val` has more structure than `x` or does not broadcast to it.
        TypeError: `val` is floating and `x` integer, or a leaf is no real number.

    Example:
        >>> jopt.inplace_update(jnp.zeros(2), 3)
        Array([3., 3.], dtype=float32)
    """
    return _inplace(lambda x, val: val, x, val, f)


def inplace_increment(x: ArrayTree, val: ArrayTree, f: object = None) -> ArrayTree:
    """`x + val` in the shape and dtype of `x`, which itself does not change.

    Args:
        x, val, f: as in `inplace_update`.

    Returns:
        The sum, differentiable by both.

    Raises:
        ValueError, TypeError: as in `inplace_update`.

    Example:
        >>> jopt.inplace_increment(jnp.array([1, 2]), 3)
        Array([4, 5], dtype=int32)
    """
    return _inplace(operator.add, x, val, f)


def inplace_decrement(x: ArrayTree, val: ArrayTree, f: object = None) -> ArrayTree:
    """`x - val` in the shape and dtype of `x`, which itself does not change.

    Args:
        x, val, f: as in `inplace_update`.

    Returns:
        The difference, differentiable by both.

    Raises:
        ValueError, TypeError: as in `inplace_update`.

    Example:
        >>> jopt.inplace_decrement(jnp.array([1.0, 2.0]), jnp.array([0.5]))
        Array([0.5, 1.5], dtype=float32)
    """
    return _inplace(operator.sub, x, val, f)


def _inplace(result: Callable, x: ArrayTree, val: ArrayTree, f: object) -> ArrayTree:
    check_framework(f)
    trees = {"x": read_numbers("x", x), "val": read_numbers("val", val)}

    def leaf(row):
        x, val = jnp.asarray(row["x"]), row["val"]
        check_fits(row.path, "val", val, "x", x)
        dtype, val_dtype = x.dtype, jnp.result_type(val)
        if jnp.issubdtype(dtype, jnp.floating):
            number = isinstance(val, (int, float))
            dtype = compute_dtype(dtype, dtype if number else val_dtype)
        elif jnp.issubdtype(val_dtype, jnp.floating):
            raise TypeError(
                f"{at('val', row.path)} has dtype {val_dtype}, x has {dtype}: round "
                "val to integers, or make x floating, before"
            )
        new = result(x.astype(dtype), with_rank(val, x.ndim, dtype))
        return jnp.broadcast_to(new, x.shape).astype(x.dtype)

    return jax.tree.map(leaf, join(trees, {}, fullest="x"))


# ---------------------------------------------------------------------- stopping some


@strict_call
def stop_gradient(
    x: ArrayTree,
    /,
    *,
    preserve_type: bool = True,
    key_chains: Iterable[Any] | None = None,
    to_apply: bool = True,
    prune_unapplied: bool = False,
    map_sequences: bool = False,
    out: ArrayTree | None = None,
    f: object = None,
) -> ArrayTree:
    """The same values, some or all of them constants to differentiation.

    Args:
        x: a tree.
        preserve_type: whether a leaf that is no `jax.Array` comes back as it is, or as
            a `jax.Array` if it is numeric.
        key_chains: which leaves, all of them if `None`. A chain is the keys down to a
            leaf or a subtree joined by `/`, as in `["enc/k"]`, or a tuple of keys.
        to_apply: whether the chains are those to stop or those to leave.
        prune_unapplied: whether the other leaves are dropped, with the dicts left
            empty; in nodes of fixed length they become `None`.
        map_sequences: whether lists and tuples inside `x` are entered, with positions
            as keys, `"layers/0"`. Without it they are left as they are.
        out: arrays whose shapes and dtypes the result takes; not written to.
        f: the framework, `None`, `"jax"` or the module `jax`.

    Returns:
        The tree; leaves that are not stopped are the very same objects.

    Raises:
        ValueError: a chain is not in `x`, or `out` does not fit the result.
        TypeError: `key_chains` is a string, or `out` holds no floating `jax.Array`s.

    Example:
        >>> def cost(w):
        ...     w = jopt.stop_gradient(w, key_chains=["enc/k"])
        ...     return w["enc"]["k"] * w["dec"]
        >>> jax.grad(cost)({"enc": {"k": jnp.float32(2)}, "dec": jnp.float32(3)})["dec"]
        Array(2., dtype=float32)
    """
    check_framework(f)
    check_bool("preserve_type", preserve_type)
    check_bool("to_apply", to_apply)
    check_bool("prune_unapplied", prune_unapplied)
    check_bool("map_sequences", map_sequences)
    chains = None if key_chains is None else _read_chains(key_chains)
    found = set()

    def visit(node, keys, named):
        here = {keys, "/".join(keys)}.intersection(chains or ()) if keys else set()
        found.update(here)
        named = named or bool(here)
        closed = bool(keys) and not map_sequences and _is_sequence(node)
        children, structure = one_level(node)
        if closed or is_leaf(node) or not children:
            if not closed and (chains is None or named == to_apply):
                return _stop(node, preserve_type)
            return _PRUNED if prune_unapplied else node
        below = [visit(child, (*keys, _key(key)), named) for (key,), child in children]
        if not any(x is _PRUNED for x in below):
            return structure.unflatten(below)
        if isinstance(children[0][0][0], jax.tree_util.DictKey):
            return _without_pruned(node, children, below, keys)
        return structure.unflatten(None if x is _PRUNED else x for x in below)

    result = visit(x, (), False)
    missing = [chain for chain in chains or () if chain not in found]
    if missing:
        raise ValueError(
            f"key_chains: {', '.join(map(repr, missing))} not in x, {in_words(x)}; a "
            "chain is the keys joined by '/', and positions of inner lists and tuples "
            "are keys with map_sequences=True"
        )
    result = None if result is _PRUNED else result
    return result if out is None else broadcast_like(result, out)


_PRUNED = object()


def _read_chains(key_chains: Any) -> set:
    """Chains as strings, or as tuples of the strings of their keys."""
    if isinstance(key_chains, str):
        raise TypeError(
            f"key_chains must be a list, got the string {key_chains!r}: did you mean "
            f"[{key_chains!r}]?"
        )
    if isinstance(key_chains, Mapping):
        paths = jax.tree_util.tree_leaves_with_path(key_chains, is_leaf=is_none)
        return {"/".join(map(_key, path)) for path, _ in paths}
    if not isinstance(key_chains, (list, tuple, set, frozenset)):
        raise TypeError(
            f"key_chains must be a list of strings, got {in_words(key_chains)}"
        )
    chains = set()
    for chain in key_chains:
        if not isinstance(chain, (str, tuple)):
            raise TypeError(
                "key_chains must hold strings or tuples of keys, it holds "
                f"{in_words(chain)}"
            )
        chains.add(chain if isinstance(chain, str) else tuple(map(str, chain)))
    return chains


def _stop(x: Any, preserve_type: bool) -> Any:
    numbers = (bool, int, float, complex, np.generic, np.ndarray)
    if not preserve_type and isinstance(x, numbers):
        dtype = np.asarray(x).dtype
        numeric = jnp.issubdtype(dtype, np.number) or jnp.issubdtype(dtype, np.bool_)
        x = jnp.asarray(x) if numeric else x
    return jax.lax.stop_gradient(x) if isinstance(x, jax.Array) else x


def _without_pruned(node: Any, children: list, below: list, keys: tuple) -> Any:
    left = {key.key: x for ((key,), _), x in zip(children, below) if x is not _PRUNED}
    if not left and keys:
        return _PRUNED
    if isinstance(node, collections.defaultdict):
        return collections.defaultdict(node.default_factory, left)
    return type(node)(left)


def _is_sequence(node: Any) -> bool:
    return isinstance(node, (list, tuple)) and not is_namedtuple(node)


def _key(key: Any) -> str:
    return jax.tree_util.keystr((key,), simple=True)

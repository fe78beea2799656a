"""Numbers over a whole tree: sums, extremes, sizes, dtypes."""

import builtins
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ..numerics import cast, compute_dtype
from ..words import keystr, spell
from .arithmetic import check_alike, map_alike
from .devices import together

__all__ = ["allclose", "dtype", "max", "min", "size", "sum", "vdot"]


def sum(tree: Any, associative_reduction: bool = False) -> ArrayLike:
    """The sum of all elements of all leaves, of floats in float32 at least.

    Args:
        tree: a pytree of arrays.
        associative_reduction: whether to add the leaves' sums pairwise, with a smaller
            rounding error for many leaves.

    Returns:
        A scalar; 0 for an empty tree.

    Example:
        >>> jopt.tree.sum([jnp.array([1.0, 2.0]), jnp.array(3.0)])
        Array(6., dtype=float32)
    """
    parts = together([jnp.sum(_wide(x)) for x in jax.tree.leaves(tree)])
    if not associative_reduction:
        return _fold(jnp.add, parts, 0)
    while len(parts) > 1:
        pairs = [parts[i : i + 2] for i in range(0, len(parts), 2)]
        parts = [_fold(jnp.add, pair, 0) for pair in pairs]
    return parts[0] if parts else 0


def max(tree: Any) -> ArrayLike:
    """The largest element of all leaves; minus infinity for an empty tree.

    Example:
        >>> jopt.tree.max([jnp.array([1.0, 2.0]), jnp.array(3.0)])
        Array(3., dtype=float32)
    """
    leaves = [x for x in map(jnp.asarray, jax.tree.leaves(tree)) if x.size]
    return _fold(jnp.maximum, map(jnp.max, leaves), -jnp.inf)


def min(tree: Any) -> ArrayLike:
    """The smallest element of all leaves; infinity for an empty tree.

    Example:
        >>> jopt.tree.min([jnp.array([1.0, 2.0]), jnp.array(3.0)])
        Array(1., dtype=float32)
    """
    leaves = [x for x in map(jnp.asarray, jax.tree.leaves(tree)) if x.size]
    return _fold(jnp.minimum, map(jnp.min, leaves), jnp.inf)


def vdot(tree_x: Any, tree_y: Any) -> ArrayLike:
    """The inner product of two trees, `sum(conj(x) y)`, of floats in float32 at least.

    Args:
        tree_x: a pytree of arrays.
        tree_y: another, of the same structure and shapes.

    Returns:
        A scalar; 0 for empty trees.

    Raises:
        ValueError: the structures or the shapes of two leaves differ.

    Example:
        >>> jopt.tree.vdot([jnp.array([1.0, 2.0])], [jnp.array([3.0, 4.0])])
        Array(11., dtype=float32)
    """

    def one(path, x, y):
        if jnp.shape(x) != jnp.shape(y):  # which would broadcast
            raise ValueError(
                f"vdot: tree_x at {keystr(path)} is {spell(x)}, tree_y there is "
                f"{spell(y)}: the shapes must be equal"
            )
        with jax.numpy_dtype_promotion("standard"):
            return jnp.sum(jnp.conj(_wide(x)) * _wide(y))

    check_alike(tree_x=tree_x, tree_y=tree_y)
    products = jax.tree_util.tree_map_with_path(one, tree_x, tree_y)
    return _fold(jnp.add, jax.tree.leaves(products), 0)


def allclose(
    a: Any,
    b: Any,
    rtol: ArrayLike = 1e-5,
    atol: ArrayLike = 1e-8,
    equal_nan: bool = False,
) -> ArrayLike:
    """Whether all elements of two trees are close, as `jnp.allclose` says.

    Args:
        a: a pytree of arrays.
        b: another, of the same structure.
        rtol: tolerance relative to `b`.
        atol: absolute tolerance.
        equal_nan: whether NaN is close to NaN.

    Returns:
        A boolean, `bool[]`.

    Example:
        >>> jopt.tree.allclose([jnp.ones(2)], [jnp.ones(2) + 1e-7])
        Array(True, dtype=bool)
    """

    def one(x, y):
        with jax.numpy_dtype_promotion("standard"):
            return jnp.allclose(x, y, rtol=rtol, atol=atol, equal_nan=equal_nan)

    return _fold(jnp.logical_and, jax.tree.leaves(map_alike(one, a=a, b=b)), True)


def size(tree: Any) -> int:
    """The number of elements of all leaves.

    Example:
        >>> jopt.tree.size([jnp.ones((2, 3)), 1.0])
        7
    """
    return builtins.sum(np.size(x) for x in jax.tree.leaves(tree))


def dtype(tree: Any, mixed_dtype_handler: str | None = None) -> np.dtype:
    """The dtype of the leaves of a tree.

    Args:
        tree: a pytree of arrays.
        mixed_dtype_handler: which, if they differ: the one that they `"promote"` to;
            the `"highest"` or the `"lowest"` of them, if each can be promoted to or
            from it; an error if `None`.

    Returns:
        The dtype; the default one of floats for an empty tree.

    Raises:
        ValueError: the dtypes differ and there is no such one.

    Example:
        >>> tree = [jnp.ones(2), jnp.ones(2, jnp.bfloat16)]
        >>> jopt.tree.dtype(tree, "lowest")
        dtype(bfloat16)
    """
    if mixed_dtype_handler not in (None, "promote", "highest", "lowest"):
        raise ValueError(
            "dtype: mixed_dtype_handler must be None, 'promote', 'highest' or "
            f"'lowest', got {mixed_dtype_handler!r}"
        )
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    where = {jax.dtypes.result_type(x): keystr(path) for path, x in reversed(leaves)}
    if len(where) < 2:
        return next(iter(where), jnp.dtype(jnp.result_type(float)))

    with jax.numpy_dtype_promotion("standard"):
        highest = functools.reduce(jnp.promote_types, where)
        lowest = [d for d in where if all(jnp.promote_types(d, o) == o for o in where)]
    if mixed_dtype_handler == "promote":
        return highest
    if mixed_dtype_handler == "highest" and highest in where:
        return highest
    if mixed_dtype_handler == "lowest" and lowest:
        return lowest[0]
    found = ", ".join(f"{d} at {path}" for d, path in reversed(where.items()))
    if mixed_dtype_handler is None:
        raise ValueError(f"dtype: the leaves must have one dtype, got {found}")
    raise ValueError(f"dtype: none is the {mixed_dtype_handler}: {found}")


def _wide(x: ArrayLike) -> jax.Array:
    """Floats of 16 bits in float32."""
    x = jnp.asarray(x)
    inexact = jnp.issubdtype(x.dtype, jnp.inexact)
    return cast(x, compute_dtype(x.dtype)) if inexact else x


def _fold(function: Callable, parts: Any, empty: Any) -> Any:
    """`function` between all parts, promoted as JAX does where it is not strict."""
    with jax.numpy_dtype_promotion("standard"):
        return functools.reduce(function, together([*parts]) or [empty])

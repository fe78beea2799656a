"""Arithmetic on trees, leaf by leaf."""

import functools
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from .. import numerics
from ..kinds import is_none
from ..words import explain

__all__ = [
    "add",
    "add_scale",
    "batch_shape",
    "cast",
    "cast_like",
    "clip",
    "conj",
    "div",
    "mul",
    "real",
    "scale",
    "sub",
    "where",
]


def map_alike(function: Callable, **trees: Any) -> Any:
    """`jax.tree.map` over trees that must have one structure."""
    check_alike(**trees)
    return jax.tree.map(function, *trees.values())


def check_alike(**trees: Any) -> None:
    """Refuse trees of different structures, by the names of the keywords."""
    (name, like), *others = trees.items()
    structure = jax.tree.structure(like)
    for other, tree in others:
        if jax.tree.structure(tree) != structure:
            raise ValueError(explain(other, tree, name, like))


def add(tree_x: Any, tree_y: Any, *other_trees: Any) -> Any:
    """The sum of two trees or more.

    Example:
        >>> jopt.tree.add([1.0], [2.0], [3.0])
        [6.0]
    """
    others = {f"other_trees[{i}]": tree for i, tree in enumerate(other_trees)}

    def total(*xs):
        return functools.reduce(operator.add, xs)

    return map_alike(total, tree_x=tree_x, tree_y=tree_y, **others)


def sub(tree_x: Any, tree_y: Any) -> Any:
    """The difference of two trees.

    Example:
        >>> jopt.tree.sub([3.0], [2.0])
        [1.0]
    """
    return map_alike(operator.sub, tree_x=tree_x, tree_y=tree_y)


def mul(tree_x: Any, tree_y: Any) -> Any:
    """The product of two trees, element by element.

    Example:
        >>> jopt.tree.mul([3.0], [2.0])
        [6.0]
    """
    return map_alike(operator.mul, tree_x=tree_x, tree_y=tree_y)


def div(tree_x: Any, tree_y: Any) -> Any:
    """The quotient of two trees, element by element.

    Example:
        >>> jopt.tree.div([3.0], [2.0])
        [1.5]
    """
    return map_alike(operator.truediv, tree_x=tree_x, tree_y=tree_y)


def scale(scalar: ArrayLike, tree: Any) -> Any:
    """A tree times a number.

    Example:
        >>> jopt.tree.scale(2.0, [1.5])
        [3.0]
    """
    return jax.tree.map(lambda x: scalar * x, tree)


def add_scale(tree_x: Any, scalar: ArrayLike, tree_y: Any) -> Any:
    """A tree plus a number times another, `x + scalar y`; `None` in `x` stays.

    Example:
        >>> jopt.tree.add_scale([1.0], 0.5, [2.0])
        [2.0]
    """

    def shown(x, y):
        return None if x is None else y

    try:
        tree_y = jax.tree.map(shown, tree_x, tree_y, is_leaf=is_none)
    except ValueError:
        raise ValueError(explain("tree_y", tree_y, "tree_x", tree_x)) from None
    return map_alike(lambda x, y: x + scalar * y, tree_x=tree_x, tree_y=tree_y)


def conj(tree: Any) -> Any:
    """The complex conjugate of a tree.

    Example:
        >>> jopt.tree.conj([1 + 2j])
        [Array(1.-2.j, dtype=complex64, weak_type=True)]
    """
    return jax.tree.map(jnp.conj, tree)


def real(tree: Any) -> Any:
    """The real part of a tree.

    Example:
        >>> jopt.tree.real([jnp.array([1 + 2j])])
        [Array([1.], dtype=float32)]
    """
    return jax.tree.map(jnp.real, tree)


def clip(
    tree: Any, min_value: ArrayLike | None = None, max_value: ArrayLike | None = None
) -> Any:
    """A tree whose elements are kept in `[min_value, max_value]`.

    Args:
        tree: a pytree of real arrays.
        min_value: the lower bound, none if `None`.
        max_value: the upper bound, none if `None`.

    Example:
        >>> jopt.tree.clip([jnp.array([-3.0, 0.5])], -1, 1)
        [Array([-1. ,  0.5], dtype=float32)]
    """
    return jax.tree.map(lambda x: jnp.clip(x, min_value, max_value), tree)


def where(condition: ArrayLike, tree_x: Any, tree_y: Any) -> Any:
    """`tree_x` where the condition is true, `tree_y` elsewhere.

    Args:
        condition: a boolean, or an array of them that every leaf broadcasts with.
        tree_x: a pytree of arrays.
        tree_y: another, of the same structure.

    Example:
        >>> jopt.tree.where(jnp.array(True), [jnp.ones(2)], [jnp.zeros(2)])
        [Array([1., 1.], dtype=float32)]
    """
    return map_alike(
        lambda x, y: jnp.where(condition, x, y), tree_x=tree_x, tree_y=tree_y
    )


def cast(tree: Any, dtype: DTypeLike | None) -> Any:
    """A tree in another dtype; as it is if that is `None`.

    Example:
        >>> jopt.tree.cast([jnp.ones(2)], jnp.bfloat16)
        [Array([1, 1], dtype=bfloat16)]
    """
    if dtype is None:
        return tree
    return jax.tree.map(lambda x: numerics.cast(jnp.asarray(x), dtype), tree)


def cast_like(tree: Any, other_tree: Any) -> Any:
    """A tree in the dtypes of another.

    Example:
        >>> jopt.tree.cast_like([jnp.ones(2)], [jnp.float16(0)])
        [Array([1., 1.], dtype=float16)]
    """

    def one(x, like):
        return numerics.cast(jnp.asarray(x), jnp.asarray(like).dtype)

    return map_alike(one, tree=tree, other_tree=other_tree)


def batch_shape(tree: Any, shape: tuple[int, ...] = ()) -> Any:
    """A tree whose leaves are repeated along new leading axes.

    Args:
        tree: a pytree of arrays.
        shape: the lengths of the new axes.

    Example:
        >>> jopt.tree.batch_shape([jnp.ones(2)], (3,))[0].shape
        (3, 2)
    """
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (*shape, *jnp.shape(x))), tree)

"""Bounds on a norm, and the simplex."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from .. import tree as trees
from ..numerics import cast
from ..settings import NOT_NEGATIVE, check_number
from .leaves import as_vector, check_leaves, each

__all__ = [
    "projection_l1_ball",
    "projection_l1_sphere",
    "projection_l2_ball",
    "projection_l2_sphere",
    "projection_simplex",
]


def projection_simplex(tree: Any, scale: ArrayLike = 1) -> Any:
    """The nearest tree of non-negative elements that sum to `scale`.

        p = max(x - tau, 0),  tau such that sum(p) = scale

    Args:
        tree: a pytree of real arrays.
        scale: the sum, not negative.

    Returns:
        The tree, with its shapes, and dtypes if these are of floats. Time: one sort of
        all elements.

    Raises:
        ValueError: `scale` is negative or no scalar.
        TypeError: a leaf is not real.

    Example:
        >>> jopt.projections.projection_simplex(jnp.array([1.0, 0.5, -2.0]))
        Array([0.75, 0.25, 0.  ], dtype=float32)

    Reference:
        Duchi, Shalev-Shwartz, Singer & Chandra, Efficient Projections onto the l1-Ball
        for Learning in High Dimensions, ICML 2008.
    """
    check_number("projection_simplex", "scale", scale, NOT_NEGATIVE)
    check_leaves("projection_simplex", "tree", tree)
    return as_vector(lambda x: on_simplex(x, scale), tree)


def projection_l1_ball(tree: Any, scale: ArrayLike = 1) -> Any:
    """The nearest tree whose sizes of elements sum to at most `scale`.

    Args:
        tree: a pytree of arrays.
        scale: the radius, not negative.

    Returns:
        The tree, with its shapes, and dtypes if these are of floats. Time: one sort of
        all elements, if the tree is outside.

    Raises:
        ValueError: `scale` is negative or no scalar.

    Example:
        >>> jopt.projections.projection_l1_ball(jnp.array([1.0, -0.5, 0.0]))
        Array([ 0.75, -0.25,  0.  ], dtype=float32)

    Reference:
        Duchi, Shalev-Shwartz, Singer & Chandra, Efficient Projections onto the l1-Ball
        for Learning in High Dimensions, ICML 2008.
    """
    check_number("projection_l1_ball", "scale", scale, NOT_NEGATIVE)
    check_leaves("projection_l1_ball", "tree", tree, complexes=True)

    def project(x):
        inside = jnp.sum(jnp.abs(x)) <= scale
        return jax.lax.cond(inside, lambda: x, lambda: _on_l1_sphere(x, scale))

    return as_vector(project, tree)


def projection_l1_sphere(tree: Any, scale: ArrayLike = 1) -> Any:
    """The nearest tree whose sizes of elements sum to `scale`.

    Args:
        tree: a pytree of arrays; the sign of a zero counts as plus.
        scale: the radius, not negative.

    Returns:
        The tree, with its shapes, and dtypes if these are of floats. Time: one sort of
        all elements.

    Raises:
        ValueError: `scale` is negative or no scalar.

    Example:
        >>> jopt.projections.projection_l1_sphere(jnp.array([0.5, -0.25]))
        Array([ 0.625, -0.375], dtype=float32)

    Reference:
        Duchi, Shalev-Shwartz, Singer & Chandra, Efficient Projections onto the l1-Ball
        for Learning in High Dimensions, ICML 2008.
    """
    check_number("projection_l1_sphere", "scale", scale, NOT_NEGATIVE)
    check_leaves("projection_l1_sphere", "tree", tree, complexes=True)
    return as_vector(lambda x: _on_l1_sphere(x, scale), tree)


def _on_l1_sphere(x, scale):
    sign = jnp.where(x == 0, 1, jnp.sign(x))
    return sign * cast(on_simplex(jnp.abs(x), scale), x.dtype)


def on_simplex(x: jax.Array, scale: ArrayLike = 1) -> jax.Array:
    """The nearest points of the simplex to the vectors along the last axis."""
    if not x.size:
        return x
    x = x - jax.lax.stop_gradient(jnp.max(x, -1, keepdims=True))  # moves tau alone
    scale = jnp.asarray(scale, x.dtype)
    falling = -jnp.sort(-jax.lax.stop_gradient(x), -1)
    rank = jax.lax.broadcasted_iota(x.dtype, x.shape, x.ndim - 1) + 1
    tau = (jnp.cumsum(falling, -1) - scale) / rank
    n = jnp.maximum(jnp.sum(falling > tau, -1, keepdims=True), 1)
    x = x - jnp.take_along_axis(tau, n - 1, -1)
    support = x > 0
    # What the cumulative sums have rounded off, many times as large as `scale` where
    # many elements lie below the largest one, by a sum of differences that stays small;
    # its derivative is that of the projection.
    size = jnp.maximum(jnp.sum(support, -1, keepdims=True, dtype=x.dtype), 1)
    excess = jnp.sum(jnp.where(support, x - scale / size, 0), -1, keepdims=True) / size
    return jnp.where(support, jnp.maximum(x - excess, 0), 0)


def projection_l2_ball(tree: Any, scale: ArrayLike = 1) -> Any:
    """The nearest tree whose norm is at most `scale`.

        p = x min(1, scale / |x|)

    Args:
        tree: a pytree of arrays.
        scale: the radius, not negative.

    Returns:
        The tree, with its shapes, and dtypes if these are of floats.

    Raises:
        ValueError: `scale` is negative or no scalar.

    Example:
        >>> jopt.projections.projection_l2_ball([jnp.array([3.0]), jnp.array([4.0])])
        [Array([0.6], dtype=float32), Array([0.8], dtype=float32)]

    Reference:
        Parikh & Boyd, Proximal Algorithms, 2014, section 6.5.1.
    """
    check_number("projection_l2_ball", "scale", scale, NOT_NEGATIVE)
    check_leaves("projection_l2_ball", "tree", tree, complexes=True)
    norm = trees.norm(tree)
    scale = jnp.asarray(scale, norm.dtype)
    outside = norm > scale
    factor = jnp.where(outside, scale / jnp.where(outside, norm, 1), 1)
    return each(lambda x: x * cast(factor, x.dtype), tree)


def projection_l2_sphere(tree: Any, scale: ArrayLike = 1) -> Any:
    """The nearest tree whose norm is `scale`.

        p = x scale / |x|

    All points of the sphere are equally near to zero; there it is the one whose
    elements are equal.

    Args:
        tree: a pytree of arrays.
        scale: the radius, not negative.

    Returns:
        The tree, with its shapes, and dtypes if these are of floats.

    Raises:
        ValueError: `scale` is negative or no scalar.

    Example:
        >>> jopt.projections.projection_l2_sphere(jnp.array([3.0, 4.0]), 10.0)
        Array([6., 8.], dtype=float32)

    Reference:
        Parikh & Boyd, Proximal Algorithms, 2014, section 6.5.1.
    """
    check_number("projection_l2_sphere", "scale", scale, NOT_NEGATIVE)
    check_leaves("projection_l2_sphere", "tree", tree, complexes=True)
    norm = trees.norm(tree)
    scale = jnp.asarray(scale, norm.dtype)
    zero = norm == 0
    norm = jnp.where(zero, 1, norm)
    middle = scale / max(trees.size(tree), 1) ** 0.5

    def project(x):
        moved = x / cast(norm, x.dtype) * cast(scale, x.dtype)
        return jnp.where(zero, cast(middle, x.dtype), moved)

    return each(project, tree)

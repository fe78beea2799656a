"""The nearest point of a set, for trees: what a constrained step ends with.

A tree is one long vector. Its leaves keep shape and dtype, integers become floats where
the nearest point is none of integers. Numbers over the tree are float32 at least.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

from . import tree as trees
from .numerics import cast, compute_dtype
from .settings import (
    ANY,
    NOT_NEGATIVE,
    Range,
    check_array,
    check_number,
    check_real,
)
from .tree.messages import explain, keystr, spell

__all__ = [
    "projection_box",
    "projection_halfspace",
    "projection_hypercube",
    "projection_hyperplane",
    "projection_l1_ball",
    "projection_l1_sphere",
    "projection_l2_ball",
    "projection_l2_sphere",
    "projection_linf_ball",
    "projection_non_negative",
    "projection_simplex",
    "projection_vector",
]


# ------------------------------------------------------------------------------- boxes


def projection_non_negative(tree: Any) -> Any:
    """The nearest tree without negative elements, `max(x, 0)`.

    Args:
        tree: a pytree of real arrays.

    Returns:
        The tree, with its shapes and dtypes.

    Raises:
        TypeError: a leaf is not real.

    Example:
        >>> jopt.projections.projection_non_negative(jnp.array([-1.0, 2.0]))
        Array([0., 2.], dtype=float32)

    Reference:
        Parikh & Boyd, Proximal Algorithms, 2014, section 6.2.4.
    """
    return _clip("projection_non_negative", tree, lower=0, upper=None)


def projection_box(tree: Any, lower: Any, upper: Any) -> Any:
    """The nearest tree between two bounds, `min(max(x, lower), upper)`.

    Args:
        tree: a pytree of real arrays.
        lower: a number, or a tree of the same structure whose leaves broadcast to those
            of `tree`.
        upper: likewise; it wins where the bounds cross.

    Returns:
        The tree, with its shapes, and dtypes if these are of floats.

    Raises:
        ValueError: a bound has another structure, or does not broadcast to its leaf.
        TypeError: a leaf is not real.

    Example:
        >>> jopt.projections.projection_box({"a": jnp.array([-1.0, 2.0])}, 0.0, 1.0)
        {'a': Array([0., 1.], dtype=float32)}

    Reference:
        Parikh & Boyd, Proximal Algorithms, 2014, section 6.2.4.
    """
    return _clip("projection_box", tree, lower=lower, upper=upper)


def projection_hypercube(tree: Any, scale: Any = 1) -> Any:
    """The nearest tree with elements in [0, scale].

    Args:
        tree: a pytree of real arrays.
        scale: a number, or a tree of the same structure.

    Returns:
        The tree, with its shapes, and dtypes if these are of floats.

    Raises:
        ValueError: `scale` has another structure, or does not broadcast to a leaf.
        TypeError: a leaf is not real.

    Example:
        >>> jopt.projections.projection_hypercube(jnp.array([-1.0, 0.5, 2.0]))
        Array([0. , 0.5, 1. ], dtype=float32)

    Reference:
        Parikh & Boyd, Proximal Algorithms, 2014, section 6.2.4.
    """
    return _clip("projection_hypercube", tree, lower=0, scale=scale)


def projection_linf_ball(tree: Any, scale: ArrayLike = 1) -> Any:
    """The nearest tree whose largest element is at most `scale` in size.

    Args:
        tree: a pytree of real arrays.
        scale: the radius, not negative.

    Returns:
        The tree, with its shapes, and dtypes if these are of floats.

    Raises:
        ValueError: `scale` is negative or no scalar.
        TypeError: a leaf is not real.

    Example:
        >>> jopt.projections.projection_linf_ball(jnp.array([-3.0, 0.5]))
        Array([-1. ,  0.5], dtype=float32)

    Reference:
        Parikh & Boyd, Proximal Algorithms, 2014, section 6.2.4.
    """
    check_number("projection_linf_ball", "scale", scale, NOT_NEGATIVE)
    return _clip("projection_linf_ball", tree, lower=-jnp.asarray(scale), scale=scale)


def _clip(where: str, tree: Any, **bounds: Any) -> Any:
    """Each leaf between two bounds, a lower and an upper one in this order."""
    _check_leaves(where, "tree", tree)
    structure = jax.tree.structure(tree)
    columns = []
    for name, bound in bounds.items():
        _check_leaves(where, name, bound, _SCALE if name == "scale" else ANY)
        if bound is None or jax.tree.structure(bound) == _LEAF:
            columns.append([bound] * structure.num_leaves)
        elif jax.tree.structure(bound) == structure:
            columns.append(jax.tree.leaves(bound))
        else:
            raise ValueError(f"{where}: {explain(name, bound, 'tree', tree)}")
    paths_and_leaves = jax.tree_util.tree_leaves_with_path(tree)
    return structure.unflatten(
        _clip_leaf(where, path, x, dict(zip(bounds, row)))
        for (path, x), *row in zip(paths_and_leaves, *columns)
    )


_LEAF = jax.tree.structure(0)
_SCALE = Range(0, finite=False)


def _clip_leaf(where: str, path: tuple, x: Any, bounds: dict[str, Any]) -> jax.Array:
    x = jnp.asarray(x)
    given = {k: jnp.asarray(v) for k, v in bounds.items() if v is not None}
    for name, bound in given.items():
        fits = bound.ndim <= x.ndim
        pairs = zip(reversed(bound.shape), reversed(x.shape))
        if not (fits and all(n in (1, m) for n, m in pairs)):
            raise ValueError(
                f"{where}: {name} at {keystr(path)} is {spell(bound)}, which does not "
                f"broadcast to {spell(x)} of tree"
            )
    floating = jnp.issubdtype(x.dtype, jnp.floating)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        dtype = x.dtype if floating else jnp.result_type(x, *given.values())
    wide = compute_dtype(dtype)
    low, high = (
        None if v is None else jnp.broadcast_to(jnp.asarray(v, wide), x.shape)
        for v in bounds.values()
    )
    return cast(jnp.clip(cast(x, wide), low, high), dtype)


# ------------------------------------------------------------------- balls and spheres


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
    _check_leaves("projection_simplex", "tree", tree)
    return _as_vector(lambda x: on_simplex(x, scale), tree)


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
    _check_leaves("projection_l1_ball", "tree", tree, complexes=True)

    def project(x):
        inside = jnp.sum(jnp.abs(x)) <= scale
        return jax.lax.cond(inside, lambda: x, lambda: _on_l1_sphere(x, scale))

    return _as_vector(project, tree)


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
    _check_leaves("projection_l1_sphere", "tree", tree, complexes=True)
    return _as_vector(lambda x: _on_l1_sphere(x, scale), tree)


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
    support = x > jnp.take_along_axis(tau, n - 1, -1)
    # The same number again, by a sum that is more exact than the cumulative one, and
    # whose derivative is that of the projection.
    size = jnp.maximum(jnp.sum(support, -1, keepdims=True, dtype=x.dtype), 1)
    total = jnp.sum(jnp.where(support, x, 0), -1, keepdims=True)
    return jnp.where(support, jnp.maximum(x - (total - scale) / size, 0), 0)


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
    _check_leaves("projection_l2_ball", "tree", tree, complexes=True)
    norm = trees.norm(tree)
    scale = jnp.asarray(scale, norm.dtype)
    outside = norm > scale
    factor = jnp.where(outside, scale / jnp.where(outside, norm, 1), 1)
    return _each(lambda x: x * cast(factor, x.dtype), tree)


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
    _check_leaves("projection_l2_sphere", "tree", tree, complexes=True)
    norm = trees.norm(tree)
    scale = jnp.asarray(scale, norm.dtype)
    zero = norm == 0
    norm = jnp.where(zero, 1, norm)
    middle = scale / max(trees.size(tree), 1) ** 0.5

    def project(x):
        moved = x / cast(norm, x.dtype) * cast(scale, x.dtype)
        return jnp.where(zero, cast(middle, x.dtype), moved)

    return _each(project, tree)


# -------------------------------------------------------------------- planes and lines


def projection_hyperplane(x: Any, a: Any, b: ArrayLike) -> Any:
    """The nearest tree `y` with `<a, y> = b`.

        y = x - a (<a, x> - b) / <a, a>

    Args:
        x: a pytree of arrays.
        a: the normal of the plane, a tree of the same structure and shapes. Where it is
            zero there is no plane, and `x` is returned.
        b: a scalar.

    Returns:
        The tree, with its shapes, and dtypes if these are of floats.

    Raises:
        ValueError: the structures or shapes differ, or `b` is no scalar.

    Example:
        >>> x, a = jnp.array([1.0, 1.0]), jnp.array([2.0, 0.0])
        >>> jopt.projections.projection_hyperplane(x, a, 6.0)
        Array([3., 1.], dtype=float32)

    Reference:
        Parikh & Boyd, Proximal Algorithms, 2014, section 6.2.2.
    """
    unit, along, b = _line("projection_hyperplane", x, a, b)
    return _subtract(x, along - b, unit)


def projection_halfspace(x: Any, a: Any, b: ArrayLike) -> Any:
    """The nearest tree `y` with `<a, y> <= b`.

        y = x - a max(<a, x> - b, 0) / <a, a>

    Args:
        x: a pytree of real arrays.
        a: the normal that points outwards, a tree of the same structure and shapes.
            Where it is zero, `x` is returned.
        b: a scalar.

    Returns:
        The tree, with its shapes, and dtypes if these are of floats.

    Raises:
        ValueError: the structures or shapes differ, or `b` is no scalar.
        TypeError: a leaf of `x` is not real.

    Example:
        >>> x, a = jnp.array([1.0, 1.0]), jnp.array([2.0, 0.0])
        >>> jopt.projections.projection_halfspace(x, a, 1.0)
        Array([0.5, 1. ], dtype=float32)

    Reference:
        Parikh & Boyd, Proximal Algorithms, 2014, section 6.2.3.
    """
    _check_leaves("projection_halfspace", "x", x)
    unit, along, b = _line("projection_halfspace", x, a, b)
    return _subtract(x, jnp.maximum(along - b, 0), unit)


def projection_vector(x: Any, a: Any) -> Any:
    """The nearest tree to `x` among the multiples of `a`.

        y = a <a, x> / <a, a>

    Args:
        x: a pytree of arrays.
        a: the direction, a tree of the same structure and shapes; where it is zero, so
            is the result.

    Returns:
        The tree, with its shapes, and dtypes if these are of floats.

    Raises:
        ValueError: the structures or shapes differ.

    Example:
        >>> x, a = jnp.array([1.0, 1.0]), jnp.array([2.0, 0.0])
        >>> jopt.projections.projection_vector(x, a)
        Array([1., 0.], dtype=float32)

    Reference:
        Strang, Introduction to Linear Algebra, 2016, section 4.2.
    """
    unit, along, _ = _line("projection_vector", x, a)
    return _each(lambda x, u: cast(along, u.dtype) * u, x, unit)


def _line(where: str, x: Any, a: Any, b: ArrayLike = 0) -> tuple[Any, Any, Any]:
    """`a`, the inner product of `x` with it and `b`, all over the norm of `a`."""
    if jax.tree.structure(a) != jax.tree.structure(x):
        raise ValueError(f"{where}: {explain('a', a, 'x', x)}")
    check_number(where, "b", b, ANY)
    _check_leaves(where, "x", x, complexes=True)
    complexes = any(map(jnp.iscomplexobj, jax.tree.leaves(x)))
    _check_leaves(where, "a", a, complexes=complexes)
    leaves = jax.tree_util.tree_leaves_with_path(x)
    for (path, leaf), like in zip(leaves, jax.tree.leaves(a)):
        if np.shape(leaf) != np.shape(like):
            raise ValueError(
                f"{where}: a at {keystr(path)} is {spell(like)}, x there is "
                f"{spell(leaf)}: the shapes must be equal"
            )
    norm = trees.norm(a)
    norm = jnp.where(norm == 0, 1, norm)
    unit = jax.tree.map(lambda v: _wide(v) / cast(norm, _wide(v).dtype), a)
    along = jnp.asarray(trees.vdot(unit, jax.tree.map(_wide, x)))
    return unit, along, jnp.asarray(b, along.dtype) / cast(norm, along.dtype)


def _subtract(x: Any, step: jax.Array, unit: Any) -> Any:
    return _each(lambda x, u: x - cast(step, x.dtype) * cast(u, x.dtype), x, unit)


# ------------------------------------------------------------------------------- trees


def _check_leaves(
    where: str, name: str, tree: Any, allowed: Range | None = None, **kw: bool
) -> None:
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        at = f"{name} at {keystr(path)}" if path else name
        check_real(where, at, x, **kw)
        if allowed is not None:
            check_array(where, at, x, allowed)


def _inexact(x: ArrayLike) -> jax.Array:
    x = jnp.asarray(x)
    inexact = jnp.issubdtype(x.dtype, jnp.inexact)
    return x if inexact else x.astype(jnp.result_type(float))


def _wide(x: ArrayLike) -> jax.Array:
    x = _inexact(x)
    return cast(x, compute_dtype(x.dtype))


def _each(function: Callable, tree: Any, *more: Any) -> Any:
    """A function of arrays on all leaves, computed in float32 at least."""

    def one(x, *others):
        return cast(function(_wide(x), *others), _inexact(x).dtype)

    return jax.tree.map(one, tree, *more)


def _as_vector(function: Callable, tree: Any) -> Any:
    """A function of a vector on all elements of the tree."""
    leaves = [_inexact(x) for x in jax.tree.leaves(tree)]
    dtype = compute_dtype(jnp.float32, *(x.dtype for x in leaves))
    vector, unravel = ravel_pytree([cast(x, dtype) for x in leaves])
    parts = unravel(function(vector)) if leaves else []
    parts = [
        cast(part if jnp.iscomplexobj(x) else part.real, x.dtype)
        for part, x in zip(parts, leaves)
    ]
    return jax.tree.structure(tree).unflatten(parts)

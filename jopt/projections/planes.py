"""Planes, half-spaces and lines."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from .. import tree as trees
from ..numerics import cast
from ..settings import ANY, check_number
from ..tree.norms import wide
from ..words import explain, keystr, spell
from .leaves import check_leaves, each

__all__ = [
    "projection_halfspace",
    "projection_hyperplane",
    "projection_vector",
]


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
    check_leaves("projection_halfspace", "x", x)
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
    return each(lambda x, u: cast(along, u.dtype) * u, x, unit)


def _line(where: str, x: Any, a: Any, b: ArrayLike = 0) -> tuple[Any, Any, Any]:
    """`a`, the inner product of `x` with it and `b`, all over the norm of `a`."""
    if jax.tree.structure(a) != jax.tree.structure(x):
        raise ValueError(f"{where}: {explain('a', a, 'x', x)}")
    check_number(where, "b", b, ANY)
    check_leaves(where, "x", x, complexes=True)
    complexes = any(map(jnp.iscomplexobj, jax.tree.leaves(x)))
    check_leaves(where, "a", a, complexes=complexes)
    leaves = jax.tree_util.tree_leaves_with_path(x)
    for (path, leaf), like in zip(leaves, jax.tree.leaves(a)):
        if np.shape(leaf) != np.shape(like):
            raise ValueError(
                f"{where}: a at {keystr(path)} is {spell(like)}, x there is "
                f"{spell(leaf)}: the shapes must be equal"
            )
    norm = trees.norm(a)
    norm = jnp.where(norm == 0, 1, norm)
    unit = jax.tree.map(lambda v: wide(v) / cast(norm, wide(v).dtype), a)
    along = jnp.asarray(trees.vdot(unit, jax.tree.map(wide, x)))
    return unit, along, jnp.asarray(b, along.dtype) / cast(norm, along.dtype)


def _subtract(x: Any, step: jax.Array, unit: Any) -> Any:
    return each(lambda x, u: x - cast(step, x.dtype) * cast(u, x.dtype), x, unit)

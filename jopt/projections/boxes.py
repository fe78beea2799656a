"""Bounds on each element."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ..numerics import cast, compute_dtype
from ..settings import ANY, NOT_NEGATIVE, Range, check_number
from ..words import explain, keystr, spell
from .leaves import check_leaves

__all__ = [
    "projection_box",
    "projection_hypercube",
    "projection_linf_ball",
    "projection_non_negative",
]


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
    check_leaves(where, "tree", tree)
    structure = jax.tree.structure(tree)
    columns = []
    for name, bound in bounds.items():
        check_leaves(where, name, bound, _SCALE if name == "scale" else ANY)
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

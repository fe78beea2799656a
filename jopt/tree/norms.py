"""Norms over all elements of a tree, for any magnitude that they have."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ..numerics import (
    SCALES,
    abs_sq,
    cast,
    compute_dtype,
    cond,
    safe_sqrt,
    square_and_share,
)
from .reduce_leaves import Reduction, reduce_leaves

__all__ = ["norm"]


def norm(
    tree: Any,
    ord: int | str | float | None = None,
    squared: bool = False,
    *,
    axis_name: str | tuple[str, ...] | None = None,
) -> jax.Array:
    """The norm over all elements of all leaves, for any magnitude they hold.

        norm = sqrt(sum_i |x_i|^2),  sum_i |x_i|  or  max_i |x_i|

    Computed in float32 at least; the 2-norm in one pass over the leaves, and only if
    the sum of squares overflows or nearly underflows in a second one, scaled. The
    derivative of the 2-norm at zero is zero.

    Args:
        tree: a pytree of arrays.
        ord: 2 (or `None`), 1 or `inf`.
        squared: whether to return the square.
        axis_name: within `shard_map` or `vmap`, the axes along which every leaf is
            split; without it the norm is that of the shard alone.

    Returns:
        A scalar, `f32[]` (`f64[]` if a leaf has 64 bits); 0 for an empty tree.

    Raises:
        ValueError: `ord` is another.

    Example:
        >>> jopt.tree.norm({"a": jnp.array([3e30]), "b": jnp.array([4e30])})
        Array(5.e+30, dtype=float32)
    """
    if ord is None or ord == 2:
        total, scale = _sum_of_squares(tree, axis_name)
        return total / scale / scale if squared else safe_sqrt(total) / scale
    leaves = [as_inexact(x) for x in jax.tree.leaves(tree)]
    dtype = compute_dtype(jnp.float32, *(jnp.finfo(x.dtype).dtype for x in leaves))
    if ord == 1:
        joint, gather = _ONE, jax.lax.psum
    elif ord in (math.inf, "inf"):
        joint, gather = _LARGEST, jax.lax.pmax
    else:
        raise ValueError(f"norm: ord must be 1, 2, inf or None, got {ord!r}")
    value = reduce_leaves(joint, leaves, dtype)
    value = value if axis_name is None else gather(value, axis_name)
    return value * value if squared else value


def scaled_norm(
    tree: Any, axis_name: str | tuple[str, ...] | None = None
) -> tuple[jax.Array, jax.Array]:
    """The 2-norm as a quotient `root / scale` that itself may be out of range.

    `x * scale / root` is in range for every `x` of the tree. `scale` is a power of
    two, one but for norms near the ends of the range. `root` is one where the norm is
    zero, and NaN where an element is not finite: there is no direction then.
    """
    total, scale = _sum_of_squares(tree, axis_name)
    root = jnp.where(jnp.isfinite(total), safe_sqrt(total), jnp.nan)
    return jnp.where(total == 0, jnp.ones_like(root), root), scale


def bounded_norm(tree: Any) -> tuple[jax.Array, jax.Array]:
    """The squared norm, finite, and the factor that bounds the tree to it."""
    return square_and_share(*_sum_of_squares(tree, None))


def _sum_of_squares(tree: Any, axis_name: Any) -> tuple[jax.Array, jax.Array]:
    """The sum of the squares of `scale * x`, and that scale."""
    leaves = [as_inexact(x) for x in jax.tree.leaves(tree)]
    dtype = compute_dtype(jnp.float32, *(jnp.finfo(x.dtype).dtype for x in leaves))

    def sum_of_squares(scale):
        total = reduce_leaves(_SQUARES, leaves, dtype, scale)
        return total if axis_name is None else jax.lax.psum(total, axis_name)

    total = sum_of_squares(np.ones((), dtype))  # nothing to compute, one trace for two
    up, small = SCALES[dtype.itemsize]
    exact = jnp.isfinite(total) & (total > small)
    scale = jnp.where(total > 1, 1 / up, up).astype(dtype)
    rescaled = cond(exact, lambda: total, lambda: sum_of_squares(scale))
    # Constants that XLA folds as it compiles may turn 0 * 2**80 * 2**80 into NaN.
    total = jnp.where((total == 0) & jnp.isnan(rescaled), total, rescaled)
    return total, jnp.where(exact | (total == 0), jnp.ones_like(scale), scale)


def _square(x: jax.Array, scale: jax.Array) -> jax.Array:
    x = cast(x, compute_dtype(x.dtype, scale.dtype))
    return abs_sq(x * cast(scale, x.dtype))


def _magnitude(x: jax.Array) -> jax.Array:
    return jnp.abs(wide(x))


def as_inexact(x: ArrayLike) -> jax.Array:
    """Floats as they are, integers and booleans in the default floating dtype."""
    x = jnp.asarray(x)
    inexact = jnp.issubdtype(x.dtype, jnp.inexact)
    return x if inexact else x.astype(jnp.result_type(float))


def wide(x: ArrayLike) -> jax.Array:
    """The array in a dtype to compute in, float32 at least."""
    x = as_inexact(x)
    return cast(x, compute_dtype(x.dtype))


def _max(x: jax.Array) -> jax.Array:
    return jnp.max(x, initial=0)


# Of `lax`, which is several times as quick to trace as `jnp`.
_SQUARES = Reduction(_square, jax.lax.add, jnp.sum)
_ONE = Reduction(_magnitude, jax.lax.add, jnp.sum)
_LARGEST = Reduction(_magnitude, jax.lax.max, _max)

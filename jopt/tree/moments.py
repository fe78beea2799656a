"""Moving averages of moments, in the words of optax; methods use `numerics.ema`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ..kinds import is_none
from ..numerics import abs_sq, cast, compute_dtype, debias, ema
from .norms import wide

__all__ = [
    "bias_correction",
    "update_infinity_moment",
    "update_moment",
    "update_moment_per_elem_norm",
]


def update_moment(updates: Any, moments: Any, decay: ArrayLike, order: int) -> Any:
    """The moving average of a power, `decay m + (1 - decay) g^order`.

    Args:
        updates: a pytree of arrays, or of `None` where nothing was updated.
        moments: the averages so far, of the same structure.
        decay: the weight of the past, in [0, 1].
        order: the power, positive.

    Returns:
        The new averages, in the dtype that holds both: of a float32 gradient and a
        bfloat16 average it is float32, and rounded where you cast it to be stored.

    Example:
        >>> jopt.tree.update_moment([jnp.array([2.0])], [jnp.ones(1)], 0.75, 2)
        [Array([1.75], dtype=float32)]
    """
    _check_order("update_moment", order)
    return _update(lambda g, m: ema(g, m, decay), lambda g: g**order, updates, moments)


def update_moment_per_elem_norm(
    updates: Any, moments: Any, decay: ArrayLike, order: int | float
) -> Any:
    """The moving average of a power of the size, `decay m + (1 - decay) |g|^order`.

    Args:
        updates, moments, decay: as `update_moment` takes them; `moments` real.
        order: the power, positive.

    Returns:
        The new averages, in dtypes as those of `update_moment`.

    Example:
        >>> g, m = [jnp.array([3 + 4j])], [jnp.zeros(1)]
        >>> jopt.tree.update_moment_per_elem_norm(g, m, 0.75, 1)
        [Array([1.25], dtype=float32)]
    """
    _check_order("update_moment_per_elem_norm", order)

    def power(g):
        return abs_sq(g) if order == 2 else jnp.abs(g) ** order

    return _update(lambda g, m: ema(g, m, decay), power, updates, moments)


def update_infinity_moment(
    updates: Any, moments: Any, decay: ArrayLike, eps: ArrayLike
) -> Any:
    """The decaying largest size, `max(|g| + eps, decay m)`.

    Args:
        updates, moments, decay: as `update_moment` takes them; `moments` real.
        eps: added to the size, not negative.

    Returns:
        The new moments, in dtypes as those of `update_moment`.

    Example:
        >>> g, m = [jnp.array([-3.0])], [jnp.ones(1)]
        >>> jopt.tree.update_infinity_moment(g, m, 0.9, 0.5)
        [Array([3.5], dtype=float32)]
    """

    def largest(size, m):
        return jnp.maximum(size + eps, decay * m)

    return _update(largest, jnp.abs, updates, moments)


def _update(mean: Callable, power: Callable, updates: Any, moments: Any) -> Any:
    """`mean(power(g), m)` in float32 at least; `None` where there is no update."""

    def one(g, m):
        if g is None:
            return None
        size, m = power(wide(g)), jnp.asarray(m)
        dtype = compute_dtype(size.dtype, m.dtype)
        given = jnp.result_type(g)
        narrow = given if jnp.issubdtype(given, jnp.floating) else size.dtype
        with jax.numpy_dtype_promotion("standard"):
            new = mean(cast(size, dtype), cast(m, dtype))
            return cast(new, jnp.promote_types(narrow, m.dtype))

    return jax.tree.map(one, updates, moments, is_leaf=is_none)


def bias_correction(moment: Any, decay: ArrayLike, count: ArrayLike) -> Any:
    """Moving averages without the weight of their zero start, `m / (1 - decay^count)`.

    Args:
        moment: a pytree of arrays.
        decay: the weight of the past, in [0, 1).
        count: how many steps were averaged, positive.

    Returns:
        The corrected averages, in their own dtypes.

    Example:
        >>> jopt.tree.bias_correction([jnp.array(0.5)], 0.5, 1)
        [Array(1., dtype=float32)]
    """
    return jax.tree.map(
        lambda m: cast(debias(wide(m), decay, count), jnp.asarray(m).dtype), moment
    )


def _check_order(where: str, order: Any) -> None:
    if isinstance(order, int | float) and not order > 0:
        raise ValueError(f"{where}: order must be positive, got {order}")

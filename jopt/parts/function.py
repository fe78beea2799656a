"""Plain functions as transformations, and gradients scaled on their way back."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ..base import (
    EmptyState,
    GradientTransformationExtraArgs,
    Params,
    Updates,
)
from ..engine import transformation
from ..kinds import is_none

__all__ = ["scale_gradient", "stateless", "stateless_with_tree_map"]


@transformation
def stateless(
    f: Callable[[Updates, Params | None], Updates],
) -> GradientTransformationExtraArgs:
    """A function of updates and parameters as a transformation.

    Args:
        f: from the trees of updates and parameters (`None` if the caller gives none)
            to the new updates.

    Returns:
        A transformation whose state is `EmptyState()`.

    Example:
        >>> tx = jopt.stateless(lambda g, p: jax.tree.map(lambda x: 2 * x, g))
        >>> tx.update(jnp.ones(2), tx.init(jnp.ones(2)))[0]
        Array([2., 2.], dtype=float32)
    """
    _check_function("stateless", f)

    def update(updates, state, params=None, **extra_args):
        return f(updates, params), state

    return GradientTransformationExtraArgs(lambda params: EmptyState(), update)


@transformation
def stateless_with_tree_map(
    f: Callable[[jax.Array, jax.Array | None], jax.Array],
) -> GradientTransformationExtraArgs:
    """A function of one update and one parameter as a transformation.

    Args:
        f: from an array of updates and its parameter (`None` if the caller gives none)
            to the new update.

    Returns:
        A transformation whose state is `EmptyState()`.

    Example:
        >>> tx = jopt.stateless_with_tree_map(lambda g, p: g + 0.1 * p)
        >>> tx.update(jnp.ones(2), tx.init(jnp.ones(2)), jnp.ones(2))[0]
        Array([1.1, 1.1], dtype=float32)
    """
    _check_function("stateless_with_tree_map", f)

    def one(g, p):
        return None if g is None else f(g, p)

    def update(updates, state, params=None, **extra_args):
        if params is None:
            return jax.tree.map(lambda g: f(g, None), updates), state
        return jax.tree.map(one, updates, params, is_leaf=is_none), state

    return GradientTransformationExtraArgs(lambda params: EmptyState(), update)


def _check_function(where: str, f: Callable) -> None:
    if not callable(f):
        raise TypeError(f"{where}: f must be a function, got {type(f).__name__}")


def scale_gradient(inputs: Updates, scale: ArrayLike) -> Updates:
    """The same values, whose gradient is multiplied on its way back.

    Args:
        inputs: a tree of arrays.
        scale: the factor of their gradients, a number.

    Returns:
        `inputs`.

    Example:
        >>> jax.grad(lambda x: 3 * jopt.scale_gradient(x, 2.0))(jnp.float32(1))
        Array(6., dtype=float32)
    """

    return _with_slope(inputs, scale)


@jax.custom_jvp
def _with_slope(inputs: Updates, scale: ArrayLike) -> Updates:
    return inputs


@_with_slope.defjvp
def _with_slope_jvp(primals, tangents):
    inputs, scale = primals

    def one(dx):
        if getattr(dx, "dtype", None) == jax.dtypes.float0:
            return dx
        dx = jnp.asarray(dx)
        return dx * jnp.asarray(scale, dx.dtype)

    return inputs, jax.tree.map(one, tangents[0])

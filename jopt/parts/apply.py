"""Applying updates to parameters."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ..base import Params, Updates
from ..engine.compiled import call_compiled
from ..engine.leaves import Leaves
from ..engine.sums import known_sums, sum_of
from ..numerics import compute_dtype

__all__ = ["apply_updates", "incremental_update", "periodic_update"]


def apply_updates(params: Params, updates: Updates) -> Params:
    """Adds updates to parameters: the sum is rounded once, to the parameters' dtype.

        p <- p + u

    Args:
        params: the parameters.
        updates: a tree of the same structure and shapes; `None` leaves a parameter as
            it is. Parameters that are no floating or complex arrays stay as well.

    Returns:
        The new parameters, in the dtypes of the old.

    Raises:
        ValueError: the structures or the shapes of two leaves differ.

    Example:
        >>> jopt.apply_updates({"w": jnp.ones(2)}, {"w": jnp.full(2, 0.5)})
        {'w': Array([1.5, 1.5], dtype=float32)}
    """
    return call_compiled(_apply_updates, params, updates)


def _apply_updates(params, updates):
    known = known_sums(params, updates)
    if known is not None:
        return known
    leaves = Leaves(updates, params)
    out: list = list(leaves.p)
    for i, live in enumerate(leaves.live):
        if live:
            out[i] = sum_of(leaves.p[i], leaves.g[i])
    return leaves.tree(out)


def incremental_update(
    new_tensors: Params, old_tensors: Params, step_size: ArrayLike
) -> Params:
    """Moves old parameters towards new ones, as an exponential moving average does.

        old + step_size (new - old)

    Args:
        new_tensors: where to go.
        old_tensors: where from, a tree of the same structure; `None` leaves stay.
        step_size: the fraction of the way, from 0 (stay) to 1 (go there).

    Returns:
        The tree between, in the dtypes of the old.

    Example:
        >>> jopt.incremental_update(jnp.array(1.0), jnp.array(0.0), 0.25)
        Array(0.25, dtype=float32)
    """

    def move(new, old):
        if old is None:
            return None
        new, old = jnp.asarray(new), jnp.asarray(old)
        dtype = compute_dtype(new.dtype, old.dtype)
        fraction = jnp.asarray(step_size).astype(jnp.finfo(dtype).dtype)
        old_ = old.astype(dtype)
        return (old_ + fraction * (new.astype(dtype) - old_)).astype(old.dtype)

    return jax.tree.map(move, new_tensors, old_tensors, is_leaf=lambda x: x is None)


def periodic_update(
    new_tensors: Params, old_tensors: Params, steps: ArrayLike, update_period: int
) -> Params:
    """The new parameters at every `update_period`-th step, the old ones otherwise.

    Args:
        new_tensors: the parameters to take.
        old_tensors: the parameters to keep, a tree of the same structure.
        steps: the number of the step; taken where `update_period` divides it.
        update_period: how often, positive.

    Returns:
        One of the two trees.

    Example:
        >>> float(jopt.periodic_update(jnp.array(1.0), jnp.array(0.0), 4, 2))
        1.0
    """
    return jax.lax.cond(
        jnp.remainder(steps, update_period) == 0,
        lambda: jax.tree.map(jnp.asarray, new_tensors),
        lambda: jax.tree.map(jnp.asarray, old_tensors),
    )

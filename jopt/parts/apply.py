"""Applying updates to parameters."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ..base import Params, Updates
from ..engine.compiled import call_compiled
from ..engine.leaves import Leaves
from ..engine.sums import known_sums, sum_of
from ..kinds import is_none
from ..numerics import compute_dtype, cond
from ..settings import COUNT, FINITE, check_number, check_real
from ..words import explain, keystr, naming_mixed_keys, spell

__all__ = ["apply_updates", "incremental_update", "periodic_update"]


@naming_mixed_keys
def apply_updates(params: Params, updates: Updates) -> Params:
    """Adds updates to parameters: the sum is rounded once, to the parameters' dtype.

        p <- p + u

    Args:
        params: the parameters.
        updates: a tree of the same structure and shapes; `None` leaves a parameter as
            it is. Parameters that are no floating or complex arrays stay as well, and
            `None` in place of one or of all.

    Returns:
        The new parameters, in the dtypes of the old.

    Raises:
        ValueError: the structures or the shapes of two leaves differ.

    Example:
        >>> jopt.apply_updates({"w": jnp.ones(2)}, {"w": jnp.full(2, 0.5)})
        {'w': Array([1.5, 1.5], dtype=float32)}
    """
    if params is None:
        return None
    return call_compiled(_apply_updates, params, updates)


def _apply_updates(params, updates):
    if any(x is None for x in jax.tree.leaves(params, is_leaf=is_none)):
        updates = _but_for_none(params, updates)
    known = known_sums(params, updates)
    if known is not None:
        return known
    leaves = Leaves(updates, params)
    out: list = list(leaves.p)
    for i, live in enumerate(leaves.live):
        if live:
            out[i] = sum_of(leaves.p[i], leaves.g[i])
    return leaves.tree(out)


@naming_mixed_keys
def incremental_update(
    new_tensors: Params, old_tensors: Params, step_size: ArrayLike
) -> Params:
    """Moves old parameters towards new ones, as an exponential moving average does.

        old + step_size (new - old)

    Args:
        new_tensors: where to go.
        old_tensors: where from, a tree of the same structure; `None` in one of the two
            gives `None`.
        step_size: the fraction of the way, from 0 (stay) to 1 (go there).

    Returns:
        The tree between, in the dtypes of the old.

    Raises:
        ValueError: the structures or the shapes of two leaves differ, or `step_size`
            does not broadcast to a leaf's shape.

    Example:
        >>> jopt.incremental_update(jnp.array(1.0), jnp.array(0.0), 0.25)
        Array(0.25, dtype=float32)
    """
    where = "incremental_update"
    check_real(where, "step_size", step_size)

    def move(path, new, old):
        if new is None or old is None:
            return None
        new, old = _alike(where, path, new, old)
        _check_broadcasts(where, path, step_size, old)
        dtype = compute_dtype(new.dtype, old.dtype)
        fraction = jnp.asarray(step_size).astype(jnp.finfo(dtype).dtype)
        old_ = old.astype(dtype)
        return (old_ + fraction * (new.astype(dtype) - old_)).astype(old.dtype)

    treedef, leaves = _side_by_side(where, new_tensors, old_tensors)
    return treedef.unflatten([move(*leaf) for leaf in leaves])


@naming_mixed_keys
def periodic_update(
    new_tensors: Params, old_tensors: Params, steps: ArrayLike, update_period: int
) -> Params:
    """The new parameters at every `update_period`-th step, the old ones otherwise.

    Args:
        new_tensors: the parameters to take.
        old_tensors: the parameters to keep, a tree of the same structure.
        steps: the number of the step; taken where `update_period` divides it.
        update_period: how often, at least 1.

    Returns:
        One of the two trees.

    Raises:
        ValueError: the structures, or the shapes or dtypes of two leaves, differ, or
            `update_period` is less than 1.

    Example:
        >>> float(jopt.periodic_update(jnp.array(1.0), jnp.array(0.0), 4, 2))
        1.0
    """
    where = "periodic_update"
    check_number(where, "steps", steps, FINITE)
    check_number(where, "update_period", update_period, COUNT)
    takes = jnp.remainder(steps, update_period) == 0

    def choose(path, new, old):
        if new is None and old is None:
            return None
        new, old = _alike(where, path, new, old)
        if new.dtype != old.dtype:
            raise _differ(where, path, new, old, "dtypes")
        return new, old

    treedef, leaves = _side_by_side(where, new_tensors, old_tensors)
    pairs = [choose(*leaf) for leaf in leaves]
    new, old = ([pair and pair[i] for pair in pairs] for i in (0, 1))
    return treedef.unflatten(cond(takes, lambda: new, lambda: old))


def _side_by_side(where: str, new: Params, old: Params) -> tuple[Any, list[tuple]]:
    """The structure, and path and leaves of both trees; `None` is a leaf."""
    paths, treedef = jax.tree_util.tree_flatten_with_path(new, is_leaf=is_none)
    try:
        olds = treedef.flatten_up_to(old)
    except ValueError:
        words = explain("new_tensors", new, "old_tensors", old)
        raise ValueError(f"{where}: {words}") from None
    return treedef, [(path, x, y) for (path, x), y in zip(paths, olds)]


def _alike(where: str, path: tuple, new: Any, old: Any) -> tuple[jax.Array, jax.Array]:
    """The two leaves as arrays, if they are arrays of one shape."""
    for name, x in ("new_tensors", new), ("old_tensors", old):
        check_real(where, f"{name} at {keystr(path)}", x, complexes=True)
    new, old = jnp.asarray(new), jnp.asarray(old)
    if new.shape != old.shape:
        raise _differ(where, path, new, old, "shapes")
    return new, old


def _differ(where: str, path: tuple, new: Any, old: Any, what: str) -> ValueError:
    return ValueError(
        f"{where}: new_tensors at {keystr(path)} is {spell(new)}, old_tensors there is "
        f"{spell(old)}: the {what} must be equal"
    )


def _check_broadcasts(where: str, path: tuple, step_size: Any, old: jax.Array) -> None:
    shape = np.shape(step_size)
    try:
        fits = np.broadcast_shapes(shape, old.shape) == old.shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"{where}: step_size, of shape {shape}, does not broadcast to old_tensors "
            f"at {keystr(path)}, which is {spell(old)}"
        )


def _but_for_none(params: Params, updates: Updates) -> Updates:
    """The updates, with `None` where the parameters have it."""

    def one(p, u):
        return None if p is None else u

    try:
        return jax.tree.map(one, params, updates, is_leaf=is_none)
    except ValueError:  # whoever reads them says how they differ
        return updates

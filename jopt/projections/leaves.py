"""What projections do to the leaves of a tree."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from ..numerics import cast, compute_dtype
from ..settings import Range, check_array, check_real
from ..tree.norms import as_inexact, wide
from ..words import keystr

__all__ = []


def check_leaves(
    where: str, name: str, tree: Any, allowed: Range | None = None, **kw: bool
) -> None:
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        at = f"{name} at {keystr(path)}" if path else name
        check_real(where, at, x, **kw)
        if allowed is not None:
            check_array(where, at, x, allowed)


def each(function: Callable, tree: Any, *more: Any) -> Any:
    """A function of arrays on all leaves, computed in float32 at least."""

    def one(x, *others):
        return cast(function(wide(x), *others), as_inexact(x).dtype)

    return jax.tree.map(one, tree, *more)


def as_vector(function: Callable, tree: Any) -> Any:
    """A function of a vector on all elements of the tree."""
    leaves = [as_inexact(x) for x in jax.tree.leaves(tree)]
    dtype = compute_dtype(jnp.float32, *(x.dtype for x in leaves))
    vector, unravel = ravel_pytree([cast(x, dtype) for x in leaves])
    parts = unravel(function(vector)) if leaves else []
    parts = [
        cast(part if jnp.iscomplexobj(x) else part.real, x.dtype)
        for part, x in zip(parts, leaves)
    ]
    return jax.tree.structure(tree).unflatten(parts)

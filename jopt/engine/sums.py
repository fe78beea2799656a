"""Parameters plus updates, made where the updates are made, for `apply_updates`.

A sum that is made inside of a call or a branch with its update costs no equation and no
pass of its own. Who calls `apply_updates` with these very tracers finds it.
"""

import functools
import weakref

import jax

from ..base import Params, Updates
from ..compat import Tracer
from ..numerics import cast, compute_dtype
from ..sharding import split_as
from .leaves import Leaves

__all__ = []

# id(u) -> (u, p, p + u), while u lives.
_sums: dict[int, tuple[weakref.ref, jax.Array, jax.Array]] = {}


def added(p: jax.Array, u: jax.Array) -> jax.Array:
    """`p + u`, rounded once, to the type of `p`."""
    dtype = compute_dtype(p.dtype, u.dtype)
    # lax.add and not `+`: traced once for every leaf, this is most of the cost.
    return split_as(cast(jax.lax.add(cast(p, dtype), cast(u, dtype)), p.dtype), p)


def sums_of(params: Params, updates: Updates) -> list[jax.Array]:
    """`p + u` of the leaves that are updated."""
    return [sum_of(p, u) for p, u in Leaves(updates, params).pairs()]


def sum_of(p: jax.Array, u: jax.Array) -> jax.Array:
    """`p + u`, the one that is known already or a new one."""
    known = _sums.get(id(u))
    return known[2] if known is not None and known[1] is p else added(p, u)


def known_sums(params: Params, updates: Updates) -> Params | None:
    """`params + updates` if that of every leaf is known; they were checked before."""
    us, treedef = jax.tree.flatten(updates)
    known = [k for k in (_sums.get(id(u)) for u in us) if k is not None]
    if len(known) < len(us) or jax.tree.structure(params) != treedef:
        return None
    if any(k[1] is not p for k, p in zip(known, jax.tree.leaves(params))):
        return None
    return treedef.unflatten([k[2] for k in known])


def remember(p: jax.Array, u: jax.Array, total: jax.Array) -> None:
    """Notes a parameter, its update and their sum.

    The sum may not have been made from the very tracer `u`: both would live for ever.
    """
    if isinstance(u, Tracer):
        _sums[id(u)] = weakref.ref(u, functools.partial(_sums.pop, id(u))), p, total

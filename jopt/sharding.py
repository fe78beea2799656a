"""How an array is split along explicit axes of a mesh: read, kept, undone.

Such axes stand in the types of arrays, so that a state whose types are to stay must
keep them too. Along other axes XLA splits arrays as it sees fit, and nothing here acts.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from .compat import shard_alike

__all__ = []


def split_of(x: Any) -> tuple:
    """For each axis of the array the explicit axes of the mesh that split it."""
    aval = jax.typeof(x)
    spec = tuple(aval.sharding.spec)
    return spec + (None,) * (len(aval.shape) - len(spec))


def is_split(x: Any) -> bool:
    """Whether explicit axes split the array."""
    return any(jax.typeof(x).sharding.spec)


def split_as(x: jax.Array, like: Any) -> jax.Array:
    """The array of the shape of another, split as that is."""
    if split_of(x) == split_of(like):
        return x
    if not is_split(like):  # perhaps of no mesh at all
        return gathered(x)
    return jax.sharding.reshard(x, jax.typeof(like).sharding)


def gathered(x: jax.Array, *, keep: int = 0) -> jax.Array:
    """The array whole on every device, but for the first `keep` axes."""
    return resplit(x, split_of(x)[:keep])


def resplit(x: jax.Array, split: tuple) -> jax.Array:
    """The array split so, and whole along the axes of which nothing is said."""
    split += (None,) * (x.ndim - len(split))
    if split_of(x) == split:
        return x
    mesh = jax.typeof(x).sharding.mesh
    return jax.sharding.reshard(x, NamedSharding(mesh, PartitionSpec(*split)))


def zeros_of(p: jax.Array, without: tuple[int, ...] = ()) -> jax.Array:
    """Real zeros for a parameter without these axes, the others split as its are.

    Made of the shape alone they would be whole on every device.
    """
    zeros = shard_alike(p, jnp.zeros_like(p.real))
    return jnp.sum(zeros, axis=without) if without else zeros


def zeros_in_rows(n: int, p: jax.Array) -> jax.Array:
    """Zeros for n arrays like a parameter, along a new first axis that is not split."""
    return jnp.broadcast_to(shard_alike(p, jnp.zeros_like(p)), (n, *p.shape))

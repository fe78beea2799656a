"""Where a state belongs: on the devices of its parameters, all of it."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from ..compat import Tracer

__all__ = []


def at_home(state: Any, params: Any) -> Any:
    """The state where the parameters are: counts, too, whole on each of their devices.

    A step returns all of it there. If `init` left a count elsewhere, the next step
    would be given other shardings than the first, and be compiled once more.
    """
    kinds = jax.Array | jax.ShapeDtypeStruct
    arrays = [x for x in jax.tree.leaves(params) if isinstance(x, kinds)]
    if any(isinstance(x, Tracer) for x in arrays):
        return _tied(state, arrays)
    home = _home(arrays)
    if home is None:
        return state
    leaves, structure = jax.tree.flatten(state)
    loose = [i for i, x in enumerate(leaves) if _is_loose(x)]
    for i, x in zip(loose, jax.device_put([leaves[i] for i in loose], home)):
        leaves[i] = x
    return structure.unflatten(leaves)


def _home(arrays: list) -> Any:
    """The sharding of what is whole on the devices of all arrays, if that is clear."""
    shardings = {x.sharding for x in arrays if getattr(x, "committed", True)}
    homes = set(map(_whole, shardings - {None}))  # an abstract array may have none
    return homes.pop() if len(homes) == 1 else None


def _whole(sharding: Any) -> Any:
    """Nothing is moved where this process does not see every device."""
    if isinstance(sharding, NamedSharding) and isinstance(sharding.mesh, Mesh):
        sharding = NamedSharding(sharding.mesh, PartitionSpec())
    elif not isinstance(sharding, SingleDeviceSharding):
        return None
    return sharding if sharding.is_fully_addressable else None


def _is_loose(x: Any) -> bool:
    return isinstance(x, jax.Array) and not getattr(x, "committed", True)


def _tied(state: Any, arrays: list) -> Any:
    """The state of a trace as one that is computed from the parameters.

    A compiled `init` drops parameters that it does not read, and the devices with them.
    """
    floats = [x for x in arrays if jnp.issubdtype(x.dtype, jnp.inexact)]
    leaves, structure = jax.tree.flatten(state)
    loose = [i for i, x in enumerate(leaves) if isinstance(x, jax.Array)]
    shapes = {x.shape for x in arrays if x.ndim}
    if not floats or any(leaves[i].shape in shapes for i in loose):
        return state  # a slot was made of its parameter
    least = min(floats, key=lambda x: x.size)
    _, tied = jax.lax.optimization_barrier((least, [leaves[i] for i in loose]))
    for i, x in zip(loose, tied):
        leaves[i] = x
    return structure.unflatten(leaves)

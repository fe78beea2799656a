"""Values on several devices or meshes, outside of `jit`."""

from typing import Any

import jax

__all__ = []


def devices_of(tree: Any) -> frozenset:
    """The devices that the arrays of a tree are committed to."""
    arrays = [x for x in jax.tree.leaves(tree) if isinstance(x, jax.Array)]
    sets = [x.devices() for x in arrays if x.committed]
    return frozenset().union(*sets)


def are_apart(tree: Any) -> bool:
    """Whether no program can take them all: they live on different sets of devices."""
    arrays = [x for x in jax.tree.leaves(tree) if isinstance(x, jax.Array)]
    return len({frozenset(x.devices()) for x in arrays if x.committed}) > 1


def moved(numbers: Any, devices: frozenset) -> Any:
    """Scalars where a program on these devices can read them."""

    def one(x):
        if not isinstance(x, jax.Array) or not x.committed or x.devices() == devices:
            return x
        return jax.numpy.asarray(jax.device_get(x))

    return jax.tree.map(one, numbers)

"""Values on several devices or meshes, outside of `jit`."""

import functools
from typing import Any

import jax

from ..boxes import flatten_with_path
from ..compat import Tracer
from ..kinds import is_key
from ..numerics import is_traced
from ..words import keystr

__all__ = []


def place_of(x: Any) -> tuple:
    """The devices that an array is committed to, in their order; of a tracer, none."""
    if not isinstance(x, jax.Array) or isinstance(x, Tracer) or not x.committed:
        return ()
    mesh = getattr(x.sharding, "mesh", None)
    return tuple(x.devices()) if mesh is None else _devices_of(mesh)


@functools.lru_cache(maxsize=64)
def _devices_of(mesh: Any) -> tuple:
    return tuple(mesh.devices.flat)


def places_of(tree: Any) -> frozenset[tuple]:
    """The different ones of the arrays of a tree."""
    if is_traced(tree):
        return frozenset()
    return frozenset(map(place_of, jax.tree.leaves(tree))) - {()}


def are_apart(tree: Any) -> bool:
    """Whether no program can take them all: they live on different sets of devices."""
    return len(places_of(tree)) > 1


def moved(
    tree: Any, places: frozenset[tuple] = frozenset(), largest: int | None = None
) -> Any:
    """Numbers where a program on these devices can read them; they pass the host.

    Those on others are committed to no device any more, and so are all without places.
    Arrays of more dimensions than the largest stay.
    """
    leaves, treedef = jax.tree.flatten(tree)
    away = [i for i, x in enumerate(leaves) if place_of(x) not in ((), *places)]
    if largest is not None:
        away = [i for i in away if leaves[i].ndim <= largest]
    for i, x in zip(away, jax.device_get([_data(leaves[i]) for i in away])):
        leaves[i] = _as_keys_of(leaves[i], jax.numpy.asarray(x))
    return treedef.unflatten(leaves)


def together(numbers: Any) -> Any:
    """Numbers that one program can read, and with leaves on any device.

    As they are where that is so already.
    """
    return moved(numbers) if are_apart(numbers) else numbers


def _data(x: jax.Array) -> jax.Array:
    return jax.random.key_data(x) if is_key(x) else x


def _as_keys_of(x: jax.Array, data: jax.Array) -> jax.Array:
    if not is_key(x):
        return data
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))


def check_together(where: str, **trees: Any) -> None:
    """Refuse leaves on several devices or meshes, where one program needs them all."""
    for name, tree in trees.items():
        rows = flatten_with_path(tree)
        places = {place_of(x): (keystr(path), x) for path, x in reversed(rows)}
        places.pop((), None)
        if len(places) > 1:
            (one, x), (other, y) = [*places.values()][-1:-3:-1]
            raise ValueError(
                f"{where}: all of {name} must be on one set of devices, got {one} on "
                f"{_spell(x)} and {other} on {_spell(y)}"
            )


def _spell(x: jax.Array) -> str:
    return f"[{', '.join(map(str, place_of(x)))}]"

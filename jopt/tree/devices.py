"""Values on several devices or meshes, outside of `jit`."""

import functools
from collections.abc import Sequence
from typing import Any

import jax

from ..compat import Tracer
from .boxes import flatten_with_path
from .messages import keystr

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
    return frozenset(map(place_of, jax.tree.leaves(tree))) - {()}


def are_apart(tree: Any) -> bool:
    """Whether no program can take them all: they live on different sets of devices."""
    return len(places_of(tree)) > 1


def moved(numbers: Any, places: frozenset[tuple]) -> Any:
    """Scalars where a program on these devices can read them."""

    def one(x):
        if place_of(x) in ((), *places):
            return x
        return jax.numpy.asarray(jax.device_get(x))

    return jax.tree.map(one, numbers)


def together(numbers: Sequence) -> list:
    """Scalars that one program can read, and with leaves on any device.

    As they are where that is so already: else they wait for each other on the host.
    """
    if not are_apart(numbers):
        return [*numbers]
    return [*map(jax.numpy.asarray, jax.device_get([*numbers]))]


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

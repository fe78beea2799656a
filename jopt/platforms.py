"""What a program is compiled for, as far as its trace can tell."""

import jax

from .compat import ShapedArray

__all__ = []


def platform_of(x: jax.Array | ShapedArray) -> str:
    """`"cpu"`, `"gpu"` or `"tpu"`: the platform of the array's mesh, or else JAX's own.

    So a program that is compiled ahead of time for another machine is made for that.
    """
    aval = x if isinstance(x, ShapedArray) else jax.typeof(x)
    mesh = getattr(getattr(aval, "sharding", None), "mesh", None)
    device = getattr(mesh, "abstract_device", None)
    return getattr(device, "platform", None) or jax.default_backend()

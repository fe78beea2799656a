"""What a value is: an array or a number, a function, a leaf, or nothing at all.

Each question is asked by one function. Where two are near each other, their names say
the difference.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .compat import Tracer

__all__ = []


# ------------------------------------------------------------------ arrays and numbers


def is_value(x: Any) -> bool:
    """Whether `jax.jit` takes it as an argument."""
    if isinstance(x, np.ndarray) and x.dtype.kind in "OSU":
        return False
    kinds = (jax.Array, np.ndarray, np.generic, bool, int, float, complex)
    return isinstance(x, kinds)


def is_array(x: Any) -> bool:
    """Whether it is a value that is no number of Python."""
    return hasattr(x, "dtype") and is_value(x)


def is_array_or_type(x: Any) -> bool:
    """Whether it is an array, or stands for one that is not there."""
    return isinstance(x, (jax.Array, np.ndarray, jax.ShapeDtypeStruct))


def is_numeric(x: Any) -> bool:
    """Whether it is an array or a number that JAX can compute with.

    Of zeros of no dtype, the derivative of an integer, it cannot.
    """
    if isinstance(x, (np.ndarray, np.generic)):
        return x.dtype != jax.dtypes.float0 and x.dtype.kind not in "OSU"
    return isinstance(x, (jax.Array, bool, int, float, complex))


def is_inexact_value(x: Any) -> bool:
    """Whether it is a floating or complex array or number."""
    return is_numeric(x) and is_inexact(jax.dtypes.result_type(x))


def is_optimizable(x: Any) -> bool:
    """Whether a parameter is floating or complex: a value, a type or an object."""
    if isinstance(x, (bool, int)):
        return False
    if isinstance(x, (float, complex)):
        return True
    dtype = getattr(x, "dtype", None)
    return dtype is not None and is_inexact(dtype)


def is_own_object(x: Any) -> bool:
    """Whether a leaf is no array, but an object of the program's own with its type."""
    if is_value(x) or isinstance(x, jax.ShapeDtypeStruct):
        return False
    is_like_one = hasattr(x, "__array__") or hasattr(x, "__jax_array__")
    return hasattr(x, "shape") and hasattr(x, "dtype") and not is_like_one


def is_known(x: Any) -> bool:
    """Whether this process can look at the value: it is not traced, nor elsewhere."""
    if isinstance(x, Tracer):
        return False
    return not isinstance(x, jax.Array) or x.is_fully_addressable


def is_key(x: Any) -> bool:
    """Whether it is an array of typed random keys."""
    dtype = getattr(x, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)


@functools.cache
def is_inexact(dtype: Any) -> bool:
    """Whether a dtype is floating or complex."""
    return jnp.issubdtype(dtype, jnp.inexact)


@functools.cache
def is_complex(dtype: Any) -> bool:
    """Whether a dtype is complex."""
    return jnp.issubdtype(dtype, jnp.complexfloating)


# --------------------------------------------------------------------- places in trees


def is_leaf(x: Any) -> bool:
    """Whether JAX finds nothing below it; `None` is no leaf."""
    return jax.tree_util.all_leaves([x])


def is_none(x: Any) -> bool:
    """Whether it is `None`, as `jax.tree.map(..., is_leaf=is_none)` asks."""
    return x is None


def is_masked(x: Any) -> bool:
    """Whether a mask, of this library or another, hides a leaf here."""
    return type(x).__name__ == "MaskedNode"


def is_nothing(x: Any) -> bool:
    """Whether it stands where a tree has no leaf: `None`, or anyone's `MaskedNode`."""
    return x is None or is_masked(x)


def is_namedtuple(x: Any) -> bool:
    return isinstance(x, tuple) and hasattr(x, "_fields")


# --------------------------------------------------------------------------- functions


def is_function(x: Any) -> bool:
    """Whether to call it: a callable node of a tree, such as a module, is data."""
    return callable(x) and is_leaf(x)


def is_schedule(x: Any) -> bool:
    """Whether a setting is a function of the step, of whatever class it is."""
    return callable(x) and not isinstance(x, jax.Array)


def is_transformation(x: Any) -> bool:
    """Whether it has the two functions of a gradient transformation."""
    return callable(getattr(x, "init", None)) and callable(getattr(x, "update", None))

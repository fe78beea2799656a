"""Types that never change from step to step, and what can be computed with."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..sharding import split_as
from ..tree.messages import explain

__all__ = []


def keep_types(new: Any, old: Any) -> Any:
    """`new` in the types of `old`, a tree of the same structure."""
    if jax.tree.structure(new) != jax.tree.structure(old):
        raise ValueError(
            explain("what the inner update returned", new, "its input", old)
        )
    return jax.tree.map(_keep_type, new, old)


def in_types_of(old: Any, new: Any) -> Any:
    """The state `new` in the types and classes of `old`, whoever made that."""
    leaves, structure = jax.tree.flatten(old)
    news = jax.tree.leaves(new)
    if len(news) != len(leaves):
        raise ValueError(explain("the inner state", new, "the one before", old))
    return structure.unflatten(map(_keep_type, news, leaves))


def _keep_type(x: Any, y: Any) -> Any:
    if not is_array(y):
        return x
    x, y = jnp.asarray(x), jnp.asarray(y)
    x = strong(x if x.dtype == y.dtype else x.astype(y.dtype))
    return split_as(x, y) if x.shape == y.shape else x


def strong(x: Any) -> Any:
    """The array without the weak type that numbers of Python give."""
    if not isinstance(x, jax.Array) or not jax.typeof(x).weak_type:
        return x
    return jax.lax.convert_element_type(x, x.dtype)


def is_array(x: Any) -> bool:
    """Whether it is an array or a number that JAX can compute with."""
    if isinstance(x, (np.ndarray, np.generic)):
        return x.dtype != jax.dtypes.float0 and x.dtype.kind not in "OSU"
    return isinstance(x, (jax.Array, bool, int, float, complex))

"""Types that never change from step to step, and what can be computed with."""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..boxes import flatten_with_path
from ..kinds import is_numeric
from ..sharding import split_as
from ..tree.matching import matched
from ..words import explain, keystr, spell

__all__ = []


def keep_types(new: Any, old: Any, name: str = "what the inner update returned") -> Any:
    """`new` in the types of `old`, a tree of the same structure.

    Refused where a value would be lost: a fraction, an imaginary part, a sign.
    """
    if jax.tree.structure(new) != jax.tree.structure(old):
        raise ValueError(explain(name, new, "its input", old))
    return in_types_of(old, new, name)


def in_types_of(old: Any, new: Any, name: str = "the inner state") -> Any:
    """The state `new` in the types and classes of `old`, whoever made that."""
    leaves, structure = jax.tree.flatten(old)
    news = jax.tree.leaves(new)
    if len(news) != len(leaves):
        raise ValueError(explain(name, new, "the one before", old))

    def where(i):
        return f"{name} at {keystr(flatten_with_path(old)[i][0])}"

    pairs = enumerate(zip(news, leaves))
    return structure.unflatten(
        [_keep_type(x, y, functools.partial(where, i)) for i, (x, y) in pairs]
    )


def begun_anew(state: Any, fresh: Any) -> Any:
    """What `init` makes now, in the types and classes of the state.

    A leaf that has slots in one of the two alone keeps what the state has, or has not.
    """
    if jax.tree.structure(fresh) != jax.tree.structure(state):
        with contextlib.suppress(ValueError):  # the next line says how they differ
            fresh = matched(fresh, state)[1].unflatten(jax.tree.leaves(fresh))
    return in_types_of(state, fresh)


def _keep_type(x: Any, y: Any, where: Callable[[], str]) -> Any:
    if not is_numeric(y):
        return x
    x, y = jnp.asarray(x), jnp.asarray(y)
    if not keeps_values(x, y.dtype):
        raise TypeError(
            f"{where()} is {spell(x)} where {spell(y)} was before: as {y.dtype.name} "
            f"{lost(x.dtype, y.dtype)} would be lost; begin with {x.dtype.name}"
        )
    x = strong(x if x.dtype == y.dtype else x.astype(y.dtype))
    return split_as(x, y) if x.shape == y.shape else x


_KINDS = (jnp.bool_, jnp.unsignedinteger, jnp.signedinteger, jnp.floating)
_LOST = ("all but the truth of it", "the sign", "the fraction", "the imaginary part")


def keeps_values(x: jax.Array, dtype: Any) -> bool:
    """Whether the dtype is of a kind that holds what the array's kind holds.

    A width is no kind: float64 may become float32. Numbers of Python are of no sign.
    """
    if x.dtype == dtype:
        return True
    kind, other = _kind(x.dtype), _kind(dtype)
    if kind is None or other is None:
        return False
    if (kind, other) == (_kind(jnp.int32), _kind(jnp.uint32)):
        return jax.typeof(x).weak_type
    return kind <= other


def lost(dtype: Any, other: Any) -> str:
    """What a number of one dtype would lose in the other, in words."""
    kind = _kind(other)
    return "it" if kind is None or _kind(dtype) is None else _LOST[kind]


@functools.cache
def _kind(dtype: Any) -> int | None:
    """How much its numbers can say: 0 for truths to 4 for complex numbers."""
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return len(_KINDS)
    kinds = (i for i, kind in enumerate(_KINDS) if jnp.issubdtype(dtype, kind))
    return next(kinds, None)


def strong(x: Any) -> Any:
    """The array without the weak type that numbers of Python give."""
    if not isinstance(x, jax.Array) or not jax.typeof(x).weak_type:
        return x
    return jax.lax.convert_element_type(x, x.dtype)

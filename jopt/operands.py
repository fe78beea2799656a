"""The operands of the functions on arrays: numbers, shapes, and templates of results.

What has been read is a tree of Python floats and floating `jax.Array`s.
"""

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from .base import ArrayTree
from .kinds import is_known
from .numerics import cast
from .words import at, in_words, naming_mixed_keys

__all__ = []

P = ParamSpec("P")
T = TypeVar("T")


# --------------------------------------------------------------------------- the call


def strict_call(function: Callable[P, T]) -> Callable[P, T]:
    """Says what to do when positional and keyword arguments are mixed up."""

    @functools.cache  # no import waits for it
    def usage_of() -> tuple[list[str], list[str], str]:
        parameters = inspect.signature(function).parameters.values()
        positional = [p.name for p in parameters if p.kind is p.POSITIONAL_ONLY]
        keywords = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
        usage = (
            f"the arguments {', '.join(positional)} go by position, without their "
            f"names; {', '.join(keywords)} are keyword-only"
        )
        return positional, keywords, usage

    named = naming_mixed_keys(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        positional, keywords, usage = usage_of()
        if len(args) > len(positional):
            raise TypeError(
                f"{function.__name__}() takes {len(positional)} positional arguments, "
                f"got {len(args)}: {usage}, as in {keywords[0]}=..."
            )
        for name in kwargs:
            if name not in keywords:
                raise TypeError(f"{function.__name__}() takes no {name}=: {usage}")
        return named(*args, **kwargs)

    return call


def check_framework(f: Any) -> None:
    if f is not None and f is not jax and not (isinstance(f, str) and f == "jax"):
        raise ValueError(f"f must be None, 'jax' or the module jax, got {f!r}")


def check_bool(name: str, x: Any) -> None:
    if not isinstance(x, bool):
        raise TypeError(f"{name} must be True or False, got {in_words(x)}")


# ----------------------------------------------------------------------- their leaves


def read_numbers(name: str, tree: ArrayTree) -> ArrayTree:
    """Its leaves as Python numbers and as floating or integer `jax.Array`s."""
    return jax.tree_util.tree_map_with_path(lambda path, x: _real(name, path, x), tree)


def read_floats(name: str, tree: ArrayTree) -> ArrayTree:
    """Its leaves as Python floats, and as `jax.Array`s of floating dtype.

    Integer arrays are cast to the default float.
    """
    return jax.tree.map(_to_float, read_numbers(name, tree))


def _real(name: str, path: tuple, x: Any) -> Any:
    if isinstance(x, (jax.Array, np.ndarray, np.generic)):
        real = jnp.issubdtype(x.dtype, jnp.floating)
        if real or jnp.issubdtype(x.dtype, jnp.integer):
            return x if isinstance(x, jax.Array) else jnp.asarray(x)
    elif isinstance(x, (int, float)) and not isinstance(x, bool):
        return x
    raise TypeError(f"{at(name, path)} must be real numbers, got {in_words(x)}")


def _to_float(x: Any) -> Any:
    if not isinstance(x, jax.Array):
        return float(x)
    floating = jnp.issubdtype(x.dtype, jnp.floating)
    return x if floating else x.astype(jnp.result_type(float))


_RANGES = {
    "step": (lambda t: t <= 0, "positive: steps count from 1"),
    "beta1": (lambda b: b < 0 or b > 1, "in [0, 1]"),
    "beta2": (lambda b: b < 0 or b > 1, "in [0, 1]"),
    "epsilon": (lambda e: e < 0, "not negative"),
    "max_trust_ratio": (lambda r: r <= 0, "positive"),
    "decay_lambda": (lambda l: l < 0, "not negative"),
}


def read_scalars(name: str, tree: ArrayTree) -> ArrayTree:
    """Its leaves, one number each, in the range of their name where they are known."""
    outside, expected = _RANGES[name]

    def read(path, x):
        scalar = _setting(name, path, x)
        if np.size(scalar) != 1:
            raise ValueError(
                f"{at(name, path)} must be one number, got an array of shape "
                f"{scalar.shape}; a tree gives one to each leaf"
            )
        if is_known(x) and outside(x.item() if hasattr(x, "item") else x):
            raise ValueError(f"{at(name, path)} must be {expected}, got {x}")
        return scalar if isinstance(scalar, float) else scalar.reshape(())

    return jax.tree_util.tree_map_with_path(read, tree)


def read_rates(name: str, tree: ArrayTree) -> ArrayTree:
    """Its leaves, numbers or arrays that broadcast within a leaf."""
    return jax.tree_util.tree_map_with_path(
        lambda path, x: _setting(name, path, x), tree
    )


def _setting(name: str, path: tuple, x: Any) -> Any:
    if isinstance(x, (np.generic, np.ndarray)) and x.size == 1:
        _real(name, path, x)
        return float(x.item())  # exact, and it widens nothing
    return _to_float(_real(name, path, x))


def read_flags(name: str, tree: ArrayTree) -> ArrayTree:
    """Its leaves, Python bools."""
    if tree is None:
        check_bool(name, None)
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        check_bool(at(name, path), x)
    return tree


# ------------------------------------------------------------------------ their shapes


def joint_shape(
    path: tuple, name: str, x: Any, like_name: str, like: Any
) -> tuple[int, ...]:
    """The shape that two leaves broadcast to.

    One element in more dimensions than a partner of several has counts as a scalar.
    """
    shape, like_shape = np.shape(x), np.shape(like)
    one, like_one = math.prod(shape) == 1, math.prod(like_shape) == 1
    if one and not like_one:
        return like_shape
    if like_one and not one:
        return shape
    try:
        return np.broadcast_shapes(shape, like_shape)
    except ValueError:
        raise _misfit(path, name, shape, like_name, like_shape) from None


def check_fits(path: tuple, name: str, x: Any, like_name: str, like: Any) -> None:
    """Raises unless `x` broadcasts to the shape of `like`."""
    if np.size(x) == 1:
        return
    if joint_shape(path, name, x, like_name, like) != np.shape(like):
        raise _misfit(path, name, np.shape(x), like_name, np.shape(like))


def _misfit(path, name, shape, like_name, like_shape) -> ValueError:
    return ValueError(
        f"{at(name, path)} has shape {shape}, which does not broadcast to the shape "
        f"{like_shape} of {like_name}"
    )


def with_rank(x: Any, rank: int, dtype: np.dtype) -> jax.Array:
    """The array in `dtype`, ready to broadcast with one of that rank."""
    x = cast(x, dtype) if isinstance(x, jax.Array) else jnp.asarray(x, dtype)
    if x.ndim in (0, rank):
        return x
    return x.reshape((1,) * (rank - x.ndim) + x.shape if x.ndim < rank else ())


# ---------------------------------------------------------------------------- and out


def fit(results: ArrayTree, dtypes: ArrayTree, out: ArrayTree | None) -> ArrayTree:
    """Results in their dtypes, or in the shapes and dtypes of the template `out`."""
    if out is None:
        return jax.tree.map(cast, results, dtypes)
    return broadcast_like(results, out)


def broadcast_like(results: ArrayTree, out: ArrayTree) -> ArrayTree:
    """Results in the shapes and dtypes of the template `out`."""
    for path, x in jax.tree_util.tree_leaves_with_path(out):
        _check_template(path, x)
    if jax.tree.structure(out) != jax.tree.structure(results):
        raise ValueError(
            "out must have the tree structure of the result, "
            f"{jax.tree.structure(results)}, it has {jax.tree.structure(out)}"
        )

    def broadcast(path, x, template):
        x = jnp.asarray(x)
        try:
            return jnp.broadcast_to(x, template.shape).astype(template.dtype)
        except ValueError:
            raise ValueError(
                f"{at('out', path)} has shape {template.shape}, to which the result, "
                f"of shape {x.shape}, does not broadcast"
            ) from None

    return jax.tree_util.tree_map_with_path(broadcast, results, out)


def _check_template(path: tuple, x: Any) -> None:
    if not isinstance(x, jax.Array):
        raise TypeError(
            f"{at('out', path)} must be a jax.Array, got {in_words(x)}: arrays are "
            "immutable here, and out is but a template for shape and dtype; use the "
            "returned value"
        )
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"{at('out', path)} must be of floating dtype, got {x.dtype}")

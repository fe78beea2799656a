"""Arrays of one shape as one array, and back, and when that is worth it.

A rule that reduces takes up to twenty kernels a leaf on CPU, and a batch of leaves no
more, but for the copies in and out. On TPU, and for rules of elements alone, the copies
cost what the batch saves.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..compat import set_xla_metadata, subjaxprs
from ..numerics import SMALL
from ..platforms import platform_of

__all__ = ["batch_leaves"]

_CHUNK = 16  # how many arrays are joined in one kernel

_REDUCTIONS = {"reduce_sum", "reduce_max", "reduce_min", "argmax", "dot_general"}

batching: contextvars.ContextVar[bool | None] = contextvars.ContextVar(
    "batching", default=None
)


@contextlib.contextmanager
def batch_leaves(when: bool | None) -> Iterator[None]:
    """Chooses whether small leaves of one shape are updated as one batch.

    The results are the same up to the rounding of sums, and the state is not touched.

    Args:
        when: always, never, or, if `None`, where it is known to be faster: on CPU, for
            rules that reduce over a leaf. What is traced or called within obeys it;
            what `jax.jit` has traced before stays as it is.

    Example:
        >>> tx = jopt.adafactor(1e-2)
        >>> params = [jnp.ones((8, 8))] * 32
        >>> with jopt.batch_leaves(False):
        ...     updates, state = jax.jit(tx.update)(params, tx.init(params), params)
    """
    token = batching.set(when)
    try:
        yield
    finally:
        batching.reset(token)


def is_worth_a_batch(types: tuple) -> bool:
    """Whether arrays of these types may be stacked: small ones, none of them split."""
    wanted = batching.get()
    if wanted is None:
        wanted = platform_of(types[0]) == "cpu"
    return wanted and all(x.size <= SMALL and not any(x.sharding.spec) for x in types)


def reduces(function: Callable, *args) -> bool:
    """Whether the function sums or compares elements, products of matrices included."""
    return _reduces(jax.make_jaxpr(function)(*args).jaxpr)


def _reduces(jaxpr: Any) -> bool:
    if any(equation.primitive.name in _REDUCTIONS for equation in jaxpr.eqns):
        return True
    return any(map(_reduces, subjaxprs(jaxpr)))


def stack(xs: Sequence[jax.Array]) -> jax.Array:
    """`jnp.stack(xs)`.

    XLA on CPU fuses a concatenation with what makes its operands and what reads it,
    into one kernel with a branch for each: 250 matrices took 8 s to compile and 11 ms
    to run, and take 1 s and 5 ms with the copies apart. Elsewhere they are inlined.
    """
    shape = xs[0].shape
    rows = list(xs) if shape else [x.reshape(1) for x in xs]
    parts = [_apart(_join, chunk) for chunk in _chunks(rows)]
    joined = parts[0] if len(parts) == 1 else jnp.concatenate(parts)
    return joined.reshape(len(xs), *shape)


def unstack(x: jax.Array) -> list[jax.Array]:
    """The arrays that `stack` made one of."""
    parts = []
    for start in range(0, len(x), _CHUNK):
        chunk = jax.lax.slice_in_dim(x, start, min(start + _CHUNK, len(x)))
        parts += _apart(_split, chunk)
    return parts


def _chunks(xs: list) -> list[list]:
    return [xs[i : i + _CHUNK] for i in range(0, len(xs), _CHUNK)]


def _apart(function, x):
    with set_xla_metadata(inlineable="false"):
        return function(x)


@jax.jit
def _join(xs: list[jax.Array]) -> jax.Array:
    return jax.lax.concatenate(xs, 0)


@jax.jit
def _split(x: jax.Array) -> list[jax.Array]:
    if x.ndim == 1:
        return [part.reshape(()) for part in jax.lax.split(x, [1] * len(x))]
    rows = x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])
    return list(jax.lax.split(rows, [x.shape[1]] * len(x)))

"""Eager use, compiled once: for the second call, and for another, equal function.

Outside any transformation of JAX a function of pytrees runs as one compiled program,
cached by the function's equality and the types of its arguments. Inside somebody's
`jit`, `grad`, `vmap` or `scan` it is traced inline.
"""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from ..compat import Tracer
from ..tree.messages import keystr, spell
from .batches import batching

__all__ = []

_NEEDS_VALUES = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)


def call_compiled(function: Callable, *args: Any) -> Any:
    """`function(*args)`, compiled if these are values and it can be."""
    if not _all_values(args):
        return function(*args)
    program = _program(function, batching.get())
    if not program.works:
        return function(*args)
    try:
        with explaining_deletion(function, *args):
            return program(*args)
    except _NEEDS_VALUES:
        # A schedule, say, with a Python `if` on the step: fine outside jit.
        program.works = False
        return function(*args)


@contextlib.contextmanager
def explaining_deletion(function: Callable, *args: Any) -> Iterator[None]:
    """Says which of the arguments holds an array that was given away."""
    try:
        yield
    except (RuntimeError, ValueError):
        names = inspect.signature(function).parameters
        for path, x in jax.tree_util.tree_leaves_with_path(dict(zip(names, args))):
            if is_deleted(x):
                where = f"{path[0].key} at {keystr(path[1:])}"
                raise ValueError(deleted(where, x)) from None
        raise


def is_deleted(x: Any) -> bool:
    """Whether it is an array whose buffer was given away."""
    return isinstance(x, jax.Array) and not isinstance(x, Tracer) and x.is_deleted()


def deleted(where: str, x: jax.Array) -> str:
    """What to say of it."""
    return (
        f"{where}, {spell(x)}, was deleted: it was donated to a compiled function, as "
        "the step of make_step does; use what that function returned, or do not donate"
    )


def _all_values(args: Any) -> bool:
    return not any(
        issubclass(kind, Tracer) for kind in set(map(type, jax.tree.leaves(args)))
    )


class _Program:
    __slots__ = ("function", "jitted", "works")

    def __init__(self, function: Callable):
        self.function = function
        self.jitted = jax.jit(function)
        self.works = True

    def __call__(self, *args):
        try:
            return self.jitted(*args)
        except TypeError:
            leaves, treedef = jax.tree.flatten(args)
            fixed = {i: x for i, x in enumerate(leaves) if not is_value(x)}
            if not fixed:
                raise
        return _call_around(self.function, leaves, treedef, fixed)


@functools.lru_cache(maxsize=1024)
def _program(function: Callable, batched: bool | None) -> _Program:
    return _Program(function)


def is_value(x: Any) -> bool:
    """Whether `jax.jit` takes it as an argument."""
    if isinstance(x, np.ndarray) and x.dtype.kind in "OSU":
        return False
    kinds = (jax.Array, np.ndarray, np.generic, bool, int, float, complex)
    return isinstance(x, kinds)


def _call_around(function, leaves, treedef, fixed) -> Any:
    """The call with leaves that are no arrays (functions, say) left outside."""
    try:
        program, result = _program_around(function, treedef, tuple(fixed.items()))
    except TypeError:  # one of them has no hash
        return function(*treedef.unflatten(leaves))
    arrays = program([x for i, x in enumerate(leaves) if i not in fixed])
    out_treedef, out_fixed = result["tree"]
    arrays = iter(arrays)
    return out_treedef.unflatten(
        [
            out_fixed[i] if i in out_fixed else next(arrays)
            for i in range(out_treedef.num_leaves)
        ]
    )


@functools.lru_cache(maxsize=256)
def _program_around(function, treedef, fixed):
    fixed, result = dict(fixed), {}

    @jax.jit
    def program(arrays):
        arrays = iter(arrays)
        leaves = [
            fixed[i] if i in fixed else next(arrays) for i in range(treedef.num_leaves)
        ]
        out, out_treedef = jax.tree.flatten(function(*treedef.unflatten(leaves)))
        out_fixed = {i: x for i, x in enumerate(out) if not is_value(x)}
        result["tree"] = out_treedef, out_fixed
        return [x for i, x in enumerate(out) if i not in out_fixed]

    return program, result

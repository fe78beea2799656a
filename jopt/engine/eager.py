"""Eager use, compiled once: for the second call, and for another, equal function.

Outside any transformation of JAX a function of pytrees runs as one compiled program,
cached by the function's equality and the types of its arguments. Inside somebody's
`jit`, `grad`, `vmap` or `scan` it is traced inline.
"""

import contextlib
import contextvars
import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from ..compat import Tracer
from ..tree.devices import are_apart
from ..words import keystr, spell
from .batches import batching
from .purity import is_pure
from .skeletons import Skeleton, Traced, taken_apart

__all__ = []

_NEEDS_VALUES = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)


def _of_a_trace(kinds: set[type]) -> bool:
    return any(issubclass(kind, Tracer) for kind in kinds)


def call_compiled(function: Callable, *args: Any) -> Any:
    """`function(*args)`, compiled if these are values and it can be."""
    leaves = jax.tree.leaves(args)
    kinds = set(map(type, leaves))
    if _of_a_trace(kinds) or _is_jit_disabled():
        return function(*args)
    program = _program(function, batching.get())
    if not program.works:
        return function(*args)
    try:
        with explaining_deletion(function, *args):
            if all(map(_are_values, kinds)) or all(map(is_value, leaves)):
                return program(*args)
            return _call_around(program, *args)
    except _NEEDS_VALUES:
        # A schedule, say, with a Python `if` on the step: fine outside jit.
        program.works = False
        return function(*args)
    except ValueError:
        if not are_apart(args):
            raise
    return function(*args)


def as_it_is_now(function: Callable, *args: Any, **kwargs: Any) -> Callable | None:
    """A user's function for use in a compiled program, traced anew; `None` if it can't.

    Under `jit` it stays itself, as do functions that are declared pure.
    """
    given = jax.tree.leaves((args, kwargs))
    if is_pure(function) or any(isinstance(x, Tracer) for x in given):
        return function
    try:
        return Traced.now(function, *args, **kwargs)
    except Exception:  # whoever calls it will say what is wrong
        return None


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


@functools.lru_cache(maxsize=1024)
def _are_values(kind: type) -> bool:
    """Whether every object of a class is a value; an array of NumPy may hold words."""
    return issubclass(kind, (jax.Array, bool, int, float, complex))


class _Program:
    """A function as a program that others, with other numbers in them, share."""

    __slots__ = ("function", "known", "works")

    def __init__(self, function: Callable):
        self.function = function
        self.works = True
        self.known: dict[Any, tuple] = {}  # by types of arguments

    def __call__(self, *args):
        types = None
        if len(self.known) == 1:  # nearly always: it will say if they are others
            (known,) = self.known.values()
        else:
            types = types_of(args)
            known = self.known.get(types)
        if known is not None:
            try:
                return _run(*known, args)
            except _OtherTypes:
                pass
        skeleton, numbers = taken_apart(self.function, args)
        if known is not None and skeleton is known[0]:
            skeleton = skeleton.renewed()  # after it raised, `jit` is slow with the old
        if not any(isinstance(x, Tracer) for x in numbers):  # of a trace that will end
            if len(self.known) >= _MOST:
                self.known.clear()
            self.known[types or types_of(args)] = skeleton, numbers
        token = _traced_now.set(skeleton)
        try:
            return _run(skeleton, numbers, args)
        finally:
            _traced_now.reset(token)


_MOST = 256  # kinds of arguments that one function is known for


def types_of(args: tuple) -> tuple:
    leaves, treedef = jax.tree.flatten(args)
    return treedef, *(getattr(x, "aval", None) or jax.typeof(x) for x in leaves)


class _OtherTypes(Exception):
    """The arguments have other types than those that the numbers were found for."""


_traced_now: contextvars.ContextVar[Skeleton | None] = contextvars.ContextVar(
    "_traced_now", default=None
)


@functools.partial(jax.jit, static_argnums=0)
def _run(skeleton: Skeleton, numbers: list[jax.Array], args: tuple) -> Any:
    if _traced_now.get() is not skeleton:
        raise _OtherTypes
    return skeleton(numbers, jax.tree.leaves(args))


@functools.lru_cache(maxsize=1024)
def _program(function: Callable, batched: bool | None) -> _Program:
    return _Program(function)


def _is_jit_disabled() -> bool:
    return getattr(jax.config, "jax_disable_jit", False)


def are_values(args: tuple) -> bool:
    """Whether all can be given to a compiled program now: outside of any trace."""
    leaves = jax.tree.leaves(args)
    kinds = set(map(type, leaves))
    if _of_a_trace(kinds) or _is_jit_disabled():
        return False
    known = all(map(_are_values, kinds)) or all(map(is_value, leaves))
    return known and not are_apart(args)


def is_value(x: Any) -> bool:
    """Whether `jax.jit` takes it as an argument."""
    if isinstance(x, np.ndarray) and x.dtype.kind in "OSU":
        return False
    kinds = (jax.Array, np.ndarray, np.generic, bool, int, float, complex)
    return isinstance(x, kinds)


# ------------------------------------------------------------ leaves that are no arrays


def _call_around(program: _Program, *args: Any) -> Any:
    """The call with functions and words among the leaves left outside.

    Objects of the program's own may hold anything: with these nothing is compiled.
    """
    for x in jax.tree.leaves(args):
        if not (is_value(x) or callable(x) or isinstance(x, str | bytes | np.dtype)):
            return program.function(*args)
    around = _program(_Around(program.function), batching.get())
    try:
        return freed(around(*fixed(args)))
    except TypeError:  # one of them has no hash
        return program.function(*args)


@dataclasses.dataclass(frozen=True)
class _Around:
    """A function whose arguments and results may hold what is no array."""

    function: Callable

    def __call__(self, *args: Any) -> Any:
        return fixed(self.function(*freed(args)))


@jax.tree_util.register_pytree_node_class
class Fixed:
    """A leaf that is no array as a node without leaves: a part of the tree's structure.

    So it passes through `jit`, `cond` and `scan`, which take arrays alone.
    """

    __slots__ = ("value",)

    def __init__(self, value: Any):
        self.value = value

    def tree_flatten(self):
        return (), self

    @classmethod
    def tree_unflatten(cls, fixed, children):
        return fixed

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Fixed):
            return False
        a, b = self.value, other.value
        return a is b or (type(a) is type(b) and bool(np.all(a == b)))

    def __hash__(self) -> int:
        return hash((type(self.value), self.value))


def fixed(tree: Any, is_array: Callable[[Any], bool] = is_value) -> Any:
    """The tree with each leaf that is no array as a part of its structure."""
    return jax.tree.map(lambda x: x if is_array(x) else Fixed(x), tree)


def freed(tree: Any) -> Any:
    """The tree as it was before `fixed`."""
    return jax.tree.map(
        lambda x: x.value if isinstance(x, Fixed) else x,
        tree,
        is_leaf=lambda x: isinstance(x, Fixed),
    )

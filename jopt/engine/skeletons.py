"""Programs without their numbers: one for all optimizers that differ in these alone.

A traced function is taken apart into the floating numbers that are written in it and
what is left. Where that is the same, those numbers that are not become arguments of one
program: a factory called with a new number in each eager step is traced anew, and from
the third on it compiles nothing. The first program keeps its numbers, as `jit` does.

Numbers inside of loops stay where they are.
"""

import dataclasses
import functools
import inspect
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..compat import (
    ClosedJaxpr,
    Jaxpr,
    Literal,
    file_of,
    jaxpr_as_fun,
    with_weak_type,
)

__all__ = []


def taken_apart(function: Callable, args: tuple) -> tuple["Skeleton", list[jax.Array]]:
    """A function for arguments of these types, as one of some of its numbers; and they.

    What it closed over are arguments as well, behind the numbers.
    """
    closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
    reading = _Reading()
    types = [str(jax.typeof(x)) for x in closed.consts]
    key = reading.jaxpr(closed.jaxpr), tuple(types), jax.tree.structure(shape)
    family = _family_of(_Hashed(key), _Later(closed.jaxpr, reading))
    skeleton = family.skeleton_of([*reading.numbers])
    chosen = [x for i, x in enumerate(reading.numbers) if i in skeleton.varied]
    with jax.ensure_compile_time_eval():  # they are kept, also by a call in a trace
        numbers = [jnp.asarray(x, dtype) for x, dtype, _ in chosen]
        return skeleton, [*numbers, *map(jnp.asarray, closed.consts)]


class _Family:
    """Functions that differ in their numbers alone."""

    def __init__(self, jaxpr: Jaxpr, reading: "_Reading", out_tree: Any):
        self.first = [*reading.numbers]
        self.made = jaxpr, reading.literals, out_tree
        self.skeletons = [Skeleton(self, frozenset())]

    def skeleton_of(self, numbers: list) -> "Skeleton":
        """One that has these numbers, or takes them."""
        pairs = enumerate(zip(numbers, self.first))
        varied = frozenset(i for i, (x, first) in pairs if x != first)
        if not varied:
            return self.skeletons[0]
        if not varied <= self.skeletons[-1].varied:
            varied |= self.skeletons[-1].varied
            self.skeletons.append(Skeleton(self, varied))
        return self.skeletons[-1]


class Skeleton:
    """A function of the numbers that vary and of the leaves of its arguments."""

    __slots__ = ("__weakref__", "family", "varied")

    def __init__(self, family: _Family, varied: frozenset):
        self.family, self.varied = family, varied

    def renewed(self) -> "Skeleton":
        """The same as another, for `jit` to compile anew, in the place of this one."""
        new = Skeleton(self.family, self.varied)
        same = self.family.skeletons
        same[same.index(self)] = new
        return new

    def __call__(self, numbers: Sequence[jax.Array], leaves: Sequence) -> Any:
        jaxpr, literals, out_tree = self.family.made
        n = len(self.varied)
        given, consts = dict(zip(sorted(self.varied), numbers)), numbers[n:]
        known = {
            literal: with_weak_type(given[i]) if is_weak else given[i]
            for literal, (i, is_weak) in literals.items()
            if i in given
        }
        return out_tree.unflatten(_Evaluation().run(jaxpr, known, [*consts, *leaves]))


class OtherArguments(TypeError):
    """A traced function was called with others than those it was traced for."""


@jax.tree_util.register_pytree_node_class
class Traced:
    """A function as it is now: what it read when it was traced are its leaves.

    Two are of one structure if they compute the same of their arguments and of these,
    and so do their derivatives where these are written by the user.
    """

    def __init__(self, function: Callable, shape: "_Shape", consts: Sequence):
        self.function, self.shape, self.consts = function, shape, consts

    @classmethod
    def now(cls, function: Callable, *args: Any, **kwargs: Any) -> "Traced":
        """The function for arguments of these types."""
        leaves, treedef = jax.tree.flatten((args, kwargs))

        def flat(leaves):
            args, kwargs = treedef.unflatten(leaves)
            return function(*args, **kwargs)

        closed, out = jax.make_jaxpr(flat, return_shape=True)(leaves)
        reading = _Reading()
        reading.is_open = False
        types = tuple(str(jax.typeof(x)) for x in closed.consts)
        out_tree = jax.tree.structure(out)
        key = reading.jaxpr(closed.jaxpr), types, treedef, out_tree
        if reading.has_rules:
            key += (_derivative(closed, leaves),)
        shape = _Shape(key)
        shape.jaxpr, shape.treedef, shape.out_tree = closed.jaxpr, treedef, out_tree
        return cls(function, shape, [*map(jnp.asarray, closed.consts)])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        leaves, treedef = jax.tree.flatten((args, kwargs))
        types = [(v.aval.shape, v.aval.dtype) for v in self.shape.jaxpr.invars]
        given = [(jnp.shape(x), jax.dtypes.result_type(x)) for x in leaves]
        if treedef != self.shape.treedef or given != types:
            raise OtherArguments
        out = jaxpr_as_fun(ClosedJaxpr(self.shape.jaxpr, self.consts))(*leaves)
        return self.shape.out_tree.unflatten(out)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.function)

    def tree_flatten(self):
        return self.consts, _Same(self.function, self.shape)

    @classmethod
    def tree_unflatten(cls, same, consts):
        return cls(same.function, same.shape, consts)


def _derivative(closed: ClosedJaxpr, leaves: list) -> tuple:
    """The key of what the derivative of a function computes, by rules of the user's."""
    chosen = [i for i, x in enumerate(leaves) if _is_inexact(x)]

    def pulled(consts, leaves):
        def outputs(some):
            full = dict(enumerate(leaves)) | dict(zip(chosen, some))
            given = [full[i] for i in range(len(leaves))]
            out = jaxpr_as_fun(ClosedJaxpr(closed.jaxpr, consts))(*given)
            return [*filter(_is_inexact, out)]

        out, pull = jax.vjp(outputs, [leaves[i] for i in chosen])
        return pull(out)

    derived = jax.make_jaxpr(pulled)([*map(jnp.asarray, closed.consts)], leaves)
    if derived.consts:
        raise TypeError("a rule reads arrays that are no arguments of the function")
    reading = _Reading()
    reading.is_open = False
    return reading.jaxpr(derived.jaxpr)


def _is_inexact(x: Any) -> bool:
    return jnp.issubdtype(jax.dtypes.result_type(x), jnp.inexact)


class _Hashed:
    """A key that computes its hash once."""

    __slots__ = ("hash", "key")

    def __init__(self, key: tuple):
        self.key, self.hash = key, hash(key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hashed) and self.key == other.key

    def __hash__(self) -> int:
        return self.hash


class _Later:
    """What a cache is to keep with a key, and does not look at."""

    def __init__(self, *values: Any):
        self.values = values

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Later)

    def __hash__(self) -> int:
        return 0


class _Shape(_Hashed):
    """What a traced function is, but for what it read."""

    __slots__ = ("jaxpr", "out_tree", "treedef")


@dataclasses.dataclass(frozen=True)
class _Same:
    """What is no leaf of a traced function; equal for equal computations."""

    function: Callable = dataclasses.field(compare=False)
    shape: _Shape


@functools.lru_cache(maxsize=1024)
def _family_of(key: _Hashed, made: _Later) -> _Family:
    jaxpr, reading = made.values
    return _Family(jaxpr, reading, key.key[-1])


# ---------------------------------------------------------------------------- reading

_CALLS = ("jit", "pjit")


def _is_opened(e: Any) -> bool:
    """Whether the numbers inside of it are taken out."""
    name, params = e.primitive.name, e.params
    if name in _CALLS:
        said = (*params["in_shardings"], *params["out_shardings"])
        return all(type(x).__name__ == "UnspecifiedValue" for x in said)
    return name == "cond" or _has_derivative(e)


class _Reading:
    """The key of a jaxpr, equal for equal ones but for their numbers, and these."""

    def __init__(self):
        self.numbers: dict[tuple, int] = {}  # equal ones are one, to have few arguments
        self.literals: dict[int, tuple[int, bool]] = {}  # by identity: number, is weak
        self.is_open = True  # numbers are taken out
        self.has_rules = False  # for derivatives, of the user's
        self._known: dict = {}  # jaxprs by identity, kept alive

    def jaxpr(self, jaxpr: Jaxpr) -> tuple:
        known = id(jaxpr), self.is_open
        if known in self._known:
            return "again", self._known[known][0]
        self._known[known] = len(self._known), jaxpr
        places: dict = {}

        def place(v):
            return places.setdefault(v, len(places))

        def operand(v):
            return self.literal(v) if isinstance(v, Literal) else place(v)

        types = [(place(v), str(v.aval)) for v in (*jaxpr.constvars, *jaxpr.invars)]
        equations = []
        for e in jaxpr.eqns:
            given, params = tuple(map(operand, e.invars)), self.params(e)
            equations.append((e.primitive, given, params, tuple(map(place, e.outvars))))
        return tuple(types), tuple(equations), tuple(map(operand, jaxpr.outvars))

    def literal(self, v: Any) -> tuple:
        kind = str(v.aval), v.aval.weak_type
        if self.is_open and _is_number(v):
            number = float(v.val), v.aval.dtype, v.aval.weak_type
            i = self.numbers.setdefault(number, len(self.numbers))
            self.literals[id(v)] = i, v.aval.weak_type
            return *kind, i
        return *kind, np.asarray(v.val).tobytes()

    def params(self, e: Any) -> tuple:
        was_open = self.is_open
        if _has_derivative(e):
            self.has_rules |= not _is_of_a_library(_body_of(e))
            return self.param(_body_of(e))  # a program's derivative is not asked for
        self.is_open = was_open and _is_opened(e)
        try:
            return tuple((k, self.param(v)) for k, v in e.params.items())
        finally:
            self.is_open = was_open

    def param(self, x: Any) -> Any:
        if isinstance(x, ClosedJaxpr):
            return self.jaxpr(x.jaxpr), tuple(map(self.param, x.consts))
        if isinstance(x, Jaxpr):
            return self.jaxpr(x)
        if isinstance(x, (tuple, list)):
            return tuple(map(self.param, x))
        if isinstance(x, np.ndarray):
            return x.dtype, x.shape, x.tobytes()
        try:
            hash(x)
        except TypeError:
            return _Alone(x)
        return type(x), x


class _Alone:
    """A value that no other is equal to."""

    def __init__(self, value: Any):
        self.value = value


def _is_number(v: Any) -> bool:
    """Whether it is a floating number that is taken out."""
    if np.ndim(v.val) or not jnp.issubdtype(v.aval.dtype, jnp.floating):
        return False
    return v.val == v.val  # NaN is equal to nothing


def _has_derivative(e: Any) -> bool:
    return e.primitive.name in ("custom_jvp_call", "custom_vjp_call")


def _body_of(e: Any) -> ClosedJaxpr:
    """What a function with a derivative of its own computes."""
    return next(x for x in e.params.values() if isinstance(x, ClosedJaxpr))


_LIBRARIES = (
    os.path.join(os.path.dirname(os.path.dirname(__file__)), ""),
    # Those of JAX whose functions take arrays alone, not functions of the user's.
    *(
        os.path.join(os.path.dirname(jax.__file__), "_src", name, "")
        for name in ("nn", "numpy", "scipy")
    ),
)


def _is_of_a_library(jaxpr: Any) -> bool:
    """Whether the function that it was traced from is one of jopt's or JAX's."""
    return file_of(jaxpr).startswith(_LIBRARIES)


# ------------------------------------------------------------------------- evaluation


class _Evaluation:
    """A jaxpr once more, with arrays for the numbers that were taken out of it."""

    def __init__(self):
        self._calls: dict[int, tuple] = {}  # traced once, as they were

    def run(self, jaxpr: Jaxpr, known: dict, args: Sequence) -> list:
        values = dict(zip((*jaxpr.constvars, *jaxpr.invars), args))

        def read(v):
            if not isinstance(v, Literal):
                return values[v]
            return known.get(id(v), v.val)

        for e in jaxpr.eqns:
            with e.ctx.manager:
                out = self.equation(e, known, [*map(read, e.invars)])
            values.update(zip(e.outvars, out))
        return [*map(read, jaxpr.outvars)]

    def equation(self, e: Any, known: dict, args: list) -> Sequence:
        if _has_derivative(e):
            return self.closed(_body_of(e), known, args)
        if _is_opened(e) and e.primitive.name == "cond":
            branches = [
                functools.partial(self.branch, branch, known)
                for branch in e.params["branches"]
            ]
            return jax.lax.switch(args[0], branches, args[1:])
        if _is_opened(e):
            function, inside = self.call(e.params["jaxpr"], e.params["name"], known)
            return function([known[i] for i in inside], args)
        out = _bound(e, args)
        return out if e.primitive.multiple_results else [out]

    def closed(self, closed: ClosedJaxpr, known: dict, args: Sequence) -> list:
        return self.run(closed.jaxpr, known, [*closed.consts, *args])

    def branch(self, closed: ClosedJaxpr, known: dict, args: Sequence) -> list:
        return [*map(jnp.asarray, self.closed(closed, known, args))]

    def call(
        self, closed: ClosedJaxpr, name: str, known: dict
    ) -> tuple[Callable, list[int]]:
        """The function that was called, as one of its numbers, and which they are."""
        if id(closed.jaxpr) not in self._calls:
            inside = [i for i in _literals_in(closed.jaxpr) if i in known]

            def function(numbers, args):
                return self.closed(closed, dict(zip(inside, numbers)), args)

            function.__name__ = name
            self._calls[id(closed.jaxpr)] = jax.jit(function), inside
        return self._calls[id(closed.jaxpr)]


def _bound(e: Any, args: list) -> Any:
    """One equation on other arguments."""
    said: Any = e.primitive.get_bind_params(e.params)
    functions, params = said if isinstance(said, tuple) else ((), said)  # by version
    return e.primitive.bind(*functions, *args, **params)


def _literals_in(jaxpr: Jaxpr) -> list[int]:
    """The numbers in a jaxpr that were taken out, by identity."""
    reading = _Reading()
    reading.jaxpr(jaxpr)
    return [*reading.literals]

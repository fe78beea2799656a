"""Is a state as `init` makes it? Node by node, without making one."""

import contextvars
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..base import EmptyState
from ..boxes import children_of
from ..kinds import is_nothing, is_value
from ..words import keystr, listed, spell
from .leaves import Leaves, types_of
from .stages import WholeStage

__all__ = []

COUNT = jax.ShapeDtypeStruct((), jnp.int32)


def is_class(state: Any, kind: type) -> bool:
    """Whether it is of that class, or of another library's of its name and fields."""
    if type(state) is kind:
        return True
    names = {c.__name__ for c in kind.__mro__}
    same = getattr(type(state), "_fields", None) == getattr(kind, "_fields", ())
    ours = type(state).__module__.startswith("jopt.")
    return same and not ours and type(state).__name__ in names


def check_leaf(
    where: str, x: Any, like: jax.ShapeDtypeStruct, expected: str = "expected"
) -> None:
    """Refuse what has not the shape and the kind of dtype of `like`."""
    if is_like(x, like):
        return
    if not is_value(x) or np.shape(x) == like.shape:
        raise TypeError(
            f"{where} is {spell(x)}, expected {spell(like)} or another array of a "
            f"{_kind(like.dtype).__name__} dtype"
        )
    raise ValueError(
        f"{where} is {spell(x)}, {expected} {spell(like)}: "
        "was the state made for other parameters?"
    )


def is_like(x: Any, like: jax.ShapeDtypeStruct) -> bool:
    """Whether shape and kind of dtype are equal; keys may be raw or typed."""
    if isinstance(x, jax.Array) and x.dtype == like.dtype and x.shape == like.shape:
        return True  # nearly always
    if not is_value(x):
        return False
    kind, like_kind = (_kind(jax.dtypes.result_type(y)) for y in (x, like))
    if kind is like_kind:
        return np.shape(x) == like.shape
    if type(x) is int and like_kind is jnp.floating:
        return like.shape == ()  # a setting that a program wrote there
    raw, typed = jnp.integer, jnp.generic
    return (kind, like_kind) in ((raw, typed), (typed, raw)) and (
        np.ndim(x) - len(like.shape) == (1 if kind is raw else -1)
    )


@functools.cache
def _kind(dtype: Any) -> Any:
    kinds = (jnp.floating, jnp.complexfloating, jnp.integer, jnp.bool_)
    return next((k for k in kinds if jnp.issubdtype(dtype, k)), jnp.generic)


class Unchecked:
    """Stands for the state of a transformation inside another, which checks it."""


jax.tree_util.register_pytree_node(
    Unchecked, lambda _: ((), None), lambda *_: Unchecked()
)

checking: contextvars.ContextVar[bool] = contextvars.ContextVar(
    "checking", default=False
)


def check_whole(stage: WholeStage, updates: Any, state: Any, params: Any) -> None:
    """Refuse a state that is not as `init` makes it, but for what is inside.

    The states of inner transformations are left to their own updates.
    """
    for path, x in jax.tree_util.tree_leaves_with_path(updates):
        if not (is_value(x) or callable(x)):
            raise TypeError(
                f"{stage.name}: updates at {keystr(path)} must be an array, "
                f"got {type(x).__name__}"
            )
    like = updates if params is None else params
    try:
        _compare_with_init(stage, state, like, params is None)
    except (ValueError, TypeError) as error:
        for other in _where_updated(updates, params):
            try:  # what the rules inside do not read need not fit
                return _compare_with_init(stage, state, other, True)
            except (ValueError, TypeError):
                continue
        if params is not None:
            Leaves(updates, params)  # is it these two that do not fit each other?
        raise error


def _where_updated(updates: Any, params: Any) -> Iterator[Any]:
    """What a state may have been made for, if not for these parameters."""
    if params is None:
        return

    def one(g, p):
        return None if g is None else p

    try:
        some = jax.tree.map(one, updates, params, is_leaf=lambda x: x is None)
    except (ValueError, TypeError):
        some = None
    if some is not None and any(x is None for x in _leaves_and_nones(updates)):
        yield some
    elif not _is_alike(updates, params):
        yield updates


def _leaves_and_nones(tree: Any) -> list:
    return jax.tree.leaves(tree, is_leaf=lambda x: x is None)


def _compare_with_init(stage: WholeStage, state: Any, like: Any, loose: bool) -> None:
    like = getattr(stage.tx.update, "begun_with", _as_given)(state, like)
    token = checking.set(True)
    try:
        expected = types_of(stage.tx.init, like)
    except jax.errors.ConcretizationTypeError:
        return  # an `init` that looks at values
    except Exception:  # or into the states inside
        checking.set(False)
        expected = types_of(stage.tx.init, like)
    finally:
        checking.reset(token)
    top = [keystr(path) for path, _ in children_of(like) or ()]
    compare(stage.name, "state", state, expected, loose, top or None)


def is_empty(state: Any) -> bool:
    """Whether it is the state of a transformation that keeps none."""
    return isinstance(state, EmptyState) or type(state).__name__ == "EmptyState"


def _as_given(state: Any, params: Any) -> Any:
    return params


def compare(
    name: str,
    where: str,
    state: Any,
    expected: Any,
    loose: bool = False,
    top: list[str] | None = None,
    inside: bool = False,
) -> None:
    """Node by node; `loose` if leaves may be missing in what `expected` was made of.

    `inside` a tree like the parameters, which has their names at its `top`, `None` is
    for leaves that were left out at `init`.
    """
    if isinstance(expected, Unchecked) or (loose and expected is None):
        return
    if is_empty(expected) or (is_nothing(expected) and is_nothing(state)):
        return  # nothing is read
    if state is None and inside:
        return
    if isinstance(expected, jax.ShapeDtypeStruct):
        return check_leaf(f"{name}: {where}", state, expected)
    parts = children_of(expected)
    if parts is None:
        if expected is None and state is not None:
            raise ValueError(
                f"{name}: {where} must be None, got {spell(state)}: "
                "was the state made by another transformation?"
            )
        return  # a function, say
    given = children_of(state) or []
    alike = is_class(state, type(expected)) or (
        isinstance(state, Mapping) and isinstance(expected, Mapping)
    )
    keys, given_keys = ([keystr(path) for path, _ in x] for x in (parts, given))
    if not alike or keys != given_keys:
        raise ValueError(
            f"{name}: {where}: expected a {_node(expected, keys)}, got a "
            f"{_node(state, given_keys)}: was the state made by another "
            "transformation, or for other parameters?"
        )
    for key, (_, x), (_, y) in zip(keys, given, parts):
        compare(name, where + key, x, y, loose, top, inside or keys == top)


def _is_alike(a: Any, b: Any) -> bool:
    """Whether structure and shapes of two trees are equal."""
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        np.shape(x) == np.shape(y) for x, y in zip(*map(jax.tree.leaves, (a, b)))
    )


def _node(x: Any, keys: list[str]) -> str:
    kind = type(x).__name__
    return f"{kind} of {listed(keys)}" if keys and not hasattr(x, "_fields") else kind

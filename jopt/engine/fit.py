"""Does a state fit? Is it this method's, made for these parameters?

This is the only place that asks. A rule's state is read field by field, and what it has
for a leaf is compared with what `init` makes for such a leaf. That of a whole tree is
compared node by node with what `init` makes, but for the states of what is inside,
which are left to their own updates.
"""

import functools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..base import EmptyState, GradientTransformationExtraArgs
from ..boxes import children_of
from ..kinds import is_nothing, is_value
from ..numerics import compute_dtype, safe_increment
from ..plan import AsMade, Rule, Stage, Whole
from ..tree.matching import beside
from ..words import explain, keystr, listed, of_a_pair, spell
from .leaves import Leaves, Visible, types_of

__all__ = []

COUNT = jax.ShapeDtypeStruct((), jnp.int32)


# ----------------------------------------------------------------- the state of a rule


class StateParts(NamedTuple):
    """The state of a rule, taken apart."""

    rule: Rule
    state: Any  # as it came: its class may be another library's
    treedefs: dict[str, Any]  # of the fields that have a slot for each leaf
    whole: dict[str, Any]  # fields that are one for the tree, the counts advanced
    slots: dict[int, dict[str, Any]]  # the other fields, by visible leaf
    forms: dict[tuple[int, str], Any]  # structures of slots whose containers are others
    absent: frozenset[int] = frozenset()  # leaves that were left out at `init`


def read(stage: Stage, state: Any, leaves: Leaves) -> StateParts:
    """The parts of a state, after a look at its method, structure and shapes.

    A rule that keeps nothing asks for nothing. A leaf for which the state has `None`
    is absent: it takes no part.
    """
    rule: Any = stage.part
    view = leaves.view(stage.masks)
    slots: dict = {i: {} for i in view.indices}
    if not rule.state._fields:
        return StateParts(rule, state, {}, {}, slots, {})
    if type(state) is not rule.state:
        _check_class(stage.name, state, rule.state)
    treedefs = {}
    for f in rule.slots:
        column, treedefs[f] = _column(stage, f, getattr(state, f), view, leaves)
        for i, x in zip(view.indices, column):
            slots[i][f] = x
    optimized = [i for i in slots if leaves.optimized[i]] if rule.slots else []
    present = [i for i in optimized if any([x is not None for x in slots[i].values()])]
    forms = {}
    for i in present or optimized:  # a state without any slot was made for other leaves
        _check_slot(stage, slots[i], leaves, i, forms)
    whole = {f: getattr(state, f) for f in (*rule.whole, *rule.counts)}
    for f, x in whole.items():
        like = COUNT if f in rule.counts else _type_of_whole(rule, f)
        if not is_like(x, like):
            check_leaf(f"{stage.name}: the state's {f!r}", x, like)
    whole |= {f: _advanced(whole[f]) for f in rule.counts}
    absent = frozenset(optimized).difference(present)
    return StateParts(rule, state, treedefs, whole, slots, forms, absent)


_advanced = jax.jit(safe_increment, inline=True)  # one call to trace, not three


def write(parts: StateParts) -> Any:
    """The state of these parts."""
    if not parts.rule.state._fields:
        return parts.state
    for (i, f), form in parts.forms.items():
        parts.slots[i][f] = form.unflatten(jax.tree.leaves(parts.slots[i][f]))
    trees = {
        f: treedef.unflatten([slot[f] for slot in parts.slots.values()])
        for f, treedef in parts.treedefs.items()
    }
    return type(parts.state)(**trees, **parts.whole)


def _column(
    stage: Stage, field: str, tree: Any, view: Visible, leaves: Leaves
) -> tuple[list, Any]:
    """What a field has for each visible leaf, and its structure above that."""
    try:
        return view.treedef.flatten_up_to(tree), view.treedef
    except (ValueError, TypeError):
        pass
    try:
        return beside(view.treedef, tree)
    except ValueError:
        pass
    like = leaves.p if leaves.has_params else leaves.g
    message = explain(
        f"the state's {field!r}",
        tree,
        "params" if leaves.has_params else "updates",
        view.treedef.unflatten([like[i] for i in view.indices]),
    )
    updates = leaves.treedef.unflatten(leaves.g)
    hint = of_a_pair(updates, jax.tree.structure(tree))
    raise ValueError(f"{stage.name}: {message}{hint or '; ' + _made_for(stage)}")


def _made_for(stage: Stage) -> str:
    question = "was the state made for other parameters"
    if not stage.masks:
        return question + "?"
    argument = stage.masks[-1].argument
    return f"{question}, or did the {argument} choose other leaves at init?"


def _check_class(where: str, state: Any, kind: type) -> None:
    if not is_class(state, kind):
        raise ValueError(
            f"{where}: expected a {kind.__name__}, got a {type(state).__name__}: "
            "was the state made by another transformation?"
        )


def _check_slot(stage: Stage, slot: dict, leaves: Leaves, i: int, forms: dict) -> None:
    """Refuse a slot that is not as `init` makes it, but for the containers in it.

    flax's nnx makes mappings of lists. The rule gets the lists, the state its mappings.
    """
    rule: Any = stage.part
    p: Any = leaves.p[i] if leaves.has_params else leaves.g[i]
    expected = _types_of_slots(rule.init, p.shape, compute_dtype(p.dtype))
    for field, tree in slot.items():
        want, structure = expected[field]
        got, form = [tree], None
        if not isinstance(tree, jax.Array):
            got, form = jax.tree.flatten(tree)
        # A mapping has a level that the leaf has not, but for a list of the leaf's own.
        mapping = isinstance(tree, Mapping) and jax.tree_util.treedef_is_leaf(structure)
        if len(got) != len(want) or mapping:
            raise ValueError(
                f"{stage.name}: the state's {field!r} at {leaves.path(i)} has "
                f"{len(got)} arrays where {len(want)} are expected: {_made_for(stage)}"
            )
        for x, like in zip(got, want):
            if not is_like(x, like):
                where = f"{stage.name}: the state's {field!r} at {leaves.path(i)}"
                same = like.shape == leaves.g[i].shape
                check_leaf(where, x, like, "the gradient is" if same else "expected")
        if form is not None and form != structure:
            forms[i, field] = form
            slot[field] = structure.unflatten(got)


@functools.lru_cache(maxsize=8192)
def _types_of_slots(init, shape, dtype) -> dict[str, tuple[list, Any]]:
    """The types and structures of the slots that `init` makes for such a leaf."""
    slots = jax.eval_shape(init, jax.ShapeDtypeStruct(shape, dtype))
    slots: Any = slots if isinstance(slots, dict) else slots._asdict()
    return {field: jax.tree.flatten(tree) for field, tree in slots.items()}


def _type_of_whole(rule: Rule, field: str) -> Any:
    start = rule.whole[field]
    if isinstance(start, AsMade):
        return jax.eval_shape(lambda: jnp.asarray(start.make()))
    some = [jax.ShapeDtypeStruct((), jnp.float32)]
    if callable(start):
        return jax.eval_shape(lambda ps: jnp.asarray(start(ps), float), some)
    return jnp.asarray(start, bool if isinstance(start, bool) else float)


# ------------------------------------------------------------------ that of whole trees


def check_whole(stage: Stage, updates: Any, state: Any, params: Any) -> None:
    """Refuse a state that is not as `init` makes it, but for what is inside."""
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


class Inside:
    """Stands for the state of a transformation inside another, which checks it."""


jax.tree_util.register_pytree_node(Inside, lambda _: ((), None), lambda *_: Inside())

_STUB = GradientTransformationExtraArgs(
    lambda params: Inside(),
    lambda updates, state, params=None, **more: (updates, state),
)


def _compare_with_init(stage: Stage, state: Any, like: Any, loose: bool) -> None:
    whole: Any = stage.part
    if whole.began_with is not None:
        like = whole.began_with(state, like)
    try:
        if whole.expected is not None:
            expected = whole.expected(state)
        else:
            expected = _types_of_state(whole, like)
    except jax.errors.ConcretizationTypeError:
        return  # an `init` that looks at values
    top = [keystr(path) for path, _ in children_of(like) or ()]
    compare(stage.name, "state", state, expected, loose, top or None)


def _types_of_state(whole: Whole, like: Any) -> Any:
    """What `init` makes for such parameters, but for what is inside."""
    if whole.build is not None:
        try:
            return types_of(whole.with_inside(*[_STUB] * len(whole.inside)).init, like)
        except jax.errors.ConcretizationTypeError:
            raise
        except Exception:  # it looks into the states inside
            pass
    return types_of(whole.init, like)


def is_empty(state: Any) -> bool:
    """Whether it is the state of a transformation that keeps none."""
    return isinstance(state, EmptyState) or type(state).__name__ == "EmptyState"


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
    if isinstance(expected, Inside) or (loose and expected is None):
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


# --------------------------------------------------------------------------- one leaf


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

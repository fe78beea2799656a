"""States as flat dictionaries of named arrays, which outlive a change of the optimizer.

An entry is named by what it is and not by where it stands: the kind of the state (its
class without `ScaleBy` and `State`), the field, and the path of the parameter, as in
`adam/mu/layers/0/w`. A state that holds others, of a chain, a mask or `MultiSteps` say,
names its own fields alone; labels of a partition come first, `decay/adam/count`. What
is not under its label is looked for under others, by the rest of its name. The
second state of a kind is `adam_2`, in the order of the chain. optax calls the states of
Adam's relatives Adam's too: what such names stand for, the restoring `tx` knows.
"""

import collections
import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..base import GradientTransformation, OptState, Params
from ..boxes import children_of, unboxed
from ..engine import at_home
from ..kinds import is_key, is_namedtuple, is_numeric
from ..parts.combine import check_transformation
from ..plan import node_of, states_inside
from ..tree import paths
from ..words import listed, spell

__all__ = ["StateReport", "load_state_dict", "state_dict"]

_VERSION = 1


class StateReport(NamedTuple):
    """What did not fit when a state was restored, by name."""

    missing: tuple[str, ...]  # the state has it, the dictionary does not
    unused: tuple[str, ...]  # the dictionary has it, the state does not
    reshaped: dict[str, str]  # of another shape or kind of number: what for what
    converted: dict[str, str]  # of another precision: from what to what
    moved: Mapping[str, str] = MappingProxyType({})  # of another label: from which name


def state_dict(tx: GradientTransformation | None, state: OptState) -> dict[str, Any]:
    """The arrays of a state by names that stay when the chain around them changes.

    Args:
        tx: the transformation that made the state, jopt's or optax's. It says which
            fields hold the states of others; if it is `None`, or a wrapper of your own
            that does not say what is inside, those do that are named `...state`, or
            have a NamedTuple that is named `...State`.
        state: the state. It may be abstract, to tell a checkpointer what to expect.

    Returns:
        A flat dict of arrays that `np.savez`, orbax and their like can hold, without a
        copy: save it before a step to which the state is donated. A PRNG key is an
        array of integers, with its kind last in its name; functions and the like are
        left out. `"version"` is the version of the names.

    Raises:
        TypeError: `tx` is no transformation.
        ValueError: two leaves have one name, as keys with slashes may have.

    Example:
        >>> tx = jopt.chain(jopt.clip(1.0), jopt.adam(1e-3))
        >>> list(jopt.state_dict(tx, tx.init({"w": jnp.ones(2)})))
        ['version', 'adam/count', 'adam/mu/w', 'adam/nu/w']
    """
    if tx is not None:
        check_transformation("state_dict", "tx", tx)
    found = {"version": np.array(_VERSION, np.int32)}
    named = _named("state_dict", state, tx)
    return found | {x.name: _plain(x.leaf) for x in named if x.rest}


def load_state_dict(
    tx: GradientTransformation,
    params: Params,
    d: Mapping[str, Any],
    partial: bool = False,
) -> tuple[OptState, StateReport]:
    """The state of a transformation for these parameters, from arrays by name.

    Args:
        tx: the transformation that is to go on. It need not be the one that was saved.
        params: the parameters, which may be abstract.
        d: what `state_dict` returned, of jopt's state or optax's, in which Adam's names
            also do for `yogi`, `radam` and the like; a mapping such as `np.load`
            returns will do. Floating numbers take the precision that the
            state has, and so do integers that it can hold; a shape never changes.
            Labels of groups may change: slots are found by method and parameter, and
            the count of a group is that of the slots that it was given, the largest if
            they had several.
        partial: whether to keep the values of `tx.init(params)` where an entry is
            missing or does not fit, and to leave out what the state does not have: what
            was frozen, or is new, begins anew.

    Returns:
        The state, in which what has the shape of its parameter is sharded as that is
        and the rest is whole on each of their devices, and a `StateReport`. Of it, only
        `converted` and `moved` can be filled unless `partial`.

    Raises:
        ValueError: names or shapes do not fit, unless `partial`: the message has all
            that are missing, unused and reshaped; or the names are of a later version.
        TypeError: `tx` is no transformation, or `d` no mapping of arrays.

    Example:
        >>> old, params = jopt.adam(1e-3), {"w": jnp.ones(2)}
        >>> saved = jopt.state_dict(old, old.init(params))
        >>> new = jopt.chain(jopt.clip(1.0), jopt.adamw(1e-4))
        >>> state, report = jopt.load_state_dict(new, params, saved)
        >>> report.missing, report.unused
        ((), ())
    """
    check_transformation("load_state_dict", "tx", tx)
    _check_mapping(d)
    template = _abstract(tx.init, params)
    leaves, structure = jax.tree.flatten(template)
    like = dict(zip(paths(params), jax.tree.leaves(params)))
    missing = [] if "version" in d else ["version"]
    unused = dict.fromkeys(name for name in d if name != "version")
    reshaped, converted, kept = {}, {}, []
    named = _named_as_in(d, template, tx)
    sources = _sources(d, named, paths(params))
    for i, entry in enumerate(named):
        name, path, want = entry.name, entry.path, entry.leaf
        if not name:
            continue
        if name not in sources:
            missing.append(name)
            kept.append(i)
            continue
        found, *others = sources[name]
        for other in (found, *others):
            unused.pop(other, None)
        want = _plain(want)
        x = _as_array(found, d[found], want)
        words = f"{spell(x)} for {spell(want)}"
        if x.shape != want.shape or not _holds(want.dtype, x):
            reshaped[name] = words
            kept.append(i)
            continue
        if x.dtype != want.dtype:
            converted[name] = words
        leaves[i] = _placed(x, want.dtype, leaves[i], like.get(path))
    moved = {name: found[0] for name, found in sources.items() if found[0] != name}
    report = StateReport(tuple(missing), tuple(unused), reshaped, converted, moved)
    if not partial and any(report[:3]):
        raise ValueError(_refusal(tx, report))
    if kept:
        fresh = jax.tree.leaves(tx.init(params))
        for i in kept:
            leaves[i] = fresh[i]
    return at_home(structure.unflatten(leaves), params), report


# ------------------------------------------------------------------------------- names


class _Named(NamedTuple):
    """A leaf of the state and its name, `label` and `rest`; what is no array has none.

    `path` is what stands below the field: of a slot, that of its parameter.
    """

    label: str
    rest: str
    path: str
    leaf: Any

    @property
    def name(self) -> str:
        return self.label + self.rest if self.rest else ""


def _named_as_in(d: Mapping, state: OptState, tx: Any) -> list[_Named]:
    """By the state's own names, or by optax's if `d` has more of them."""
    candidates = [_named("load_state_dict", state, tx, of) for of in (type, _optax_s)]
    ends = _ends(d)

    def unknown(named):
        return sum(x.name not in d and x.rest not in ends for x in named if x.rest)

    return min(candidates, key=unknown)


def _ends(d: Mapping) -> dict[str, list[str]]:
    """The names that end in each text, a slash before it or nothing."""
    ends = collections.defaultdict(list)
    for name in d:
        words = name.split("/")
        for i in range(len(words)):
            ends["/".join(words[i:])].append(name)
    return ends


def _sources(d: Mapping, named: list[_Named], params: list[str]) -> dict[str, list]:
    """Where in `d` each leaf of the state is, by its name; one that stands for others.

    A slot that is not under its own name is under another label. What is one for all,
    such as a count, is where the slots of its label were.
    """
    ends, sources, labels = _ends(d), {}, collections.defaultdict(dict)
    slots = [x for x in named if x.rest and _is_slot(x.path, params)]
    names_of_slots = {x.name for x in slots}
    for x in slots:
        found = [x.name] if x.name in d else ends.get(x.rest, [])
        if len(found) == 1:  # more are of parts that no one can tell apart
            sources[x.name] = found
            labels[x.label][found[0][: -len(x.rest)]] = None
    has_slots = {x.label for x in slots}
    for x in named:
        if not x.rest or x.name in names_of_slots:
            continue
        if x.name in d:
            sources[x.name] = [x.name]
        elif not x.path:
            found = [label + x.rest for label in labels[x.label]]
            found = found if x.label in has_slots else ends.get(x.rest, [])
            found = _one_of(d, [name for name in found if name in d])
            if found:
                sources[x.name] = found
    return sources


def _is_slot(path: str, params: list[str]) -> bool:
    """Whether it is that of a parameter, or of a part of what is kept for it."""
    return path in params or any(path.startswith(f"{p}/") for p in params if p)


def _one_of(d: Mapping, names: list[str]) -> list[str]:
    """The names, that of the value first: all are equal, or it is the largest count."""
    if len(names) < 2:
        return names
    values = [np.asarray(d[name]) for name in names]
    if all(x.dtype.kind in "iu" and x.shape == () for x in values):
        first = max(range(len(names)), key=lambda i: values[i])
    elif all(np.array_equal(x, values[0]) for x in values):
        first = 0
    else:
        return []
    return [names[first], *names[:first], *names[first + 1 :]]


def _optax_s(state: NamedTuple) -> type:
    """The class that optax has for all its kin: `ScaleByAdamState`."""
    return [c for c in type(state).__mro__ if hasattr(c, "_fields")][-1]


def _named(
    where: str, state: OptState, tx: Any, class_of: Callable[..., type] = type
) -> list[_Named]:
    """The name of every leaf, and the leaf, in order."""
    counts = collections.Counter()
    state = unboxed(state)
    held = set() if tx is None else _held(tx, state)

    def once(label, kind):
        counts[label, kind] += 1
        n = counts[label, kind]
        return kind if n == 1 else f"{kind}_{n}"

    def in_state(node, label) -> Iterator:
        children = children_of(node) or ()
        if is_namedtuple(node):
            kind = once(label, _kind(class_of(node).__name__))
            for (key,), child in children:
                if key.name.endswith(("state", "states")) or _has_states(child, held):
                    yield from in_field(child, label)
                else:
                    yield from in_tree(child, label, f"{kind}/{key.name}")
        elif type(node) is tuple or _has_states(node, held):
            for _, child in children:
                yield from in_state(child, label)
        elif jax.tree.leaves(node):  # of a transformation that names nothing
            yield from in_tree(node, label, once(label, "state"))

    def in_field(node, label) -> Iterator:
        if isinstance(node, Mapping) and _has_states(node, held):
            for key, child in children_of(node) or ():
                yield from in_state(child, f"{label}{_text(key)}/")
        else:
            yield from in_state(node, label)

    def in_tree(node, label, name) -> Iterator:
        for path, leaf in jax.tree_util.tree_flatten_with_path(node)[0]:
            below = _text(path)
            words = [name, below, _key_kind(leaf)]
            full = "/".join(filter(None, words)) if _is_array(leaf) else ""
            yield _Named(label, full, below, leaf)

    named = list(in_state(state, ""))
    often = collections.Counter(x.name for x in named if x.rest)
    twice = [name for name, n in often.items() if n > 1]
    if twice:
        raise ValueError(
            f"{where}: leaves of the state share a name, {listed(twice)}; rename a key "
            "of the parameters, or a label, that has a slash"
        )
    return named


def _kind(name: str) -> str:
    """`adam` for `ScaleByAdamState`."""
    name = re.sub("^ScaleBy|Stateful|State$", "", name)
    return re.sub("(?<=[a-z])(?=[A-Z][a-z])", "_", name).lower()


def _held(tx: GradientTransformation, state: OptState) -> set[int]:
    """Which nodes of a state are states of what is inside, as the wrappers say."""
    try:
        return {id(inner) for _, inner in states_inside(node_of(tx), state)}
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return set()  # it is the state of another transformation


def _has_states(tree: Any, held: set[int]) -> bool:
    """Whether there are states in it: of what is inside, or known by their classes."""

    def is_state(x):
        by_name = is_namedtuple(x) and type(x).__name__.endswith("State")
        return by_name or (is_namedtuple(x) and id(x) in held)

    return any(map(is_state, jax.tree.leaves(tree, is_leaf=is_state)))


def _text(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


# ------------------------------------------------------------------------------ arrays


def _is_array(x: Any) -> bool:
    return isinstance(x, jax.ShapeDtypeStruct) or is_numeric(x)


def _key_kind(x: Any) -> str:
    """The generator of a PRNG key, `threefry2x32`; empty for anything else."""
    kinds = []
    if is_key(x):
        jax.eval_shape(lambda key: kinds.append(str(jax.random.key_impl(key))), x)
    return "".join(kinds)


def _plain(x: Any) -> Any:
    """The array of numbers that stands for a leaf, which may be abstract."""
    if is_key(x) and isinstance(x, jax.ShapeDtypeStruct):
        return jax.eval_shape(jax.random.key_data, x)
    if is_key(x):
        return jax.random.key_data(x)
    return x if hasattr(x, "dtype") else jnp.asarray(x)


def _abstract(init: Any, params: Params) -> OptState:
    """What `init` makes, without an array; what is none stays as it is."""
    leaves, structure = jax.tree.flatten(params)
    made = []

    def arrays_of_state(arrays):
        given = iter(arrays)
        full = [next(given) if _is_array(x) else x for x in leaves]
        made.extend(jax.tree.flatten(init(structure.unflatten(full))))
        return [x for x in made[0] if _is_array(x)]

    arrays = jax.eval_shape(arrays_of_state, [x for x in leaves if _is_array(x)])
    shapes, (out, structure) = iter(arrays), made
    return structure.unflatten([next(shapes) if _is_array(x) else x for x in out])


def _as_array(name: str, x: Any, want: Any) -> Any:
    """An entry as an array, with the dtype back that NumPy's files lose."""
    if isinstance(x, jax.Array):
        return x
    x, dtype = np.asarray(x), np.dtype(want.dtype)
    if x.dtype.type is np.void and dtype.kind == "V" and x.itemsize == dtype.itemsize:
        return x.view(dtype)  # bfloat16 and its like
    if x.dtype.kind in "OSUMm" or x.dtype.type is np.void:
        raise TypeError(
            f"load_state_dict: d[{name!r}] must be an array of numbers, got one of "
            f"{x.dtype}"
        )
    return x


def _holds(dtype: Any, x: Any) -> bool:
    """Whether that dtype has the same kind of numbers, and integers their values."""
    kinds = (jnp.floating, jnp.complexfloating, jnp.integer, jnp.bool_)
    if not any(jnp.issubdtype(dtype, k) and jnp.issubdtype(x.dtype, k) for k in kinds):
        return False
    if x.dtype == dtype or not jnp.issubdtype(dtype, jnp.integer):
        return True
    bounds = jnp.iinfo(dtype)
    return not x.size or bool(x.min() >= bounds.min and x.max() <= bounds.max)


def _placed(x: Any, dtype: Any, leaf: Any, param: Any) -> jax.Array:
    """The entry as a leaf of the state, sharded as the parameter of its shape."""
    x = x.astype(dtype) if isinstance(x, jax.Array) else jnp.array(x, dtype)
    if is_key(leaf):
        return jax.random.wrap_key_data(x, impl=_key_kind(leaf))
    sharding = getattr(param, "sharding", None)
    if sharding is None or x.shape != param.shape:
        return x
    return jax.device_put(x, sharding) if getattr(param, "committed", True) else x


# ---------------------------------------------------------------------------- messages


def _check_mapping(d: Any) -> None:
    if not isinstance(d, Mapping):
        raise TypeError(
            "load_state_dict: d must be a mapping from names to arrays, as state_dict "
            f"returns, got a {type(d).__name__}"
        )
    version = np.asarray(d.get("version", _VERSION))
    if version.shape != () or version.dtype.kind not in "iu" or version < 1:
        raise ValueError(f"load_state_dict: d['version'] must be 1, got {version}")
    if version > _VERSION:
        raise ValueError(
            f"load_state_dict: d is of version {version}, and this jopt reads "
            f"{_VERSION} at most: update jopt"
        )


def _refusal(tx: Any, report: StateReport) -> str:
    words = []
    for field, ours, others in (
        ("missing", report.missing, report.unused),
        ("unused", report.unused, ()),
    ):
        near = [(name, difflib.get_close_matches(name, others, 1)) for name in ours]
        words.append((field, [n + (f" (near: {c[0]})" if c else "") for n, c in near]))
    words.append(("reshaped", [f"{k} is {v}" for k, v in report.reshaped.items()]))
    found = "; ".join(f"{field}: {listed(names)}" for field, names in words if names)
    return (
        f"load_state_dict: d does not fit the state of {tx!r} for these params; {found}"
        "; with partial=True the state keeps its own values there"
    )

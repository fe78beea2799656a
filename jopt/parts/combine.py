"""Transformations made of transformations: one after the other, or leaf by leaf."""

import re
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from .. import tree
from ..base import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    MaskOrFn,
    OptState,
)
from ..engine import from_plan, stateless_leaf, transformation
from ..engine.stages import Mask, in_sequence, no_stage, plan_of, under_mask
from ..kinds import is_function, is_namedtuple, is_transformation
from ..tree.selection import takes_a_path
from ..words import keystr

__all__ = [
    "MaskedState",
    "MultiTransformState",
    "PartitionState",
    "chain",
    "freeze",
    "identity",
    "masked",
    "multi_transform",
    "named_chain",
    "partition",
    "selective_transform",
    "set_to_zero",
]


class MaskedState(NamedTuple):
    """The state of a masked transformation."""

    inner_state: Any


class PartitionState(NamedTuple):
    """The states of a partition by label, each masked to its leaves."""

    inner_states: Mapping[Hashable, OptState]


MultiTransformState = PartitionState


@transformation
def identity() -> GradientTransformationExtraArgs:
    """Leaves the updates as they are.

    Returns:
        A transformation whose state is `EmptyState()`.

    Example:
        >>> jopt.identity().update(jnp.ones(2), jopt.EmptyState())
        (Array([1., 1.], dtype=float32), EmptyState())
    """
    return from_plan(no_stage())


@transformation
def set_to_zero() -> GradientTransformationExtraArgs:
    """Replaces every update by zero, so that the parameters stay.

    Returns:
        A transformation whose state is `EmptyState()`.

    Example:
        >>> jopt.set_to_zero().update(jnp.ones(2), jopt.EmptyState())
        (Array([0., 0.], dtype=float32), EmptyState())
    """
    return stateless_leaf(lambda g, p: jax.numpy.zeros_like(g))


@transformation
def chain(*args: GradientTransformation) -> GradientTransformationExtraArgs:
    """Applies transformations one after the other.

    Args:
        *args: transformations, from jopt or in optax's protocol.

    Returns:
        A transformation whose state is the tuple of theirs.

    Example:
        >>> jopt.chain(jopt.clip_by_global_norm(1.0), jopt.adam(1e-3))
        chain(clip_by_global_norm(1.0), adam(0.001))
    """
    for i, tx in enumerate(args):
        check_transformation("chain", f"argument {i}", tx)
    return from_plan(in_sequence([plan_of(tx) for tx in args], tuple, as_tuple))


def as_tuple(state: Any) -> Sequence:
    """The states of a chain, one for each part; refuses what no chain made.

    A list is taken as well: files and other programs make lists of tuples.
    """
    if not isinstance(state, tuple | list) or is_namedtuple(state):
        raise ValueError(
            "chain: expected a tuple of the parts' states, got a "
            f"{type(state).__name__}: was the state made by another transformation?"
        )
    return state


@transformation
def named_chain(
    *args: tuple[str, GradientTransformation],
) -> GradientTransformationExtraArgs:
    """Applies named transformations one after the other.

    Args:
        *args: pairs of a name and a transformation; names must differ.

    Returns:
        A transformation whose state is a dict of theirs by name.

    Raises:
        ValueError: two parts have one name.

    Example:
        >>> tx = jopt.named_chain(("clip", jopt.clip(1.0)), ("adam", jopt.adam(0.1)))
        >>> list(tx.init(jnp.zeros(2)))
        ['clip', 'adam']
    """
    for i, pair in enumerate(args):
        if (
            not isinstance(pair, tuple)
            or len(pair) != 2
            or not isinstance(pair[0], str)
        ):
            raise TypeError(
                f"named_chain: argument {i} must be a pair (name, transformation), "
                f"got {pair!r}"
            )
        check_transformation("named_chain", repr(pair[0]), pair[1])
    names = [name for name, _ in args]
    if len(set(names)) != len(names):
        raise ValueError(f"named_chain: the names must differ, got {names}")

    def unwrap(state):
        if not isinstance(state, Mapping) or set(state) != set(names):
            got = list(state) if isinstance(state, Mapping) else type(state).__name__
            raise ValueError(
                f"named_chain: expected states named {names}, got {got}: "
                "was the state made by another transformation?"
            )
        return [state[name] for name in names]

    plans = [plan_of(tx) for _, tx in args]
    return from_plan(in_sequence(plans, lambda s: OrderedDict(zip(names, s)), unwrap))


@transformation
def masked(
    inner: GradientTransformation,
    mask: MaskOrFn,
    *,
    mask_compatible_extra_args: bool = False,
) -> GradientTransformationExtraArgs:
    """Applies a transformation to some leaves; the others pass through unchanged.

    Args:
        inner: the transformation.
        mask: what `tree.select` takes: a tree of booleans, a prefix of the parameters'
            tree, a path pattern, or a function of `(path, leaf)` or of the parameters
            (of the gradients, where these are not given) that makes one.
        mask_compatible_extra_args: whether extra arguments that have the mask's
            structure are masked as well.

    Returns:
        A transformation whose state is `MaskedState(inner_state)`; hidden leaves take
        no memory.

    Raises:
        ValueError: the mask's structure is no prefix of the parameters'.
        TypeError: a leaf of the mask is not a boolean.

    Example:
        >>> tx = jopt.masked(jopt.scale(2.0), {"w": True, "b": False})
        >>> params = {"w": jnp.ones(()), "b": jnp.ones(())}
        >>> tx.update(params, tx.init(params))[0]["w"]
        Array(2., dtype=float32)
    """
    check_transformation("masked", "inner", inner)
    if mask is None:
        raise TypeError("masked: mask must be a tree of booleans or a function")
    return from_plan(_masked(inner, Mask(mask, mask_compatible_extra_args)))


def _masked(inner: GradientTransformation, mask: Mask):
    def unwrap(state):
        if getattr(type(state), "_fields", None) != MaskedState._fields:
            raise ValueError(
                f"masked: expected a MaskedState, got a {type(state).__name__}: "
                "was the state made by another transformation?"
            )
        return state.inner_state

    return under_mask(plan_of(inner), mask, MaskedState, unwrap)


@transformation
def partition(
    transforms: Mapping[Any, GradientTransformation],
    param_labels: Any | Callable[[Any], Any],
    *,
    mask_compatible_extra_args: bool = False,
) -> GradientTransformationExtraArgs:
    """Applies to each leaf the transformation that its label names.

    Args:
        transforms: transformations by label.
        param_labels: a tree of labels, a prefix of the parameters' tree, or a function
            that makes one of the parameters, or each label of `(path, leaf)`; or rules,
            from path patterns to labels, of which the first that fits counts.
        mask_compatible_extra_args: whether extra arguments that have the parameters'
            structure are masked as well.

    Returns:
        A transformation whose state is `PartitionState(inner_states)`, a dict of
        `MaskedState` by label.

    Raises:
        ValueError: a label has no transformation; the message names its paths.

    Example:
        >>> tx = jopt.partition(
        ...     {"decay": jopt.adamw(1e-3), "plain": jopt.adam(1e-3)},
        ...     {"w": "decay", "b": "plain"})
    """
    if not isinstance(transforms, Mapping):
        raise TypeError(
            "partition: transforms must be a dict of transformations by label, "
            f"got a {type(transforms).__name__}"
        )
    for label, tx in transforms.items():
        check_transformation("partition", f"transforms[{label!r}]", tx)

    def labels(params):
        labels = labels_of(params, param_labels)
        _check_labels(labels, transforms)
        return labels

    def unwrap(state):
        states = getattr(state, "inner_states", None)
        if states is None or set(states) != set(transforms):
            got = type(state).__name__ if states is None else sorted(map(str, states))
            raise ValueError(
                f"partition: expected a PartitionState with the labels "
                f"{sorted(map(str, transforms))}, got {got}: "
                "was the state made by another transformation?"
            )
        return [states[label] for label in transforms]

    masks = [Mask(labels, mask_compatible_extra_args, (label,)) for label in transforms]
    plans = [_masked(tx, mask) for tx, mask in zip(transforms.values(), masks)]
    return from_plan(
        in_sequence(
            plans, lambda states: PartitionState(dict(zip(transforms, states))), unwrap
        )
    )


multi_transform = partition

_NO_LABEL = "no label"  # of leaves that no rule chooses


def labels_of(params: Any, labels: Any) -> Any:
    """The tree of labels that a function, rules or a tree says."""
    if is_function(labels):
        if takes_a_path(labels):
            return tree.map_with_path(labels, params)
        labels = labels(params)
    if not _is_rules(labels):
        return labels
    return tree.partition_by(params, labels, default=_NO_LABEL)


def _is_rules(labels: Any) -> bool:
    """Whether the keys are patterns and not the keys of a tree."""
    return isinstance(labels, Mapping) and any(
        isinstance(key, re.Pattern) or (isinstance(key, str) and "*" in key)
        for key in labels
    )


def _check_labels(labels: Any, transforms: Mapping) -> None:
    unknown = {}
    for path, label in jax.tree_util.tree_flatten_with_path(labels)[0]:
        if not isinstance(label, Hashable):
            raise TypeError(
                f"partition: param_labels at {keystr(path)} must be a label of "
                f"transforms, got {type(label).__name__} {label!r}"
            )
        if label not in transforms:
            unknown.setdefault(label, []).append(keystr(path))
    if unknown:
        known = ", ".join(repr(label) for label in transforms)
        words = "; ".join(
            f"{label!r} at {', '.join(paths[:5])}" for label, paths in unknown.items()
        )
        raise ValueError(
            f"partition: param_labels holds a label without a transformation: {words}; "
            f"transforms has {known}"
        )


@transformation
def freeze(mask: MaskOrFn) -> GradientTransformationExtraArgs:
    """Sets the updates to zero where the mask is True; lets the others through.

    Args:
        mask: a tree of booleans, a prefix of the parameters' tree, or a function that
            makes one.

    Returns:
        A transformation whose state is `MaskedState(EmptyState())`.

    Example:
        >>> tx = jopt.freeze({"w": True, "b": False})
        >>> g = {"w": jnp.ones(()), "b": jnp.ones(())}
        >>> tx.update(g, tx.init(g))[0]["w"]
        Array(0., dtype=float32)
    """
    return masked(set_to_zero(), mask)


@transformation
def selective_transform(
    optimizer: GradientTransformation, *, freeze_mask: Any
) -> GradientTransformationExtraArgs:
    """Optimizes the leaves where the mask is False; zero updates for the others.

    Args:
        optimizer: the transformation of the leaves that move.
        freeze_mask: a tree of booleans, or a function that makes one; True freezes.

    Returns:
        A transformation that keeps state for the leaves that move alone.

    Example:
        >>> tx = jopt.selective_transform(
        ...     jopt.adam(1e-3), freeze_mask={"w": True, "b": False})
    """
    check_transformation("selective_transform", "optimizer", optimizer)

    def labels(params):
        shown = tree.select(params, freeze_mask, name="freeze_mask")
        return jax.tree.map(lambda frozen: "freeze" if frozen else "train", shown)

    return partition({"train": optimizer, "freeze": set_to_zero()}, labels)


def check_transformation(where: str, name: str, tx: Any) -> None:
    """Refuse what is not an (init, update) pair."""
    if not is_transformation(tx):
        hint = "; did you forget to call it?" if callable(tx) else ""
        raise TypeError(
            f"{where}: {name} must be a gradient transformation, "
            f"got {type(tx).__name__}{hint}"
        )

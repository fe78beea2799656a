"""The current hyperparameters of an optimizer, read and changed."""

import inspect
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from .. import tree
from ..base import GradientTransformation, OptState, Schedule
from ..boxes import unboxed
from ..engine.types import keeps_values, lost
from ..kinds import is_schedule
from ..settings import check_number, range_of, scalar
from ..tree import NamedTupleKey
from ..words import spell
from ..wrappers.groups import lr_mult
from ..wrappers.inject import is_number
from .names import Entry, named
from .parts import Part

__all__ = ["hyperparams", "set_hyperparams"]


def hyperparams(
    state: OptState, tx: GradientTransformation | None = None
) -> dict[str, Any]:
    """The current learning rate, decays and other numbers, by name.

    From the state alone those that `inject_hyperparams` put there, in whatever
    wrappers, jopt's or optax's; with the transformation also constants and schedules,
    which stand in no state. A schedule's value is the one that the last step used;
    before the first, the one that this will use.

    The numbers of a group, or of a part that has a name, have that before theirs:
    `"**/bias/learning_rate"`; so loggers take the dict as it is. Where two would have
    one name, positions in the chain come before it, `"0/weight_decay"`, or the fields
    of a wrapper.

    Args:
        state: the state of an optimizer.
        tx: the transformation that made the state.

    Returns:
        A flat dict of scalars: `f32[]` arrays from states and schedules, constants as
        they were given.

    Raises:
        ValueError: `tx` did not make `state`.

    Example:
        >>> tx = jopt.chain(
        ...     jopt.clip_by_global_norm(1.0),
        ...     jopt.sgd(jopt.linear_schedule(0.5, 0.0, 10), momentum=0.9))
        >>> jopt.hyperparams(tx.init(jnp.zeros(2)), tx)
        {'max_norm': 1.0, 'learning_rate': Array(0.5, dtype=float32), 'momentum': 0.9}
    """
    state = unboxed(state)
    entries = in_state(state) if tx is None else _in_parts(Part(tx, state, None))
    return {name: entry.value for name, entry in named(entries).items()}


def set_hyperparams(
    state: OptState,
    values: Mapping[str, ArrayLike] | None = None,
    /,
    **named_values: ArrayLike,
) -> OptState:
    """The state with other hyperparameters, from the next step on and with no re-trace.

    The numbers of an optimizer are in its state if `inject_hyperparams` made it; a
    value takes the dtype and the sharding of the one that was there.

    Args:
        state: the state of an optimizer.
        values: new values by the names that `hyperparams(state)` has, which need not
            be names of Python: `{"**/bias/learning_rate": 1e-4}`. A name without its
            group is that of every group.
        **named_values: the same as keyword arguments, `learning_rate=1e-4`.

    Returns:
        The new state; the given one stays as it is.

    Raises:
        KeyError: the state has no hyperparameter of this name.
        TypeError: a value is no number.
        ValueError: a value has another shape or is out of its range, or a schedule
            would overwrite it.

    Example:
        >>> tx = jopt.inject_hyperparams(jopt.adam)(1e-3)
        >>> state = jopt.set_hyperparams(tx.init(jnp.zeros(2)), learning_rate=0.25)
        >>> jopt.hyperparams(state)["learning_rate"]
        Array(0.25, dtype=float32)
    """
    if values is not None and not isinstance(values, Mapping):
        raise TypeError(f"set_hyperparams: values must be a dict, got {values!r}")
    there = named(in_state(state))
    for name, value in {**(values or {}), **named_values}.items():
        chosen = [e for full, e in there.items() if name in (full, e.name)]
        if not chosen:
            raise KeyError(_no_such(name, list(there)))
        for entry in chosen:
            new = {entry.name: _in_dtype_of(name, value, entry)}
            _check_no_schedule(state, name, entry)
            state = tree.set(state, lambda path, _, e=entry: _is_at(path, e), **new)
    return state


# ----------------------------------------------------------------------- what there is


def in_state(state: OptState, before: tuple = ()) -> Iterator[Entry]:
    """The numbers that `inject_hyperparams` keeps: a dict in a field of that name."""

    def is_injected(path, value):
        return isinstance(path[-1], NamedTupleKey) and isinstance(value, Mapping)

    for path, numbers in tree.get_all_with_path(state, "hyperparams", is_injected):
        for name, value in unboxed(numbers).items():
            yield Entry((*before, *path[:-1]), name, value)


def _is_at(path: tuple, entry: Entry) -> bool:
    return path[:-2] == entry.where and path[-2].name == "hyperparams"


def _in_parts(whole: Part) -> Iterator[Entry]:
    found, kept = [], []  # of calls, and of states, which are to be set as they are
    for part, _ in whole.walk():
        if _keeps(part):
            entries = [*in_state(part.state, part.path)]
            found += entries
            kept += entries
        elif part.call is not None and part.call.factory is lr_mult:
            found = [*_multiplied(found, kept, part)]
        else:
            found += _of_call(part)
    return iter(found)


def _multiplied(found: list, kept: list, part: Part) -> Iterator[Entry]:
    """The entries with the learning rate before a multiplier of groups times that.

    One in a state is to be set as it is, and the multiplier stands beside it.
    """
    ((_, factor),) = part.arguments.values()
    before = part.path[:-1]  # of the chain
    factors = jax.tree_util.tree_flatten_with_path(factor)[0]
    taken = False
    for entry in found:
        here = entry.name == "learning_rate" and entry.where[: len(before)] == before
        if not here or any(entry is x for x in kept):
            yield entry
            continue
        taken = True
        for path, x in factors:
            where = (key for key in entry.where if not path or key is not part.unsaid)
            yield entry._replace(where=(*where, *path), value=entry.value * x)
    if not taken:
        for path, x in factors:
            where = (key for key in before if not path or key is not part.unsaid)
            yield Entry((*where, *path), "lr_mult", x)


def _keeps(part: Part) -> bool:
    """Whether its numbers are to be found in its state alone."""
    return part.call is None or part.is_injected


def _of_call(part: Part) -> Iterator[Entry]:
    for name, (parameter, given) in part.arguments.items():
        values = [((), given)]
        if may_be_schedule(parameter):  # or a tree of numbers and schedules
            values = jax.tree_util.tree_flatten_with_path(given)[0]
        for path, value in values:
            if may_be_schedule(parameter) and is_schedule(value):
                value = scalar("hyperparams", name, value(_last_step(part)))
            if is_number(parameter, value):
                where = (key for key in part.path if not path or key is not part.unsaid)
                yield Entry((*where, *path), name, value)


def may_be_schedule(parameter: inspect.Parameter) -> bool:
    """Whether an argument is said to be one: functions may be much else."""
    kinds = typing.get_args(parameter.annotation) or (parameter.annotation,)
    return Schedule in kinds


_COUNTS = ("count", "step_count", "gradient_step", "step")


def _last_step(part: Part) -> jax.Array:
    """How many steps were taken before the last one; all parts of one count alike."""
    for name in _COUNTS:
        for _, count in tree.get_all_with_path(part.state, name):
            if hasattr(count, "dtype") and jnp.issubdtype(count.dtype, jnp.integer):
                return jnp.maximum(jnp.asarray(count) - 1, 0)
    raise ValueError(
        f"hyperparams: no steps are counted in the state of {part.tx!r}: was it made "
        "by another transformation?"
    )


# ----------------------------------------------------------------------- a new value


def _in_dtype_of(name: str, value: Any, entry: Entry) -> jax.Array:
    """The value in the type of the old one, which steps are compiled for."""
    old, where = entry.value, "set_hyperparams"
    if np.ndim(old) == 0:
        check_number(where, name, value, range_of(entry.name))
    elif np.shape(value) != np.shape(old):
        raise ValueError(
            f"{where}: {name} has the shape {np.shape(old)} in the state, got a value "
            f"of shape {np.shape(value)}"
        )
    value = jnp.asarray(value)
    if not keeps_values(value, jnp.asarray(old).dtype):
        raise TypeError(
            f"{where}: {name} is {spell(old)} in the state, which would lose "
            f"{lost(value.dtype, jnp.asarray(old).dtype)} of {spell(value)}"
        )
    return jnp.full_like(old, value)


def _check_no_schedule(state: OptState, name: str, entry: Entry) -> None:
    schedules = tree.get_all_with_path(
        state, "hyperparams_states", lambda path, _: path[:-1] == entry.where
    )
    if any(entry.name in states for _, states in schedules):
        raise ValueError(
            f"set_hyperparams: {name} follows a schedule, which writes it at each step;"
            " give inject_hyperparams a number to set it, or change the schedule"
        )


def _no_such(name: str, there: list[str]) -> str:
    if there:
        return f"set_hyperparams: the state has no {name!r}; it has {there}"
    return (
        f"set_hyperparams: the state holds no hyperparameters, so no {name!r}; "
        "jopt.inject_hyperparams(jopt.adam)(1e-3) keeps them there, where they can be "
        "changed"
    )

"""What a transformation is made of: stages in a row, and where their states stand.

A `LeafStage` is a rule for one array; a `WholeStage` sees whole trees. A `Plan` is a
sequence of stages with the nesting of their states. `chain` joins plans, `masked` puts
a mask on every stage of one, and `run` walks through the result: so the rules between
two whole stages, however they were nested, run as one kernel a leaf.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from ..base import (
    EmptyState,
    GradientTransformation,
    OptState,
    with_extra_args_support,
)

__all__ = []


class Mask(NamedTuple):
    """Which leaves a stage sees: a tree of booleans or a function that makes one."""

    tree: Any  # or, with a label, a function that makes a tree of labels
    of_extra_args: bool = False  # whether trees among the extra arguments are masked
    label: tuple = ()  # the one, if there are labels

    @property
    def name(self) -> str:
        """The argument that it was given as."""
        return "param_labels" if self.label else "mask"


class LeafStage(NamedTuple):
    """A rule for one array; see `per_leaf`."""

    name: str
    state: type
    init: Callable
    update: Callable
    each: Callable | None = None
    reduce: Callable | None = None
    hint: Callable | None = None
    by_leaf: Callable | None = None
    counts: tuple[str, ...] = ()
    shared: dict[str, Callable] | None = None
    needs_params: bool = False
    masks: tuple[Mask, ...] = ()

    @property
    def slots(self) -> tuple[str, ...]:
        """The fields of the state that hold one value for each leaf."""
        whole = (*self.counts, *(self.shared or ()))
        return tuple(f for f in self.state._fields if f not in whole)

    @property
    def rule(self) -> tuple:
        """What a kernel of it depends on, but for hints and numbers."""
        return self.update, self.state


class WholeStage(NamedTuple):
    """A transformation of whole trees, called as it is; `name` says that it is ours."""

    tx: GradientTransformation
    masks: tuple[Mask, ...] = ()
    name: str = ""


NEW = object()  # stands for the state before the first


class Plan(NamedTuple):
    """Stages in a row, and how their states are nested."""

    stages: tuple[LeafStage | WholeStage, ...]
    unpack: Callable[[OptState], list]  # state -> one state for each stage
    pack: Callable[[Sequence, OptState], OptState]  # and back, as the state before was
    kernels: dict  # compiled leaf kernels; filled by `run`, shared by equal calls


def one_stage(stage: LeafStage | WholeStage) -> Plan:
    """The plan of a single stage."""
    return Plan((stage,), lambda state: [state], lambda states, before: states[0], {})


def no_stage() -> Plan:
    """The plan that leaves everything as it is."""
    return Plan(
        (),
        lambda state: [],
        lambda states, before: EmptyState() if before is NEW else before,
        {},
    )


def in_sequence(
    plans: Sequence[Plan], wrap: Callable = tuple, unwrap: Callable = tuple
) -> Plan:
    """Plans one after the other; `wrap` makes their common state of the parts'."""

    def unpack(state):
        parts = unwrap(state)
        if len(parts) != len(plans):
            raise ValueError(
                f"state: expected the states of {len(plans)} parts of a chain, got "
                f"{len(parts)}: was it made by another transformation?"
            )
        return [s for plan, part in zip(plans, parts) for s in plan.unpack(part)]

    def pack(states, before):
        states, parts = list(states), []
        known = [NEW] * len(plans) if before is NEW else unwrap(before)
        for plan, part in zip(plans, known):
            n = len(plan.stages)
            parts.append(plan.pack(states[:n], part))
            states = states[n:]
        return parts if isinstance(before, list) else wrap(parts)

    return Plan(tuple(s for plan in plans for s in plan.stages), unpack, pack, {})


def under_mask(plan: Plan, mask: Mask, wrap: Callable, unwrap: Callable) -> Plan:
    """The same stages, seeing only the leaves that the mask lets through."""
    stages = tuple(s._replace(masks=(mask, *s.masks)) for s in plan.stages)
    return Plan(
        stages,
        lambda state: plan.unpack(unwrap(state)),
        lambda states, before: wrap(
            plan.pack(states, NEW if before is NEW else unwrap(before))
        ),
        {},
    )


def plan_of(tx: GradientTransformation, name: str = "") -> Plan:
    """The plan of a transformation; another library's is one whole stage.

    So is one of ours that was written for whole trees; `name` is its factory's.
    """
    plan = getattr(tx.update, "plan", None)
    if isinstance(plan, Plan):
        return plan
    return one_stage(WholeStage(with_extra_args_support(tx), name=name))


# ---------------------------------------------------------------- names of arguments


def names_taken(plan: Plan) -> set[str] | None:
    """The further arguments of `update` that some stage takes; any if `None`."""
    names = set()
    for stage in plan.stages:
        more = _names_of(stage.tx.update) if isinstance(stage, WholeStage) else set()
        if more is None:
            return None
        names |= more
    return names


def takes(names: set[str] | None) -> Callable[[Callable], Callable]:
    """Says of an `update` what it takes, where its signature does not."""

    def decorator(update: Any) -> Any:
        update.names_taken = names
        return update

    return decorator


def begun_with(choose: Callable[[Any, Any], Any]) -> Callable[[Callable], Callable]:
    """Says what `init` was given, from the state and the parameters of an update."""

    def decorator(update: Any) -> Any:
        update.begun_with = choose
        return update

    return decorator


def _names_of(update: Any, seen: tuple = ()) -> set[str] | None:
    """Keyword-only arguments, its own and, through `**extra_args`, of what is inside.

    What is inside are the transformations and functions of ours that it closes over.
    """
    if isinstance(getattr(update, "plan", None), Plan):
        return names_taken(update.plan)
    if hasattr(update, "names_taken"):
        return update.names_taken
    parameters = inspect.signature(update).parameters.values()
    names = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    passes_on = any(p.kind is p.VAR_KEYWORD for p in parameters)
    if seen and not passes_on:
        names = set()  # a function inside, with arguments of its own
    if not seen and not passes_on:
        return names
    if not _is_ours(update):
        return None if passes_on else names
    for inner in _closed_over(update):
        if inner in seen:
            continue
        more = _names_of(inner, (*seen, update))
        if more is None:
            return None
        names |= more
    return names


def _closed_over(function: Any) -> list:
    """The updates of transformations, and functions of ours, that it refers to."""
    found = []
    for cell in function.__closure__ or ():
        try:
            value = cell.cell_contents
        except ValueError:  # not yet assigned
            continue
        for x in jax.tree.leaves(value, is_leaf=_is_transformation):
            if _is_transformation(x):
                if _is_public(x.update):
                    found.append(x.update)
            elif inspect.isfunction(x) and _is_ours(x):
                found.append(x)
    return found


def _is_transformation(x: Any) -> bool:
    return hasattr(x, "init") and callable(getattr(x, "update", None))


def _is_public(update: Any) -> bool:
    """Whether a caller may know it: not a part that a method has for itself."""
    return getattr(update, "call", None) is not None or not hasattr(update, "plan")


def _is_ours(function: Any) -> bool:
    return str(getattr(function, "__module__", "")).startswith("jopt.")

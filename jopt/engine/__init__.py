"""The machine: a rule for one array becomes a transformation of pytrees.

`per_leaf` lifts a rule; the plan that it makes is what `chain`, `masked` and
`partition` join. Every public factory is decorated with `transformation`, which checks
its arguments by name and lets its product know the call that made it.
"""

import contextlib
import difflib
import functools
from collections.abc import Callable
from typing import Any

import jax

from .. import settings
from ..base import (
    EmptyState,
    GradientTransformationExtraArgs,
    OptState,
    Params,
    Updates,
)
from ..kinds import is_function
from ..tree.devices import are_apart, moved
from ..words import naming_mixed_keys
from . import run
from .batches import batch_leaves
from .checks import Unchecked, checking
from .compiled import are_values, as_it_is_now, call_compiled
from .placement import at_home
from .purity import is_pure, is_pure_call
from .questions import questions_of
from .skeletons import OtherArguments
from .stages import LeafStage, Plan, names_taken, one_stage, plan_of

__all__ = ["batch_leaves", "per_leaf", "transformation"]


class Init(settings.Recorded):
    """`tx.init` of a plan."""

    __slots__ = ("plan",)

    def __init__(self, plan: Plan, call: settings.Call | None = None):
        self.plan, self.call = plan, call

    @naming_mixed_keys
    def __call__(self, params: Params) -> OptState:
        if self.call is not None and checking.get():
            return Unchecked()
        return at_home(run.init(self.plan, params), params)

    @staticmethod
    def _again(call: settings.Call) -> "Init":
        return call.again().init


class Step(settings.Recorded):
    """One step of a plan as it is traced, with the extra arguments in a dict."""

    __slots__ = ("plan",)

    def __init__(self, plan: Plan, call: settings.Call | None):
        self.plan, self.call = plan, call

    def __call__(self, updates, state, params, extra_args):
        if are_apart((updates, state, params, extra_args)):
            # Counts and other numbers may be anywhere: where a leaf is, or on another.
            state, extra_args = moved((state, extra_args), largest=0)
        return run.update(self.plan, updates, state, params, extra_args)


class Remade(settings.Recorded):
    """One step of what a call makes once the arrays among its arguments are known.

    So a learning rate that is an array may change without another program.
    """

    __slots__ = ()

    def __init__(self, call: settings.Call):
        self.call = call

    def __call__(self, arrays, updates, state, params, extra_args):
        tx = self.call.with_arrays(arrays).again()
        return tx.update.step(updates, state, params, extra_args)


class Update(settings.Recorded):
    """`tx.update` of a plan: compiled and cached outside of JAX's transformations."""

    __slots__ = (
        *("_is_pure", "_questions", "arrays"),
        *("outlives_trace", "plan", "remade", "step"),
    )

    def __init__(self, plan: Plan, call: settings.Call | None = None):
        self.plan, self.call = plan, call
        self.step = Step(plan, call)
        self.outlives_trace = call is None or not settings.has_tracers(call.arguments)
        self.arrays, self._is_pure = [], None
        self._questions: Any = None
        if call is not None and self.outlives_trace:
            self.arrays, shape = call.without_arrays()
            self.remade = Remade(shape)

    @naming_mixed_keys
    def __call__(
        self,
        updates: Updates,
        state: OptState,
        params: Params | None = None,
        *,
        strict: bool = False,
        **extra_args: Any,
    ) -> tuple[Updates, OptState]:
        if strict:
            self._check_names(extra_args)
        if not self.is_pure:
            return self._asking(updates, state, params, extra_args)
        if any(map(is_function, extra_args.values())):
            now = _as_they_are_now(params, extra_args)
            if now is not None:
                with contextlib.suppress(OtherArguments):  # of a part of the parameters
                    return self._compiled(updates, state, params, now)
            return self.step(updates, state, params, extra_args)
        return self._compiled(updates, state, params, extra_args)

    def _compiled(self, updates, state, params, extra_args):
        if self.arrays:
            given = self.arrays, updates, state, params, extra_args
            return call_compiled(self.remade, *given)
        if self.outlives_trace:
            return call_compiled(self.step, updates, state, params, extra_args)
        return self.step(updates, state, params, extra_args)

    def _asking(self, updates, state, params, extra_args):
        """A step that calls functions of the user's."""
        args = updates, state, params, extra_args
        if not are_values(args):
            return self.step(*args)
        if self._questions is None:
            known = None
            if self.call is not None and self.outlives_trace and not self.arrays:
                known = questions_of(self.call)
            self._questions = known or False
        if not self._questions:
            return self.step(*args)
        return self._questions.step(self.step, *args)

    @property
    def is_pure(self) -> bool:
        """Whether it holds no function of the user's, which may be no pure one."""
        if self._is_pure is None:
            if self.call is not None:
                self._is_pure = is_pure_call(self.call)
            else:  # rules for one array are pure by their contract
                self._is_pure = is_pure([s.masks for s in self.plan.stages])
        return self._is_pure

    def _check_names(self, extra_args: dict[str, Any]) -> None:
        """Refuse arguments that no part takes, which else are ignored."""
        known = names_taken(self.plan)
        unknown = [] if known is None else sorted(set(extra_args) - known)
        if unknown:
            near = difflib.get_close_matches(unknown[0], known or (), 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            some = ", ".join(map(repr, sorted(known or ()))) or "no further argument"
            raise TypeError(
                f"{self.call or 'update'}: update got unknown arguments {unknown}; "
                f"this transformation takes {some}{hint}"
            )

    @staticmethod
    def _again(call: settings.Call) -> "Update":
        return call.again().update


def _as_they_are_now(params: Params | None, extra_args: dict) -> dict | None:
    """The arguments with functions traced anew, if it is known how they are called."""
    values = {k: x for k, x in extra_args.items() if not is_function(x)}
    functions = {k: x for k, x in extra_args.items() if is_function(x)}
    if all(map(is_pure, functions.values())):
        return extra_args
    if not set(functions) <= {"value_fn", "obj_fn"} or params is None:
        return None
    more = {k: x for k, x in values.items() if k not in ("value", "grad")}
    for name, function in functions.items():
        now = as_it_is_now(function, params, **(more if name == "value_fn" else {}))
        if now is None:
            return None
        functions[name] = now
    return values | functions


def from_plan(
    plan: Plan, call: settings.Call | None = None
) -> GradientTransformationExtraArgs:
    """The transformation that runs a plan."""
    plan = _interned(plan, call)
    return GradientTransformationExtraArgs(Init(plan, call), Update(plan, call))


def _interned(plan: Plan, call: settings.Call | None) -> Plan:
    """The plan; if it is a single stage, with the stage that an equal call made before.

    So equal stages have the same functions, and with these the same leaf kernels.
    """
    stage = plan.stages[0] if len(plan.stages) == 1 else None
    if call is None or not isinstance(stage, LeafStage):
        return plan
    if any(isinstance(x, jax.Array) for x in jax.tree.leaves(call.arguments)):
        return plan  # they are not to be kept, nor compared
    if not is_pure_call(call):
        return plan  # equal functions of the user's may have variables of their own
    known = _stages_of(call)
    known[:] = known or [stage]
    return plan._replace(stages=(*known,))


@functools.lru_cache(maxsize=1024)
def _stages_of(call: settings.Call) -> list[LeafStage]:
    """Where the stage that an equal call made first is kept."""
    return []


transformation = settings.recorded(
    lambda tx, call: from_plan(plan_of(tx, call.name), call)
)


def per_leaf(
    state: type,
    init: Callable[[jax.Array], dict[str, Any]],
    update: Callable[..., tuple[jax.Array, Any]],
    *,
    each: Callable[..., Any] | None = None,
    reduce: Callable[[list[Any], list[Any]], Any] | None = None,
    hint: Callable[[Any], Any] | None = None,
    by_leaf: Callable[..., list[Any]] | None = None,
    counts: tuple[str, ...] = ("count",),
    shared: dict[str, Callable[[], Any]] | None = None,
    needs_params: bool = False,
) -> GradientTransformationExtraArgs:
    """Lifts a rule for one array to a transformation of pytrees.

    The engine owns what no rule should have to mention: tree structure and its error
    messages; `None`, masked and integer leaves; step counts and their overflow;
    dtypes (the rule computes in float32 at least, updates leave in the gradient's
    dtype, every slot keeps the dtype that `init` gave it); tracing the rule once for
    each distinct shape; eager use.

    Args:
        state: the NamedTuple of the state. Its fields are slots, one value (or small
            tree of values) for each leaf, but for `counts` and `shared`.
        init: `init(p) -> dict` of the slots for one parameter `p` (float32 at least).
        update: `update(g, s, p) -> (u, s)` for one gradient `g`, its state `s` (an
            instance of `state`) and its parameter `p` (`None` if the caller gave none).
            What `each` or `reduce` returned, or `by_leaf` for this leaf, and then the
            leaf's hint are passed after these, if there are such.
        each: `each(t) -> numbers`, called once a step with the number of this step
            (`i32[]`, from 1), one argument for each of `counts`.
        reduce: `reduce(gs, ps) -> numbers` over the lists of all leaves, called once a
            step in place of `each`.
        by_leaf: `by_leaf(params, *t) -> list` of numbers, called once a step in place
            of both: one entry for each leaf of the tree that it is given. Leaves of
            equal shapes share a trace whatever their numbers are.
        hint: `hint(params) -> tree` of one static, hashable value for each leaf.
        counts: the fields of `state` that count steps; those that it lacks are ignored.
        shared: functions that make the fields that are one value for the whole tree.
        needs_params: whether `update` must be given the parameters.

    Returns:
        The transformation.

    Example:
        >>> class SignState(NamedTuple):
        ...     mu: jopt.Updates
        >>> def init(p):
        ...     return dict(mu=jnp.zeros_like(p))
        >>> def update(g, s, p):
        ...     mu = 0.9 * s.mu + 0.1 * g
        ...     return jnp.sign(mu), s._replace(mu=mu)
        >>> tx = jopt.per_leaf(SignState, init, update)
        >>> tx.update({"w": jnp.ones(2)}, tx.init({"w": jnp.zeros(2)}))
        ({'w': Array([1., 1.], dtype=float32)}, SignState(mu={'w': Array([0.1, 0.1], \
dtype=float32)}))
    """
    if sum(f is not None for f in (each, reduce, by_leaf)) > 1:
        raise ValueError("per_leaf: give one of each, reduce and by_leaf, not more")
    name = update.__qualname__.split(".")[0]
    counts = tuple(c for c in counts if c in state._fields)
    stage = LeafStage(
        name,
        state,
        init,
        update,
        each,
        reduce,
        hint,
        by_leaf,
        counts,
        shared,
        needs_params,
    )
    return from_plan(one_stage(stage))


def stateless_leaf(
    update: Callable[..., jax.Array],
    *,
    each: Callable[[], Any] | None = None,
    reduce: Callable[[list, list], Any] | None = None,
    needs_params: bool = False,
) -> GradientTransformationExtraArgs:
    """Lifts `update(g, p) -> u`, a rule that keeps nothing, to pytrees.

    What `each()` or `reduce(gs, ps)` returned is its third argument, if there is one.
    """

    def rule(g, s, p, *numbers):
        return update(g, p, *numbers), s

    rule.__qualname__ = update.__qualname__
    return per_leaf(
        EmptyState,
        lambda p: {},
        rule,
        each=each,
        reduce=reduce,
        needs_params=needs_params,
    )

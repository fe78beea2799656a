"""Nodes as the pair `(init, update)` that users call, and the factories of these."""

import contextlib
import difflib
from collections.abc import Callable, Iterable
from typing import Any

from .. import settings
from ..base import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    OptState,
    Params,
    TransformInitFn,
    TransformUpdateExtraArgsFn,
    Updates,
    with_extra_args_support,
)
from ..kinds import is_function, is_transformation
from ..numerics import is_traced
from ..plan import Made, Whole, keywords_of, name_of, names_taken, node_of
from ..tree.devices import are_apart, moved
from ..words import name_mixed_keys, naming_mixed_keys
from . import step
from .eager import are_values, as_it_is_now, call_compiled
from .init import init
from .purity import is_pure, is_pure_call
from .questions import questions_of
from .skeletons import OtherArguments

__all__ = ["transformation", "wrap"]


class Init(settings.Recorded):
    """`tx.init` of a node."""

    __slots__ = ("plan",)

    def __init__(self, plan: step.Plan, call: settings.Call | None):
        self.plan, self.call = plan, call

    @naming_mixed_keys
    def __call__(self, params: Params) -> OptState:
        return init(self.plan, params)

    @staticmethod
    def _again(call: settings.Call) -> "Init":
        return call.again().init


class Update(settings.Recorded):
    """`tx.update` of a node: compiled and cached outside of JAX's transformations."""

    __slots__ = ("_eager", "node", "plan")

    # What JAX calls it in messages, and where it says that it is written.
    __name__ = "update"
    __code__ = step.update.__code__

    def __init__(self, plan: step.Plan, call: settings.Call | None):
        self.plan, self.node, self.call = plan, plan.node, call
        self._eager: _Eager | None = None

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
        try:
            if is_traced((updates, state, params, extra_args)):
                return step.update(self.plan, updates, state, params, extra_args)
            return self.eager(updates, state, params, extra_args)
        except ValueError as error:
            given = dict(self=self, updates=updates, state=state, params=params)
            name_mixed_keys(error, given)
            raise

    @property
    def eager(self) -> "_Eager":
        """The same with values."""
        if self._eager is None:
            self._eager = _Eager(self.plan, self.call)
        return self._eager

    @property
    def is_pure(self) -> bool:
        """Whether it holds no function of the user's, which may not be a pure one."""
        return self.eager.is_pure

    def _check_names(self, extra_args: dict[str, Any]) -> None:
        """Refuse arguments that no part takes, which else are ignored."""
        known = names_taken(self.node)
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


# ------------------------------------------------------------------------- with values


class _Eager:
    """A step outside of JAX's transformations: one program for each type of arguments.

    Functions of the user's are called at every step, as Python is.
    """

    def __init__(self, plan: step.Plan, call: settings.Call | None):
        self.step = Step(plan, call)
        self.outlives_trace = call is None or not is_traced(call.arguments)
        self.arrays: list = []
        if call is not None and self.outlives_trace:
            self.arrays, shape = call.without_arrays()
            self.remade = Remade(shape)
        if call is not None:
            self.is_pure = is_pure_call(call)
        else:  # rules for one array are pure by their contract
            self.is_pure = is_pure([stage.masks for stage in plan.stages])
        self.questions: Any = None
        if not self.is_pure and self.outlives_trace and not self.arrays and call:
            self.questions = questions_of(call)

    def __call__(self, updates, state, params, extra_args):
        args = updates, state, params, extra_args
        if not self.is_pure:
            if self.questions is None or not are_values(args):
                return self.step(*args)
            return self.questions.step(self.step, *args)
        if any(map(is_function, extra_args.values())):
            now = _as_they_are_now(params, extra_args)
            if now is None:
                return self.step(*args)
            with contextlib.suppress(OtherArguments):  # of a part of the parameters
                return self.compiled(updates, state, params, now)
            return self.step(*args)
        return self.compiled(*args)

    def compiled(self, *args):
        if self.arrays:
            return call_compiled(self.remade, self.arrays, *args)
        if self.outlives_trace:
            return call_compiled(self.step, *args)
        return self.step(*args)


class Step(settings.Recorded):
    """One step as it is traced, with the extra arguments in a dict."""

    __slots__ = ("plan",)

    def __init__(self, plan: step.Plan, call: settings.Call | None):
        self.plan, self.call = plan, call

    def __call__(self, updates, state, params, extra_args):
        if are_apart((updates, state, params, extra_args)):
            # Counts and other numbers may be anywhere: where a leaf is, or on another.
            state, extra_args = moved((state, extra_args), largest=0)
        return step.update(self.plan, updates, state, params, extra_args)


class Remade(settings.Recorded):
    """One step of what a call makes once the arrays among its arguments are known.

    So a learning rate that is an array may change without another program.
    """

    __slots__ = ()

    def __init__(self, call: settings.Call):
        self.call = call

    def __call__(self, arrays, updates, state, params, extra_args):
        tx = self.call.with_arrays(arrays).again()
        return tx.update.eager.step(updates, state, params, extra_args)


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


# ------------------------------------------------------------------------- making them


def from_node(
    node: Any, call: settings.Call | None = None
) -> GradientTransformationExtraArgs:
    """The transformation that a node is; with the call that made it, if one did."""
    plan = step.Plan(node if call is None else Made(call, node))
    return GradientTransformationExtraArgs(Init(plan, call), Update(plan, call))


transformation = settings.recorded(lambda tx, call: from_node(node_of(tx), call))


def whole_tree(
    init: Callable,
    update: Callable,
    *,
    takes: Iterable[str] | None = (),
    leaf_by_leaf: bool = False,
) -> GradientTransformationExtraArgs:
    """A transformation of whole trees, of which nothing is inside.

    Of extra arguments it takes those that are keyword-only in `update`, and `takes`.
    """
    own = None if takes is None else keywords_of(update) | {*takes}
    return from_node(Whole(init, update, takes=own, leaf_by_leaf=leaf_by_leaf))


def wrap(
    build: Callable[..., tuple[TransformInitFn, TransformUpdateExtraArgsFn]],
    same: GradientTransformation | None = None,
    /,
    *,
    takes: Iterable[str] | None = (),
    began_with: Callable[[OptState, Params], Params] | None = None,
    leaf_by_leaf: bool = False,
    count: str = "",
    **inside: GradientTransformation,
) -> GradientTransformationExtraArgs:
    """A wrapper that says what is inside: so that whatever reads an optimizer sees it.

    Hyperparameters, metrics, `describe`, checkpoints and `strict=True` go through it to
    the transformations inside.

    Args:
        build: `build(*inside) -> (init, update)`, the functions of optax's protocol,
            of the transformations that it is given, whose updates take any extra
            arguments. It may be called again with others.
        same: the transformation whose state is that of the wrapper, if one is.
        takes: names of extra arguments that `update` reads; what is keyword-only in
            its signature need not be named. `None` if it may read any.
        began_with: `began_with(state, params)`, what `init` was given where that is
            not `params`.
        leaf_by_leaf: whether it does to a leaf what it would to it alone.
        count: the field of the state that counts the steps it took, if one does.
        **inside: the transformations, by the field of the state that holds theirs.

    Returns:
        The transformation.

    Raises:
        TypeError: what is inside is not a transformation.

    Example:
        >>> class EveryOtherState(NamedTuple):
        ...     count: jax.Array
        ...     kept: jopt.OptState
        >>> def every_other(inner):
        ...     def build(inner):
        ...         def init(params):
        ...             return EveryOtherState(jnp.int32(0), inner.init(params))
        ...         def update(updates, state, params=None, **extra_args):
        ...             new, kept = inner.update(
        ...                 updates, state.kept, params, **extra_args)
        ...             odd = state.count % 2
        ...             keep = lambda a, b: jnp.where(odd, a, b)
        ...             return (jax.tree.map(lambda u: u * odd, new),
        ...                 EveryOtherState(state.count + 1, jax.tree.map(
        ...                     keep, kept, state.kept)))
        ...         return init, update
        ...     return jopt.wrap(build, kept=inner)
        >>> tx = every_other(jopt.sgd(0.5, momentum=0.9))
        >>> state = tx.init(jnp.zeros(2))
        >>> jopt.hyperparams(state, tx)
        {'learning_rate': 0.5, 'momentum': 0.9}
    """
    if same is not None:
        inside = {"": same, **inside}
    for field, tx in inside.items():
        if not is_transformation(tx):
            raise TypeError(
                f"wrap: {field} must be a gradient transformation, "
                f"got {type(tx).__name__}"
            )
    inner = {field: with_extra_args_support(tx) for field, tx in inside.items()}
    init, update = build(*inner.values())
    own = None if takes is None else keywords_of(update) | {*takes}
    return from_node(
        Whole(
            init,
            update,
            inner,
            build,
            takes=own,
            began_with=began_with,
            leaf_by_leaf=leaf_by_leaf,
            count=count,
            name=name_of(build),
        )
    )

"""Rules for one array, lifted to transformations of pytrees."""

from collections.abc import Callable
from typing import Any

import jax

from ..base import EmptyState, GradientTransformationExtraArgs
from ..plan import AsMade, Rule, keywords_of, name_of
from ..settings import once_each
from .once import Once, Rows
from .pair import from_node

__all__ = ["per_leaf"]


def per_leaf(
    state: type,
    init: Callable[[jax.Array], Any],
    update: Callable[..., tuple[jax.Array, Any]],
    *,
    once: Callable[[Once], tuple[Any, dict[str, Any]]] | None = None,
    each: Callable[..., Any] | None = None,
    numbers: Any = None,
    reduce: Callable[[list[Any], list[Any]], Any] | None = None,
    hint: Callable[[Any], Any] | None = None,
    by_leaf: Callable[..., list[Any]] | None = None,
    counts: tuple[str, ...] = ("count",),
    whole: dict[str, Any] | None = None,
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
            tree of values) for each leaf, but for `counts` and `whole`.
        init: `init(p)` makes the slots for one parameter `p` (float32 at least), as a
            dict or as an instance of `state`.
        update: `update(g, s, p) -> (u, s)` for one gradient `g`, its state `s` (an
            instance of `state`) and its parameter `p` (`None` if the caller gave none);
            the new state as an instance of `state` or a dict of the slots. The numbers
            that `once` returned and then the leaf's hint are passed after these, if
            there are such.
        once: `once(at) -> (numbers, whole)`, called once a step: what every leaf needs
            to know of the number of the step or of the whole tree, `None` for nothing,
            and the new values of the `whole` fields, a dict. `at.t` is the number of
            the step (`i32[]`, from 1); `at.gs` and `at.ps` are lists of all gradients
            and parameters, `at.s` the state with such lists in its slots, every float
            in one dtype, float32 at least; `at.extra_args` has the further arguments
            of the update.
        each: `each(t) -> numbers`, the short form of `once` for what depends on the
            number of the step alone, one argument for each of `counts`.
        numbers: what every leaf needs to know at every step alike: as an argument it
            costs equal rules no trace of their own.
        reduce: `reduce(gs, ps) -> numbers`, that for the lists of all leaves alone, in
            their own dtypes.
        by_leaf: `by_leaf(params, *t) -> list` of numbers: one entry for each leaf of
            the tree that it is given. Leaves of equal shapes share a trace whatever
            their numbers are.
        hint: `hint(params) -> tree` of one static, hashable value for each leaf.
        counts: the fields of `state` that count steps; those that it lacks are ignored.
        whole: the fields that are one value for the tree and where they start: floats,
            booleans, or functions of the list of all parameters that return floats.
        shared: the same as functions of nothing, whose results are taken as they are.
        needs_params: whether `update` must be given the parameters.

    Returns:
        The transformation.

    Raises:
        ValueError: more than one of `once`, `each`, `numbers`, `reduce` and `by_leaf`
            is given, or a field of `whole` is not one of `state`.

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
    if sum(f is not None for f in (once, each, numbers, reduce, by_leaf)) > 1:
        raise ValueError(
            "per_leaf: give one of once, each, numbers, reduce and by_leaf, not more"
        )
    sees_all = once is not None or reduce is not None
    if reduce is not None:
        once = _over_leaves(reduce)
    elif by_leaf is not None:
        once = _by_leaf(by_leaf)
    whole = (whole or {}) | {f: AsMade(make) for f, make in (shared or {}).items()}
    rule = _rule(state, init, update, counts, whole, needs_params)
    return from_node(
        rule._replace(
            numbers=numbers, each=each, once=once, hint=hint, sees_all=sees_all
        )
    )


def _rule(
    state: Any, init: Any, update: Any, counts: tuple, whole: dict, needs_params: bool
) -> Rule:
    fields = getattr(state, "_fields", None)
    if fields is None:
        raise TypeError(f"per_leaf: state must be a NamedTuple class, got {state!r}")
    strangers = sorted(set(whole) - set(fields))
    if strangers:
        raise ValueError(
            f"per_leaf: whole names {strangers}, and {state.__name__} has {[*fields]}"
        )
    counts = tuple(c for c in counts if c in fields)
    slots = tuple(f for f in fields if f not in (*counts, *whole))
    return Rule(
        name=name_of(update),
        state=state,
        init=init,
        update=update,
        slots=slots,
        counts=counts,
        whole=whole,
        needs_params=needs_params,
    )


def _over_leaves(reduce: Callable) -> Callable[[Once], tuple]:
    return lambda at: (reduce(at.raw_gs, at.raw_ps), {})


def _by_leaf(by_leaf: Callable) -> Callable[[Once], tuple]:
    return lambda at: (Rows(by_leaf(at.params, *at.counts)), {})


def stateless_leaf(
    update: Callable[..., jax.Array],
    *,
    numbers: Any = None,
    reduce: Callable[[list, list], Any] | None = None,
    needs_params: bool = False,
) -> GradientTransformationExtraArgs:
    """Lifts `update(g, p) -> u`, a rule that keeps nothing, to pytrees.

    The numbers, or what `reduce(gs, ps)` returned, are its third argument.
    """

    def rule(g, s, p, *more):
        return update(g, p, *more), s

    rule.__qualname__ = update.__qualname__
    return per_leaf(
        EmptyState,
        lambda p: {},
        rule,
        numbers=numbers,
        reduce=reduce,
        needs_params=needs_params,
    )


def per_tree(
    state: type,
    init: Callable[[jax.Array], dict[str, Any]],
    update: Callable[..., tuple[jax.Array, Any]],
    *,
    reduce: Callable[..., tuple[Any, dict[str, Any]]],
    whole: dict[str, Any] | None = None,
    hint: Callable[[Any], Any] | None = None,
    settings: Any = None,
    needs_params: bool = False,
) -> GradientTransformationExtraArgs:
    """Lifts a rule as `per_leaf` does, with `once` in the arguments that it reads.

    Args:
        state, init, update, whole, hint, needs_params: as `per_leaf` takes them.
        reduce: `reduce(gs, s, ps, **extra_args) -> (numbers, whole)`, with the lists of
            `once`; if there is a `hint`, with that of every leaf as `hints`.
        settings: what `at_each_leaf(at)` finds the settings of every leaf by; then
            `reduce` is given them as `owns`, one object where they are equal, and
            returns for `numbers` a function of such an object, which is called once
            for each.
    """

    def once(at):
        more = dict(at.extra_args)
        if hint is not None:
            more["hints"] = at.hints
        if settings is None:
            return reduce(at.gs, at.s, at.ps, **more)
        owns = dict(zip(at.visible, settings(at)))
        more["owns"] = [owns[i] for i in at.indices]
        numbers, new = reduce(at.gs, at.s, at.ps, **more)
        number = once_each(numbers)
        return Rows([number(owns[i]) for i in at.visible]), new

    takes = keywords_of(reduce) - {"hints", "owns"}
    rule = _rule(state, init, update, ("count",), whole or {}, needs_params)
    return from_node(rule._replace(once=once, hint=hint, sees_all=True, takes=takes))

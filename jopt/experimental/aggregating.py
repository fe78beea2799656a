"""Optimizers that see the gradient of every example, and what they are made of.

An `Aggregator` takes gradients with an axis of examples, `[batch, *shape]`, and returns
updates without it. `process` puts one between transformations: what acts on each
example, then the aggregator, then what acts on the aggregate. Means over 16-bit
gradients are kept in float32.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.tree_util import keystr
from jax.typing import ArrayLike

from .. import settings, tree
from ..base import (
    EmptyState,
    GradientTransformation,
    GradientTransformationExtraArgs,
    OptState,
    Params,
    TransformInitFn,
    Updates,
    with_extra_args_support,
)
from ..compat import shard_alike
from ..engine import Inside, from_node, whole_tree
from ..numerics import (
    abs_sq,
    cast,
    compute_dtype,
    ema,
    one_minus_power,
    safe_increment,
)
from ..parts import chain, identity
from ..parts.combine import check_transformation
from ..plan import Rule, Whole, node_of, stages
from ..settings import DECAY, check_integer, check_number
from ..wrappers.branch import step_if

__all__ = [
    "AccumulateAvgUpdatesState",
    "Aggregator",
    "AggregatorUpdateFn",
    "PerElementMeanAndSumSqDiffGradsState",
    "PerElementMeanAndVarianceEMAState",
    "accumulate_avg_updates",
    "add_mean_variance_to_opt",
    "average_incrementally_updates",
    "average_per_element_updates",
    "get_batch_size_from_per_elt_updates",
    "get_per_element_mean_and_sum_sq_diff_grads",
    "get_unbiased_mean_and_variance_ema",
    "process",
    "track_per_element_mean_and_variance_with_ema",
]


class AggregatorUpdateFn(Protocol):
    """Turns gradients of examples and a state into updates and the next state."""

    def __call__(
        self, updates: Updates, state: OptState, params: Params | None = None
    ) -> tuple[Updates, OptState]: ...


class Aggregator(NamedTuple):
    """A pair of pure functions, of which `update` removes the axis of examples.

    A kind of its own because it is no gradient transformation: its gradients come from
    `jax.vmap(jax.grad(loss), in_axes=(None, 0))`.

    Example:
        >>> mean = lambda g, state, params=None: (jnp.mean(g, axis=0), state)
        >>> aggregator = jopt.experimental.aggregating.Aggregator(
        ...     lambda params: jopt.EmptyState(), mean)
        >>> aggregator.update(jnp.array([1.0, 3.0]), jopt.EmptyState())[0]
        Array(2., dtype=float32)
    """

    init: TransformInitFn
    update: AggregatorUpdateFn

    __repr__ = GradientTransformation.__repr__


class AccumulateAvgUpdatesState(NamedTuple):
    """Updates since the last that went on, whether this one does, and their mean."""

    micro_step: jax.Array
    ready: jax.Array
    avg_grad: Updates


class PerElementMeanAndSumSqDiffGradsState(NamedTuple):
    """The same for the means, and sums of squared differences from them."""

    micro_step: jax.Array
    ready: jax.Array
    mean_grads: Updates
    sum_sq_diff_grads: Updates


class PerElementMeanAndVarianceEMAState(NamedTuple):
    """Steps, the decay, and moving averages of mean and variance of the gradients."""

    count: jax.Array
    ema_decay: jax.Array
    mean_grads_ema: Updates
    variance_grads_ema: Updates


def _record(tx: Any, call: settings.Call) -> Any:
    made = from_node(node_of(tx), call)
    return type(tx)(*made)


_recorded = settings.recorded(_record)


# ----------------------------------------------------------------------- three in one


@_recorded
def process(
    preprocessor: GradientTransformation,
    aggregator: GradientTransformation | Aggregator,
    postprocessor: GradientTransformation,
    aggregator_has_aux: bool = False,
) -> GradientTransformation | Aggregator:
    """Transforms, aggregates, and transforms again: an optimizer over examples.

    Where the aggregator's state has a field `ready`, the postprocessor takes a step if
    that is true; else the updates are zero and its state stays.

    Args:
        preprocessor: acts on the gradients of the examples. Those of jopt that go leaf
            by leaf are not given the parameters.
        aggregator: makes one update of them, or of several such in turn.
        postprocessor: acts on that update.
        aggregator_has_aux: whether the aggregator returns `(updates, aux)` in place of
            its updates; the dict `aux` is then given to the postprocessor as keyword
            arguments.

    Returns:
        An `Aggregator` if `aggregator` is one, else a transformation. Its state is the
        tuple of the three.

    Raises:
        TypeError: one of the three is no transformation.

    Example:
        >>> from jopt.experimental import aggregating
        >>> mean = aggregating.average_per_element_updates()
        >>> tx = aggregating.process(jopt.clip(1.0), mean, jopt.sgd(1.0))
        >>> tx.update(jnp.array([0.5, 8.0]), tx.init(jnp.array(0.0)))[0]
        Array(-0.75, dtype=float32)
    """
    for name, tx in (
        ("preprocessor", preprocessor),
        ("aggregator", aggregator),
        ("postprocessor", postprocessor),
    ):
        check_transformation("process", name, tx)
    before = with_extra_args_support(preprocessor)
    after = with_extra_args_support(postprocessor)
    of_examples = type(aggregator).__name__ == "Aggregator"  # optax's is one too
    middle: Any = aggregator if of_examples else with_extra_args_support(aggregator)
    # what goes leaf by leaf holds gradients to the shapes of the parameters
    leafwise = any(isinstance(x.part, Rule) for x in stages(node_of(before)))

    def init(params):
        return before.init(params), middle.init(params), after.init(params)

    def update(updates, state, params=None, **extra_args):
        first, second, third = state
        seen = None if of_examples and leafwise else params
        updates, first = before.update(updates, first, seen, **extra_args)
        updates, second = middle.update(updates, second, params, **extra_args)
        if aggregator_has_aux:
            updates, aux = updates
            extra_args |= aux
        ready = tree.get(second, "ready")
        if ready is None:
            updates, third = after.update(updates, third, params, **extra_args)
        else:
            updates, third = step_if(ready, after, updates, third, params, extra_args)
        return updates, (first, second, third)

    made = Aggregator if of_examples else GradientTransformationExtraArgs
    inside = {0: before, 1: middle, 2: after}
    # Aggregators are given more than gradients: what their states are like, they know.
    states = Inside(), Inside(), Inside()
    return made(*from_node(Whole(init, update, inside, expected=lambda s: states)))


# ------------------------------------------------------------------------------ means


@_recorded
def average_per_element_updates(per_elt_axis: int | Sequence[int] = 0) -> Aggregator:
    """The mean over the examples.

    Args:
        per_elt_axis: the axis of examples, or several.

    Returns:
        An aggregator whose state is `EmptyState()`.

    Example:
        >>> tx = jopt.experimental.aggregating.average_per_element_updates()
        >>> tx.update(jnp.array([[1.0, 2.0], [3.0, 6.0]]), jopt.EmptyState())[0]
        Array([2., 4.], dtype=float32)
    """
    axis = _axes(per_elt_axis)

    def update(updates, state, params=None, **extra_args):
        return jax.tree.map(lambda g: jnp.mean(g, axis), updates), state

    return Aggregator(lambda params: EmptyState(), update)


@_recorded
def accumulate_avg_updates(accumulation_steps: int) -> GradientTransformation:
    """The mean of the updates at every k-th step, and zero between.

        avg <- avg + (g - avg) / (micro_step + 1)
        u    = avg, avg <- 0      at every k-th step
        u    = 0                  at the others

    `process` lets its postprocessor sleep between; with it this is `MultiSteps`.

    Args:
        accumulation_steps: k, at least 1.

    Returns:
        A transformation whose state is `AccumulateAvgUpdatesState(micro_step: i32[],
        ready: bool[], avg_grad)`, `avg_grad` in the shapes of the parameters (memory:
        one copy). For k = 1 it is `identity()`.

    Raises:
        ValueError: `accumulation_steps` is less than 1.
        TypeError: it is no integer.

    Example:
        >>> tx = jopt.experimental.aggregating.accumulate_avg_updates(2)
        >>> u, state = tx.update(jnp.array(1.0), tx.init(jnp.array(0.0)))
        >>> tx.update(jnp.array(2.0), state)[0]
        Array(1.5, dtype=float32)
    """
    check_integer("accumulate_avg_updates", "accumulation_steps", accumulation_steps)
    if accumulation_steps == 1:
        return identity()

    def init(params):
        return AccumulateAvgUpdatesState(
            jnp.zeros((), jnp.int32), jnp.zeros((), bool), _wide_zeros(params)
        )

    def update(updates, state, params=None, **extra_args):
        mean = jax.tree.map(
            lambda m, g: m + (cast(g, m.dtype) - m) * _share(state.micro_step, m),
            state.avg_grad,
            updates,
        )
        micro_step, ready = _next(state.micro_step, accumulation_steps)
        out = jax.tree.map(lambda m, g: cast(_if(ready, m), g.dtype), mean, updates)
        kept = jax.tree.map(lambda m: _if(~ready, m), mean)
        return out, AccumulateAvgUpdatesState(micro_step, ready, kept)

    return whole_tree(init, update)


def average_incrementally_updates(
    per_elt_axis: int | Sequence[int] | None, accumulation_steps: int
) -> Aggregator | GradientTransformation:
    """The mean over the examples of several steps.

    Args:
        per_elt_axis: the axis of examples, or several; `None` for gradients that are
            means already.
        accumulation_steps: how many steps, at least 1.

    Returns:
        `accumulate_avg_updates(accumulation_steps)` if `per_elt_axis` is `None`; else
        an aggregator whose state is the pair of `EmptyState()` and that one's.

    Example:
        >>> tx = jopt.experimental.aggregating.average_incrementally_updates(0, 2)
        >>> u, state = tx.update(jnp.array([1.0, 3.0]), tx.init(jnp.array(0.0)))
        >>> tx.update(jnp.array([4.0, 6.0]), state)[0]
        Array(3.5, dtype=float32)
    """
    accumulate = accumulate_avg_updates(accumulation_steps)
    if per_elt_axis is None:
        return accumulate
    average: Any = average_per_element_updates(per_elt_axis)
    pair: Any = chain(average, accumulate)
    return Aggregator(*pair)


# ---------------------------------------------------------------- means and variances


def add_mean_variance_to_opt(
    opt: GradientTransformation,
    ema_decay: ArrayLike = 0.9,
    per_elt_axis: int | list[int] = 0,
    accumulation_steps: int = 1,
) -> GradientTransformation | Aggregator:
    """An optimizer that also tracks mean and variance of the examples' gradients.

    Args:
        opt: the optimizer; it sees the mean.
        ema_decay: decay of the moving averages, in [0, 1).
        per_elt_axis: the axis of examples, or several.
        accumulation_steps: how many batches of examples make one step, at least 1.

    Returns:
        An aggregator; `get_unbiased_mean_and_variance_ema` reads its state. Memory: two
        copies of the parameters and what `opt` needs; two more if it accumulates.

    Example:
        >>> from jopt.experimental import aggregating
        >>> tx = aggregating.add_mean_variance_to_opt(jopt.sgd(1.0))
        >>> u, state = tx.update(jnp.array([1.0, 3.0]), tx.init(jnp.array(0.0)))
        >>> mean, variance = aggregating.get_unbiased_mean_and_variance_ema(state)
        >>> u, mean.round(3), variance.round(3)
        (Array(-2., dtype=float32), Array(2., dtype=float32), Array(2., dtype=float32))
    """
    return process(
        identity(),
        get_per_element_mean_and_sum_sq_diff_grads(per_elt_axis, accumulation_steps),
        chain(track_per_element_mean_and_variance_with_ema(ema_decay), opt),
        aggregator_has_aux=True,
    )


@_recorded
def get_per_element_mean_and_sum_sq_diff_grads(
    per_elt_axis: int | Sequence[int] = 0, accumulation_steps: int = 1
) -> Aggregator:
    """The mean over the examples, and how far they are from it.

        mean   = sum_i g_i / n
        sum_sq = sum_i |g_i - mean|^2

    over the examples of `accumulation_steps` batches, merged without loss of accuracy;
    zeros between.

    Args:
        per_elt_axis: the axis of examples, or several.
        accumulation_steps: how many batches, at least 1.

    Returns:
        An aggregator whose updates are `(mean, aux)` with `aux = {"sum_sq_diff_grads":
        sum_sq, "sample_size": n}`, for `process(..., aggregator_has_aux=True)`. Its
        state is `EmptyState()` for one batch, else
        `PerElementMeanAndSumSqDiffGradsState(micro_step: i32[], ready: bool[],
        mean_grads, sum_sq_diff_grads)` (memory: two copies of the parameters).

    Raises:
        ValueError: `accumulation_steps` is less than 1, or gradients have different
            numbers of examples.
        TypeError: it is no integer.

    Example:
        >>> from jopt.experimental import aggregating
        >>> tx = aggregating.get_per_element_mean_and_sum_sq_diff_grads()
        >>> (mean, aux), _ = tx.update(jnp.array([1.0, 3.0]), jopt.EmptyState())
        >>> float(mean), float(aux["sum_sq_diff_grads"]), int(aux["sample_size"])
        (2.0, 2.0, 2)

    Reference:
        Chan, Golub & LeVeque, Algorithms for computing the sample variance, The
        American Statistician, 1983.
    """
    name = "get_per_element_mean_and_sum_sq_diff_grads"
    check_integer(name, "accumulation_steps", accumulation_steps)
    axis = _axes(per_elt_axis)

    def of_batch(updates):
        wide = jax.tree.map(lambda g: cast(g, compute_dtype(g.dtype)), updates)
        mean = jax.tree.map(lambda g: jnp.mean(g, axis, keepdims=True), wide)
        squares = jax.tree.map(lambda g, m: jnp.sum(abs_sq(g - m), axis), wide, mean)
        mean = jax.tree.map(lambda m: jnp.squeeze(m, axis), mean)
        return mean, squares, get_batch_size_from_per_elt_updates(updates, per_elt_axis)

    def at_once(updates, state, params=None, **extra_args):
        mean, squares, n = of_batch(updates)
        mean = jax.tree.map(lambda m, g: cast(m, g.dtype), mean, updates)
        return (mean, dict(sum_sq_diff_grads=squares, sample_size=n)), state

    if accumulation_steps == 1:
        return Aggregator(lambda params: EmptyState(), at_once)

    def init(params):
        return PerElementMeanAndSumSqDiffGradsState(
            jnp.zeros((), jnp.int32),
            jnp.zeros((), bool),
            _wide_zeros(params),
            _wide_zeros(params, real=True),
        )

    def update(updates, state, params=None, **extra_args):
        step, m, q = state.micro_step, state.mean_grads, state.sum_sq_diff_grads
        mean, squares, n = of_batch(updates)
        away = jax.tree.map(jnp.subtract, mean, m)
        mean = jax.tree.map(lambda m, d: m + d * _share(step, m), m, away)
        squares = jax.tree.map(  # n and n * step examples, with means that are d apart
            lambda q, new, d: (
                q + new + abs_sq(d) * _share(step, q) * cast(n * step, q.dtype)
            ),
            q,
            squares,
            away,
        )
        micro_step, ready = _next(step, accumulation_steps)
        kept, kept_squares = jax.tree.map(lambda x: _if(~ready, x), (mean, squares))
        mean, squares = jax.tree.map(lambda x: _if(ready, x), (mean, squares))
        mean = jax.tree.map(lambda m, g: cast(m, g.dtype), mean, updates)
        size = _if(ready, jnp.int32(n * accumulation_steps))
        state = PerElementMeanAndSumSqDiffGradsState(
            micro_step, ready, kept, kept_squares
        )
        return (mean, dict(sum_sq_diff_grads=squares, sample_size=size)), state

    return Aggregator(init, update)


@_recorded
def track_per_element_mean_and_variance_with_ema(
    ema_decay: ArrayLike = 0.9,
) -> GradientTransformation:
    """Keeps moving averages of mean and variance; leaves the updates as they are.

        mean     <- ema_decay mean     + (1 - ema_decay) g
        variance <- ema_decay variance + (1 - ema_decay) sum_sq_diff_grads / (n - 1)

    Args:
        ema_decay: decay of the moving averages, in [0, 1).

    Returns:
        A transformation whose state is `PerElementMeanAndVarianceEMAState(count:
        i32[], ema_decay: f32[], mean_grads_ema, variance_grads_ema)` (memory: two
        copies of the parameters). Its update needs the keyword arguments
        `sum_sq_diff_grads` and `sample_size`, n. One example has the variance 0.

    Raises:
        ValueError: `ema_decay` is outside [0, 1).
        TypeError: in the update, a keyword argument is missing.

    Example:
        >>> from jopt.experimental import aggregating
        >>> tx = aggregating.track_per_element_mean_and_variance_with_ema(0.5)
        >>> aux = dict(sum_sq_diff_grads=jnp.array(6.0), sample_size=4)
        >>> _, state = tx.update(jnp.array(2.0), tx.init(jnp.array(0.0)), **aux)
        >>> float(state.mean_grads_ema), float(state.variance_grads_ema)
        (1.0, 1.0)
    """
    name = "track_per_element_mean_and_variance_with_ema"
    check_number(name, "ema_decay", ema_decay, DECAY)

    def init(params):
        return PerElementMeanAndVarianceEMAState(
            jnp.zeros((), jnp.int32),
            jnp.asarray(ema_decay, jnp.result_type(float)),
            _wide_zeros(params),
            _wide_zeros(params, real=True),
        )

    def update(updates, state, params=None, **extra_args):
        for argument in ("sum_sq_diff_grads", "sample_size"):
            if argument not in extra_args:
                raise TypeError(
                    f"{name}: the update needs the keyword argument {argument}, which "
                    "get_per_element_mean_and_sum_sq_diff_grads makes: put the two in "
                    "process(..., aggregator_has_aux=True)"
                )
        rest = jnp.maximum(jnp.asarray(extra_args["sample_size"]) - 1, 1)

        def average(x, mean):
            return ema(x, mean, cast(state.ema_decay, mean.dtype))

        mean = jax.tree.map(
            lambda m, g: average(cast(g, m.dtype), m), state.mean_grads_ema, updates
        )
        variance = jax.tree.map(
            lambda v, q: average(cast(q, v.dtype) / cast(rest, v.dtype), v),
            state.variance_grads_ema,
            extra_args["sum_sq_diff_grads"],
        )
        return updates, PerElementMeanAndVarianceEMAState(
            safe_increment(state.count), state.ema_decay, mean, variance
        )

    return whole_tree(init, update)


def get_unbiased_mean_and_variance_ema(state: OptState) -> tuple[Updates, Updates]:
    """The moving averages without the weight of their zero start.

    Args:
        state: a state with a `PerElementMeanAndVarianceEMAState` in it.

    Returns:
        `(mean, variance)`, each in the shapes of the parameters; zeros before the first
        step.

    Raises:
        ValueError: there is no such state.

    Example:
        >>> from jopt.experimental import aggregating
        >>> tx = aggregating.add_mean_variance_to_opt(jopt.sgd(1.0))
        >>> state = tx.init(jnp.array(0.0))
        >>> aggregating.get_unbiased_mean_and_variance_ema(state)[0]
        Array(0., dtype=float32)
    """
    found = tree.get(state, PerElementMeanAndVarianceEMAState.__name__)
    if found is None:
        raise ValueError(
            "get_unbiased_mean_and_variance_ema: state holds no "
            "PerElementMeanAndVarianceEMAState: was it made by an optimizer with "
            "add_mean_variance_to_opt?"
        )
    weight = one_minus_power(found.ema_decay, jnp.maximum(found.count, 1))
    emas = found.mean_grads_ema, found.variance_grads_ema
    return jax.tree.map(lambda m: m / cast(weight, m.dtype), emas)


def get_batch_size_from_per_elt_updates(
    per_elt_updates: Updates, per_elt_axis: int | Sequence[int]
) -> int:
    """How many examples there are.

    Args:
        per_elt_updates: gradients of examples.
        per_elt_axis: the axis of examples, or several.

    Returns:
        The number, an integer of Python.

    Raises:
        ValueError: the leaves have different numbers, or there are none.

    Example:
        >>> from jopt.experimental import aggregating
        >>> aggregating.get_batch_size_from_per_elt_updates(jnp.ones((4, 2)), 0)
        4
    """
    axes = _axes(per_elt_axis)
    sizes = {
        f"per_elt_updates{keystr(path)}": math.prod(g.shape[i] for i in axes)
        for path, g in jax.tree_util.tree_leaves_with_path(per_elt_updates)
    }
    if len(set(sizes.values())) != 1:
        found = ", ".join(f"{name} has {n}" for name, n in sizes.items()) or "none"
        raise ValueError(
            "get_batch_size_from_per_elt_updates: leaves must have equally many "
            f"examples along per_elt_axis={per_elt_axis}: {found}"
        )
    return next(iter(sizes.values()))


# ------------------------------------------------------------------- steps in between


def _axes(axis: int | Sequence[int]) -> tuple[int, ...]:
    return (axis,) if isinstance(axis, int) else tuple(axis)


def _wide_zeros(params: Params, *, real: bool = False) -> Updates:
    def one(p):
        zeros = jnp.zeros_like(p, compute_dtype(p.dtype))
        return shard_alike(p, zeros.real if real else zeros)

    return jax.tree.map(one, params)


def _share(step: jax.Array, like: jax.Array) -> jax.Array:
    """The weight of what comes at this step in the mean so far."""
    return 1 / safe_increment(step).astype(like.dtype)


def _next(step: jax.Array, steps: int) -> tuple[jax.Array, jax.Array]:
    ready = step >= steps - 1
    return jnp.where(ready, 0, step + 1), ready


def _if(condition: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.where(condition, x, jnp.zeros_like(x))

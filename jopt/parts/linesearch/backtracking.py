"""The line search for sufficient decrease, by ever shorter steps."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ...base import GradientTransformationExtraArgs, Updates
from ...engine import in_types_of, transformation, whole_tree
from ...numerics import cast
from ...settings import COUNT, FRACTION, NOT_NEGATIVE, POSITIVE, Range
from .line import Line, is_failed, no_gradient, precision_of, report

__all__ = [
    "BacktrackingLinesearchInfo",
    "ScaleByBacktrackingLinesearchState",
    "scale_by_backtracking_linesearch",
]


class BacktrackingLinesearchInfo(NamedTuple):
    """How many points were tried, and what the last one lacks of the condition."""

    num_linesearch_steps: jax.Array
    decrease_error: jax.Array

    @property
    def failed(self) -> jax.Array:
        """Whether the last search found no step that lowers the loss enough."""
        return is_failed(self)


class ScaleByBacktrackingLinesearchState(NamedTuple):
    """The last step size, the loss where that led, and its gradient if stored."""

    learning_rate: jax.Array
    value: jax.Array
    grad: Updates | None
    info: BacktrackingLinesearchInfo

    measured = ("learning_rate",)  # what `metrics` shows


class _Search(NamedTuple):
    count: jax.Array
    eta: jax.Array
    value: jax.Array
    error: jax.Array


@transformation(
    max_backtracking_steps=COUNT,
    slope_rtol=FRACTION,
    decrease_factor=Range(0, 1, open_low=True, open_high=True),
    max_learning_rate=POSITIVE,
    atol=NOT_NEGATIVE,
    rtol=NOT_NEGATIVE,
)
def scale_by_backtracking_linesearch(
    max_backtracking_steps: int | jax.Array,
    slope_rtol: float | jax.Array = 1e-4,
    decrease_factor: float | jax.Array = 0.8,
    increase_factor: float | jax.Array = 1.5,
    max_learning_rate: float | jax.Array = 1.0,
    atol: float | jax.Array = 0.0,
    rtol: float | jax.Array = 0.0,
    store_grad: bool = False,
    verbose: bool = False,
) -> GradientTransformationExtraArgs:
    """Multiplies the updates by a step size that lowers the loss.

        phi(eta) = loss(p + eta u)
        decrease:  phi(eta) <= (1 + rtol) phi(0) + slope_rtol eta phi'(0) + atol

    for the first eta of `eta, decrease_factor eta, ...` that does, from
    `increase_factor` times the last step size, at most `max_learning_rate`. A point
    where the loss is not finite counts as too high.

    A search that finds none has failed and takes the last eta that was tried, or 0 if
    the loss is not finite there; `state.info.failed` says so. The updates should
    descend: `phi'(0) < 0`, which momentum, say, does not promise.

    Args:
        max_backtracking_steps: how often eta is decreased at most, at least 1.
        slope_rtol: which part of the first slope is sufficient decrease, in [0, 1].
        decrease_factor: by which eta shrinks, in (0, 1).
        increase_factor: by which the last eta grows for the first guess, at least 1:
            1 keeps it, infinity begins with `max_learning_rate`.
        max_learning_rate: the largest eta, positive.
        atol: absolute tolerance of the condition, not negative.
        rtol: its tolerance relative to the loss, not negative.
        store_grad: whether the gradient at the end is computed and kept, for
            `value_and_grad_from_state`.
        verbose: whether a search that fails is printed.

    Returns:
        A transformation whose state is `ScaleByBacktrackingLinesearchState(
        learning_rate: f32[], value: f32[], grad, info: BacktrackingLinesearchInfo(
        num_linesearch_steps: i32[], decrease_error: f32[]))`; `grad` is `None` unless
        stored (memory: one copy then). Its update takes the same arguments as that of
        `scale_by_zoom_linesearch`.

    Raises:
        ValueError: a number is outside its range, or an argument of the update is
            missing.
        TypeError: `value_fn` does not take the extra arguments of the update.

    Example:
        >>> def loss(p, x):
        ...     return jnp.sum((p - x) ** 2)
        >>> tx = jopt.chain(jopt.sgd(1.0), jopt.scale_by_backtracking_linesearch(15))
        >>> p, x = jnp.zeros(2), jnp.full(2, 3.0)
        >>> value, g = jax.value_and_grad(loss)(p, x)
        >>> u, state = tx.update(
        ...     g, tx.init(p), p, value=value, grad=g, value_fn=loss, x=x)
        >>> state[-1].learning_rate, state[-1].info.num_linesearch_steps
        (Array(0.8, dtype=float32), Array(2, dtype=int32))

    Reference:
        Nocedal & Wright, Numerical Optimization, 2nd ed., 2006, algorithm 3.1. Vaswani
        et al., Painless Stochastic Gradient, NeurIPS 2019, arXiv:1905.09997, for the
        guess.
    """
    name = "scale_by_backtracking_linesearch"

    def init(params):
        gradient = no_gradient(params)
        dtype = precision_of(gradient)
        return ScaleByBacktrackingLinesearchState(
            learning_rate=jnp.ones((), dtype),
            value=jnp.full((), math.inf, dtype),
            grad=gradient if store_grad else None,
            info=BacktrackingLinesearchInfo(
                num_linesearch_steps=jnp.zeros((), jnp.int32),
                decrease_error=jnp.full((), math.inf, dtype),
            ),
        )

    def update(
        updates,
        state,
        params=None,
        *,
        value=None,
        grad=None,
        value_fn=None,
        **extra_args,
    ):
        line = Line(name, updates, params, value, grad, value_fn, extra_args)
        slope_share, shrink, growth, most_rate, extra, share = line.numbers(
            slope_rtol,
            decrease_factor,
            increase_factor,
            max_learning_rate,
            atol,
            rtol,
        )

        def shorter(search):
            again = jnp.where(search.count > 0, shrink, 1)
            eta = search.eta * again
            value = line.value_at(eta)
            allowed = (1 + share) * line.value + slope_share * eta * line.slope + extra
            error = jnp.where(
                jnp.isfinite(value), jnp.maximum(value - allowed, 0), jnp.inf
            )
            return _Search(search.count + 1, eta, value, error)

        def goes_on(search):
            most = jnp.asarray(max_backtracking_steps, search.count.dtype)
            return ~(search.error <= 0) & (search.count <= most)

        last = cast(state.learning_rate, line.dtype)
        guess = jnp.minimum(last * growth, most_rate)
        begin = _Search(
            count=jnp.zeros((), jnp.int32),
            eta=jnp.where(last > 0, guess, most_rate),
            value=line.value,
            error=jnp.full((), math.inf, line.dtype),
        )
        search = jax.lax.while_loop(goes_on, shorter, begin)
        moves = jnp.isfinite(search.value)
        eta = jnp.where(moves, search.eta, 0)
        info = BacktrackingLinesearchInfo(search.count, search.error)
        value = jnp.where(moves, search.value, line.value)
        if verbose:
            report(name, info.failed, line, eta, value)
        stored = line.stored(line.all_at(eta)[2], state.grad) if store_grad else None
        new = ScaleByBacktrackingLinesearchState(eta, value, stored, info)
        return line.updates_at(eta), in_types_of(state, new)

    # What it does not take itself goes to value_fn, and is checked against that.
    return whole_tree(init, update, takes=None)

"""The line search for the strong Wolfe conditions, by bracketing and zooming in."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...base import GradientTransformationExtraArgs, Updates
from ...engine import in_types_of, transformation, whole_tree
from ...settings import COUNT, FRACTION, NOT_NEGATIVE, POSITIVE, Range
from .line import Line, is_failed, no_gradient, precision_of, report

__all__ = [
    "ScaleByZoomLinesearchState",
    "ZoomLinesearchInfo",
    "scale_by_zoom_linesearch",
]

STRATEGIES = ("keep", "one")


class ZoomLinesearchInfo(NamedTuple):
    """How many points were tried, and what the chosen one lacks of the conditions."""

    num_linesearch_steps: jax.Array
    decrease_error: jax.Array
    curvature_error: jax.Array

    @property
    def failed(self) -> jax.Array:
        """Whether the last search found no step that lowers the loss enough."""
        return is_failed(self)


class ScaleByZoomLinesearchState(NamedTuple):
    """The last step size, and the loss and its gradient where that led."""

    learning_rate: jax.Array
    value: jax.Array
    grad: Updates
    info: ZoomLinesearchInfo

    measured = ("learning_rate",)  # what `metrics` shows


class _Point(NamedTuple):
    """A point of the line: where it is, the loss there and its slope."""

    eta: jax.Array
    value: jax.Array
    slope: jax.Array


class _Search(NamedTuple):
    """A search that runs.

    `low` is the best point that lowers the loss enough, the start while there is none.
    The minimum lies between it and `high`, which is at infinity until one is found;
    `old` was the end of the bracket before.
    """

    count: jax.Array
    eta: jax.Array  # to try next
    done: jax.Array
    low: _Point
    high: _Point
    old: _Point
    chosen: _Point  # what is returned if the search ends here
    grads: list[jax.Array]  # there


@transformation(
    max_linesearch_steps=COUNT,
    max_learning_rate=POSITIVE,
    tol=NOT_NEGATIVE,
    increase_factor=Range(1, open_low=True),
    slope_rtol=FRACTION,
    approx_dec_rtol=NOT_NEGATIVE,
    stepsize_precision=NOT_NEGATIVE,
)
def scale_by_zoom_linesearch(
    max_linesearch_steps: int | jax.Array,
    max_learning_rate: float | jax.Array | None = None,
    tol: float | jax.Array = 0.0,
    increase_factor: float | jax.Array = 2.0,
    slope_rtol: float | jax.Array = 1e-4,
    curv_rtol: float | jax.Array = 0.9,
    approx_dec_rtol: float | jax.Array | None = 1e-6,
    stepsize_precision: float | jax.Array = 1e-5,
    initial_guess_strategy: str = "keep",
    verbose: bool = False,
) -> GradientTransformationExtraArgs:
    """Multiplies the updates by a step size that lowers the loss and flattens it.

        phi(eta) = loss(p + eta u)
        decrease:  phi(eta) <= phi(0) + slope_rtol eta phi'(0) + tol, or nearly level:
                   phi(eta) <= phi(0) + approx_dec_rtol |phi(0)| + tol  and
                   phi'(eta) <= (2 slope_rtol - 1) phi'(0) + tol
        curvature: |phi'(eta)| <= curv_rtol |phi'(0)| + tol

    Step sizes grow by `increase_factor` until there is a minimum between two of them;
    then that interval shrinks, to the minimum of the cubic or the quadratic polynomial
    through what is known, or by half where these are too near to its ends. A point
    where the loss is not finite counts as too high.

    The search ends where both conditions hold. It settles for the best point with
    sufficient decrease if the interval is shorter than `stepsize_precision`, at
    `max_learning_rate` or after `max_linesearch_steps`; without such a point it has
    failed, and takes the last that was tried, or none where the loss is not finite.
    `state.info.failed` says so.

    Args:
        max_linesearch_steps: how many points are tried at most, at least 1; each costs
            a loss and a gradient.
        max_learning_rate: the largest step size, positive; no bound if `None`.
        tol: absolute tolerance of the conditions, not negative.
        increase_factor: by which the step size grows, more than 1.
        slope_rtol: which part of the first slope is sufficient decrease, in [0, 1].
        curv_rtol: to which part of the first slope the slope must fall, not negative;
            infinite if it need not.
        approx_dec_rtol: by which part of itself the loss may grow, by rounding, where
            slopes judge the decrease; these never do if `None`.
        stepsize_precision: the length of the shortest interval, not negative.
        initial_guess_strategy: what is tried first: the last step size (`"keep"`), or
            1 (`"one"`), which suits quasi-Newton directions.
        verbose: whether a search that fails is printed.

    Returns:
        A transformation whose state is `ScaleByZoomLinesearchState(learning_rate:
        f32[], value: f32[], grad, info: ZoomLinesearchInfo(num_linesearch_steps: i32[],
        decrease_error: f32[], curvature_error: f32[]))`; `grad` has the shapes of the
        parameters (memory: one copy). Its update takes `update(updates, state, params,
        value=value, grad=grad, value_fn=loss, **more)`: the loss and its gradient at
        the parameters (for complex ones, as a direction: the conjugate of what
        `jax.grad` returns), and the function, called as `loss(params, **more)`; it may
        return `(loss, aux)`. What changes from step to step belongs into `more`: a
        function that is another object at each step is compiled each time.

    Raises:
        ValueError: a number is outside its range, `initial_guess_strategy` is another
            word, or an argument of the update is missing.
        TypeError: `value_fn` does not take the extra arguments of the update.

    Example:
        >>> def loss(p):
        ...     return jnp.sum((p - 3.0) ** 2)
        >>> tx = jopt.chain(jopt.sgd(1.0), jopt.scale_by_zoom_linesearch(15))
        >>> p = jnp.zeros(2)
        >>> value, g = jax.value_and_grad(loss)(p)
        >>> u, state = tx.update(
        ...     g, tx.init(p), p, value=value, grad=g, value_fn=loss)
        >>> u, state[-1].info.failed
        (Array([3., 3.], dtype=float32), Array(False, dtype=bool))

    Reference:
        Nocedal & Wright, Numerical Optimization, 2nd ed., 2006, algorithms 3.5 and 3.6.
        Hager & Zhang, Algorithm 851: CG_DESCENT, a Conjugate Gradient Method with
        Guaranteed Descent, ACM TOMS 32, 2006, for the second form of decrease.
    """
    name = "scale_by_zoom_linesearch"
    if initial_guess_strategy not in STRATEGIES:
        raise ValueError(
            f"{name}: initial_guess_strategy must be one of {STRATEGIES}, "
            f"got {initial_guess_strategy!r}"
        )
    longest = math.inf if max_learning_rate is None else max_learning_rate

    def init(params):
        grad = no_gradient(params)
        dtype = precision_of(grad)
        return ScaleByZoomLinesearchState(
            learning_rate=jnp.ones((), dtype),
            value=jnp.full((), jnp.inf, dtype),
            grad=grad,
            info=ZoomLinesearchInfo(
                num_linesearch_steps=jnp.zeros((), jnp.int32),
                decrease_error=jnp.full((), jnp.inf, dtype),
                curvature_error=jnp.full((), jnp.inf, dtype),
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
        dtype = line.dtype
        start = _Point(jnp.zeros((), dtype), line.value, line.slope)
        slopes, curvature, level, slack, increase, farthest, precision = line.numbers(
            slope_rtol,
            curv_rtol,
            approx_dec_rtol,
            tol,
            increase_factor,
            longest,
            stepsize_precision,
        )

        def decrease_error(at):
            error = at.value - start.value - slopes * at.eta * start.slope
            if level is not None:
                growth = at.value - start.value - level * jnp.abs(start.value)
                flat = at.slope - (2 * slopes - 1) * start.slope
                error = jnp.minimum(error, jnp.maximum(growth, flat))
            return jnp.maximum(error - slack, 0)

        def curvature_error(at):
            allowed = curvature * jnp.abs(start.slope) + slack
            return jnp.maximum(jnp.abs(at.slope) - allowed, 0)

        def try_one(search):
            at, grads = _at(line, search.eta)
            low, high = search.low, search.high
            found = low.eta > 0  # a point with sufficient decrease
            enough = decrease_error(at) <= 0
            better = enough & ~(found & (at.value >= low.value))
            accepted = enough & (curvature_error(at) <= 0)
            # The loss rises from the new point towards `high`: it replaces that end.
            turned = jnp.where(high.eta > low.eta, at.slope >= 0, at.slope <= 0)
            new_high = _where(better, _where(turned, low, high), at)
            new_low = _where(better, at, low)
            old = _where(better & ~turned, low, high)
            bracketed = jnp.isfinite(new_high.eta)
            precise = jnp.isfinite(high.eta) & (
                jnp.abs(high.eta - low.eta) <= precision
            )
            at_end = ~bracketed & (search.eta >= farthest)
            count = search.count + 1
            done = accepted | at_end | (precise & (new_low.eta > 0))
            done |= count >= jnp.asarray(max_linesearch_steps, count.dtype)
            eta = jnp.where(
                bracketed,
                _between(new_low, new_high, old),
                jnp.minimum(search.eta * increase, farthest),
            )
            chosen, grads = _where(
                better | accepted | ~found, (at, grads), (search.chosen, search.grads)
            )
            return _Search(count, eta, done, new_low, new_high, old, chosen, grads)

        guess = state.learning_rate if initial_guess_strategy == "keep" else 1.0
        guess = jnp.asarray(guess, dtype)
        guess = jnp.minimum(jnp.where(guess > 0, guess, 1), farthest)
        infinite = jnp.full((), jnp.inf, dtype)
        nowhere = _Point(infinite, infinite, jnp.zeros((), dtype))
        search = jax.lax.while_loop(
            lambda search: ~search.done,
            try_one,
            _Search(
                count=jnp.zeros((), jnp.int32),
                eta=guess,
                done=jnp.zeros((), bool),
                low=start,
                high=nowhere,
                old=nowhere,
                chosen=start,
                grads=line.grads,
            ),
        )
        info = ZoomLinesearchInfo(
            num_linesearch_steps=search.count,
            decrease_error=decrease_error(search.chosen),
            curvature_error=curvature_error(search.chosen),
        )
        moves = jnp.isfinite(search.chosen.value)
        at, grads = _where(moves, (search.chosen, search.grads), (start, line.grads))
        if verbose:
            report(name, info.failed, line, at.eta, at.value)
        new = ScaleByZoomLinesearchState(
            at.eta, at.value, line.stored(grads, state.grad), info
        )
        return line.updates_at(at.eta), in_types_of(state, new)

    # What it does not take itself goes to value_fn, and is checked against that.
    return whole_tree(init, update, takes=None)


def _at(line: Line, eta: jax.Array) -> tuple[_Point, list[jax.Array]]:
    """A point of the line; what is not finite is as high as can be, and level."""
    value, slope, grads = line.all_at(eta)
    finite = jnp.isfinite(value) & jnp.isfinite(slope)
    value, slope = jnp.where(finite, value, jnp.inf), jnp.where(finite, slope, 0)
    return _Point(eta, value, slope), grads


def _between(low: _Point, high: _Point, old: _Point) -> jax.Array:
    """Where the loss may be least between two points.

    That is the minimum of the cubic through three values and the slope at `low` (eq.
    3.59) if that is well inside, or else of the quadratic (eq. 3.58), or the middle.
    """
    b, bend_b, b_known = _bend(low, high)
    c, bend_c, c_known = _bend(low, old)
    # The value is low.value + low.slope x + B x^2 + A x^3, at x from low.
    A, B = _ratio(bend_b - bend_c, b - c), _ratio(bend_c * b - bend_b * c, b - c)
    square = B**2 - 3 * A * low.slope
    root = jnp.sqrt(jnp.maximum(square, 0))
    cubic = jnp.where(B > 0, _ratio(-low.slope, B + root), _ratio(root - B, 3 * A))
    is_cubic = b_known & c_known & (square >= 0)
    quadratic = _ratio(-low.slope, 2 * bend_b)

    def inside(x, margin):
        part = _ratio(x, b)
        return (part > margin) & (part < 1 - margin)

    x = jnp.where(inside(quadratic, 0.1), quadratic, b / 2)
    x = jnp.where(is_cubic & inside(cubic, 0.2), cubic, x)
    return low.eta + x


def _bend(low: _Point, at: _Point) -> tuple[jax.Array, jax.Array, jax.Array]:
    """How far a point is, how the line bends up to it, and whether both are known."""
    known = jnp.isfinite(at.eta) & jnp.isfinite(at.value) & (at.eta != low.eta)
    distance = jnp.where(jnp.isfinite(at.eta), at.eta, low.eta) - low.eta
    value = jnp.where(known, at.value, low.value)
    bend = _ratio(value - low.value - low.slope * distance, distance**2)
    return distance, jnp.where(known, bend, 0), known


def _ratio(x: jax.Array, y: jax.Array) -> jax.Array:
    """`x / y`, or 0 where that is no number."""
    usable = (y != 0) & jnp.isfinite(x) & jnp.isfinite(y)
    return jnp.where(usable, x, 0) / jnp.where(usable, y, 1)


def _where(condition: jax.Array, x: Any, y: Any) -> Any:
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), x, y)

"""L-BFGS: Newton's direction from the last steps and how they changed the gradient."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from .. import tree
from ..base import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    Params,
    PerLeaf,
    Updates,
)
from ..engine import transformation
from ..engine.whole import per_tree
from ..parts.combine import chain, check_transformation, identity
from ..parts.linesearch import scale_by_zoom_linesearch
from ..parts.scale import scale_by_learning_rate
from ..settings import check_integer
from ..sharding import is_split, resplit, split_of, zeros_in_rows
from ..tree.devices import together

__all__ = ["ScaleByLBFGSState", "lbfgs", "scale_by_lbfgs"]


class ScaleByLBFGSState(NamedTuple):
    """The last parameters and gradients, and the memory of their changes.

    The memories are rings along a new first axis: the pair that step t made stands at
    `(t - 2) % memory_size`. A pair without weight, `1 / (s . y)`, is not used.
    """

    count: jax.Array
    params: Params
    updates: Updates
    diff_params_memory: Params
    diff_updates_memory: Updates
    weights_memory: jax.Array


class _Products(NamedTuple):
    """Inner products over the whole tree: of the pairs, and with the gradient."""

    SY: jax.Array
    YY: jax.Array
    Sg: jax.Array
    Yg: jax.Array


@transformation
def scale_by_lbfgs(
    memory_size: int = 10, scale_init_precond: bool = True
) -> GradientTransformationExtraArgs:
    """The gradient times an inverse Hessian that the last steps suggest.

        s_t = p_t - p_(t-1),   y_t = g_t - g_(t-1),   w_t = 1 / (s_t . y_t)
        H  <- (I - w s y^T) H (I - w y s^T) + w s s^T    for each pair, oldest first,
                                                         from H = c I
        c   = (s . y) / (y . y) of the newest pair, min(1, 1 / |g|) while there is none
        u   = H g

    with inner products over the whole tree, the real part of complex ones. A pair that
    shows hardly any positive curvature, `s . y <= sqrt(epsilon) |s| |y|` in machine
    precision, gets no weight: H stays positive definite, so that -u descends, and its
    step of `|s| |g| / |y|` by the inverse of that share is not made of rounding.

    H is never formed. With R the upper triangle of S^T Y and D its diagonal,

        a = R^-1 S^T g
        u = c (g - Y a) + S R^-T (D a - c Y^T (g - Y a))

    so that the leaves are summed over once, for the inner products between the pairs,
    and not once for each pair.

    Args:
        memory_size: how many pairs are kept, at least 1.
        scale_init_precond: whether c is as above; 1 if not.

    Returns:
        A transformation whose state is `ScaleByLBFGSState(count: i32[], params,
        updates, diff_params_memory, diff_updates_memory, weights_memory:
        f32[memory_size])`; a memory has the shapes of the parameters after an axis of
        `memory_size` (memory: `2 memory_size + 2` copies). The update needs the
        parameters.

    Raises:
        ValueError: `memory_size` is less than 1.
        TypeError: `memory_size` is no integer.

    Example:
        >>> tx = jopt.scale_by_lbfgs(memory_size=5)
        >>> tx.init(jnp.ones(3)).diff_params_memory.shape
        (5, 3)

    Reference:
        Nocedal & Wright, Numerical Optimization, 2nd ed., 2006, algorithm 7.4. Byrd,
        Nocedal & Schnabel, Representations of Quasi-Newton Matrices and their Use in
        Limited Memory Methods, 1994, theorem 2.2.
    """
    check_integer("scale_by_lbfgs", "memory_size", memory_size)

    def init(p):
        return dict(
            params=jnp.zeros_like(p),
            updates=jnp.zeros_like(p),
            diff_params_memory=zeros_in_rows(memory_size, p),
            diff_updates_memory=zeros_in_rows(memory_size, p),
        )

    def reduce(gs, s, ps, **extra_args):
        step = [_pair(s.count, *x) for x in zip(ps, gs, s.params, s.updates)]
        row = _row(s.count, memory_size)
        weights = s.weights_memory.at[row].set(_weight(step))
        memory = [
            (_with_row(row, S, new_s), _with_row(row, Y, new_y))
            for S, Y, (new_s, new_y) in zip(
                s.diff_params_memory, s.diff_updates_memory, step
            )
        ]
        size = tree.norm(gs) if scale_init_precond else None
        products = _products(memory, gs, weights)
        numbers = _coefficients(row, weights, products, size)
        return numbers, dict(weights_memory=weights)

    def scale_by_lbfgs(g, s, p, coefficients):
        of_g, of_s, of_y = coefficients
        row = _row(s.count, memory_size)
        new_s, new_y = _pair(s.count, p, g, s.params, s.updates)
        S = _with_row(row, s.diff_params_memory, new_s)
        Y = _with_row(row, s.diff_updates_memory, new_y)
        u = of_g * g + _weighted(of_s, S) + _weighted(of_y, Y)
        return u, s._replace(
            params=p, updates=g, diff_params_memory=S, diff_updates_memory=Y
        )

    return per_tree(
        ScaleByLBFGSState,
        init,
        scale_by_lbfgs,
        reduce=reduce,
        whole=dict(weights_memory=lambda ps: jnp.zeros(memory_size)),
        needs_params=True,
    )


_ZOOM = scale_by_zoom_linesearch(20, initial_guess_strategy="one")


@transformation
def lbfgs(
    learning_rate: PerLeaf | None = None,
    memory_size: int = 10,
    scale_init_precond: bool = True,
    linesearch: GradientTransformation | None = _ZOOM,
) -> GradientTransformationExtraArgs:
    """L-BFGS: Newton's direction from the last steps, as far as a line search says.

        p <- p - eta learning_rate u        with u of `scale_by_lbfgs`, eta of
                                            `linesearch`

    Args:
        learning_rate: a number, or a schedule of the steps taken so far; 1 if `None`.
        memory_size: how many steps are remembered, at least 1.
        scale_init_precond: as `scale_by_lbfgs` takes it.
        linesearch: the transformation that finds eta,
            `scale_by_zoom_linesearch(20, initial_guess_strategy="one")` if not given;
            eta is 1 if `None`.

    Returns:
        A transformation whose state is `(ScaleByLBFGSState, EmptyState,
        ScaleByZoomLinesearchState)` (memory: `2 memory_size + 3` copies of the
        parameters); the second is `ScaleByScheduleState` with a schedule, the third is
        that of `linesearch`. With a line search its update takes the loss, the gradient
        and the function: `update(grads, state, params, value=value, grad=grads,
        value_fn=loss)`.

    Raises:
        ValueError: a number is outside its range.
        TypeError: `linesearch` is no transformation.

    Example:
        >>> def loss(p):
        ...     return jnp.sum((p - 3.0) ** 2)
        >>> tx = jopt.lbfgs()
        >>> value_and_grad = jopt.value_and_grad_from_state(loss)
        >>> p = jnp.zeros(2)
        >>> state = tx.init(p)
        >>> for _ in range(2):
        ...     value, g = value_and_grad(p, state=state)
        ...     u, state = tx.update(g, state, p, value=value, grad=g, value_fn=loss)
        ...     p = jopt.apply_updates(p, u)
        >>> p
        Array([3., 3.], dtype=float32)

    Reference:
        Liu & Nocedal, On the Limited Memory BFGS Method for Large Scale Optimization,
        Mathematical Programming 45, 1989. Nocedal & Wright, Numerical Optimization,
        2nd ed., 2006, algorithm 7.5.
    """
    linesearch = identity() if linesearch is None else linesearch
    check_transformation("lbfgs", "linesearch", linesearch)
    return chain(
        scale_by_lbfgs(memory_size, scale_init_precond),
        scale_by_learning_rate(learning_rate),
        linesearch,
    )


# ------------------------------------------------------------------------- the memory


def _row(t: jax.Array, memory_size: int) -> jax.Array:
    """Where the pair that step t makes stands in the memories."""
    return (t - 2) % memory_size


def _pair(t, p, g, last_p, last_g):
    """How the parameter and its gradient changed; zeros in the first step."""
    first = t == 1
    return tuple(
        jnp.where(first, jnp.zeros_like(new), new - last)
        for new, last in ((p, last_p), (g, last_g))
    )


def _with_row(row: jax.Array, memory: jax.Array, new: jax.Array) -> jax.Array:
    new = resplit(new, split_of(memory)[1:])
    return jax.lax.dynamic_update_index_in_dim(memory, new, row, 0)


def _weight(step: list) -> jax.Array:
    """`1 / (s . y)` of the step that was made; zero if it shows no curvature."""
    s, y = ([pair[i] for pair in step] for i in range(2))
    sizes = tree.norm(s) * tree.norm(y)
    curvature = jnp.real(tree.vdot(s, y)).astype(sizes.dtype)  # of no leaves, integers
    usable = curvature > float(jnp.finfo(sizes.dtype).eps) ** 0.5 * sizes
    return jnp.where(usable, 1 / jnp.where(usable, curvature, 1), 0)


# ---------------------------------------------------------------------- the direction


def _products(memory: list, gs: list, weights: jax.Array) -> _Products:
    none = jnp.zeros((weights.size, weights.size), weights.dtype)
    parts = []
    for (S, Y), g in zip(memory, gs):
        products = _inner(S, Y), _inner(Y, Y), _inner(S, g[None]), _inner(Y, g[None])
        SY, YY, Sg, Yg = products
        parts.append(_Products(SY, YY, Sg[:, 0], Yg[:, 0]))
    total = _Products(none, none, none[0], none[0])
    return functools.reduce(tree.add, together(parts), total)


def _coefficients(
    row: jax.Array, weights: jax.Array, products: _Products, size: jax.Array | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What the gradient, the rows of S and those of Y are multiplied by."""
    from jax.scipy.linalg import solve_triangular  # 7 ms of any program's start

    m = weights.size
    order = (row + 1 + jnp.arange(m, dtype=row.dtype)) % m  # the oldest first
    SY, YY, Sg, Yg = (_permuted(x, order) for x in products)
    D = jnp.diagonal(SY)
    used = (weights[order] > 0) & (D > 0)
    R = jnp.where(used[:, None] & used[None], jnp.triu(SY), jnp.eye(m, dtype=SY.dtype))
    a = solve_triangular(R, jnp.where(used, Sg, 0))
    if size is None:
        c = jnp.ones((), R.dtype)
    else:
        newest = jnp.max(jnp.where(used, jnp.arange(m), -1))
        below = jnp.where(newest < 0, 1, YY[newest, newest])
        c = jnp.where(newest < 0, 1 / jnp.maximum(size, 1), D[newest] / below)
    rest = jnp.where(used, D * a - c * (Yg - YY @ a), 0)
    of_s = solve_triangular(R, rest, trans=1)
    back = jnp.zeros(m, R.dtype).at[order]
    return c, back.set(of_s), back.set(-c * a)


def _permuted(x: jax.Array, order: jax.Array) -> jax.Array:
    for axis in range(x.ndim):
        x = jnp.take(x, order, axis)
    return x


_EXACT = jax.lax.Precision.HIGHEST  # accelerators would multiply in fewer bits


def _inner(A: jax.Array, B: jax.Array) -> jax.Array:
    """The inner products of the rows of A with those of B."""
    axes = tuple(range(1, A.ndim))
    B = resplit(B, split_of(A))
    added_up = PartitionSpec(None, None) if is_split(A) else None  # over the devices
    products = jax.lax.dot_general(
        A.conj(), B, ((axes, axes), ((), ())), _EXACT, out_sharding=added_up
    )
    return jnp.real(products)


def _weighted(weights: jax.Array, rows: jax.Array) -> jax.Array:
    return jnp.tensordot(weights, rows, 1, precision=_EXACT)

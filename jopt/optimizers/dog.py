"""DoG and DoWG: SGD whose step is the distance come over the gradients seen."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from .. import tree
from ..base import GradientTransformationExtraArgs, MaskOrFn, Params, PerLeaf, Updates
from ..engine import per_leaf, transformation
from ..engine.whole import per_tree
from ..numerics import bounded_norm, finite, norm, safe_sqrt
from ..parts.combine import chain, identity
from ..parts.decay import add_decayed_weights
from ..parts.scale import scale_by_learning_rate
from ..settings import FINITE, PLAIN_DECAY, POSITIVE, check_number
from ..tree import norms

__all__ = [
    "DoGState",
    "DoWGState",
    "ScaleByDistanceOverGradientsState",
    "dog",
    "dowg",
    "scale_by_distance_over_gradients",
]

INIT_STEPS = ("distance", "learning_rate", "heuristic")


class DoGState(NamedTuple):
    """Where it began, the largest distance from there, the sum of squared norms."""

    is_init_step: jax.Array
    init_params: Params
    max_dist: jax.Array
    sum_sq_norm_grads: jax.Array


class DoWGState(NamedTuple):
    """Where it began, the sum of weighted squared norms, the largest distance."""

    init_params: Params
    weighted_sq_norm_grads: jax.Array
    estim_sq_dist: jax.Array


class ScaleByDistanceOverGradientsState(NamedTuple):
    """For each leaf what `DoGState` has for the tree."""

    max_dist: Updates
    grad_sum_of_squares: Updates
    init_params: Params


@transformation(weight_decay=PLAIN_DECAY)
def dog(
    learning_rate: PerLeaf = 1.0,
    init_step: tuple[str, float] = ("heuristic", 1e-6),
    eps: float = 1e-8,
    weight_decay: PerLeaf | None = None,
    mask: MaskOrFn = None,
) -> GradientTransformationExtraArgs:
    """DoG: SGD whose step is the distance come over the gradients seen.

        g <- g + weight_decay p
        r <- max(r, |p - p0|)
        G <- G + |g|^2
        p <- p - learning_rate r / sqrt(G + eps) g

    with norms over the whole tree. The authors advise to average the iterates. Nothing
    moves, and no first step is counted, until a gradient is other than zero.

    Args:
        learning_rate: factor of the step, to be left at 1; or a schedule of the steps
            taken so far.
        init_step: how it starts, a pair of a name and a positive number `x`:
            `("distance", x)` with `r = x`, `("heuristic", x)` with
            `r = x (1 + |p0|)`, for which the authors take 1e-6, or 1e-4 with batch
            normalization; and `("learning_rate", x)` with a first step of size `x`.
        eps: added to the sum of squares, not negative.
        weight_decay: added to the gradient, not negative; none if `None`.
        mask: which leaves decay, as `add_decayed_weights` takes it.

    Returns:
        A transformation whose state is `(EmptyState, DoGState(is_init_step: bool[],
        init_params, max_dist: f32[], sum_sq_norm_grads: f32[]), EmptyState)` (memory:
        one copy of the parameters). The update needs the parameters.

    Raises:
        ValueError: a number is outside its range, or `init_step` is no such pair.

    Example:
        >>> tx = jopt.dog(init_step=("heuristic", 1e-4))

    Reference:
        Ivgi, Hinder & Carmon, DoG is SGD's Best Friend: A Parameter-Free Dynamic Step
        Size Schedule, ICML 2023, arXiv:2302.12022.
    """
    how, x = _init_step(init_step)

    def init(p):
        return dict(init_params=p)

    def first_distance(ps):
        return x * (1 + tree.norm(ps)) if how == "heuristic" else x

    def reduce(gs, s, ps, **extra_args):
        r = jnp.maximum(s.max_dist, tree.norm(tree.sub(ps, s.init_params)))
        square, share = norms.bounded_norm(gs)
        total = finite(s.sum_sq_norm_grads + square)
        step = share * _over(r, safe_sqrt(total + eps))
        first = s.is_init_step
        if how == "learning_rate":
            step = jnp.where(first, jnp.asarray(x, step.dtype), step)
        new = dict(
            is_init_step=first & (total == 0), max_dist=r, sum_sq_norm_grads=total
        )
        return step, new

    def dog(g, s, p, step):
        return step * g, s

    whole = dict(
        is_init_step=True,
        max_dist=0.0 if how == "learning_rate" else first_distance,
        sum_sq_norm_grads=0.0,
    )
    direction = per_tree(
        DoGState, init, dog, reduce=reduce, whole=whole, needs_params=True
    )
    return _with_decay(direction, learning_rate, weight_decay, mask)


@transformation(init_estim_sq_dist=POSITIVE, eps=POSITIVE, weight_decay=PLAIN_DECAY)
def dowg(
    learning_rate: PerLeaf = 1.0,
    init_estim_sq_dist: float | None = None,
    eps: float = 1e-4,
    weight_decay: PerLeaf | None = None,
    mask: MaskOrFn = None,
) -> GradientTransformationExtraArgs:
    """DoWG: DoG that gives later gradients, of longer distances, more weight.

        g  <- g + weight_decay p
        r2 <- max(r2, |p - p0|^2)
        v  <- v + r2 |g|^2
        p  <- p - learning_rate r2 / (sqrt(v) + eps) g

    with norms over the whole tree. A gradient of zero moves nothing and is forgotten.

    Args:
        learning_rate: factor of the step, to be left at 1; or a schedule of the steps
            taken so far.
        init_estim_sq_dist: where `r2` starts, positive; `eps` if `None`.
        eps: added to the root, positive. The paper has none.
        weight_decay: added to the gradient, not negative; none if `None`.
        mask: which leaves decay, as `add_decayed_weights` takes it.

    Returns:
        A transformation whose state is `(EmptyState, DoWGState(init_params,
        weighted_sq_norm_grads: f32[], estim_sq_dist: f32[]), EmptyState)` (memory: one
        copy of the parameters). The update needs the parameters.

    Raises:
        ValueError: a number is outside its range.

    Example:
        >>> tx = jopt.dowg()

    Reference:
        Khaled, Mishchenko & Jin, DoWG Unleashed: An Efficient Universal Parameter-Free
        Gradient Descent Method, NeurIPS 2023, arXiv:2305.16284.
    """

    def init(p):
        return dict(init_params=p)

    def reduce(gs, s, ps, **extra_args):
        come = tree.norm(tree.sub(ps, s.init_params), squared=True)
        r2 = jnp.maximum(s.estim_sq_dist, come)
        square, share = norms.bounded_norm(gs)
        total = finite(s.weighted_sq_norm_grads + r2 * square)
        new = dict(weighted_sq_norm_grads=total, estim_sq_dist=r2)
        return share * (r2 / (safe_sqrt(total) + eps)), new

    def dowg(g, s, p, step):
        return step * g, s

    start = eps if init_estim_sq_dist is None else init_estim_sq_dist
    direction = per_tree(
        DoWGState,
        init,
        dowg,
        reduce=reduce,
        whole=dict(weighted_sq_norm_grads=0.0, estim_sq_dist=start),
        needs_params=True,
    )
    return _with_decay(direction, learning_rate, weight_decay, mask)


@transformation(reps_rel=POSITIVE, global_scale=FINITE)
def scale_by_distance_over_gradients(
    reps_rel: float = 1e-6,
    eps: float = 1e-8,
    param_dtype: DTypeLike = jnp.float32,
    global_scale: float = 1.0,
) -> GradientTransformationExtraArgs:
    """L-DoG: DoG for each leaf by itself.

        r <- max(r, |p - p0|)
        G <- G + |g|^2
        u  = global_scale r / sqrt(G + eps) g

    from `r = reps_rel (1 + |p0|)`. It does not negate: a `global_scale` of -1
    descends. A gradient of zero moves nothing and is forgotten.

    Args:
        reps_rel: the first distance, relative to the parameter's norm, positive.
        eps: added to the sum of squares, not negative.
        param_dtype: dtype the first parameters are stored in.
        global_scale: factor of the updates.

    Returns:
        A transformation whose state is `ScaleByDistanceOverGradientsState(max_dist,
        grad_sum_of_squares, init_params)`: for each leaf an `f32[]`, an `f32[1]` and a
        copy of the parameter (memory: one copy). The update needs the parameters.

    Raises:
        ValueError: a number is outside its range.
        TypeError: `param_dtype` is no floating dtype.

    Example:
        >>> tx = jopt.scale_by_distance_over_gradients(global_scale=-1.0)

    Reference:
        Ivgi, Hinder & Carmon, DoG is SGD's Best Friend: A Parameter-Free Dynamic Step
        Size Schedule, ICML 2023, arXiv:2302.12022.
    """

    def init(p):
        keep = p.astype(param_dtype) if p.dtype == p.real.dtype else p
        return dict(
            max_dist=reps_rel * (1 + norm(p)),
            grad_sum_of_squares=jnp.zeros((1,), p.real.dtype),
            init_params=keep,
        )

    def scale_by_distance_over_gradients(g, s, p):
        r = jnp.maximum(s.max_dist, norm(p - s.init_params))
        square, share = bounded_norm(g)
        total = finite(s.grad_sum_of_squares + square)
        u = global_scale * share * _over(r, safe_sqrt(total[0] + eps)) * g
        return u, s._replace(max_dist=r, grad_sum_of_squares=total)

    return per_leaf(
        ScaleByDistanceOverGradientsState,
        init,
        scale_by_distance_over_gradients,
        needs_params=True,
    )


def _init_step(init_step: tuple[str, float]) -> tuple[str, float]:
    if (
        not isinstance(init_step, (tuple, list))
        or len(init_step) != 2
        or init_step[0] not in INIT_STEPS
    ):
        raise ValueError(
            f"dog: init_step must be a pair of one of {INIT_STEPS} and a number, "
            f"got {init_step!r}"
        )
    check_number("dog", "init_step[1]", init_step[1], POSITIVE)
    return init_step[0], init_step[1]


def _over(distance: jax.Array, root: jax.Array) -> jax.Array:
    """The quotient; zero where there was no gradient yet."""
    return jnp.where(root > 0, distance / jnp.where(root > 0, root, 1), 0)


def _with_decay(direction, learning_rate, weight_decay, mask):
    decayed = identity()
    if weight_decay is not None:
        decayed = add_decayed_weights(weight_decay, mask)
    return chain(decayed, direction, scale_by_learning_rate(learning_rate))

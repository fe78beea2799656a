"""MoMo: momentum whose step is what a model of the loss, made of it, can promise."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .. import tree
from ..base import (
    GradientTransformationExtraArgs,
    MaskOrFn,
    PerLeaf,
    Updates,
)
from ..engine import per_tree, transformation
from ..numerics import abs_sq, bounded, ema, norm, one_minus_power, safe_sqrt
from ..parts.decay import which_decay
from ..settings import FINITE, PLAIN_DECAY, once_each
from ..settings.resolve import Own, largest
from .polyak_sgd import loss_value, over_square

__all__ = ["MomoAdamState", "MomoState", "momo", "momo_adam"]


class MomoState(NamedTuple):
    """Means of the gradient, the loss and `<g, p>`, and a lower bound of the loss."""

    exp_avg: Updates
    barf: jax.Array
    gamma: jax.Array
    lb: jax.Array
    count: jax.Array


class MomoAdamState(NamedTuple):
    """`MomoState` with Adam's mean squared gradient."""

    exp_avg: Updates
    exp_avg_sq: Updates
    barf: jax.Array
    gamma: jax.Array
    lb: jax.Array
    count: jax.Array


@transformation(lower_bound=FINITE, weight_decay=PLAIN_DECAY)
def momo(
    learning_rate: PerLeaf = 1.0,
    beta: float = 0.9,
    lower_bound: float = 0.0,
    weight_decay: PerLeaf = 0.0,
    adapt_lower_bound: bool = False,
    *,
    mask: MaskOrFn = None,
) -> GradientTransformationExtraArgs:
    """MoMo: momentum whose step is what a model of the loss promises, if not longer.

        m <- beta m + (1 - beta) g
        f <- beta f + (1 - beta) value
        c <- beta c + (1 - beta) <g, p>
        k  = 1 + learning_rate weight_decay
        s  = min(learning_rate, max(k (f - lb - c) + <m, p>, 0) / |m|^2)
        p <- (p - s m) / k

    from `g`, `value` and `<g, p>` of the first step. A mean gradient of zero only
    decays. There is one `s` for the whole tree: where leaves have rates of their own,
    their shares of the largest, `a`, are a preconditioner, and the step is `s a m`,
    with sums over the leaves of `<m, p> / k` and `a |m|^2 / k`. With
    `adapt_lower_bound`, as the authors propose,

        lb <- max(lower_bound, (f - c + <m, p> / k) / 2)        before, if it is above
                                                                f - c + <m, p> / k
        lb <- max(lower_bound, f - c + <m, p> - s |m|^2 / 2)    after the step

    Args:
        learning_rate: the longest step: a number, rather large, or a schedule of the
            steps taken so far; or several, as `descend` takes them.
        beta: decay of the means, in [0, 1).
        lower_bound: a lower bound of the loss; where `lb` starts.
        weight_decay: decay, not negative, in the step's model as in the step, as
            `descend` takes it.
        adapt_lower_bound: whether to estimate `lb`, where none is known.
        mask: which leaves decay, as `descend` takes it; for the others `k` is 1.

    Returns:
        A transformation whose state is `MomoState(exp_avg, barf: f32[], gamma: f32[],
        lb: f32[], count: i32[])`: `m` in the shapes of the parameters (memory: one
        copy), `f`, `c` and `lb`. The update needs the parameters and the loss:
        `update(grads, state, params, value=loss)`.

    Raises:
        ValueError: a number is outside its range, or `value` is missing.

    Example:
        >>> tx = jopt.momo()
        >>> p = jnp.array([1.0, 2.0])
        >>> loss, g = jax.value_and_grad(lambda p: jnp.sum(p**2))(p)
        >>> u, state = tx.update(g, tx.init(p), p, value=loss)
        >>> jopt.apply_updates(p, u)
        Array([0.5, 1. ], dtype=float32)

    Reference:
        Schaipp, Ohana, Eickenberg, Defazio & Gower, MoMo: Momentum Models for Adaptive
        Learning Rates, ICML 2024, arXiv:2305.07583.
    """

    def init(p):
        return dict(exp_avg=jnp.zeros_like(p))

    def mean(x, before, first):
        return jnp.where(first, x, ema(x, before, beta))

    def reduce(gs, s, ps, *, hints, owns, value=None, **extra_args):
        first = s.count == 1
        loss = loss_value("momo", value, s.barf)
        m = [mean(g, x, first) for g, x in zip(gs, s.exp_avg)]
        barf = mean(loss, s.barf, first)
        gamma = mean(_dot(gs, ps), s.gamma, first)
        rate, scales_of = _units(owns)
        groups = [
            _Group(scales_of(own), decays, _dot(ms, xs), tree.norm(ms))
            for own, decays, ms, xs in _parted(owns, hints, m, ps)
        ]
        least = lower_bound if adapt_lower_bound else None
        step, lb = _step(rate, barf - gamma, groups, s.lb, least)

        def numbers(own):
            share, decay = scales_of(own)
            return first, step * share, decay

        return numbers, dict(barf=barf, gamma=gamma, lb=lb)

    def momo(g, s, p, numbers, decays):
        first, step, decay = numbers
        m = mean(g, s.exp_avg, first)
        u = (step * m + decay * p) / (1 + decay) if decays else step * m
        return -u, s._replace(exp_avg=m)

    return per_tree(
        MomoState,
        init,
        momo,
        reduce=reduce,
        whole=dict(barf=0.0, gamma=0.0, lb=lower_bound),
        hint=which_decay(mask),
        settings=Own(learning_rate, weight_decay),
        needs_params=True,
    )


@transformation(lower_bound=FINITE, weight_decay=PLAIN_DECAY)
def momo_adam(
    learning_rate: PerLeaf = 1e-2,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    lower_bound: float = 0.0,
    weight_decay: PerLeaf = 0.0,
    adapt_lower_bound: bool = False,
    *,
    mask: MaskOrFn = None,
) -> GradientTransformationExtraArgs:
    """MoMo-Adam: Adam whose step is what a model of the loss promises, if not longer.

        m <- b1 m + (1 - b1) g
        f <- b1 f + (1 - b1) value
        c <- b1 c + (1 - b1) <g, p>
        v <- b2 v + (1 - b2) |g|^2
        D  = sqrt(v / (1 - b2^t)) + eps
        k  = 1 + learning_rate weight_decay
        s  = max(k (f - (1 - b1^t) lb - c) + <m, p>, 0) / <m, m / D>
        p <- (p - min(learning_rate / (1 - b1^t), s) m / D) / k

    A mean gradient of zero only decays. Rates of their own are for leaves what they
    are in `momo`. With `adapt_lower_bound`, `lb` is estimated as there, from means
    without the weight of their zero start.

    Args:
        learning_rate: the longest step: a number, or a schedule of the steps taken so
            far; or several, as `descend` takes them.
        b1: decay of the mean gradient and the mean loss, in [0, 1).
        b2: decay of the mean squared gradient, in [0, 1).
        eps: added outside the root, not negative.
        lower_bound: a lower bound of the loss; where `lb` starts.
        weight_decay: decay, not negative, in the step's model as in the step, as
            `descend` takes it.
        adapt_lower_bound: whether to estimate `lb`, where none is known.
        mask: which leaves decay, as `descend` takes it; for the others `k` is 1.

    Returns:
        A transformation whose state is `MomoAdamState(exp_avg, exp_avg_sq, barf:
        f32[], gamma: f32[], lb: f32[], count: i32[])`: `m` and `v` in the shapes of
        the parameters (memory: two copies), `f`, `c` and `lb`. The update needs the
        parameters and the loss: `update(grads, state, params, value=loss)`.

    Raises:
        ValueError: a number is outside its range, or `value` is missing.

    Example:
        >>> tx = jopt.momo_adam()
        >>> p = jnp.array([1.0, 2.0])
        >>> loss, g = jax.value_and_grad(lambda p: jnp.sum(p**2))(p)
        >>> u, state = tx.update(g, tx.init(p), p, value=loss)

    Reference:
        Schaipp, Ohana, Eickenberg, Defazio & Gower, MoMo: Momentum Models for Adaptive
        Learning Rates, ICML 2024, arXiv:2305.07583.
    """

    def init(p):
        return dict(exp_avg=jnp.zeros_like(p), exp_avg_sq=abs_sq(jnp.zeros_like(p)))

    def moments(g, m, v, scale):
        g = bounded(g)
        m, v = ema(g, m, b1), ema(abs_sq(g), v, b2)
        return m, v, m / (safe_sqrt(scale * v) + eps)

    def reduce(gs, s, ps, *, hints, owns, value=None, **extra_args):
        loss = loss_value("momo_adam", value, s.barf)
        rho = one_minus_power(b1, s.count).astype(s.barf.dtype)
        scale = (1 / one_minus_power(b2, s.count)).astype(s.barf.dtype)
        means = [moments(*x, scale) for x in zip(gs, s.exp_avg, s.exp_avg_sq)]
        m, u = [m for m, _, _ in means], [u for _, _, u in means]
        barf = ema(loss, s.barf, b1)
        gamma = ema(_dot(gs, ps), s.gamma, b1)
        rate, scales_of = _units(owns)
        groups = [
            _Group(
                scales_of(own),
                decays,
                _dot(ms, xs) / rho,
                safe_sqrt(_dot(ms, us) / rho),
            )
            for own, decays, ms, us, xs in _parted(owns, hints, m, u, ps)
        ]
        least = lower_bound if adapt_lower_bound else None
        step, lb = _step(rate / rho, (barf - gamma) / rho, groups, s.lb, least)

        def numbers(own):
            share, decay = scales_of(own)
            return scale, step * share, decay

        return numbers, dict(barf=barf, gamma=gamma, lb=lb)

    def momo_adam(g, s, p, numbers, decays):
        scale, step, decay = numbers
        m, v, u = moments(g, s.exp_avg, s.exp_avg_sq, scale)
        u = (step * u + decay * p) / (1 + decay) if decays else step * u
        return -u, s._replace(exp_avg=m, exp_avg_sq=v)

    return per_tree(
        MomoAdamState,
        init,
        momo_adam,
        reduce=reduce,
        whole=dict(barf=0.0, gamma=0.0, lb=lower_bound),
        hint=which_decay(mask),
        settings=Own(learning_rate, weight_decay),
        needs_params=True,
    )


class _Group(NamedTuple):
    """Leaves of one rate and decay: what the model of the loss knows of them."""

    scales: tuple[Any, Any]  # their rate over the largest, and times their decay
    decays: bool
    dot: jax.Array  # `<m, p>`, with the weights of an average
    size: jax.Array  # the norm of `m`, with the same weights


def _units(owns: list[Own]) -> tuple[Any, Callable[[Own], tuple[Any, Any]]]:
    """The largest rate, and of a leaf's settings its share of it and its decay."""
    most = largest([own.learning_rate for own in owns])

    @once_each
    def scales_of(own):
        rate = own.learning_rate
        share = 1 if rate is most else rate / jnp.where(most == 0, 1, most)
        return share, rate * own.weight_decay

    return most, scales_of


def _step(rate, gap, groups, lb, lower_bound) -> tuple[jax.Array, jax.Array]:
    """The step along the mean gradient, and the new lower bound.

    `gap` is the mean loss less the mean of `<g, p>`, with the weights of an average.
    """
    # Without leaves the sums are zeros of a dtype of their own.
    dot = jnp.zeros((), gap.dtype)
    sizes, slopes = [dot], [dot]
    ahead = gap  # the model's loss where the decay alone leads
    for group in groups:
        share, decay = group.scales
        k = 1 + decay if group.decays else 1
        ahead = ahead + group.dot / k
        dot = dot + group.dot
        sizes.append(jnp.sqrt(share) * group.size)
        slopes.append(jnp.sqrt(share / k) * group.size)
    size, slope = (norm(jnp.stack(x)) for x in (sizes, slopes))
    if lower_bound is not None:
        lb = jnp.where(ahead < lb, jnp.maximum(ahead / 2, lower_bound), lb)
    step = jnp.minimum(rate, over_square(jnp.maximum(ahead - lb, 0), slope))
    if lower_bound is not None:
        lb = jnp.maximum(gap + dot - step * size * size / 2, lower_bound)
    return step, lb


def _parted(owns: list, decays: list, *columns: list) -> list[tuple]:
    """The columns of the leaves of each group, after what their settings are."""
    groups = {}
    for own, keep, *leaf in zip(owns, decays, *columns):
        groups.setdefault((id(own), keep), (own, keep, []))[2].append(leaf)
    return [(own, keep, *map(list, zip(*some))) for own, keep, some in groups.values()]


def _dot(xs: Any, ys: Any) -> jax.Array:
    return jnp.real(tree.vdot(xs, ys))

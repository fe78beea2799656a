"""Sophia: momentum over an estimate of the Hessian's diagonal, clipped."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from .. import tree
from ..base import (
    EmptyState,
    GradientTransformation,
    GradientTransformationExtraArgs,
    MaskedNode,
    MaskOrFn,
    PerLeaf,
    Updates,
    with_extra_args_support,
)
from ..engine import per_leaf, transformation
from ..kinds import is_optimizable
from ..numerics import cast, cond, ema, one_minus_power, zeros_in
from ..parts.clip import clip
from ..parts.combine import check_transformation
from ..parts.scale import descend
from ..settings import NOT_NEGATIVE, POSITIVE, check_integer
from ..tree.devices import together

__all__ = [
    "HutchinsonState",
    "SophiaState",
    "hutchinson_estimator_diag_hessian",
    "scale_by_sophia",
    "sophia",
]


class HutchinsonState(NamedTuple):
    """The key of the next estimate."""

    key: jax.Array


class SophiaState(NamedTuple):
    """The step count, the mean gradient, the mean Hessian diagonal and its maker's."""

    count: jax.Array
    mu: Updates
    nu: Updates
    hessian_fn_state: Any


class _Curvature(NamedTuple):
    nu: Updates


class _Moments(NamedTuple):
    count: jax.Array
    mu: Updates
    nu: Updates


@transformation
def hutchinson_estimator_diag_hessian(
    random_seed: jax.Array | None = None,
) -> GradientTransformationExtraArgs:
    """Estimates the diagonal of the Hessian by one product with random signs.

        h = z * (H z)        with z of random signs

    Unbiased, of high variance.

    Args:
        random_seed: the key of the signs; key 0 if `None`.

    Returns:
        A transformation whose updates are the estimate and whose state is
        `HutchinsonState(key)`. Its update needs the parameters and the loss as a
        function of them alone, `obj_fn`.

    Raises:
        ValueError: `obj_fn` or the parameters are missing.

    Example:
        >>> tx = jopt.contrib.hutchinson_estimator_diag_hessian()
        >>> p = jnp.array([1.0, 2.0])
        >>> tx.update(p, tx.init(p), p, obj_fn=lambda p: jnp.sum(p**2))[0]
        Array([2., 2.], dtype=float32)

    Reference:
        Hutchinson, A stochastic estimator of the trace of the influence matrix, 1989.
    """

    def init(params):
        if random_seed is None:
            return HutchinsonState(jax.random.PRNGKey(0))
        return HutchinsonState(jnp.array(random_seed, copy=True))

    def update(updates, state, params=None, *, obj_fn=None, **extra_args):
        if obj_fn is None or params is None:
            missing = "obj_fn" if obj_fn is None else "params"
            raise ValueError(
                f"hutchinson_estimator_diag_hessian: {missing} is missing; call "
                "update(grads, state, params, obj_fn=lambda params: loss)"
            )
        key, now = jax.random.split(state.key)
        leaves, treedef = jax.tree.flatten(params)
        chosen = _with_gradients(leaves, treedef, updates)

        def loss(some):
            return obj_fn(
                treedef.unflatten([some.get(i, x) for i, x in enumerate(leaves)])
            )

        real = {i: jnp.asarray(leaves[i]) for i in chosen}
        signs = tree.random_like(now, real, jax.random.rademacher)
        signs = {i: cast(z, real[i].dtype) for i, z in signs.items()}
        product = jax.jvp(jax.grad(loss), (real,), (signs,))[1]
        diagonal: list[Any] = [
            None if is_optimizable(p) else MaskedNode() for p in leaves
        ]
        for i, h in product.items():
            diagonal[i] = signs[i] * h
        return treedef.unflatten(diagonal), state._replace(key=key)

    return GradientTransformationExtraArgs(init, update)


def _with_gradients(leaves: list, treedef: Any, updates: Any) -> list[int]:
    """The leaves to optimize; not those whose gradient is `None`, if that is known."""
    chosen = [i for i, p in enumerate(leaves) if is_optimizable(p)]
    try:
        gs = treedef.flatten_up_to(updates)
    except (ValueError, TypeError):
        return chosen
    return [i for i in chosen if gs[i] is not None]


@transformation(
    gamma=NOT_NEGATIVE, eps=POSITIVE, print_win_rate_every_n_steps=NOT_NEGATIVE
)
def scale_by_sophia(
    b1: float = 0.965,
    b2: float = 0.99,
    eps: float = 1e-8,
    gamma: float = 0.01,
    clip_threshold: float | None = 1.0,
    update_interval: int = 10,
    mu_dtype: DTypeLike | None = None,
    hessian_diagonal_fn: GradientTransformation | None = None,
    verbose: bool = False,
    print_win_rate_every_n_steps: int = 0,
) -> GradientTransformationExtraArgs:
    """Sophia's direction: the mean gradient over the Hessian's diagonal, clipped.

        mu <- b1 mu + (1 - b1) g
        u   = clip(mu / (1 - b1^t) / max(gamma nu, eps), clip_threshold)
        nu <- b2 nu + (1 - b2) h        every `update_interval` steps, from the first

    Args:
        b1: decay of the mean gradient, in [0, 1).
        b2: decay of the mean Hessian diagonal, in [0, 1).
        eps: lower bound of the divisor, positive.
        gamma: factor of the Hessian diagonal, not negative.
        clip_threshold: the largest element of a direction, not negative; none if
            `None`.
        update_interval: how often the diagonal is estimated, positive.
        mu_dtype: dtype `mu` is stored in. The parameter's, or float32 if that has 16
            bits, if `None`.
        hessian_diagonal_fn: the transformation whose updates are the estimate `h`;
            Hutchinson's if `None`.
        verbose, print_win_rate_every_n_steps: whether, and how often, to print the
            share of elements that are not clipped.

    Returns:
        A transformation whose state is `SophiaState(count: i32[], mu, nu,
        hessian_fn_state)`; `mu` and `nu` have the shapes of the parameters (memory: two
        copies). Its update takes what the estimator does, `obj_fn` for Hutchinson's.

    Example:
        >>> tx = jopt.chain(jopt.contrib.scale_by_sophia(), jopt.scale(-1e-3))

    Reference:
        Liu, Li, Hall, Liang & Ma, Sophia: A Scalable Stochastic Second-order Optimizer
        for Language Model Pre-training, ICLR 2024, arXiv:2305.14342.
    """
    check_integer("scale_by_sophia", "update_interval", update_interval)
    if hessian_diagonal_fn is None:
        hessian_diagonal_fn = hutchinson_estimator_diag_hessian()
    check_transformation("scale_by_sophia", "hessian_diagonal_fn", hessian_diagonal_fn)
    estimator = with_extra_args_support(hessian_diagonal_fn)

    def init_leaf(p):
        return dict(mu=zeros_in(p, mu_dtype), nu=jnp.zeros_like(p))

    def each(t):
        return 1 / one_minus_power(b1, t)

    def scale_by_sophia(g, s, p, scale):
        mu = ema(g, s.mu, b1)
        u = scale * mu / jnp.maximum(gamma * s.nu, eps)
        return u, s._replace(mu=mu)

    direction: Any = per_leaf(_Moments, init_leaf, scale_by_sophia, each=each)

    def init_curvature(p):
        return dict(nu=jnp.zeros_like(p))

    def mean_curvature(h, s, p):
        return h, s._replace(nu=ema(h, s.nu, b2))

    average: Any = per_leaf(_Curvature, init_curvature, mean_curvature)

    def init(params):
        moments = direction.init(params)
        fn_state = estimator.init(params)
        return SophiaState(moments.count, moments.mu, moments.nu, fn_state)

    def update(updates, state, params=None, **extra_args):
        moments = _Moments(state.count, state.mu, state.nu)
        u, moments = direction.update(updates, moments, params)
        bound: Any = clip_threshold
        if bound is not None:
            if verbose and print_win_rate_every_n_steps > 0:
                _print_win_rate(u, bound, moments.count, print_win_rate_every_n_steps)
            u, _ = clip(bound).update(u, EmptyState())

        def estimate():
            h, fn_state = estimator.update(
                updates, state.hessian_fn_state, params, **extra_args
            )
            _, mean = average.update(h, _Curvature(moments.nu))
            return mean.nu, fn_state

        def keep():
            return moments.nu, state.hessian_fn_state

        now = state.count % update_interval == 0
        nu, fn_state = cond(now, estimate, keep)
        new = dict(count=moments.count, mu=moments.mu, nu=nu)
        return u, state._replace(**new, hessian_fn_state=fn_state)

    return GradientTransformationExtraArgs(init, update)


def _print_win_rate(updates: Updates, bound: float, count: jax.Array, every: int):
    leaves = jax.tree.leaves(updates)
    free = sum(together([jnp.sum(jnp.abs(u) < bound) for u in leaves]))
    rate = free / sum(u.size for u in leaves)
    cond(
        count % every == 0,
        lambda: jax.debug.print("Sophia optimizer win rate: {}", rate),
        lambda: None,
    )


@transformation(
    gamma=NOT_NEGATIVE, eps=POSITIVE, print_win_rate_every_n_steps=NOT_NEGATIVE
)
def sophia(
    learning_rate: PerLeaf,
    b1: float = 0.965,
    b2: float = 0.99,
    eps: float = 1e-8,
    weight_decay: PerLeaf = 1e-4,
    weight_decay_mask: MaskOrFn | Callable[..., Any] = None,
    gamma: float = 0.01,
    clip_threshold: float | None = 1.0,
    update_interval: int = 10,
    hessian_diagonal_fn: GradientTransformation | None = None,
    mu_dtype: DTypeLike | None = None,
    verbose: bool = False,
    print_win_rate_every_n_steps: int = 0,
) -> GradientTransformationExtraArgs:
    """Sophia: steps by curvature where it is known, by sign where it is not.

        p <- p - learning_rate (u + weight_decay p)        with u of `scale_by_sophia`

    Args:
        learning_rate: as `descend` takes it.
        b1, b2, eps, gamma, clip_threshold, update_interval, hessian_diagonal_fn,
            mu_dtype, verbose, print_win_rate_every_n_steps: as `scale_by_sophia` takes
            them.
        weight_decay, weight_decay_mask: as `descend` takes them.

    Returns:
        A transformation whose state is `(SophiaState, EmptyState, EmptyState)` (memory:
        two copies of the parameters). The update needs the parameters and `obj_fn`, the
        loss as a function of them.

    Example:
        >>> tx = jopt.contrib.sophia(1e-3)
        >>> p = jnp.ones(2)
        >>> loss = lambda p: jnp.sum(p**2)
        >>> u, state = tx.update(jax.grad(loss)(p), tx.init(p), p, obj_fn=loss)

    Reference:
        Liu, Li, Hall, Liang & Ma, Sophia: A Scalable Stochastic Second-order Optimizer
        for Language Model Pre-training, ICLR 2024, arXiv:2305.14342.
    """
    direction = scale_by_sophia(
        b1,
        b2,
        eps,
        gamma,
        clip_threshold,
        update_interval,
        mu_dtype,
        hessian_diagonal_fn,
        verbose,
        print_win_rate_every_n_steps,
    )
    return descend(direction, learning_rate, weight_decay, weight_decay_mask)

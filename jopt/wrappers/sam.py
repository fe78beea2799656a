"""SAM: the gradient where the loss near the parameters is largest."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..base import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    OptState,
    Params,
    Updates,
)
from ..engine import (
    Leaves,
    begun_anew,
    in_types_of,
    keep_types,
    per_tree,
    transformation,
    wrap,
)
from ..kinds import is_inexact_value
from ..numerics import cast, compute_dtype
from ..parts.combine import check_transformation
from ..settings import check_integer
from .branch import as_updates, check_state, choose_step, of_slots

__all__ = ["SAMState", "sam"]


class SAMState(NamedTuple):
    """Ascents since the last descent, both states, and where the ascent began."""

    steps_since_sync: jax.Array
    opt_state: OptState
    adv_state: OptState
    cache: Params | None


class _Cache(NamedTuple):
    cache: Params


@transformation
def sam(
    optimizer: GradientTransformation,
    adv_optimizer: GradientTransformation,
    sync_period: int = 2,
    reset_state: bool = True,
    opaque_mode: bool = False,
    batch_axis_name: str | None = None,
) -> GradientTransformationExtraArgs:
    """Sharpness-aware minimization: descends by the gradient from uphill.

        q <- q - u(g at q)        with u of `adv_optimizer`: `sync_period - 1` times,
                                  from q = p
        p <- p + u(g at q)        with u of `optimizer`

    In the paper the ascent is one normalized step of length rho:
    `adv_optimizer=chain(contrib.normalize(), sgd(rho))`.

    Without `opaque_mode` each call of `update` takes one of these steps: the caller's
    parameters are q while p waits in the state, and p after every `sync_period`-th
    call. With it one call takes all of them, and calls `grad_fn(q, i)` for the
    gradients after the i-th ascent, i from 0.

    Args:
        optimizer: the transformation that descends.
        adv_optimizer: the transformation whose steps are taken backwards to ascend.
        sync_period: calls, or gradients, from one descent to the next, at least 1.
        reset_state: whether `adv_optimizer` starts anew after each descent.
        opaque_mode: whether one call takes all steps, so that the caller never sees q.
        batch_axis_name: an axis of `vmap` or `shard_map` that the gradients of
            `grad_fn` are averaged over, in opaque mode.

    Returns:
        A transformation whose state is `SAMState(steps_since_sync: i32[], opt_state,
        adv_state, cache)`; `cache` has the shapes of the parameters (memory: one copy
        more than both), and is `None` in opaque mode. The update needs the parameters,
        in opaque mode also `update(grads, state, params, grad_fn=grad_fn)`.

    Raises:
        ValueError: `sync_period` is less than 1, or `params` or `grad_fn` is missing.
        TypeError: an optimizer is no transformation.

    Example:
        >>> rho = jopt.chain(jopt.contrib.normalize(), jopt.sgd(0.1))
        >>> tx = jopt.sam(jopt.sgd(0.5), rho, opaque_mode=True)
        >>> grad = jax.grad(lambda p: p**2)
        >>> p = jnp.array(1.0)
        >>> u, state = tx.update(
        ...     grad(p), tx.init(p), p, grad_fn=lambda q, i: grad(q))
        >>> round(float(p + u), 4)
        -0.1

    Reference:
        Foret, Kleiner, Mobahi & Neyshabur, Sharpness-Aware Minimization for Efficiently
        Improving Generalization, ICLR 2021, arXiv:2010.01412.
    """
    check_transformation("sam", "optimizer", optimizer)
    check_transformation("sam", "adv_optimizer", adv_optimizer)
    check_integer("sam", "sync_period", sync_period)
    origin = _origin()

    def build(opt, adv):
        def init(params):
            return SAMState(
                steps_since_sync=jnp.zeros((), jnp.int32),
                opt_state=opt.init(params),
                adv_state=adv.init(params),
                cache=None if opaque_mode else origin.init(params).cache,
            )

        def update(updates, state, params=None, **extra_args):
            check_state("sam", state, SAMState)
            if params is None:
                raise ValueError(
                    "sam: params is missing; call update(grads, state, params)"
                )
            if opaque_mode:
                return all_steps(updates, state, params, **extra_args)
            return one_step(updates, state, params, **extra_args)

        def ascend(g, adv_state, q, extra_args):
            u, new = adv.update(g, adv_state, q, **extra_args)
            u = jax.tree.map(lambda x: -x if is_inexact_value(x) else x, u)
            return as_updates(u, g), in_types_of(adv_state, new)

        def descend(g, state, p, extra_args):
            u, new = opt.update(g, state.opt_state, p, **extra_args)
            adv_state = state.adv_state
            if reset_state:
                adv_state = begun_anew(adv_state, adv.init(p))
            new = in_types_of(state.opt_state, new)
            return as_updates(u, g), state._replace(opt_state=new, adv_state=adv_state)

        def one_step(g, state, q, **extra_args):
            g = of_slots(g, state.cache)
            first = state.steps_since_sync == 0
            last = state.steps_since_sync >= sync_period - 1
            p, now = origin.update(q, _Cache(state.cache), q, first=first)
            p = jax.tree.map(
                lambda x, y: x if y is None else y, q, p
            )  # it has no origin

            def up():
                u, adv_state = ascend(g, state.adv_state, q, extra_args)
                return u, state._replace(adv_state=adv_state)

            def down():
                u, new = descend(g, state, p, extra_args)
                return _from(q, p, u), new

            u, state = choose_step(last, g, q, up, down)
            steps = jnp.where(last, 0, state.steps_since_sync + 1)
            return u, state._replace(steps_since_sync=steps, cache=now.cache)

        def all_steps(g, state, p, *, grad_fn=None, **extra_args):
            if grad_fn is None:
                raise ValueError(
                    "sam: grad_fn is missing, the function of parameters and number "
                    "that opaque_mode needs; call update(grads, state, params, "
                    "grad_fn=grad_fn)"
                )
            q = p
            for i in range(sync_period - 1):
                u, adv_state = ascend(g, state.adv_state, q, extra_args)
                q, state = _plus(q, u), state._replace(adv_state=adv_state)
                grads = grad_fn(q, i)
                if batch_axis_name is not None:
                    grads = jax.lax.pmean(grads, batch_axis_name)
                g = keep_types(grads, g)
            return descend(g, state, p, extra_args)

        return init, update

    return wrap(build, opt_state=optimizer, adv_state=adv_optimizer)


def _origin() -> GradientTransformationExtraArgs:
    """Turns the parameters into those of the last call that was `first`."""

    def init(p):
        return dict(cache=p)

    def reduce(qs, s, ps, *, first, **extra_args):
        return first, {}

    def sam(q, s, p, first):
        cache = jnp.where(first, q, s.cache)
        return cache, s._replace(cache=cache)

    return per_tree(_Cache, init, sam, reduce=reduce)


def _plus(params: Params, updates: Updates) -> Params:
    leaves = Leaves(updates, params)
    for i, live in enumerate(leaves.optimized):
        if live:
            p: Any = leaves.p[i]
            leaves.p[i] = cast(_wide(p, leaves.g[i]) + _wide(leaves.g[i], p), p.dtype)
    return leaves.tree(leaves.p)


def _from(params: Params, origin: Params, updates: Updates) -> Updates:
    """The updates that bring the parameters to where others bring the origin."""
    leaves, start = Leaves(updates, params), Leaves(updates, origin)
    for i, live in enumerate(leaves.optimized):
        if live:
            u, q, p = leaves.g[i], leaves.p[i], start.p[i]
            back = _wide(p, u) - _wide(q, u)
            leaves.g[i] = cast(back + _wide(u, p), u.dtype)
    return leaves.tree(leaves.g)


def _wide(x: Any, y: Any) -> jax.Array:
    return cast(x, compute_dtype(x.dtype, y.dtype))

"""Mechanic: the learning rate of any optimizer, found by betting on its updates."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .. import tree
from ..base import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    OptState,
    Params,
    PerLeaf,
    with_extra_args_support,
)
from ..engine import transformation
from ..engine.leaves import Leaves
from ..engine.types import in_types_of
from ..engine.whole import Own, per_tree
from ..parts.combine import check_transformation
from ..settings import PLAIN_DECAY, POSITIVE, check_integer
from .branch import as_updates, check_state, of_slots

__all__ = ["MechanicState", "mechanize"]


class MechanicState(NamedTuple):
    """The base optimizer's state, the bettors', and where it began."""

    base_optimizer_state: OptState
    count: jax.Array
    r: jax.Array
    m: jax.Array
    v: jax.Array
    s: jax.Array
    x0: Params


class _Bets(NamedTuple):
    count: jax.Array
    r: jax.Array
    m: jax.Array
    v: jax.Array
    s: jax.Array
    x0: Params


@transformation(eps=POSITIVE, s_init=POSITIVE, weight_decay=PLAIN_DECAY)
def mechanize(
    base_optimizer: GradientTransformation,
    weight_decay: PerLeaf = 1e-2,
    eps: float = 1e-8,
    s_init: float = 1e-6,
    num_betas: int = 6,
) -> GradientTransformationExtraArgs:
    """Mechanic: finds the scale of any optimizer's updates by betting on them.

        D  = (p - x0) / (sum(s) + eps)        the updates so far, unscaled
        h  = <D, g + weight_decay sum(s) |g| p / (|p| + eps)>
        r <- beta r - s clip(h, -m, m)
        m <- max(beta m, |h| + eps)
        v <- beta^2 v + h^2
        s <- (s_init / num_betas m + max(r, 0)) / (sqrt(v) + eps)
        p <- x0 + sum(s) (D + u)              with u of `base_optimizer`

    with one `r`, `m`, `v` and `s` for each `beta` of 0.9, 0.99, 0.999, ... Gradients of
    zero move nothing and leave every `s` at `s_init / num_betas`. `v` holds the square
    of `h`, which is two gradients in one where the updates grow with the gradient: in
    float32 such a base optimizer is for gradients up to 1e9.

    Args:
        base_optimizer: the transformation to scale; its learning rate is best 1, or a
            schedule from 1. Not one that normalizes by the parameters, as LAMB does.
        weight_decay: draws the scale down, not negative, as `descend` takes it.
        eps: keeps the quotients finite, positive.
        s_init: where every `s` starts, positive.
        num_betas: how many scales are summed, at least 1.

    Returns:
        A transformation whose state is `MechanicState(base_optimizer_state, count:
        i32[], r, m, v, s: f32[num_betas], x0)`; `x0` in the shapes of the parameters
        (memory: one copy more than `base_optimizer`). The update needs the parameters.

    Raises:
        ValueError: a number is outside its range.
        TypeError: `base_optimizer` is no transformation.

    Example:
        >>> tx = jopt.mechanize(jopt.adam(1.0))

    Reference:
        Cutkosky, Defazio & Mehta, Mechanic: A Learning Rate Tuner, NeurIPS 2023,
        arXiv:2306.00144. The clip of `h` is that of its analysis; its algorithm 1 cuts
        off `r` at zero in its place.
    """
    check_transformation("mechanize", "base_optimizer", base_optimizer)
    check_integer("mechanize", "num_betas", num_betas)
    base = with_extra_args_support(base_optimizer)
    bets = _bets(weight_decay, eps, s_init, num_betas)

    def init(params):
        return MechanicState(base.init(params), *bets.init(params))

    def update(updates, state, params=None, **extra_args):
        check_state("mechanize", state, MechanicState)
        if params is None:
            raise ValueError(
                "mechanize: params is missing; call update(updates, state, params)"
            )
        updates = of_slots(updates, state.x0)
        leaves = Leaves(updates, params)
        gs = [g for g, live in zip(leaves.g, leaves.live) if live]
        old = state.base_optimizer_state
        u, new = base.update(updates, old, params, **extra_args)
        u = as_updates(u, updates)
        u, now = bets.update(u, _Bets(*state[1:]), params, gradients=gs)
        return u, type(state)(in_types_of(old, new), *now)

    return GradientTransformationExtraArgs(init, update)


def _bets(weight_decay, eps, s_init, n) -> GradientTransformationExtraArgs:
    """Scales the base optimizer's updates, given the gradients they were made of."""

    def init(p):
        return dict(x0=p)

    def reduce(us, s, ps, *, gradients, owns, **extra_args):
        dtype = s.s.dtype
        beta = jnp.asarray([1 - 0.1**i for i in range(1, n + 1)], dtype)
        scale = jnp.sum(s.s)
        g_norm, p_norm = tree.norm(gradients), tree.norm(ps)
        pull = scale * g_norm.astype(dtype) / (p_norm + eps)
        way = tree.sub(ps, s.x0)
        h = _dot(way, gradients, dtype)
        for decay, ways, xs in _by_decay(owns, way, ps):
            h = h + decay * pull * _dot(ways, xs, dtype)
        h = h / (scale + eps)
        r = beta * s.r - s.s * jnp.clip(h, -s.m, s.m)
        m = jnp.maximum(beta * s.m, jnp.abs(h) + eps)
        v = beta**2 * s.v + h**2
        new = (s_init / n * m + jnp.maximum(r, 0)) / (jnp.sqrt(v) + eps)
        numbers = scale + eps, jnp.sum(new)
        return lambda own: numbers, dict(r=r, m=m, v=v, s=new)

    def mechanize(u, s, p, numbers):
        before, after = numbers
        way = p - s.x0
        return after * (way / before + u) - way, s

    def zeros(ps):
        return jnp.zeros((n,))

    return per_tree(
        _Bets,
        init,
        mechanize,
        reduce=reduce,
        whole=dict(r=zeros, m=zeros, v=zeros, s=lambda ps: jnp.full((n,), s_init)),
        settings=Own(1.0, weight_decay),
        needs_params=True,
    )


def _by_decay(owns: list[Own], *columns: list) -> list[tuple]:
    """The decay and the columns of the leaves that have one decay."""
    some = {}
    for own, *leaf in zip(owns, *columns):
        some.setdefault(id(own), (own.weight_decay, []))[1].append(leaf)
    return [(decay, *map(list, zip(*leaves))) for decay, leaves in some.values()]


def _dot(xs: Any, ys: Any, dtype: Any) -> jax.Array:
    return jnp.real(tree.vdot(xs, ys)).astype(dtype)

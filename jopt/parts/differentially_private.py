"""Gradients of single examples, clipped, summed and blurred."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ..base import GradientTransformationExtraArgs, Params, Updates
from ..deprecated import seed_as_key
from ..engine import transformation
from ..engine.leaves import Leaves
from ..numerics import cast, compute_dtype
from ..settings import NOT_NEGATIVE, POSITIVE
from ..words import explain, spell
from .noise import key_of
from .per_example import per_example_global_norm_clip

__all__ = ["DifferentiallyPrivateAggregateState", "differentially_private_aggregate"]


class DifferentiallyPrivateAggregateState(NamedTuple):
    """The key of the next step's noise."""

    rng_key: jax.Array


@transformation(
    normal=seed_as_key, l2_norm_clip=POSITIVE, noise_multiplier=NOT_NEGATIVE
)
def differentially_private_aggregate(
    l2_norm_clip: float,
    noise_multiplier: float,
    key: ArrayLike | None = None,
    *,
    seed: int | None = None,
) -> GradientTransformationExtraArgs:
    """The private mean of the examples' gradients: each is clipped, and noise added.

        u = (sum_i g_i / max(1, |g_i| / l2_norm_clip) + s n) / batch
        s = noise_multiplier l2_norm_clip        with n normal

    It takes gradients `[batch, ...]`, one for each example (by `jax.vmap`), and so is
    the first part of a chain; what comes after it sees their mean. Do not put it inside
    of what collects gradients, such as `MultiSteps`.

    Args:
        l2_norm_clip: the largest norm of an example's gradient, positive.
        noise_multiplier: the noise's standard deviation over that norm, not negative.
        key: a key, or an integer to make one of.
        seed: an integer; the older name of the same, deprecated.

    Returns:
        A transformation whose state is
        `DifferentiallyPrivateAggregateState(rng_key: key[])`.

    Raises:
        ValueError: a leaf has no batch axis, or one of another length; a number is
            outside its range; neither `key` nor `seed` is given, or both are.

    Example:
        >>> tx = jopt.differentially_private_aggregate(1.0, 0.0, key=0)
        >>> g = jnp.array([[3.0, 4.0], [0.0, 0.0]])
        >>> tx.update(g, tx.init(jnp.zeros(2)))[0]
        Array([0.3, 0.4], dtype=float32)

    Reference:
        Abadi et al., Deep Learning with Differential Privacy, CCS 2016,
        arXiv:1607.00133, algorithm 1.
    """
    first_key = key_of("differentially_private_aggregate", key, seed)

    def init(params):
        return DifferentiallyPrivateAggregateState(first_key())

    def update(updates, state, params=None, **extra_args):
        leaves = Leaves(updates, None)
        if params is not None:
            _check_shapes(leaves, updates, params)
        live = [i for i, is_live in enumerate(leaves.live) if is_live]
        gs = [leaves.g[i] for i in live]
        wide = [cast(g, compute_dtype(g.dtype)) for g in gs]
        sums, _ = per_example_global_norm_clip(wide, l2_norm_clip)
        next_key, *keys = jax.random.split(state.rng_key, len(live) + 1)
        deviation = noise_multiplier * l2_norm_clip
        for i, g, total, k in zip(live, gs, sums, keys):
            noise = jax.random.normal(k, total.shape, total.dtype)
            total = total + jnp.asarray(deviation, total.dtype) * noise
            leaves.g[i] = cast(total / len(g), g.dtype)
        return leaves.tree(leaves.g), DifferentiallyPrivateAggregateState(next_key)

    return GradientTransformationExtraArgs(init, update)


def _check_shapes(leaves: Leaves, updates: Updates, params: Params) -> None:
    try:
        ps = leaves.treedef.flatten_up_to(params)
    except (ValueError, TypeError):
        words = explain("updates", updates, "params", params)
        raise ValueError(f"differentially_private_aggregate: {words}") from None
    for i, live in enumerate(leaves.live):
        if live and leaves.g[i].shape[1:] != jnp.shape(ps[i]):
            raise ValueError(
                f"differentially_private_aggregate: updates at {leaves.path(i)} is "
                f"{spell(leaves.g[i])}, params there is {spell(ps[i])}: expected one "
                "gradient for each example, [batch, ...]; jax.vmap makes them"
            )

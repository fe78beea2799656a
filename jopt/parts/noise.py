"""Noise on the gradients."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ..base import (
    GradientTransformationExtraArgs,
    OptState,
    Params,
    Updates,
)
from ..deprecated import seed_as_key
from ..engine import Leaves, transformation, whole_tree
from ..kinds import is_key
from ..numerics import cast, compute_dtype, safe_increment
from ..settings import FINITE, check_integer
from ..words import spell

__all__ = ["AddNoiseState", "add_noise"]


class AddNoiseState(NamedTuple):
    """The step count and the key of the next step's noise."""

    count: jax.Array
    rng_key: jax.Array


def key_of(
    where: str, key: ArrayLike | None, seed: int | None
) -> Callable[[], jax.Array]:
    """What makes a typed key, of a key or of an integer; no array until called."""
    if key is not None and seed is not None:
        raise ValueError(f"{where}: give key or seed, not both")
    key = seed if key is None else key
    if key is None:
        raise ValueError(f"{where}: key is missing; give jax.random.key(0), say")
    if isinstance(key, (bool, int, float, complex, str)):
        check_integer(where, "key", key, low=None)
        return functools.partial(jax.random.key, key)
    if not hasattr(key, "dtype"):
        raise TypeError(f"{where}: key must be a key or an integer, got {spell(key)}")
    key = jnp.asarray(key)
    if key.ndim == 0 and is_key(key):
        typed = key
    elif key.ndim == 0 and jnp.issubdtype(key.dtype, jnp.integer):
        typed = jax.random.key(key)
    elif key.ndim == 1 and key.dtype == jnp.uint32:
        typed = jax.random.wrap_key_data(key)
    else:
        raise TypeError(f"{where}: key must be a key or an integer, got {spell(key)}")
    return functools.partial(jax.random.clone, typed)


@transformation(normal=seed_as_key, gamma=FINITE)
def add_noise(
    eta: float,
    gamma: float,
    key: ArrayLike | None = None,
    *,
    seed: int | None = None,
) -> GradientTransformationExtraArgs:
    """Adds Gaussian noise to the gradients, less at every step.

        u = g + sqrt(eta / t^gamma) n        with n normal, of its own for each leaf

    Drawn in float32 at least; complex leaves get half the variance in either part.

    Args:
        eta: variance of the noise at the first step, not negative.
        gamma: how fast it falls.
        key: a key, or an integer to make one of.
        seed: an integer; the older name of the same, deprecated.

    Returns:
        A transformation whose state is `AddNoiseState(count: i32[], rng_key: key[])`.

    Raises:
        ValueError: neither `key` nor `seed` is given, or both are.
        TypeError: it is no key or integer.

    Example:
        >>> tx = jopt.add_noise(0.01, 0.55, jax.random.key(0))

    Reference:
        Neelakantan et al., Adding Gradient Noise Improves Learning for Very Deep
        Networks, 2015, arXiv:1511.06807.
    """
    first_key = key_of("add_noise", key, seed)

    def init(params: Params) -> OptState:
        return AddNoiseState(jnp.zeros((), jnp.int32), first_key())

    def update(
        updates: Updates, state: OptState, params: Params | None = None, **extra_args
    ) -> tuple[Updates, OptState]:
        leaves = Leaves(updates, params)
        count = safe_increment(state.count)
        next_key, now = jax.random.split(state.rng_key)
        t = count.astype(jnp.result_type(float))
        deviation = jnp.sqrt(
            jnp.asarray(eta, t.dtype) / t ** jnp.asarray(gamma, t.dtype)
        )
        live = [i for i, is_live in enumerate(leaves.optimized) if is_live]
        keys = jax.random.split(now, len(live)) if live else ()
        for i, k in zip(live, keys):
            g = leaves.g[i]
            dtype = compute_dtype(g.dtype)  # 16 bits are too few to draw from
            noise = cast(deviation, dtype) * jax.random.normal(k, g.shape, dtype)
            leaves.g[i] = cast(cast(g, dtype) + noise, g.dtype)
        return leaves.tree(leaves.g), AddNoiseState(count, next_key)

    return whole_tree(init, update)

"""Lion: the sign of a momentum that looks ahead (Chen et al., 2023, algorithm 2)."""

from typing import NamedTuple

import jax.numpy as jnp

import jopt


class LionState(NamedTuple):
    mu: jopt.Updates


@jopt.transformation
def lion(learning_rate: float, b1: float = 0.9, b2: float = 0.99):
    def init(p):
        return dict(mu=jnp.zeros_like(p))

    def update(g, s, p):
        u = jnp.sign(b1 * s.mu + (1 - b1) * g)
        mu = b2 * s.mu + (1 - b2) * g
        return -learning_rate * u, dict(mu=mu)

    return jopt.per_leaf(LionState, init, update)

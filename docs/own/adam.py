"""Adam: two moments without the bias of their start (Kingma & Ba, 2015)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

import jopt


class AdamState(NamedTuple):
    count: jax.Array  # the engine counts
    mu: jopt.Updates
    nu: jopt.Updates


@jopt.transformation
def adam(learning_rate: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8):
    def init(p):
        return dict(mu=jnp.zeros_like(p), nu=jnp.zeros_like(p))

    def each(t):  # once a step, whatever the number of leaves
        return jopt.one_minus_power(b1, t), jopt.one_minus_power(b2, t)

    def update(g, s, p, corrections):
        of_mu, of_nu = corrections
        mu = jopt.tree.update_moment(g, s.mu, b1, 1)
        nu = jopt.tree.update_moment(g, s.nu, b2, 2)
        u = (mu / of_mu) / (jnp.sqrt(nu / of_nu) + eps)
        return -learning_rate * u, dict(mu=mu, nu=nu)

    return jopt.per_leaf(AdamState, init, update, each=each)

"""Clipping by the global norm (Pascanu et al., 2013)."""

import jax.numpy as jnp

import jopt


@jopt.transformation
def clip(max_norm: float):
    def once(at):
        return jnp.minimum(1.0, max_norm / jopt.tree.norm(at.gs)), {}

    def update(g, s, p, factor):
        return factor * g, s

    return jopt.per_leaf(jopt.EmptyState, lambda p: {}, update, once=once)

"""DoG: the distance from the start over the gradients (Ivgi et al., 2023)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

import jopt


class DoGState(NamedTuple):
    start: jopt.Updates  # of each leaf
    distance: jax.Array  # of the whole tree: the largest so far
    total: jax.Array  # and the sum of all squared gradients


@jopt.transformation
def dog(first_step: float = 1e-6, eps: float = 1e-8):
    def init(p):
        return dict(start=p)

    def once(at):  # all leaves at once: lists of arrays
        come = jopt.tree.norm(jopt.tree.sub(at.ps, at.s.start))
        distance = jnp.maximum(at.s.distance, come)
        total = at.s.total + jopt.tree.norm(at.gs, squared=True)
        step = distance / jnp.sqrt(total + eps)
        return step, dict(distance=distance, total=total)

    def update(g, s, p, step):
        return -step * g, s

    whole = dict(distance=first_step, total=0.0)
    return jopt.per_leaf(
        DoGState, init, update, once=once, whole=whole, needs_params=True
    )

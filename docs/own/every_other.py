"""A wrapper: a step of the optimizer inside at every other call."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

import jopt


class EveryOtherState(NamedTuple):
    calls: jax.Array
    kept: jopt.OptState


@jopt.transformation
def every_other(inner: jopt.GradientTransformation):
    def build(inner):
        def init(params):
            return EveryOtherState(jnp.zeros((), jnp.int32), inner.init(params))

        def update(updates, state, params=None, **extra_args):
            def step():
                return inner.update(updates, state.kept, params, **extra_args)

            def wait():
                return jax.tree.map(jnp.zeros_like, updates), state.kept

            new, kept = jax.lax.cond(state.calls % 2 == 0, step, wait)
            return new, EveryOtherState(state.calls + 1, kept)

        return init, update

    return jopt.wrap(build, kept=inner)

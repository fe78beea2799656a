"""Every method takes two steps, eager and compiled: on any JAX and Python supported.

It needs little beside jopt, so that it installs with the oldest JAX.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from tests.catalogue import METHODS

SHAPES = {"w": (4, 6), "b": (6,), "s": ()}


def random_tree(seed):
    rng = np.random.default_rng(seed)
    return {k: jnp.asarray(rng.normal(size=s), jnp.float32) for k, s in SHAPES.items()}


def two_steps(row, init, update):
    """The parameters and the state after two steps."""
    params = random_tree(0)
    state = init(params)
    for seed in (1, 2):
        extra = row.extra(params) if row.extra else {}
        params, state = update(random_tree(seed), state, params, extra)
    return params, state


@pytest.mark.parametrize("row", METHODS.values(), ids=lambda row: row.id)
def test_two_steps(row):
    tx = row.make()

    def update(grads, state, params, extra):
        updates, state = tx.update(grads, state, params, **extra)
        return jopt.apply_updates(params, updates), state

    def compiled(grads, state, params, extra):
        values = {k: x for k, x in extra.items() if not callable(x)}
        functions = {k: x for k, x in extra.items() if callable(x)}

        def step(grads, state, params, values):
            return update(grads, state, params, values | functions)

        return jax.jit(step)(grads, state, params, values)

    eager = two_steps(row, tx.init, update)
    jitted = two_steps(row, jax.jit(tx.init), compiled)
    assert jax.tree.structure(eager) == jax.tree.structure(jitted)
    for x, y in zip(jax.tree.leaves(eager), jax.tree.leaves(jitted)):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
        if not jnp.issubdtype(x.dtype, jax.dtypes.extended):
            np.testing.assert_allclose(x, y, rtol=2e-4, atol=1e-5)
    assert all(jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(eager[0]))

"""The same bits where the same numbers enter a program in another way.

Not asked: `1 - b2` of the number that was written and of the one that a state holds,
which is rounded to float32, are two; decision 0010 says what else differs, and why.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt

PARAMS = {
    "w": jnp.asarray(np.random.default_rng(0).normal(size=(6, 5)), jnp.float32),
    "b": jnp.asarray(np.random.default_rng(1).normal(size=(7,)), jnp.float32),
}
GRADS = [
    jax.tree.map(lambda x, k=k: jnp.sin(k * x + k), PARAMS) for k in (1.0, 2.0, 3.0)
]
METHODS = ["adagrad", "adam", "lamb", "lion", "radam", "rprop", "sgd", "sm3"]
RATE_ALONE = ["adagrad", "fromage", "noisy_sgd", "rprop", "sgd", "sign_sgd", "signum"]


def run(tx, compiled=True):
    update = jax.jit(tx.update) if compiled else tx.update
    params, state = PARAMS, tx.init(PARAMS)
    seen = []
    for g in GRADS:
        u, state = update(g, state, params)
        params = jopt.apply_updates(params, u)
        seen += [u, params]
    return seen


def assert_same(found, want):
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("name", METHODS)
def test_a_rate_as_a_number_an_array_or_a_constant_schedule(name):
    factory = getattr(jopt, name)
    want = run(factory(0.01))
    assert_same(run(factory(jopt.constant_schedule(0.01))), want)
    assert_same(run(factory(jnp.float32(0.01))), want)


@pytest.mark.parametrize("name", METHODS)
def test_an_update_outside_of_jit(name):
    tx = getattr(jopt, name)(0.01)
    assert_same(run(tx, compiled=False), run(tx))


@pytest.mark.parametrize("name", RATE_ALONE)
def test_injected_settings_of_a_method_without_a_decay(name):
    factory = getattr(jopt, name)
    key = dict(key=0) if name == "noisy_sgd" else {}
    want = run(factory(0.01, **key))
    assert_same(run(jopt.inject_hyperparams(factory)(0.01, **key)), want)

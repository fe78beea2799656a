"""The parameters to evaluate with, found through every wrapper."""

import chex
import jax
import jax.numpy as jnp
import pytest

import jopt

P = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}
G = {"w": jnp.full((2, 3), 0.5), "b": jnp.ones(3)}
FREE = jopt.schedule_free_sgd(0.1)

WRAPPED = {
    "alone": lambda tx: tx,
    "chain": lambda tx: jopt.chain(jopt.clip(9.0), tx),
    "multi_steps": lambda tx: jopt.multi_steps(tx, 1),
    "apply_if_finite": lambda tx: jopt.apply_if_finite(tx, 2),
    "masked": lambda tx: jopt.masked(tx, {"w": True, "b": True}),
    "inject": lambda tx: jopt.inject_hyperparams(lambda rate: tx)(rate=0.1),
}
wrapped = pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)


def two_steps(tx, params):
    state = tx.init(params)
    for _ in range(2):
        u, state = tx.update(G, state, params)
        params = jopt.apply_updates(params, u)
    return state, params


@wrapped
def test_schedule_free(wrap):
    state, params = two_steps(wrap(FREE), P)
    x = jopt.eval_params(state, params)
    # z1 = p - g / 10, z2 = p - 2 g / 10, and both weigh the same in x
    want = jax.tree.map(lambda p, g: p - 0.15 * g, P, G)
    chex.assert_trees_all_close(x, want, rtol=1e-6)


def test_lookahead():
    tx = jopt.chain(jopt.lookahead(jopt.sgd(0.1), 2, 0.5))
    state, params = two_steps(tx, jopt.LookaheadParams.init_synced(P))
    want = jax.tree.map(lambda p, g: p - 0.1 * g, P, G)
    chex.assert_trees_all_close(jopt.eval_params(state, params), want, rtol=1e-6)
    with pytest.raises(TypeError, match=r"eval_params: .* must be LookaheadParams"):
        jopt.eval_params(state, P)


@wrapped
def test_nothing_averages(wrap):
    assert jopt.eval_params(wrap(jopt.adam(0.1)).init(P), P) is P


def test_two_averages_are_refused():
    tx = jopt.chain(FREE, jopt.schedule_free(jopt.sgd(0.1), 0.1))
    with pytest.raises(ValueError, match=r"2 parts .* ScheduleFreeState"):
        jopt.eval_params(tx.init(P), P)

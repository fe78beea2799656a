"""The parameters to evaluate with, found through every wrapper."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from tests import references

P = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}
G = {"w": jnp.full((2, 3), 0.5), "b": jnp.ones(3)}
FREE = jopt.schedule_free_sgd(0.1)
MEAN = jopt.chain(jopt.sgd(0.1), jopt.params_ema(1.0))

WRAPPED = {
    "alone": lambda tx: tx,
    "chain": lambda tx: jopt.chain(jopt.clip(9.0), tx),
    "multi_steps": lambda tx: jopt.multi_steps(tx, 1),
    "apply_if_finite": lambda tx: jopt.apply_if_finite(tx, 2),
    "masked": lambda tx: jopt.masked(tx, {"w": True, "b": True}),
    "inject": lambda tx: jopt.inject_hyperparams(lambda rate: tx)(rate=0.1),
    "partition": lambda tx: jopt.partition({"a": tx, "z": tx}, {"w": "a", "b": "z"}),
    "groups": lambda tx: jopt.groups({"w": tx}, tx),
    "sam": lambda tx: jopt.contrib.sam(tx, jopt.sgd(0.05), sync_period=1),
}
wrapped = pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)


def two_steps(tx, params=P):
    """The state and the parameters after two steps, and those after the first."""
    state, path = tx.init(params), [params]
    for _ in range(2):
        u, state = tx.update(G, state, path[-1])
        path.append(jopt.apply_updates(path[-1], u))
    return state, path[2], path[1]


AVERAGES = {
    "schedule_free": FREE,
    "params_ema": MEAN,
    "lookahead": jopt.lookahead(jopt.sgd(0.1), 2, 0.75),
}


@wrapped
@pytest.mark.parametrize("tx", AVERAGES.values(), ids=AVERAGES)
def test_averages_are_found(wrap, tx):
    state, params, _ = two_steps(wrap(tx))
    x = jopt.eval_params(state, params)
    # p - g / 10 and p - 2 g / 10 weigh the same; the slow go 3 / 4 of the second
    want = jax.tree.map(lambda p, g: p - 0.15 * g, P, G)
    chex.assert_trees_all_close(x, want, rtol=1e-6)
    as_numpy = jax.tree.map(np.asarray, state)
    chex.assert_trees_all_close(jopt.eval_params(as_numpy, params), x)


def test_a_part_of_the_parameters_is_averaged():
    params, g = ({"enc": x, "dec": x, "step": jnp.arange(3)} for x in (P, G))
    g["step"] = None
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params | {"step": None})
    params["step"] = jnp.arange(3)
    tx = jopt.partition(
        {"mean": MEAN, "free": FREE, "none": jopt.sgd(0.1)},
        {"enc": {"w": "mean", "b": "free"}, "dec": "none", "step": "none"},
    )
    tx = jopt.masked(tx, {"enc": True, "dec": False, "step": True})
    state = tx.init(params)
    u, state = tx.update(g, state, params)
    u, state = tx.update(g, state, jopt.apply_updates(params, u))
    x = jopt.eval_params(state, params)
    chex.assert_trees_all_equal_dtypes(x, params)
    chex.assert_trees_all_equal(x["dec"], params["dec"])
    assert x["step"] is params["step"]
    assert jnp.all(x["enc"]["w"] < params["enc"]["w"])
    assert jnp.all(x["enc"]["b"] > params["enc"]["b"]), "(y - 0.1 z) / 0.9"


# --------------------------------------------------------------------------- params_ema


def run_params_ema(decay, debias, steps=8):
    """The parameters, the first ones too, and what is evaluated after each step."""
    tx = jopt.chain(jopt.adam(0.3), jopt.params_ema(decay, debias))
    rng = np.random.default_rng(0)
    p = jnp.asarray(rng.normal(size=(2, 3)))
    grads = jnp.asarray(rng.normal(size=(steps, 2, 3)))
    state = tx.init(p)
    np.testing.assert_array_equal(jopt.eval_params(state, p), p)

    def step(carry, g):
        p, state = carry
        u, state = tx.update(g, state, p)
        p = jopt.apply_updates(p, u)
        return (p, state), (p, jopt.eval_params(state, p))

    _, (ps, averages) = jax.lax.scan(step, (p, state), grads)
    return np.concatenate([p[None], ps]), averages


@pytest.mark.parametrize("debias", [True, False])
@pytest.mark.parametrize("decay", [0.9, 1.0, 0.0])
def test_params_ema_is_the_weighted_mean_of_the_parameters(decay, debias):
    with jax.enable_x64(True):
        ps, got = run_params_ema(decay, debias)
        _, scheduled = run_params_ema(lambda count: decay, debias)
        _, array = run_params_ema(jnp.asarray(decay, jnp.float32), debias)
    want = references.params_ema(ps, decay=decay, debias=debias)
    np.testing.assert_allclose(got, want, rtol=1e-12)
    np.testing.assert_allclose(scheduled, want, rtol=1e-12)
    np.testing.assert_allclose(array, want, rtol=1e-5)
    _, single = run_params_ema(decay, debias)
    np.testing.assert_allclose(single, want, rtol=1e-4)


def test_the_decay_is_that_of_the_steps_before():
    def decay(count):
        return 1 - 1 / (count + 1)

    ps, got = run_params_ema(decay, debias=False)
    np.testing.assert_allclose(got, references.params_ema(ps, decay=1.0), rtol=1e-4)


def test_a_decay_near_one_is_debiased_in_float32():
    ps, got = run_params_ema(1 - 1e-6, debias=True)
    np.testing.assert_allclose(got, references.params_ema(ps, decay=1.0), rtol=1e-4)


def test_only_steps_are_averaged():
    """Accumulation and steps that are left out do not count, inside of these."""
    nan = jax.tree.map(lambda g: g * jnp.nan, G)
    tx = jopt.apply_if_finite(MEAN, 3)
    _, _, first = two_steps(tx)
    skipped = tx.update(nan, tx.update(G, tx.init(P), P)[1], first)[1]
    chex.assert_trees_all_close(jopt.eval_params(skipped, first), first)
    state, last, first = two_steps(jopt.MultiSteps(MEAN, 2))
    chex.assert_trees_all_equal(first, P)
    chex.assert_trees_all_close(jopt.eval_params(state, last), last)


def test_params_ema_follows_mechanize():
    tx = jopt.chain(jopt.contrib.mechanize(jopt.sgd(1.0)), jopt.params_ema(1.0))
    state, last, first = two_steps(tx)
    mean = jax.tree.map(lambda x, y: (x + y) / 2, first, last)
    chex.assert_trees_all_close(jopt.eval_params(state, last), mean, rtol=1e-6)
    assert jnp.any(first["w"] != last["w"])


# ----------------------------------------------------------------------- sam, lookahead


def test_sam_is_evaluated_where_its_ascent_began():
    tx = jopt.contrib.sam(MEAN, jopt.sgd(1.0), sync_period=2)
    state, down, uphill = two_steps(tx)
    halfway = tx.update(G, tx.init(P), P)[1]
    assert jnp.any(uphill["w"] != P["w"])
    chex.assert_trees_all_equal(jopt.eval_params(halfway, uphill), P)
    chex.assert_trees_all_close(jopt.eval_params(state, down), down)
    plain = jopt.contrib.sam(jopt.sgd(0.1), jopt.sgd(1.0), sync_period=2)
    state, down, uphill = two_steps(plain)
    halfway = plain.update(G, plain.init(P), P)[1]
    chex.assert_trees_all_equal(jopt.eval_params(halfway, uphill), P)
    chex.assert_trees_all_equal(jopt.eval_params(state, down), down)


def test_lookahead_of_pairs():
    tx = jopt.chain(jopt.lookahead(jopt.sgd(0.1), 2, 0.5))
    state, params, _ = two_steps(tx, jopt.LookaheadParams.init_synced(P))
    want = jax.tree.map(lambda p, g: p - 0.1 * g, P, G)
    chex.assert_trees_all_close(jopt.eval_params(state, params), want, rtol=1e-6)
    with pytest.raises(TypeError, match=r"eval_params: .* must be LookaheadParams"):
        jopt.eval_params(state, P)


@wrapped
def test_nothing_averages(wrap):
    state = wrap(jopt.adam(0.1)).init(P)
    chex.assert_trees_all_equal(jopt.eval_params(state, P), P)
    assert jopt.eval_params(state, P) is P or isinstance(state, jopt.contrib.SAMState)


def test_two_averages_are_refused():
    tx = jopt.chain(FREE, jopt.schedule_free(jopt.sgd(0.1), 0.1))
    with pytest.raises(ValueError, match=r"2 parts .* ScheduleFreeState"):
        jopt.eval_params(tx.init(P), P)
    tx = jopt.chain(jopt.masked(MEAN, {"w": True, "b": False}), FREE)
    with pytest.raises(ValueError, match=r"at \['w'\]: .*Ema.* and .*Free"):
        jopt.eval_params(tx.init(P), P)


def test_parameters_of_another_model_are_refused():
    with pytest.raises(ValueError, match=r"missing in the state: \['v'\]"):
        jopt.eval_params(MEAN.init(P), {"v": P["w"]})
    with pytest.raises(ValueError, match=r"at \['b'\] is f32\[2, 3\]"):
        jopt.eval_params(MEAN.init(P), {"w": P["w"], "b": P["w"]})
    with pytest.raises(ValueError, match=r"state has f32\[9\] .* inside of flatten"):
        jopt.eval_params(jopt.flatten(MEAN).init(P), P)

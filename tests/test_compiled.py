"""What is compiled: how much, how often, and with the same results."""

import collections
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt

# More than are joined in one kernel.
MATRICES = {f"m{i:02}": (8, 6) for i in range(18)}
MIXED = MATRICES | {f"v{i}": (6,) for i in range(3)} | {"s": (), "big": (80, 80)}


def tree(shapes, seed=0):
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    return {k: jax.random.normal(key, s) for key, (k, s) in zip(keys, shapes.items())}


def compiled(tx, params):
    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return jopt.apply_updates(params, updates), state

    step = jax.jit(step, donate_argnums=(0, 1))
    return step.lower(params, tx.init(params), params).compile()


def instructions(program):
    names = re.findall(r" = \S+ ([a-z-]+)\(", program.as_text())
    return collections.Counter(names)


# ------------------------------------------------------------------------------- size


def test_what_every_leaf_needs_is_computed_once():
    schedule = jopt.cosine_decay_schedule(1e-3, 100)
    tx = jopt.chain(jopt.clip_by_global_norm(1.0), jopt.adamw(schedule))
    few, many = (
        instructions(compiled(tx, tree({i: (4, i + 1) for i in range(n)})))
        for n in (3, 9)
    )
    assert few["cosine"] + few["sine"] == many["cosine"] + many["sine"] > 0
    assert few["exponential-minus-one"] == many["exponential-minus-one"]
    a_leaf = (many.total() - few.total()) / 6
    assert a_leaf < 90, "three kernels, and two for the norm"


def test_an_elementwise_rule_takes_three_kernels_a_leaf_and_no_memory():
    program = compiled(jopt.adamw(1e-3), tree(MATRICES))
    assert instructions(program)["fusion"] <= 3 * len(MATRICES) + 5
    assert program.memory_analysis().temp_size_in_bytes < 1000


@pytest.mark.parametrize(
    "norm",
    [
        jopt.tree.norm,
        pytest.param(lambda t: jopt.tree.norm(t, ord=1), marks=pytest.mark.slow),
    ],
)
def test_a_norm_of_many_leaves_is_joined_in_small_kernels(norm):
    params = tree({i: (40, i % 7 + 40) for i in range(400)})
    text = jax.jit(norm).lower(params).compile().as_text()
    calls = re.findall(r" fusion\(([^)]*)\)", text)
    assert max(call.count(",") + 1 for call in calls) <= 70
    assert len(calls) < 100, "400 leaves of 7 shapes"


def test_a_rule_that_reduces_runs_in_batches_on_cpu():
    tx = jopt.adafactor(1e-2, min_dim_size_to_factor=4)
    params = tree(MATRICES)
    with jopt.batch_leaves(False):
        apart = instructions(compiled(tx, params))
    assert instructions(compiled(tx, params)).total() < 0.6 * apart.total()


# ---------------------------------------------------------------------------- results


@pytest.mark.parametrize(
    "tx",
    [
        jopt.adafactor(1e-2, min_dim_size_to_factor=4),
        jopt.lamb(1e-2),
        jopt.adamw(1e-2),
        jopt.chain(jopt.adaptive_grad_clip(0.1), jopt.sgd(0.1, momentum=0.9)),
    ],
    ids=lambda tx: repr(tx)[:20],
)
def test_batches_change_nothing(tx):
    params, grads = tree(MIXED), tree(MIXED, 1)
    state = tx.init(params)
    with jopt.batch_leaves(False):
        apart = jax.jit(tx.update)(grads, state, params)
    with jopt.batch_leaves(True):
        batched = jax.jit(lambda *a: tx.update(*a))(grads, state, params)
    assert jax.tree.structure(apart) == jax.tree.structure(batched)
    for a, b in zip(jax.tree.leaves(apart), jax.tree.leaves(batched)):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("ord", [1, 2, np.inf])
def test_norms_of_many_leaves(ord):
    leaves = jax.tree.leaves(tree(MIXED))
    flat = np.concatenate([np.ravel(np.float64(x)) for x in leaves])
    got = jopt.tree.norm(leaves, ord=ord)
    np.testing.assert_allclose(got, np.linalg.norm(flat, ord), rtol=1e-6)
    leaves[17] = leaves[17].at[0].set(jnp.nan)
    assert np.isnan(jopt.tree.norm(leaves, ord=ord))


# ------------------------------------------------------------------------ compilations

EAGER = {
    "adamw(schedule)": lambda: jopt.adamw(jopt.linear_schedule(1e-2, 0.0, 10)),
    "inject": lambda: jopt.inject_hyperparams(jopt.adamw)(1e-3),
    "inject(schedule)": lambda: jopt.inject_hyperparams(jopt.sgd)(
        jopt.cosine_decay_schedule(1e-2, 10)
    ),
    "MultiSteps": lambda: jopt.MultiSteps(jopt.adamw(1e-3), 2),
    "apply_if_finite": lambda: jopt.apply_if_finite(jopt.adamw(1e-3), 2),
    "clip": lambda: jopt.chain(jopt.clip_by_global_norm(1.0), jopt.lion(1e-3)),
    "muon": lambda: jopt.contrib.muon(1e-3),
    "adafactor": lambda: jopt.adafactor(1e-3, min_dim_size_to_factor=2),
}


@pytest.mark.each_value_once
@pytest.mark.parametrize("name", EAGER)
@pytest.mark.parametrize("functions", [False, True], ids=["arrays", "and a function"])
def test_eager_steps_compile_nothing_after_the_first_two(name, functions, compilations):
    params = {"w": jnp.ones((4, 4)), "b": jnp.zeros(4)}
    grads = {"w": jnp.full((4, 4), 0.1), "b": jnp.ones(4)}
    if functions:
        params["f"], grads["f"] = jnp.tanh, None
    state = EAGER[name]().init(params)
    counts = []
    for _ in range(6):
        tx = EAGER[name]()  # another, equal transformation each time
        updates, state = tx.update(grads, state, params)
        params = jopt.apply_updates(params, updates)
        counts.append(len(compilations))
    assert counts[0] > 0
    assert counts[1:] == counts[1:2] * 5, counts


@pytest.mark.parametrize("name", EAGER)
def test_a_jitted_step_is_traced_once(name):
    params = {"w": jnp.ones((4, 4)), "b": jnp.zeros(4)}
    tx, traced = EAGER[name](), []

    @jax.jit
    def step(params, state):
        traced.append(0)
        updates, state = tx.update(params, state, params)
        return jopt.apply_updates(params, updates), state

    state = tx.init(params)
    for _ in range(4):
        params, state = step(params, state)
    assert len(traced) == 1

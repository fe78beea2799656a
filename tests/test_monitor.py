"""Measurements in the middle of a chain."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jopt

GRADS = [{"w": jnp.array([3.0, 4.0]) * k, "b": jnp.zeros(())} for k in (1.0, 0.1, 2.0)]


def is_large(u):
    return jopt.tree.norm(u) > 1.0


def make(library):
    return library.chain(
        library.scale(0.5),
        library.snapshot("half", library.tree.norm),
        library.monitor(
            {
                "size": library.tree.norm,
                "mean": library.measure_with_ema(library.tree.norm, 0.9),
                "raw": library.measure_with_ema(library.tree.norm, 0.9, debias=False),
                "trace": library.trace(0.5),
            }
        ),
        library.scale(2.0),
    )


def test_equals_optax():
    names = ("half", "size", "mean", "raw", "trace")
    found = []
    for library in (jopt, optax):
        with jax.numpy_dtype_promotion("standard"):
            tx, seen = make(library), []
            state = tx.init(GRADS[0])
            for g in GRADS:
                u, state = tx.update(g, state)
                chex.assert_trees_all_close(u, g)
                # not by tree.get: the state of "trace" has a field of that name
                measured = state[1].measurement | state[2].measurements
                seen.append({k: measured[k] for k in names})
        found.append(seen)
    chex.assert_trees_all_close(*found, rtol=1e-5)


def test_the_average_of_a_condition_is_how_often_it_held():
    tx = jopt.monitor({"large": jopt.measure_with_ema(is_large, 0.5)})
    state = tx.init(GRADS[0])
    means = []
    for g in GRADS:
        _, state = tx.update(g, state)
        means.append(jopt.tree.get(state, "large"))
    # weights 1/2, 1/4, 1/8 of the last, over their sum
    np.testing.assert_allclose(means, [1, 1 / 3, 5 / 7], rtol=1e-6)


def test_the_state_has_one_structure_from_the_start():
    tx = make(jopt)
    state = tx.init(GRADS[0])
    chex.assert_trees_all_equal_shapes_and_dtypes(
        state, jax.eval_shape(tx.init, GRADS[0])
    )
    stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *GRADS)

    def step(state, g):
        u, state = tx.update(g, state)
        return state, u

    last, _ = jax.lax.scan(step, state, stacked)
    np.testing.assert_allclose(last[2].measurements["size"], 5.0, rtol=1e-6)
    assert jopt.tree.get(state, "size") == 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_types_of_the_state_do_not_change(dtype):
    tx = jopt.monitor(
        {
            "size": jopt.tree.norm,
            "updates": lambda u: u,
            "mean": jopt.measure_with_ema(lambda u: u, 0.9),
        }
    )
    p = {"w": jnp.ones(2, dtype)}
    state = tx.init(p)
    types = jax.tree.map(jax.typeof, state)
    for grad in ("float32", "bfloat16"):
        _, state = tx.update({"w": jnp.ones(2, grad)}, state)
        assert jax.tree.map(jax.typeof, state) == types


def test_nothing_compiles_from_the_second_step_on():
    traces = 0

    def measure(u):
        nonlocal traces
        traces += 1
        return jopt.tree.norm(u)

    state = jopt.monitor({"size": measure}).init(GRADS[0])
    update = jax.jit(jopt.monitor({"size": measure}).update)
    for g in GRADS:
        _, state = update(g, state)
    assert traces == 3  # in init, in update and where it looks at the state


def test_arguments():
    with pytest.raises(TypeError, match="measure_name"):
        jopt.snapshot(3, jopt.tree.norm)
    with pytest.raises(TypeError, match="measure must be a function"):
        jopt.snapshot("size", 3)
    with pytest.raises(TypeError, match="measures must be a dict"):
        jopt.monitor([jopt.tree.norm])
    with pytest.raises(TypeError, match="for 'size'"):
        jopt.monitor({"size": 3})
    with pytest.raises(ValueError, match="decay"):
        jopt.measure_with_ema(jopt.tree.norm, 1.0)

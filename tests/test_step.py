"""`make_step`: equal to the loop written out, compiled once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt


def loss(params, x, scale=1.0):
    return scale * jnp.sum((params["w"] - x) ** 2)


def test_it_is_the_loop_written_out():
    tx = jopt.chain(jopt.clip_by_global_norm(1.0), jopt.adamw(1e-2))
    step = jopt.make_step(loss, tx)
    params = {"w": jnp.arange(3.0)}
    ours, state = jax.tree.map(jnp.copy, params), tx.init(params)
    theirs, other = params, tx.init(params)
    for i in range(3):
        value, grads = jax.value_and_grad(loss)(theirs, float(i), scale=2.0)
        updates, other = tx.update(grads, other, theirs)
        theirs = jopt.apply_updates(theirs, updates)
        ours, state, got = step(ours, state, float(i), scale=2.0)
        np.testing.assert_allclose(got, value, rtol=1e-6)
    np.testing.assert_allclose(ours["w"], theirs["w"], rtol=1e-6)


def test_it_is_compiled_once_however_often_it_is_made():
    traced = []

    def counted(params, x):
        traced.append(0)
        return jnp.sum((params - x) ** 2)

    params = jnp.ones(3)
    for i in range(4):
        tx = jopt.adam(1e-2)
        params, _, _ = jopt.make_step(counted, tx)(params, tx.init(params), 1.0 * i)
    assert len(traced) == 1


@pytest.mark.parametrize("donate", [True, False])
def test_it_donates_if_it_may(donate):
    tx = jopt.sgd(0.1, momentum=0.9)
    params = {"w": jnp.ones(3)}
    state = tx.init(params)
    jopt.make_step(loss, tx, donate=donate)(params, state, 0.0)
    assert [x.is_deleted() for x in jax.tree.leaves((params, state))] == [donate] * 2


def test_auxiliary_output_and_extra_arguments():
    def with_aux(p, x):
        return jnp.sum((p - x) ** 2), {"x": x}

    seen = {}

    def update(updates, state, params=None, *, value, grad, value_fn):
        seen.update(same=value_fn(params) - value)
        return jax.tree.map(lambda g: -0.5 * g, grad), state

    tx = jopt.GradientTransformationExtraArgs(lambda p: jopt.EmptyState(), update)
    step = jopt.make_step(with_aux, tx, has_aux=True)
    params, _, (value, aux) = step(jnp.zeros(2), jopt.EmptyState(), 3.0)
    np.testing.assert_allclose(params, 3.0)
    assert (value, aux["x"]) == (18.0, 3.0) and seen


def test_bad_input():
    with pytest.raises(TypeError, match="make_step: loss_fn"):
        jopt.make_step(3, jopt.sgd(0.1))
    with pytest.raises(TypeError, match="make_step: tx"):
        jopt.make_step(loss, "adam")


def test_arrays_that_were_given_away_are_named():
    tx = jopt.adam(0.1)
    step = jopt.make_step(lambda p: jnp.sum(p["w"] ** 2), tx)
    params = {"w": jnp.ones(3)}
    state = tx.init(params)
    step(params, state)
    with pytest.raises(ValueError, match=r"params at \['w'\], f32\[3\], was deleted"):
        step(params, tx.init({"w": jnp.ones(3)}))
    with pytest.raises(ValueError, match=r"state at .*count.*was deleted"):
        step({"w": jnp.ones(3)}, state)

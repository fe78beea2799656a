"""Counters at the largest value that they hold: each stays there, none turns negative.

A run of 2**31 steps takes weeks; a state that was made by other means takes none.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.experimental import aggregating
from tests.catalogue import METHODS, ROWS, by_form

TOP = 2**31 - 1
PARAMS = {"w": jnp.linspace(-1.0, 1.0, 12).reshape(4, 3), "b": jnp.ones(3)}


def is_counter(x):
    return isinstance(x, jax.Array) and x.ndim == 0 and x.dtype == jnp.int32


def at_the_top(state):
    return jax.tree.map(lambda x: jnp.full_like(x, TOP) if is_counter(x) else x, state)


def assert_in_order(updates, state):
    for x in filter(is_counter, jax.tree.leaves(state)):
        assert x >= 0
    for x in jax.tree.leaves(updates):
        assert np.all(np.isfinite(x))


@pytest.mark.parametrize("row", by_form(ROWS, also=METHODS.values()))
def test_no_counter_turns_negative(row):
    tx, params = row.make(), {"w": PARAMS["w"]}
    extra = row.extra(params) if row.extra else {}
    state = tx.init(params)
    if not any(map(is_counter, jax.tree.leaves(state))):
        pytest.skip("nothing counts")
    _, state = tx.update(params, state, params, **extra)
    for _ in range(2):
        updates, state = tx.update(params, at_the_top(state), params, **extra)
        assert_in_order(updates, state)


WRAPPED = {
    "lookahead": lambda: jopt.lookahead(jopt.adam(0.1), 3, 0.5),
    "lookahead, always": lambda: jopt.lookahead(jopt.adam(0.1), TOP, 0.5),
    "sam": lambda: jopt.contrib.sam(
        jopt.adam(0.1), jopt.chain(jopt.contrib.normalize(), jopt.sgd(0.1)), 3
    ),
    "MultiSteps": lambda: jopt.MultiSteps(jopt.adam(0.1), 3),
    "apply_if_finite": lambda: jopt.apply_if_finite(jopt.adam(0.1), 3),
    "apply_every": lambda: jopt.apply_every(3),
    "aggregating": lambda: aggregating.average_incrementally_updates(None, 3),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_no_counter_of_a_wrapper_turns_negative(name):
    tx = WRAPPED[name]()
    state = tx.init(PARAMS)
    for _ in range(4):
        updates, state = tx.update(PARAMS, at_the_top(state), PARAMS)
        assert_in_order(updates, state)


def test_sam_descends_from_a_counter_that_is_too_large():
    tx = WRAPPED["sam"]()
    _, state = tx.update(PARAMS, at_the_top(tx.init(PARAMS)), PARAMS)
    assert state.steps_since_sync == 0


@pytest.mark.parametrize("method", ["nadam", "adabelief", "radam", "contrib.muon"])
def test_nesterov_looks_ahead_of_the_last_step(method):
    where = jopt.contrib if method.startswith("contrib") else jopt
    tx = getattr(where, method.split(".")[-1])(1.0, nesterov=True)
    late, last = tx.init(PARAMS), at_the_top(tx.init(PARAMS))
    late = jax.tree.map(lambda x: x + 10**6 if is_counter(x) else x, late)
    u, _ = tx.update(PARAMS, late, PARAMS)
    v, _ = tx.update(PARAMS, last, PARAMS)
    for a, b in zip(jax.tree.leaves(u), jax.tree.leaves(v)):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["int8", "int32", "uint8", "uint16", "uint32"])
def test_a_count_of_any_integer_dtype_stays_at_its_top(dtype):
    top = np.iinfo(dtype).max
    x = jopt.safe_increment(jnp.array([0, top - 1, top], dtype))
    assert x.dtype == dtype
    np.testing.assert_array_equal(x, np.array([1, top, top], dtype))

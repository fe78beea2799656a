"""A factory's arguments are checked by name, and its product knows its call."""

import inspect
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from tests.catalogue import METHODS, ROWS

BAD = [
    (dict(learning_rate=None), TypeError, "learning_rate must be a number, got None"),
    (dict(learning_rate="0.1"), TypeError, "learning_rate must be a number, got a str"),
    (dict(learning_rate=True), TypeError, "learning_rate must be a number, got a bool"),
    (dict(learning_rate=1j), TypeError, "learning_rate must be a number"),
    (dict(learning_rate=float("nan")), ValueError, "learning_rate must be a finite"),
    (
        dict(learning_rate=jnp.nan * jnp.ones(())),
        ValueError,
        "learning_rate must be a finite",
    ),
    (
        dict(learning_rate=np.ones(2)),
        ValueError,
        r"learning_rate must be a scalar.*\(2,\)",
    ),
    (
        dict(learning_rate=["0.1"]),
        TypeError,
        r"learning_rate at \[0\] must be a number, got a str",
    ),
    (dict(b1=1.0), ValueError, r"b1 must be in \[0, 1\), got 1.0"),
    (dict(b1=-0.1), ValueError, r"b1 must be in \[0, 1\)"),
    (dict(b2=1.5), ValueError, r"b2 must be in \[0, 1\)"),
    (dict(b2=np.float32(np.nan)), ValueError, "b2 must be"),
    (dict(eps=-1e-8), ValueError, "eps must be at least 0"),
    (dict(eps=float("nan")), ValueError, "eps must be"),
    (dict(mu_dtype="int32"), TypeError, "mu_dtype must be a floating dtype"),
    (dict(mu_dtype=bool), TypeError, "mu_dtype must be a floating dtype"),
    (dict(mu_dtype="nonsense"), TypeError, "mu_dtype must be a floating dtype"),
    (dict(weight_decay=-0.1), ValueError, "weight_decay must be at least 0"),
]


@pytest.mark.parametrize("settings, error, words", BAD, ids=[str(b[0]) for b in BAD])
def test_bad_settings_are_refused_at_construction(settings, error, words):
    with pytest.raises(error, match=f"adamw: {words}"):
        jopt.adamw(**dict(learning_rate=1e-3) | settings)


GOOD = [
    0,
    0.0,
    -0.1,
    1,
    np.float32(0.1),
    np.float64(0.1),
    jnp.float32(0.1),
    lambda c: 0.1,
]


@pytest.mark.parametrize("rate", GOOD, ids=lambda r: f"{type(r).__name__}")
def test_good_learning_rates(rate):
    tx = jopt.adamw(rate)
    p = jnp.ones(2, jnp.bfloat16)
    u, _ = tx.update(p, tx.init(p), p)
    assert u.dtype == jnp.bfloat16


def test_repr_reads_like_the_call():
    assert repr(jopt.adamw(1e-3, weight_decay=0.1)) == "adamw(0.001, weight_decay=0.1)"
    assert repr(jopt.adam(jnp.float32(0.5), b2=0.9)) == "adam(0.5, b2=0.9)"
    tx = jopt.chain(jopt.clip(1.0), jopt.masked(jopt.scale(2.0), {"w": True}))
    assert repr(tx) == "chain(clip(1.0), masked(scale(2.0), {'w': True}))"
    assert eval(repr(tx), vars(jopt)) == tx
    assert repr(jopt.monitor({"a": jopt.tree.norm})) == "monitor({'a': norm})"
    rate = jopt.join_schedules([abs, abs], [1])
    assert repr(rate) == "join_schedules([abs, abs], [1])"
    tx = jopt.masked(jopt.scale(1.0), ({"a": True}, (False,)))
    assert repr(tx) == "masked(scale(1.0), ({'a': True}, (False,)))"


def states_of(row, settings):
    params = {"a": jnp.ones((2, 3)), "b": jnp.ones(2)}
    extra = {} if row.extra is None else row.extra(params)

    def two(params):
        tx = row._replace(settings=settings).make()
        return tx.update(params, tx.init(params), params, **extra)

    return jax.eval_shape(two, params)


@pytest.mark.parametrize("row", METHODS.values(), ids=METHODS)
def test_a_whole_number_is_a_number(row):
    """`adam(1)` is `adam(1.0)`, dtypes of the state included."""
    signature = inspect.signature(row.make().update.call.factory)
    for name, parameter in signature.parameters.items():
        if not isinstance(row.settings.get(name, parameter.default), float):
            continue
        try:
            expected = states_of(row, row.settings | {name: 1.0})
        except ValueError:  # not in its range
            continue
        assert states_of(row, row.settings | {name: 1}) == expected, name


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_repr_evaluates_to_its_equal(row):
    functions = {f.__name__: f for f in row.settings.values() if inspect.isroutine(f)}
    names = {**vars(jopt.contrib), **vars(jopt), **functions}
    assert eval(repr(row.make()), names) == row.make()


def test_equality_looks_into_arrays_and_trees():
    def make(x):
        return jopt.masked(jopt.scale(jnp.float32(x)), {"w": True, "b": [False]})

    assert make(1.0) == make(1.0) and hash(make(1.0)) == hash(make(1.0))
    assert make(1.0) != make(2.0)
    assert jopt.scale(1.0) != jopt.scale(1) and jopt.scale(1.0) != jopt.clip(1.0)
    assert jopt.adam(0.1) != jopt.adam(0.1, nesterov=True)
    assert jopt.adam(0.1) == jopt.adam(learning_rate=0.1)


def test_equal_transformations_are_one_static_argument():
    traces = 0

    def step(tx, p):
        nonlocal traces
        traces += 1
        return tx.update(p, tx.init(p))[0]

    step = jax.jit(step, static_argnums=0)
    for _ in range(3):
        step(jopt.adam(1e-3), jnp.ones(2))
    assert traces == 1


def test_pickle_goes_by_the_call():
    tx = jopt.chain(jopt.clip(1.0), jopt.adamw(jopt.cosine_decay_schedule(0.1, 10)))
    again = pickle.loads(pickle.dumps(tx))
    assert again == tx and repr(again) == repr(tx)
    p = jnp.ones(2)
    np.testing.assert_array_equal(
        again.update(p, again.init(p), p)[0], tx.update(p, tx.init(p), p)[0]
    )
    bare = jopt.per_leaf(jopt.EmptyState, lambda p: {}, lambda g, s, p: (g, s))
    with pytest.raises(TypeError, match="factory"):
        pickle.dumps(bare)

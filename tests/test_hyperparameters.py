"""What `hyperparams` finds, and what `set_hyperparams` changes and refuses."""

import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jopt
from jopt.reading.hyperparameters import may_be_schedule
from tests.catalogue import ROWS

P = {"w": jnp.ones((3, 2)), "enc": {"bias": jnp.ones(2)}}
HALVES = jopt.piecewise_constant_schedule(0.5, {1: 0.5, 2: 0.5, 3: 0.5})


def sgd(rate=0.5):
    return jopt.inject_hyperparams(jopt.sgd)(rate)


def after(tx, steps, params=P):
    state = tx.init(params)
    for _ in range(steps):
        _, state = tx.update(params, state, params)
    return state


# --------------------------------------------------------------- reading from the state

WRAPPED = {
    "alone": lambda tx: tx,
    "chain": lambda tx: jopt.chain(jopt.clip(1.0), tx),
    "chain in a chain": lambda tx: jopt.chain(jopt.chain(tx), jopt.clip(1.0)),
    "masked": lambda tx: jopt.masked(tx, "w"),
    "multi_steps": lambda tx: jopt.multi_steps(tx, 2),
    "MultiSteps": lambda tx: jopt.MultiSteps(tx, 1),
    "apply_if_finite": lambda tx: jopt.apply_if_finite(tx, 2),
    "flatten": lambda tx: jopt.flatten(tx),
    "with_metrics": lambda tx: jopt.with_metrics(tx),
    "mechanize": lambda tx: jopt.contrib.mechanize(tx),
    "schedule_free": lambda tx: jopt.contrib.schedule_free(tx, 0.25),
    "split": lambda tx: jopt.contrib.split_real_and_imaginary(tx),
    "conditionally": lambda tx: jopt.conditionally_mask(tx, lambda count: count > 2),
    "sam": lambda tx: jopt.contrib.sam(tx, jopt.chain(jopt.contrib.normalize())),
    "optax.chain": lambda tx: optax.chain(optax.clip(1.0), tx),
    "optax.masked": lambda tx: optax.masked(tx, {"w": True, "enc": False}),
    "optax.MultiSteps": lambda tx: optax.MultiSteps(tx, 2),
    "optax.apply_if_finite": lambda tx: optax.apply_if_finite(tx, 2),
}


@pytest.mark.parametrize("wrap", WRAPPED)
@pytest.mark.parametrize("library", [jopt, optax], ids=["jopt", "optax"])
def test_one_name_through_every_wrapper(wrap, library):
    inner = library.inject_hyperparams(library.sgd)(0.5)
    tx = WRAPPED[wrap](inner)
    state = tx.init(P)
    assert jopt.hyperparams(state) == {"learning_rate": 0.5}
    found = jopt.hyperparams(state, tx)
    ours = {k: x for k, x in found.items() if k.endswith("learning_rate")}
    assert 0.5 in ours.values()
    state = jopt.set_hyperparams(state, learning_rate=0.25)
    assert jopt.hyperparams(state) == {"learning_rate": 0.25}


def test_lookahead_has_its_own_and_those_of_the_inner_one():
    tx = jopt.lookahead(sgd(), 5, 0.25)
    state = tx.init(jopt.LookaheadParams.init_synced(P))
    assert jopt.hyperparams(state) == {"learning_rate": 0.5}
    assert jopt.hyperparams(state, tx) == {
        "slow_step_size": 0.25,
        "learning_rate": 0.5,
    }


def test_names_of_groups_and_parts_come_first():
    tx = jopt.groups({"**/bias": sgd(0.25), "w": None}, sgd())
    both = {"**/bias/learning_rate": 0.25, "default/learning_rate": 0.5}
    assert jopt.hyperparams(tx.init(P)) == jopt.hyperparams(tx.init(P), tx) == both
    tx = jopt.partition({1: sgd(1.0), 2: sgd(2.0)}, {"w": 1, "enc": 2})
    both = {"1/learning_rate": 1.0, "2/learning_rate": 2.0}
    assert jopt.hyperparams(tx.init(P)) == jopt.hyperparams(tx.init(P), tx) == both
    tx = jopt.named_chain(("a", jopt.sgd(0.5)), ("b", sgd(0.25)))
    assert jopt.hyperparams(tx.init(P), tx) == {
        "a/learning_rate": 0.5,
        "b/learning_rate": 0.25,
    }


def test_settings_of_a_group_are_its_own():
    default = jopt.inject_hyperparams(jopt.adamw)(0.5, weight_decay=0.25)
    tx = jopt.groups({"**/bias": dict(weight_decay=0.0)}, default)
    found = jopt.hyperparams(tx.init(P))
    assert found["**/bias/weight_decay"] == 0
    assert found["default/weight_decay"] == 0.25


def test_positions_tell_apart_what_has_one_name():
    tx = jopt.chain(sgd(0.5), jopt.masked(sgd(0.25), "w"), jopt.scale(2.0))
    both = {"0/learning_rate": 0.5, "1/learning_rate": 0.25}
    assert jopt.hyperparams(tx.init(P)) == both
    assert jopt.hyperparams(tx.init(P), tx) == {**both, "step_size": 2.0}
    tx = jopt.contrib.sam(sgd(0.5), sgd(0.25))
    both = {"opt_state/learning_rate": 0.5, "adv_state/learning_rate": 0.25}
    assert jopt.hyperparams(tx.init(P)) == jopt.hyperparams(tx.init(P), tx) == both


def test_parameters_that_are_called_hyperparams_are_none():
    params = {"hyperparams": {"learning_rate": jnp.ones(2)}}
    assert jopt.hyperparams(jopt.adam(0.1).init(params)) == {}


# ---------------------------------------------------- reading from the transformation


def test_constants_and_schedules_of_what_is_not_injected():
    tx = jopt.chain(jopt.clip_by_global_norm(1.0), jopt.adamw(HALVES))
    want = dict(max_norm=1.0, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0)
    want["weight_decay"] = 1e-4
    for steps, rate in enumerate([0.5, 0.5, 0.25, 0.125]):
        state = after(tx, steps)
        assert jopt.hyperparams(state) == {}
        assert jopt.hyperparams(state, tx) == {**want, "learning_rate": rate}
        injected = jopt.inject_hyperparams(jopt.adamw)(HALVES)
        assert jopt.hyperparams(after(injected, steps))["learning_rate"] == rate


def test_every_part_has_a_count_of_its_own():
    tx = jopt.chain(
        jopt.multi_steps(jopt.sgd(HALVES), 2),
        jopt.partition(
            {"a": jopt.sgd(HALVES), "b": jopt.sgd(1.0)}, {"w": "a", "enc": "b"}
        ),
    )
    assert jopt.hyperparams(after(tx, 3), tx) == {
        "learning_rate": 0.5,  # one step
        "a/learning_rate": 0.125,  # three
        "b/learning_rate": 1.0,
    }


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_every_optimizer_tells_its_numbers(row):
    tx = row.make()
    state = tx.init(P)
    found = {name.rpartition("/")[2] for name in jopt.hyperparams(state, tx)}
    given = {k for k, v in row.settings.items() if isinstance(v, float)}
    assert given <= found
    call, rate = tx.update.call, jopt.constant_schedule(0.75)
    parameter = inspect.signature(call.factory).parameters.get("learning_rate")
    if parameter and may_be_schedule(parameter):
        tx = call.replace(learning_rate=rate).again()
        assert jopt.hyperparams(tx.init(P), tx)["learning_rate"] == 0.75


def test_a_state_that_does_not_fit_is_refused():
    for tx, state in [
        (jopt.chain(sgd(), sgd()), sgd().init(P)),
        (jopt.chain(sgd(), jopt.chain(sgd())), jopt.chain(sgd(), sgd()).init(P)),
        (jopt.chain(sgd()), jopt.chain(sgd(), sgd()).init(P)),
        (jopt.masked(jopt.sgd(0.1), "w"), jopt.sgd(0.1).init(P)),
        (jopt.sgd(HALVES), jopt.sgd(0.1).init(P)),
        (jopt.named_chain(("a", sgd())), sgd().init(P)),
    ]:
        with pytest.raises(ValueError, match="made by another transformation"):
            jopt.hyperparams(state, tx)


def test_reading_works_under_jit():
    tx = jopt.chain(sgd(), jopt.scale_by_schedule(HALVES), jopt.adam(HALVES))
    read = jax.jit(lambda state: jopt.hyperparams(state, tx))
    chex.assert_trees_all_close(read(after(tx, 2)), jopt.hyperparams(after(tx, 2), tx))


# -------------------------------------------------------------------------- setting


def test_a_value_counts_from_the_next_step_and_nothing_is_traced_again():
    tx = jopt.groups({"**/bias": sgd(0.25)}, jopt.apply_if_finite(sgd(), 2))
    traces = []

    @jax.jit
    def step(params, state):
        traces.append(0)
        return tx.update(params, state, params)

    state = jax.jit(tx.init)(P)
    updates, state = step(P, state)
    rates = {"**/bias/learning_rate": 2, "default/learning_rate": np.float64(1.5)}
    changed = jopt.set_hyperparams(state, rates)
    updates, _ = step(P, changed)
    assert len(traces) == 1 and step._cache_size() == 1
    chex.assert_trees_all_equal(
        updates, {"w": -1.5 * P["w"], "enc": {"bias": -2 * P["enc"]["bias"]}}
    )
    assert jopt.hyperparams(state)["**/bias/learning_rate"] == 0.25, "not in place"


def test_under_jit_and_vmap():
    state = jopt.chain(sgd()).init(P)
    rates = jnp.array([1.0, 2.0])
    many = jax.jit(
        jax.vmap(lambda rate: jopt.set_hyperparams(state, learning_rate=rate))
    )(rates)
    chex.assert_trees_all_equal(jopt.hyperparams(many), {"learning_rate": rates})
    doubled = jopt.set_hyperparams(many, learning_rate=2 * rates)
    chex.assert_trees_all_equal(jopt.hyperparams(doubled), {"learning_rate": 2 * rates})


def test_dtype_and_sharding_stay():
    tx = jopt.inject_hyperparams(jopt.sgd, hyperparam_dtype=jnp.bfloat16)(0.5)
    everywhere = NamedSharding(Mesh(jax.devices(), "d"), PartitionSpec())
    state = jax.device_put(tx.init(P), everywhere)
    new = jopt.set_hyperparams(state, learning_rate=jnp.float32(0.75))
    value = new.hyperparams["learning_rate"]
    assert (value.dtype, value.sharding) == (jnp.bfloat16, everywhere)
    assert jax.typeof(value) == jax.typeof(state.hyperparams["learning_rate"])


REFUSED = {
    "no such name": (dict(momentun=0.5), KeyError, "no 'momentun'; it has .*momentum"),
    "text": (dict(momentum="0.5"), TypeError, "momentum must be a number, got a str"),
    "None": (dict(momentum=None), TypeError, "momentum must be a number, got None"),
    "a bool": (dict(momentum=True), TypeError, "momentum must be a number, got a bool"),
    "complex": (dict(momentum=1j), TypeError, "momentum must be a number"),
    "an array": (dict(momentum=jnp.ones(2)), ValueError, "momentum must be a scalar"),
    "not in its range": (dict(momentum=1.5), ValueError, "momentum must be in"),
    "NaN": (dict(momentum=np.nan), ValueError, "momentum must be in"),
    "a schedule's": (
        dict(learning_rate=0.5),
        ValueError,
        "learning_rate follows a schedule, which writes it at each step",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    values, error, words = REFUSED[case]
    tx = jopt.chain(jopt.inject_hyperparams(jopt.sgd)(HALVES, momentum=0.5))
    state = tx.init(P)
    with pytest.raises(error, match=f"set_hyperparams: .*{words}"):
        jopt.set_hyperparams(state, values)
    with pytest.raises(error, match=words):
        jax.jit(lambda state: jopt.set_hyperparams(state, **values))(state)


def test_a_schedule_of_optax_is_refused_as_well():
    state = optax.inject_hyperparams(optax.sgd)(HALVES).init(P)
    with pytest.raises(ValueError, match="follows a schedule"):
        jopt.set_hyperparams(state, learning_rate=0.5)


def test_a_name_alone_is_that_of_every_group():
    tx = jopt.groups({"**/bias": sgd(0.25)}, sgd())
    state = jopt.set_hyperparams(tx.init(P), learning_rate=0.5)
    state = jopt.set_hyperparams(state, {"**/bias/learning_rate": 0.125})
    rates = {k: float(x) for k, x in jopt.hyperparams(state).items() if "rate" in k}
    assert rates == {"default/learning_rate": 0.5, "**/bias/learning_rate": 0.125}


def test_what_to_do_is_said():
    with pytest.raises(KeyError, match=r"holds no hyperparameters.*inject_hyperparams"):
        jopt.set_hyperparams(jopt.adam(0.1).init(P), learning_rate=0.5)
    many = jax.vmap(lambda rate: sgd(rate).init(P))(jnp.ones(3))
    with pytest.raises(ValueError, match=r"learning_rate has the shape \(3,\)"):
        jopt.set_hyperparams(many, learning_rate=0.5)
    with pytest.raises(TypeError, match="values must be a dict"):
        jopt.set_hyperparams(many, 0.5)

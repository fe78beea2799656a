"""The table of `describe`: what it says of groups, masks, wrappers and other leaves."""

import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import rich

import jopt
from tests.catalogue import ROWS

P = {
    "w": jnp.ones((3, 2)),
    "enc": {"w": jnp.ones((2, 2), jnp.bfloat16), "bias": jnp.ones(2)},
}
SCHEDULE = jopt.linear_schedule(0.5, 0.0, 10)


def rows(tx, params=P):
    return {row.path: row for row in jopt.describe(tx, params).rows}


def column(name, tx, params=P):
    return {path: getattr(row, name) for path, row in rows(tx, params).items()}


# --------------------------------------------------------------------------- the rows


def test_groups_settings_and_what_is_frozen():
    tx = jopt.groups(
        {"**/bias": dict(weight_decay=0.0), "enc": dict(lr_mult=0.5), "w": None},
        jopt.adamw(0.25, weight_decay=0.125),
    )
    assert rows(tx) == {
        "enc/bias": (
            *("enc/bias", (2,), "float32", "**/bias + enc"),
            *("adamw", 0.125, 0, 16),
        ),
        "enc/w": ("enc/w", (2, 2), "bfloat16", "enc", "adamw", 0.125, 0.125, 32),
        "w": ("w", (3, 2), "float32", "w", "frozen", "", "", 0),
    }
    found = jopt.describe(tx, P)
    assert (found.parameters, found.frozen, found.shared_bytes) == (12, 6, 12)
    assert found.state_bytes == 60
    groups = {"**/bias + enc": (2, 16), "enc": (4, 32), "w": (6, 0)}
    assert found.groups == groups


WRAPPED = {
    "alone": lambda tx: tx,
    "chain": lambda tx: jopt.chain(jopt.clip_by_global_norm(1.0), tx),
    "named": lambda tx: jopt.named_chain(("clip", jopt.clip(1.0)), ("main", tx)),
    "injected": lambda tx: jopt.inject_hyperparams(tx.update.call.factory)(
        **tx.update.call.arguments
    ),
    "in a factory": lambda tx: jopt.inject_hyperparams(
        lambda rate: jopt.chain(jopt.clip(1.0), tx)
    )(0.5),
    "multi_steps": lambda tx: jopt.MultiSteps(tx, 4),
    "with_metrics": lambda tx: jopt.with_metrics(jopt.apply_if_finite(tx, 2)),
    "frozen nothing": lambda tx: jopt.chain(tx, jopt.freeze(lambda path, x: False)),
}


@pytest.mark.parametrize("wrap", WRAPPED)
def test_rate_and_decay_through_wrappers(wrap):
    for rate, decay, mask in [(0.25, 0.5, "w"), (SCHEDULE, 0.5, None)]:
        tx = WRAPPED[wrap](jopt.adamw(rate, weight_decay=decay, mask=mask))
        for path, row in rows(tx).items():
            decays = mask is None or path == "w"
            got = row.optimizer, row.learning_rate, row.weight_decay
            assert got == ("adamw", rate, decay if decays else 0), path


def test_masks_and_partitions_in_one_another():
    tx = jopt.chain(
        jopt.masked(jopt.sgd(0.25, momentum=0.5), "enc"),
        jopt.selective_transform(jopt.lion(0.5), freeze_mask="enc/bias"),
    )
    assert column("optimizer", tx) == {
        "enc/bias": "frozen",
        "enc/w": "sgd + lion",
        "w": "lion",
    }
    assert column("group", tx) == {"enc/bias": "freeze", "enc/w": "train", "w": "train"}
    assert column("learning_rate", tx)["enc/w"] == "0.25 + 0.5"
    inner = jopt.groups({"enc/bias": jopt.sgd(1.0)}, jopt.sgd(2.0))
    tx = jopt.partition({"a": inner, "b": jopt.sgd(3.0)}, {"enc": "a", "w": "b"})
    assert column("group", tx) == {
        "enc/bias": "a/enc/bias",
        "enc/w": "a/default",
        "w": "b",
    }
    assert column("learning_rate", tx) == {"enc/bias": 1, "enc/w": 2, "w": 3}


def test_the_two_halves_of_muon():
    tx = jopt.contrib.muon(0.5, weight_decay=0.25, adam_learning_rate=0.125)
    assert column("optimizer", tx) == {
        "enc/bias": "adamw",
        "enc/w": "muon",
        "w": "muon",
    }
    assert column("group", tx) == {"enc/bias": "adam", "enc/w": "muon", "w": "muon"}
    assert column("learning_rate", tx) == {"enc/bias": 0.125, "enc/w": 0.5, "w": 0.5}
    assert column("weight_decay", tx) == {"enc/bias": 0, "enc/w": 0.25, "w": 0.25}


def test_an_optimizer_made_of_parts():
    tx = jopt.chain(
        jopt.scale_by_adam(),
        jopt.add_decayed_weights(0.5, mask="w"),
        jopt.scale_by_learning_rate(SCHEDULE),
        jopt.scale(0.5),
    )
    row = rows(tx)["w"]
    assert row.optimizer == "scale_by_adam"
    assert row.learning_rate == f"0.5 * {SCHEDULE!r}"
    assert column("weight_decay", tx) == {"enc/bias": 0, "enc/w": 0, "w": 0.5}
    assert set(column("optimizer", jopt.scale(2.0)).values()) == {"scale"}


def test_what_another_library_made_is_named():
    tx = jopt.chain(optax.clip(1.0), jopt.masked(optax.adam(0.1), "w"), jopt.sgd(0.5))
    assert column("optimizer", tx) == {
        "enc/bias": "optax: clip + sgd",
        "enc/w": "optax: clip + sgd",
        "w": "optax: clip + optax: chain + sgd",
    }
    assert column("state_bytes", tx) == {"enc/bias": 0, "enc/w": 0, "w": 48}


def test_the_state_of_what_needs_the_tree_itself_is_found_by_names():
    labels = {"w": "a", "enc": {"w": "a", "bias": "b"}}
    groups = {"a": optax.adam(0.1), "b": optax.sgd(0.1)}
    tx = jopt.chain(optax.multi_transform(groups, labels))
    assert column("state_bytes", tx) == {"enc/bias": 0, "enc/w": 16, "w": 48}
    assert jopt.describe(tx, P).shared_bytes == 4


def test_leaves_that_are_not_optimized():
    params = {"w": np.ones(2), "f": jnp.tanh, "n": 7, "x": 1.0, "none": None}
    found = rows(jopt.adam(0.1), params)
    assert [row.optimizer for row in found.values()] == ["", "", "adam", "adam"]
    assert found["n"].dtype == "int" and found["x"].shape == ()
    assert jopt.describe(jopt.adam(0.1), params).parameters == 3
    assert jopt.describe(jopt.adam(0.1), {}).rows == ()
    assert rows(jopt.adam(0.1), jnp.ones(3))[""].state_bytes == 24


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_every_optimizer(row):
    tx = row.make()
    like = jax.eval_shape(lambda: P)
    found = jopt.describe(tx, like)
    state = jax.eval_shape(tx.init, like)
    total = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    assert found.state_bytes == total
    assert found.shared_bytes < 100, "all slots belong to a parameter"
    names = {row.optimizer for row in found.rows}
    several = row.name in ("contrib.muon", "schedule_free")
    if "learning_rate" in row.settings and not several:
        assert names == {row.name.rpartition(".")[2]}
        assert {r.learning_rate for r in found.rows} == {row.settings["learning_rate"]}
    assert "" not in names and str(found)


def test_nothing_is_allocated_or_compiled():
    huge = {"w": jax.ShapeDtypeStruct((10**9, 10**6), jnp.float32)}
    tx = jopt.inject_hyperparams(jopt.chain)(jopt.adamw(0.1))
    assert rows(jopt.MultiSteps(tx, 2), huge)["w"].state_bytes == 12 * 10**15


def test_what_does_not_fit_is_refused():
    with pytest.raises(TypeError, match="describe: tx must be a gradient transform"):
        jopt.describe(jopt.adam, P)
    with pytest.raises(ValueError, match="'decoder' matches no leaf"):
        jopt.describe(jopt.groups({"decoder": None}, jopt.sgd(0.1)), P)


# --------------------------------------------------------------------------- the table

TABLE = """\
path      shape   dtype     group    optimizer  lr   decay  state bytes
-----------------------------------------------------------------------
enc/bias  [2]     float32   enc      frozen                 0
enc/w     [2, 2]  bfloat16  enc      frozen                 0
w         [3, 2]  float32   default  adam       0.1         48
12 parameters, 6 frozen; 52 bytes of state, 4 shared
enc: 6 parameters, 0 bytes
default: 6 parameters, 48 bytes"""

TX = jopt.groups({"enc": None}, jopt.adam(0.1))


def test_it_prints_as_plain_text(monkeypatch):
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.setitem(sys.modules, "rich.table", None)
    found = jopt.describe(TX, P)
    assert str(found) == repr(found) == f"{found}" == TABLE


def test_it_prints_with_rich(capsys):
    rich.print(jopt.describe(TX, P))
    text = capsys.readouterr().out
    for word in ("enc/bias", "bfloat16", "frozen", "12 parameters, 6 frozen"):
        assert word in text
    tx = jopt.groups({re.compile("[bold]"): None}, jopt.sgd(0.1))
    rich.print(jopt.describe(tx, {"bold": jnp.ones(2), "w": jnp.ones(2)}))
    assert capsys.readouterr().out.count("[bold]") == 2, "no markup"


def test_a_schedule_that_is_a_plain_function_has_its_name():
    def cosine(count):
        return 0.1

    assert " cosine " in str(jopt.describe(jopt.adam(cosine), P))


def test_rates_and_decay_by_path():
    params = {"embed": jnp.ones(3), "head": {"w": jnp.ones((3, 2)), "b": jnp.ones(2)}}
    rates = {"embed": 1e-3, "default": 1e-2}
    tx = jopt.adamw(rates, weight_decay=jopt.l2({"**/w": 0.1}))
    rows = {row.path: row for row in jopt.describe(tx, params).rows}
    assert {path: row.learning_rate for path, row in rows.items()} == {
        "embed": 1e-3,
        "head/b": 1e-2,
        "head/w": 1e-2,
    }
    assert str(rows["head/w"].weight_decay) == "l2(0.1)"
    assert str(rows["embed"].weight_decay) == "l2(0.0)"

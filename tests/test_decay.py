"""Rates and weight decay by leaf, decay of every kind, and masks on every optimizer."""

import inspect
import pickle
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.engine import kernel
from tests.catalogue import METHODS, _at

PARAMS = {
    "embed": np.array([0.5, -1.0, 2.0]),
    "head": {"bias": np.array([0.25, -0.75]), "w": np.array([[1.0, -2.0], [0.5, 3.0]])},
    "layers": [{"bias": np.array([1.5, 0.5]), "w": np.array([[2.0, 1.0]])}] * 2,
}
PATHS = jopt.tree.paths(PARAMS)
FEW = {"embed": PARAMS["embed"], "head": {"w": PARAMS["head"]["w"]}}


def gradients(params):
    return jax.tree.map(lambda p: 0.3 * p + 0.1, params)


GRADS = gradients(PARAMS)
SCHEDULE = jopt.linear_schedule(0.4, 0.1, 2)  # 0.4, 0.25, 0.1


def run(tx, steps=3, params=PARAMS, compiled=False, **extra):
    """The parameters after some steps under one gradient, by path, in float64.

    Operation by operation if not `compiled`: these are compiled once for all methods.
    """
    with jax.enable_x64(True), jax.disable_jit(not compiled):
        p = jax.tree.map(jnp.asarray, params)
        g = jax.tree.map(jnp.asarray, gradients(params))
        state = tx.init(p)
        for _ in range(steps):
            u, state = tx.update(g, state, p, **extra)
            p = jopt.apply_updates(p, u)
        leaves = [np.asarray(x) for x in jax.tree.leaves(p)]
    return dict(zip(jopt.tree.paths(params), leaves))


def by_hand(rates, decays, kind="decoupled", momentum=0.5, steps=3):
    """SGD with momentum; rates and decays are functions of the path and the step."""
    out = {}
    flat = zip(PATHS, jax.tree.leaves(PARAMS), jax.tree.leaves(GRADS))
    for path, p, g in flat:
        trace = np.zeros_like(p)
        for t in range(steps):
            lr, w = rates(path, t), decays(path, t)
            trace = g + (w * p if kind == "l2" else 0) + momentum * trace
            times = dict(decoupled=lr * w, independent=w, l2=0)[kind]
            p = p - lr * trace - times * p
        out[path] = p
    return out


def assert_same(got, expected, rtol=1e-12):
    assert got.keys() == expected.keys()
    for path in expected:
        np.testing.assert_allclose(got[path], expected[path], rtol=rtol, err_msg=path)


# ------------------------------------------------------------------- numbers by leaf

FORMS = {
    "a mapping": {"**/bias": 0.1, "layers/1": 0.2, "default": 0.3},
    "a regular expression": {re.compile("bias$"): 0.1, "layers/1": 0.2, "default": 0.3},
    "a tree": {
        "embed": 0.3,
        "head": {"bias": 0.1, "w": 0.3},
        "layers": [{"bias": 0.1, "w": 0.3}, {"bias": 0.1, "w": 0.2}],
    },
    "a prefix": {
        "embed": 0.3,
        "head": {"bias": 0.1, "w": 0.3},
        "layers": ({"bias": 0.1, "w": 0.3}, {"bias": 0.1, "w": 0.2}),
    },
    "arrays": {
        "**/bias": jnp.float32(0.1),
        "layers/1": 0.2,
        "default": np.float64(0.3),
    },
    "schedules": {
        "**/bias": 0.1,
        "layers/1": jopt.constant_schedule(0.2),
        "default": lambda t: 0.3,
    },
}


def number(path, t=0):
    return 0.1 if "bias" in path else 0.2 if "layers/1" in path else 0.3


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("which", ["learning_rate", "weight_decay"])
def test_numbers_by_leaf_equal_those_by_hand(form, which):
    given = FORMS[form]
    settings: Any = dict(learning_rate=0.1, weight_decay=0.1) | {which: given}
    one = lambda path, t: 0.1  # noqa: E731
    both = (number, one) if which == "learning_rate" else (one, number)
    expected = by_hand(*both)
    rtol = 1e-7 if form in ("arrays", "schedules") else 1e-12  # float32 numbers
    assert_same(run(jopt.sgd(momentum=0.5, **settings)), expected, rtol)


def test_schedules_by_leaf_see_the_step():
    rates = {"head": SCHEDULE, "default": 0.1}
    tx = jopt.sgd(rates, momentum=0.5, weight_decay={"**/w": SCHEDULE})
    at = lambda t: 0.4 - 0.15 * t  # noqa: E731
    expected = by_hand(
        lambda p, t: at(t) if "head" in p else 0.1,
        lambda p, t: at(t) if p.endswith("/w") else 0.0,
    )
    assert_same(run(tx), expected, 1e-7)


def test_a_mapping_equals_the_partition():
    rates = {"**/bias": 0.1, "layers/1": 0.2, "default": 0.3}
    decays = {"**/w": 0.2}
    labels = {"**/bias": "b", "layers/1": "l", "**": "d"}
    optimizers: Any = {
        "b": jopt.adamw(0.1, weight_decay=0.0),
        "l": jopt.adamw(0.2, weight_decay=0.2),
        "d": jopt.adamw(0.3, weight_decay=0.2, mask=lambda path, x: path != "embed"),
    }
    expected = run(jopt.partition(optimizers, labels))
    assert_same(run(jopt.adamw(rates, weight_decay=decays)), expected)


def test_states_are_those_of_numbers_and_of_schedules():
    def structure(rate, decay):
        return jax.tree.structure(jopt.adamw(rate, weight_decay=decay).init(PARAMS))

    numbers = FORMS["a mapping"]
    assert structure(numbers, numbers) == structure(0.1, 0.1)
    assert structure(FORMS["schedules"], 0.1) == structure(SCHEDULE, 0.1)
    assert structure(0.1, FORMS["schedules"]) == structure(0.1, SCHEDULE)


def test_what_a_mask_hides_needs_no_rate():
    tx = jopt.masked(jopt.sgd({"head/w": 0.5}), "head/w")
    assert_same(
        {"head/w": run(tx, 1)["head/w"]},
        {"head/w": PARAMS["head"]["w"] - 0.5 * GRADS["head"]["w"]},
    )
    inner = jopt.sgd({"embed": 0.1, "head": {"bias": 0.1, "w": 0.5}, "layers": 0.1})
    assert_same(
        run(jopt.masked(inner, "head/w")), run(jopt.masked(jopt.sgd(0.5), "head/w"))
    )


def test_leaves_of_one_shape_share_a_trace(monkeypatch):
    """Whatever their numbers, also in groups of one optimizer."""
    params = {f"l{i}": jnp.ones((3, 2)) for i in range(40)}
    rates = {f"l{i}": 0.1 * (i + 1) for i in range(39)} | {"default": 0.1}
    groups = {f"l{i}": dict(learning_rate=0.1 * (i + 2)) for i in range(3)}
    groups["l4"] = dict(weight_decay=0.5)
    traces, rule = [], kernel._apply

    def counted(stage, *args):
        traces.append(stage.name)
        return rule(stage, *args)

    monkeypatch.setattr(kernel, "_apply", counted)
    for tx in (
        jopt.adamw(rates, weight_decay={"l1*": 0.1}),
        jopt.groups(groups, jopt.adamw(0.1)),
    ):
        state = tx.init(params)
        traces.clear()
        jax.jit(tx.update).trace(params, state, params)
        assert len(traces) == 3, traces  # Adam, the decay, the rate, each once


def test_arrays_among_the_rates_change_without_a_trace():
    first, second = (
        jopt.sgd({"embed": jnp.float32(x), "default": 0.1}) for x in (0.5, 0.2)
    )
    assert first != second
    updates: Any = first.update, second.update
    assert updates[0].eager.remade == updates[1].eager.remade, "one program"
    new, old = (run(tx, 1)["embed"] - PARAMS["embed"] for tx in (first, second))
    np.testing.assert_allclose(new, 2.5 * old, rtol=1e-6)


def test_settings_by_path_compare_and_print_as_given():
    def make(**rates):
        return jopt.adamw(rates | {"default": 1.0}, weight_decay=jopt.l2({"head": 0.1}))

    assert make(a=0.1, b=0.2) == make(a=0.1, b=0.2)
    assert hash(make(a=0.1, b=0.2)) == hash(make(a=0.1, b=0.2))
    assert make(a=0.1, b=0.2) != make(b=0.2, a=0.1), "the first that fits counts"
    assert pickle.loads(pickle.dumps(make(a=0.1))) == make(a=0.1)
    assert repr(make(a=0.1)) == (
        "adamw({'a': 0.1, 'default': 1.0}, weight_decay=l2({'head': 0.1}))"
    )
    for wrap in (
        lambda rates: jopt.groups({"head": dict(learning_rate=rates)}, jopt.sgd(1.0)),
        lambda rates: jopt.inject_hyperparams(jopt.sgd)(rates),
    ):
        assert wrap(dict(a=0.1, b=0.2)) == wrap(dict(a=0.1, b=0.2))
        assert wrap(dict(a=0.1, b=0.2)) != wrap(dict(b=0.2, a=0.1))


def test_injected_settings_by_path_stay_as_they_are():
    rates = {"head": SCHEDULE, "default": 0.1}
    tx = jopt.inject_hyperparams(jopt.sgd)(rates, momentum=0.5)
    assert set(tx.init(PARAMS).hyperparams) == {"momentum"}
    assert_same(run(tx), run(jopt.sgd(rates, momentum=0.5)), 1e-6)


# ------------------------------------------------------------------------------ kinds


@pytest.mark.parametrize("kind", ["decoupled", "l2", "independent"])
@pytest.mark.parametrize("mask", [None, "**/w"])
@pytest.mark.parametrize("value", [0.2, SCHEDULE, {"head": 0.1, "default": SCHEDULE}])
def test_kinds_of_decay(kind, mask, value):
    decay = value if kind == "decoupled" else getattr(jopt, kind)(value)

    def number(path, t):
        if mask and not path.endswith("/w"):
            return 0.0
        given = value
        if isinstance(value, dict):
            given = value["head" if "head" in path else "default"]
        return 0.4 - 0.15 * t if callable(given) else given

    expected = by_hand(lambda p, t: 0.1, number, kind)
    tx = jopt.sgd(0.1, momentum=0.5, weight_decay=decay, mask=mask)
    assert_same(run(tx), expected, 1e-7 if value != 0.2 else 1e-12)


def test_kinds_are_values():
    assert jopt.l2({"a": 1.0, "b": 2.0}) != jopt.l2({"b": 2.0, "a": 1.0})
    assert jopt.l2(0.1) == jopt.l2(0.1) != jopt.independent(0.1) != jopt.l2(0.2)
    assert hash(jopt.l2(0.1)) == hash(jopt.l2(0.1))
    assert repr(jopt.independent({"w": 0.1})) == "independent({'w': 0.1})"
    assert jopt.adam(0.1, weight_decay=jopt.l2(0.1)) != jopt.adam(0.1, weight_decay=0.1)


@pytest.mark.parametrize(
    "name, settings",
    [
        ("rmsprop", dict(momentum=0.5)),
        ("rprop", {}),
        ("signum", {}),
        ("optimistic_adam_v2", {}),
        ("contrib.muon", {}),
    ],
)
def test_decay_beside_other_ends(name, settings):
    """One step: without decay, less the decay of the parameters before it."""
    make = _at(jopt, name)
    only = "head/w" if "muon" in name else None
    plain = run(make(0.1, **settings), 1)
    for decay, factor in ((0.2, 0.02), (jopt.independent(0.2), 0.2)):
        got = run(make(0.1, weight_decay=decay, **settings), 1)
        for path, p in zip(PATHS, jax.tree.leaves(PARAMS)):
            if only in (None, path):
                np.testing.assert_allclose(
                    got[path], plain[path] - factor * p, rtol=1e-9
                )


def test_decay_of_fromage():
    p, g = PARAMS["embed"], GRADS["embed"]
    u = np.linalg.norm(p) / np.linalg.norm(g) * g
    expected = (p - 0.1 * (u + 0.2 * p)) / np.sqrt(1.01)
    got = run(jopt.fromage(0.1, weight_decay=0.2), 1)["embed"]
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    got = run(jopt.fromage({"head": 0.3, "default": lambda t: 0.1}))
    for path, rate in (("embed", 0.1), ("head/w", 0.3)):
        expected = run(jopt.fromage(rate))[path]
        np.testing.assert_allclose(got[path], expected, rtol=1e-6)


def test_decay_of_polyak_sgd():
    plain = run(jopt.polyak_sgd(scaling=0.5), 1, value=0.7)
    tx = jopt.polyak_sgd(scaling=0.5, weight_decay=0.2, mask="embed")
    plain["embed"] = plain["embed"] - 0.5 * 0.2 * PARAMS["embed"]
    assert_same(run(tx, 1, value=0.7), plain)
    with pytest.raises(TypeError, match="polyak_sgd: weight_decay must not be l2"):
        jopt.polyak_sgd(weight_decay=jopt.l2(0.1))


# ------------------------------------------------------------------------------ masks

WITHOUT_DECAY = {
    "lbfgs": "its line search measures the loss: the penalty belongs in there",
    "schedule_free": "its base optimizer has it",
}
NAMES = sorted(METHODS)
WITH_RATE = [
    name
    for name in NAMES
    if "learning_rate" in inspect.signature(_at(jopt, name)).parameters
]


@pytest.mark.parametrize("name", WITH_RATE)
def test_every_optimizer_has_decay_and_a_mask(name):
    names = set(inspect.signature(_at(jopt, name)).parameters)
    if name in WITHOUT_DECAY:
        assert not names & {"weight_decay", "mask"}, "it has them now"
        return
    decay = names & {"weight_decay", "weight_decay_rate"}
    mask = names & {"mask", "weight_decay_mask"}
    assert len(decay) == len(mask) == 1


SETTINGS = {
    "noisy_sgd": dict(eta=1e-30, key=0),
    "contrib.muon": dict(adam_weight_decay=0.2),
    "contrib.sophia": None,  # these two see other gradients or a function
    "dpsgd": None,
    "lars": dict(trust_coefficient=0.1),
    "adafactor": dict(multiply_by_parameter_scale=False),
}
EXTRA = dict(momo=dict(value=0.7), momo_adam=dict(value=0.7))
MASKED = [
    n for n in WITH_RATE if n not in WITHOUT_DECAY and SETTINGS.get(n, ()) is not None
]


@pytest.mark.parametrize("name", MASKED)
def test_masks_let_the_others_go_without_decay(name):
    make = _at(jopt, name)
    names = set(inspect.signature(make).parameters)
    decay = (names & {"weight_decay", "weight_decay_rate"}).pop()
    mask = (names & {"mask", "weight_decay_mask"}).pop()
    settings = dict(learning_rate=0.1) | SETTINGS.get(name, {})
    extra = EXTRA.get(name.split(".")[-1], {})
    one = "head/w"  # a matrix: the ones of Muon are

    def after(**more):
        return run(make(**settings | more), 2, FEW, **extra)

    plain, decayed = after(**{decay: 0.0}), after(**{decay: 0.2})
    masked = after(**{decay: 0.2, mask: one})
    whole = {"dog", "dowg", "momo", "momo_adam", "prodigy", "dadapt_adamw"}
    assert np.any(masked[one] != plain[one])
    if name.split(".")[-1] not in whole:  # one step size for the whole tree
        np.testing.assert_allclose(masked[one], decayed[one], rtol=1e-12)
        if name != "contrib.muon":  # its mask is of the matrices
            np.testing.assert_allclose(masked["embed"], plain["embed"], rtol=1e-12)
    assert_same(after(**{decay: 0.2, mask: "**"}), decayed)
    if name != "contrib.muon":
        assert_same(after(**{decay: 0.2, mask: lambda path, x: False}), plain)


def test_momo_with_a_mask_is_the_step_of_its_model():
    """The first step reaches the point where the model's loss is its lower bound."""

    def flat(tree):
        return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])

    p, g = flat(PARAMS), flat(GRADS)
    shown = lambda path, x: 0 * x + (path == "head/w")  # noqa: E731
    k = 1 + 10.0 * 0.3 * flat(jopt.tree.map_with_path(shown, PARAMS))
    tx = jopt.momo(10.0, weight_decay=0.3, mask="head/w")
    new = flat([*run(tx, 1, value=5.0).values()])
    step = (p - k * new) / g
    np.testing.assert_allclose(step, step[0], rtol=1e-9)
    np.testing.assert_allclose(5.0 + g @ (new - p), 0.0, atol=1e-9)


# ----------------------------------------------------------------------------- errors

BAD_RATES = [
    (ValueError, "has no value for the leaves embed", {"head": 1.0, "layers": 1.0}),
    (ValueError, "rule 'heads'.*head/bias", {"heads": 1.0, "default": 0.1}),
    (ValueError, "the tree structure of params.*'embed'", {"head": {"w": 0.1}}),
    (ValueError, r"at \['head'\] must be a finite number", {"head": float("nan")}),
    (TypeError, r"at \['head'\] must be a number, got a str", {"head": "0.1"}),
    (TypeError, r"at \['head'\] must be a number, got None", {"head": None}),
    (TypeError, r"must be a number, got \{\}", {}),
    (ValueError, r"at \['w'\]\['b'\] must be a scalar", {"w": {"b": np.ones(2)}}),
    (ValueError, "must return a real scalar", {"**": lambda t: jnp.ones(2)}),
]
BAD_DECAYS = [
    (ValueError, r"the rule '\*\*/bais'", {"**/bais": 1.0}),
    (ValueError, r"at \['\*\*/w'\] must be at least 0, got -0.1", {"**/w": -0.1}),
]


@pytest.mark.parametrize(
    "name, error, words, value",
    [("learning_rate", *row) for row in BAD_RATES]
    + [("weight_decay", *row) for row in BAD_DECAYS],
)
def test_bad_numbers_by_leaf(name, error, words, value):
    with pytest.raises(error, match=f"{name}.*{words}"):
        settings: Any = dict(learning_rate=0.1) | {name: value}
        tx = jopt.adamw(**settings)
        tx.update(GRADS, tx.init(PARAMS), PARAMS)


@pytest.mark.parametrize(
    "error, words, make, settings",
    [
        (ValueError, "must be at least 0", jopt.l2, dict(weight_decay=-1.0)),
        (ValueError, r"at \['w'\]", jopt.independent, dict(weight_decay={"w": -1.0})),
        (TypeError, "a number and no l2", jopt.l2, dict(weight_decay=jopt.l2(1.0))),
        (TypeError, "no l2.*: lamb has", jopt.lamb, dict(weight_decay=jopt.l2(0.1))),
    ],
)
def test_what_a_method_cannot_do_it_refuses(error, words, make, settings):
    if make in (jopt.lamb, jopt.novograd):
        settings = settings | dict(learning_rate=0.1)
    with pytest.raises(error, match=f"{make.__name__}: .*{words}"):
        make(**settings)


# ---------------------------------------------------------------------- layer by layer


def test_layerwise_lr_decay():
    rates = jopt.layerwise_lr_decay(PARAMS, 0.8, 0.5, first="embed")
    assert rates == {"embed": 0.1, "layers/0": 0.2, "layers/1": 0.4, "default": 0.8}
    got = run(jopt.sgd(rates), 1)
    for path, p, g in zip(PATHS, jax.tree.leaves(PARAMS), jax.tree.leaves(GRADS)):
        rate = next((x for key, x in rates.items() if path.startswith(key)), 0.8)
        np.testing.assert_allclose(got[path], p - rate * g, rtol=1e-12)
    factors = jopt.layerwise_lr_decay(PARAMS, 1.0, 0.5, first="embed")
    rules = {k: dict(lr_mult=x) for k, x in factors.items() if k != "default"}
    assert_same(run(jopt.groups(rules, jopt.sgd(0.8)), 1), got)
    shapes = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, PARAMS))
    scheduled = jopt.layerwise_lr_decay(shapes, SCHEDULE, 0.5, first="embed")
    half = jopt.layerwise_lr_decay(PARAMS, 0.4, 0.5, first="embed")
    assert_same(run(jopt.sgd(scheduled), 1), run(jopt.sgd(half), 1), 1e-6)
    assert scheduled == jopt.layerwise_lr_decay(shapes, SCHEDULE, 0.5, first="embed")


RATED = {
    name: row
    for name, row in METHODS.items()
    if "learning_rate" in inspect.signature(_at(jopt, name)).parameters
}


@pytest.mark.parametrize("row", RATED.values(), ids=RATED)
def test_lr_mult_is_a_factor_of_the_updates(row):
    params = {"a": jnp.array([[0.5, -1.0], [2.0, 1.0]]), "b": jnp.array([1.5, -0.5])}
    grads = jax.tree.map(lambda p: 0.3 * p + 0.1, params)
    extra = {} if row.extra is None else row.extra(params)
    if "value" in extra:
        pytest.skip("its extra arguments are of other parameters")

    def updates_of(group):
        tx = jopt.groups({"a": group}, row.make())
        with jax.disable_jit():
            u, state = tx.update(grads, tx.init(params), params, **extra)
            if row.name == "contrib.adopt":  # its first step is none
                u, _ = tx.update(grads, state, params)
            return u

    plain, scaled = updates_of({}), updates_of(dict(lr_mult=0.25))
    assert np.any(plain["a"])
    np.testing.assert_allclose(scaled["a"], 0.25 * plain["a"], rtol=1e-6)
    np.testing.assert_array_equal(scaled["b"], plain["b"])


def test_layers_are_counted_in_the_order_of_their_numbers():
    params = {"net": {f"Block_{i}": {"w": 1.0} for i in range(2, 12)}, "out": 1.0}
    rates = jopt.layerwise_lr_decay(params, 1.0, 0.5, layers="**/Block_{}")
    assert rates["**/Block_11"] == 0.5 and rates["**/Block_2"] == 0.5**10


@pytest.mark.parametrize(
    "words, settings",
    [
        (r"layers must have one \{\}", dict(layers="layers/*")),
        ("layers: the pattern 'blocks/{}' matches no leaf", dict(layers="blocks/{}")),
        (r"decay must be in \(0, 1\]", dict(decay=0.0)),
        ("learning_rate must be a finite number", dict(learning_rate=float("inf"))),
    ],
)
def test_bad_layerwise_decay(words, settings):
    settings = dict(learning_rate=1.0, decay=0.5) | settings
    with pytest.raises(ValueError, match=f"layerwise_lr_decay: {words}"):
        jopt.layerwise_lr_decay(PARAMS, **settings)

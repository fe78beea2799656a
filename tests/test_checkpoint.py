"""States by name: saved, restored, after a change of the chain, and from optax."""

import io

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import jopt
from tests.catalogue import ROWS

SHAPES = {"w": (4, 6), "stack": (2, 3, 4), "b": (6,), "s": ()}
MASK = {"w": True, "stack": False, "b": True, "s": True}
LABELS = {"w": "a", "stack": "a", "b": "z", "s": "z"}


def tree(seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return {k: jnp.asarray(rng.normal(size=s), dtype) for k, s in SHAPES.items()}


def decaying(count):
    return jnp.where(count < 2, 0.0625, 0.03125)


def injected():
    return jopt.inject_hyperparams(jopt.adamw)(decaying, weight_decay=0.1)


ADAM = jopt.adam(0.1)
MADE = {row.id: row.make for row in ROWS} | {
    "multi_steps": lambda: jopt.multi_steps(
        ADAM, 2, should_skip_update_fn=jopt.skip_not_finite
    ),
    "MultiSteps": lambda: jopt.MultiSteps(injected(), 2),
    "apply_if_finite": lambda: jopt.apply_if_finite(ADAM, 3),
    "inject_hyperparams": injected,
    "mechanize": lambda: jopt.contrib.mechanize(ADAM),
    "groups": lambda: jopt.groups({"b": {"b1": 0.5}, "stack": None}, ADAM),
    "partition": lambda: jopt.partition({"a": ADAM, "z": jopt.lion(0.1)}, LABELS),
    "masked": lambda: jopt.masked(ADAM, MASK),
    "named_chain": lambda: jopt.named_chain(("adam", ADAM), ("ema", jopt.ema(0.9))),
    "flatten": lambda: jopt.flatten(ADAM),
    "conditionally_mask": lambda: jopt.conditionally_mask(ADAM, lambda step: step > 1),
    "add_noise": lambda: jopt.add_noise(0.1, 0.5, key=jax.random.key(0)),
    "two of a kind": lambda: jopt.chain(jopt.trace(0.9), jopt.trace(0.5)),
    "nothing": lambda: jopt.scale(-0.1),
}
every = pytest.mark.parametrize("make", MADE.values(), ids=MADE)


def is_key(x):
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def filled(state):
    """The state with other numbers in every leaf, so that each is known again."""
    rng = np.random.default_rng(0)

    def one(x):
        if is_key(x):
            return jax.random.key(7)
        return jnp.asarray(rng.integers(0, 2, x.shape) + rng.uniform(), x.dtype)

    return jax.tree.map(one, state)


def saved_to_npz(d):
    file = io.BytesIO()
    np.savez(file, **d)
    file.seek(0)
    return np.load(file)


def assert_same(a, b):
    data = lambda x: jax.random.key_data(x) if is_key(x) else x  # noqa: E731
    chex.assert_trees_all_equal(jax.tree.map(data, a), jax.tree.map(data, b))
    chex.assert_trees_all_equal_shapes_and_dtypes(a, b)


# -------------------------------------------------------------------------------- names


def test_names_say_what_the_arrays_are():
    params = {"layers": [{"w": jnp.ones(2)}]}
    schedule = jopt.linear_schedule(0.1, 0.0, 10)
    tx = jopt.groups(
        {"**/w": jopt.adam(schedule)}, jopt.multi_steps(jopt.sgd(0.1, momentum=0.9), 2)
    )
    tx = jopt.chain(jopt.trace(0.5), tx, jopt.trace(0.9))
    assert list(jopt.state_dict(tx, tx.init(params))) == [
        "version",
        "trace/trace/layers/0/w",
        "**/w/adam/count",
        "**/w/adam/mu/layers/0/w",
        "**/w/adam/nu/layers/0/w",
        "**/w/schedule/count",
        "default/multi_steps/mini_step",
        "default/multi_steps/gradient_step",
        "trace_2/trace/layers/0/w",
    ]


@every
def test_round_trip(make):
    tx, params = make(), tree()
    state = filled(tx.init(params))
    d = jopt.state_dict(tx, state)
    assert len(d) == 1 + len(jax.tree.leaves(state))
    restored, report = jopt.load_state_dict(tx, params, saved_to_npz(d))
    assert_same(restored, state)
    assert report == jopt.StateReport((), (), {}, {})


@every
def test_names_stay_when_the_chain_changes(make):
    tx, params = make(), tree()
    state = filled(tx.init(params))
    everywhere = jax.tree.map(lambda _: True, params)
    changed = jopt.masked(jopt.chain(jopt.scale(1.0), tx), everywhere)
    changed = jopt.named_chain(("clip", jopt.clip(1.0)), ("rest", changed))
    restored, _ = jopt.load_state_dict(changed, params, jopt.state_dict(tx, state))
    assert_same(restored["rest"].inner_state[1], state)


def test_the_names_of_a_method_stay_when_it_is_wrapped():
    params, adam = tree(), jopt.adam(0.1)
    d = jopt.state_dict(adam, adam.init(params))
    for tx in (
        jopt.multi_steps(adam, 2),
        jopt.apply_if_finite(adam, 2),
        jopt.inject_hyperparams(jopt.adam)(0.1),
        jopt.chain(jopt.monitor({"norm": jopt.tree.norm}), adam),
    ):
        _, report = jopt.load_state_dict(tx, params, d, partial=True)
        assert not report.unused and not report.reshaped


def test_an_abstract_state_has_names_too():
    tx, params = jopt.add_noise(0.1, 0.5, key=jax.random.key(0)), tree()
    d = jopt.state_dict(tx, jax.eval_shape(tx.init, params))
    key = d["add_noise/rng_key/threefry2x32"]
    assert isinstance(key, jax.ShapeDtypeStruct) and key.dtype == np.uint32


def test_odd_leaves_and_containers():
    """Names come from the keys: containers may change, and what is no array is out."""
    flax = pytest.importorskip("flax")
    params = {"f": jnp.tanh, "none": None, "key": jax.random.key(0), "w": jnp.ones(2)}
    tx = jopt.adam(0.1)
    d = jopt.state_dict(tx, filled(tx.init(params)))
    assert list(d) == ["version", "adam/count", "adam/mu/w", "adam/nu/w"]
    frozen = flax.core.freeze(params)
    state, _ = jopt.load_state_dict(tx, frozen, d)
    assert jax.tree.structure(state) == jax.tree.structure(tx.init(frozen))
    np.testing.assert_array_equal(state[0].mu["w"], d["adam/mu/w"])


def test_a_state_that_is_no_namedtuple():
    bare = optax.GradientTransformation(
        lambda params: {"sum": params, "n": 0}, lambda u, s, params=None: (u, s)
    )
    tx = jopt.chain(bare, jopt.clip(1.0), bare)
    d = jopt.state_dict(tx, tx.init(jnp.ones(2)))
    assert list(d)[1:] == ["state/n", "state/sum", "state_2/n", "state_2/sum"]


def test_one_name_for_two_leaves_is_refused():
    tx, params = jopt.trace(0.9), {"a/b": jnp.ones(2), "a": {"b": jnp.ones(2)}}
    with pytest.raises(ValueError, match="share a name, trace/trace/a/b; "):
        jopt.state_dict(tx, tx.init(params))
    with pytest.raises(ValueError, match="share a name, trace/trace/a/b; "):
        jopt.load_state_dict(tx, params, {"version": 1})


# --------------------------------------------------------------------------- going on

GOING_ON = {
    "adamw": lambda: jopt.adamw(0.1, weight_decay=0.1),
    "sgd": lambda: jopt.sgd(decaying, momentum=0.9),
    "inject": lambda: jopt.multi_steps(injected(), 2),
    "noise": lambda: jopt.chain(
        jopt.add_noise(0.1, 0.5, key=jax.random.key(0)), jopt.adam(0.1)
    ),
}


@pytest.mark.parametrize("make", GOING_ON.values(), ids=GOING_ON)
def test_goes_on_bit_for_bit(make):
    tx, params = make(), tree(dtype=jnp.bfloat16)

    def steps(tx, p, state, seeds):
        for seed in seeds:
            u, state = tx.update(tree(seed, jnp.bfloat16), state, p)
            p = jopt.apply_updates(p, u)
        return p, state

    want, _ = steps(tx, params, tx.init(params), range(5))
    p, state = steps(tx, params, tx.init(params), range(3))
    changed = jopt.chain(jopt.clip(1e9), tx)
    d = saved_to_npz(jopt.state_dict(tx, state))
    got, _ = steps(changed, p, jopt.load_state_dict(changed, p, d)[0], range(3, 5))
    chex.assert_trees_all_equal(got, want)


def test_bfloat16_outlives_npz():
    tx, params = jopt.sgd(0.1, momentum=0.9, accumulator_dtype=jnp.bfloat16), tree()
    state = filled(tx.init(params))
    d = saved_to_npz(jopt.state_dict(tx, state))
    assert d["trace/trace/w"].dtype.kind == "V"  # NumPy forgets which
    assert_same(jopt.load_state_dict(tx, params, d)[0], state)
    with pytest.raises(
        TypeError, match=r"d\['trace/trace/b'\] must be an array of num"
    ):
        jopt.load_state_dict(jopt.sgd(0.1, momentum=0.9), params, d)


def test_orbax_holds_it(tmp_path):
    ocp = pytest.importorskip("orbax.checkpoint")
    tx = jopt.groups({"**/b": None}, injected())
    params = {"layer": tree()}
    state = filled(tx.init(params))
    d = jopt.state_dict(tx, state)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", d)
        checkpointer.wait_until_finished()
        like = jopt.state_dict(tx, jax.eval_shape(tx.init, params))
        restored = checkpointer.restore(tmp_path / "state", like)
    assert_same(jopt.load_state_dict(tx, params, restored)[0], state)


def test_the_state_is_sharded_as_its_parameters():
    auto = (jax.sharding.AxisType.Auto,) * 2
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=auto)
    sharding = NamedSharding(mesh, PartitionSpec("x", "y"))
    params = {"w": jax.device_put(jnp.ones((4, 6)), sharding)}
    tx = jopt.adam(0.1)
    d = saved_to_npz(jopt.state_dict(tx, tx.init(params)))
    abstract = {"w": jax.ShapeDtypeStruct((4, 6), np.float32, sharding=sharding)}
    for given in (params, abstract):
        state, _ = jopt.load_state_dict(tx, given, d)
        assert state[0].mu["w"].sharding == sharding
        assert state[0].count.sharding == NamedSharding(mesh, PartitionSpec())


# ----------------------------------------------------------------------------- optax


IMPORTED = {
    "adam": lambda lib: lib.adam(0.1),
    "adamw": lambda lib: lib.adamw(decaying, weight_decay=0.1),
    "yogi": lambda lib: lib.yogi(0.1),
    "radam": lambda lib: lib.radam(0.1),
    "adamax": lambda lib: lib.adamax(0.1),
    "adopt": lambda lib: lib.contrib.adopt(0.1),
    "acprop": lambda lib: lib.contrib.acprop(0.1),
    "two of a kind": lambda lib: lib.chain(lib.scale_by_adam(), lib.yogi(0.1)),
    "sgd": lambda lib: lib.sgd(0.1, momentum=0.9, nesterov=True),
    "lamb": lambda lib: lib.lamb(0.1),
    "lion": lambda lib: lib.lion(0.1),
    "rmsprop": lambda lib: lib.rmsprop(0.1, momentum=0.9),
    "adafactor": lambda lib: lib.adafactor(0.1, min_dim_size_to_factor=3),
    "muon": lambda lib: lib.contrib.muon(0.1),
    "clip": lambda lib: lib.chain(lib.clip_by_global_norm(1.0), lib.adam(0.1)),
    "MultiSteps": lambda lib: lib.MultiSteps(lib.adam(0.1), 2),
    "masked": lambda lib: lib.masked(lib.adam(0.1), MASK),
    "partition": lambda lib: lib.partition(
        {"a": lib.adam(0.1), "z": lib.lion(0.1)}, LABELS
    ),
    "inject": lambda lib: lib.inject_hyperparams(lib.adamw)(decaying),
    "schedule_free": lambda lib: lib.contrib.schedule_free_sgd(0.1),
    "apply_if_finite": lambda lib: lib.apply_if_finite(lib.adam(0.1), 2),
}


@pytest.mark.parametrize("make", IMPORTED.values(), ids=IMPORTED)
def test_imports_a_state_of_optax(make):
    params = tree()
    theirs, ours = make(optax), make(jopt)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        _, state = jax.jit(theirs.update)(tree(1), theirs.init(params), params)
        want, _ = jax.jit(theirs.update)(tree(2), state, params)
    d = jopt.state_dict(None, state)
    assert list(d) == list(jopt.state_dict(theirs, state))
    wrapped = jopt.chain(jopt.clip(1e9), ours)
    got, _ = ours.update(tree(2), jopt.load_state_dict(ours, params, d)[0], params)
    chex.assert_trees_all_close(got, want, rtol=2e-5, atol=1e-6)
    again, _ = jopt.load_state_dict(wrapped, params, d)
    assert list(jopt.state_dict(wrapped, again)) == list(
        jopt.state_dict(ours, ours.init(params))
    )


def test_adam_s_entries_are_adam_s_where_there_is_one():
    """optax calls Yogi's state Adam's: it takes Adam's if nothing else is left."""
    d = adams()
    tx = jopt.chain(jopt.scale_by_yogi(), ADAM)
    state, report = jopt.load_state_dict(tx, tree(), d, partial=True)
    assert_same(state[1][0].mu["w"], d["adam/mu/w"])
    assert report.missing[0] == "yogi/count" and not report.unused
    both = jopt.chain(ADAM, jopt.scale_by_yogi())
    saved = jopt.state_dict(both, filled(both.init(tree())))
    assert_same(
        jopt.load_state_dict(tx, tree(), saved)[0][0].mu["w"], saved["yogi/mu/w"]
    )


# ------------------------------------------------------------------ what does not fit


def adams(**changes):
    """Adam's entries for `tree()`, some of them other (or missing, if `None`)."""
    d = jopt.state_dict(ADAM, filled(ADAM.init(tree())))
    changed = d | {k.replace("__", "/"): x for k, x in changes.items()}
    return {k: x for k, x in changed.items() if x is not None}


def test_what_does_not_fit_is_told_at_once():
    d = adams(adam__mu__w=None, adam__mu__W=np.ones(2), adam__nu__b=np.ones((6, 1)))
    with pytest.raises(ValueError) as e:
        jopt.load_state_dict(ADAM, tree(), d)
    for words in (
        "the state of adam(0.1)",
        "missing: adam/mu/w (near: adam/mu/W)",
        "unused: adam/mu/W",
        "reshaped: adam/nu/b is f64[6, 1] for f32[6]",
        "partial=True",
    ):
        assert words in str(e.value)


def test_partial_keeps_what_init_makes():
    tx = jopt.adamw(0.1, mu_dtype=jnp.float16)
    d = adams(adam__mu__w=None, extra=np.ones(2), adam__nu__b=np.ones((6, 1)))
    d = d | {"adam/mu/b": np.arange(6.0)}
    state, report = jopt.load_state_dict(tx, tree(), d, partial=True)
    assert report.missing == ("adam/mu/w",) and report.unused == ("extra",)
    assert report.reshaped == {"adam/nu/b": "f64[6, 1] for f32[6]"}
    assert report.converted["adam/mu/b"] == "f64[6] for f16[6]"
    np.testing.assert_array_equal(state[0].mu["w"], np.zeros((4, 6)))
    np.testing.assert_array_equal(state[0].nu["b"], np.zeros(6))
    np.testing.assert_array_equal(state[0].mu["b"], np.arange(6))
    np.testing.assert_array_equal(state[0].nu["w"], d["adam/nu/w"])
    assert types(state) == types(tx.init(tree()))


def types(state):
    return jax.tree.map(lambda x: (x.shape, x.dtype), state)


def test_integers_take_the_type_that_holds_them():
    state, report = jopt.load_state_dict(ADAM, tree(), adams(adam__count=np.int64(9)))
    assert state[0].count == 9 and state[0].count.dtype == np.int32
    assert report.converted == {"adam/count": "i64[] for i32[]"}


@pytest.mark.parametrize(
    "d, error, words",
    [
        (adams(adam__count=np.float32(1.5)), ValueError, "adam/count is f32.* for i32"),
        (adams(adam__count=np.int64(2**40)), ValueError, "adam/count is i64.* for i32"),
        (adams(adam__mu__b=np.ones(6, int)), ValueError, "adam/mu/b is i64.* for f32"),
        (adams(adam__mu__b=np.ones(6, complex)), ValueError, "adam/mu/b is c128.* for"),
        (adams(adam__mu__s=np.ones(1)), ValueError, "adam/mu/s is f.* for f32"),
        (adams(adam__mu__b="text"), TypeError, "'adam/mu/b'. must be an array of num"),
        (adams(adam__mu__b=[None]), TypeError, "'adam/mu/b'. must be an array of num"),
        (adams(version=None), ValueError, "missing: version"),
        (adams(version=np.int32(2)), ValueError, "of version 2.*update jopt"),
        (adams(version=np.ones(3)), ValueError, "'version'. must be 1"),
        ([1.0], TypeError, "d must be a mapping.* got a list"),
        ({}, ValueError, "missing: version, adam/count"),
    ],
)
def test_damage_is_refused(d, error, words):
    with pytest.raises(error, match=words):
        jopt.load_state_dict(ADAM, tree(), d)


def test_the_order_of_the_arguments_is_checked():
    state = ADAM.init(tree())
    with pytest.raises(TypeError, match="state_dict: tx must be a gradient transf"):
        jopt.state_dict(state, ADAM)
    with pytest.raises(TypeError, match="load_state_dict: tx must be a gradient tr"):
        jopt.load_state_dict(state, tree(), {})


def test_keys_of_another_kind_do_not_fit():
    params = tree()
    tx = jopt.add_noise(0.1, 0.5, key=jax.random.key(0))
    d = jopt.state_dict(tx, tx.init(params))
    other = jopt.add_noise(0.1, 0.5, key=jax.random.key(0, impl="rbg"))
    with pytest.raises(ValueError, match=r"missing: add_noise/rng_key/rbg"):
        jopt.load_state_dict(other, params, d)


# ------------------------------------------------------------------- changes of groups


def after_steps(tx, p, n=3):
    state = tx.init(p)
    for _ in range(n):
        _, state = tx.update(p, state, p)
    return state


BODY = {"body": jnp.ones((2, 3)), "head": jnp.full(3, 2.0)}
FROZEN = jopt.groups({"body": None}, ADAM)
PARTED = jopt.groups({"body": jopt.adam(0.01)}, ADAM)


@pytest.mark.parametrize("old", [FROZEN, PARTED, ADAM], ids=["frozen", "parted", "all"])
@pytest.mark.parametrize("new", [FROZEN, PARTED, ADAM], ids=["frozen", "parted", "all"])
def test_moments_are_found_whatever_the_label(old, new):
    state = after_steps(old, BODY)
    restored, report = jopt.load_state_dict(
        new, BODY, jopt.state_dict(old, state), partial=True
    )
    kept = {"head"} if FROZEN in (old, new) else {"body", "head"}
    named = jopt.state_dict(new, restored)
    before = jopt.state_dict(old, state)
    assert not report.reshaped and not report.converted
    by_end = {k.split("adam/")[-1]: x for k, x in before.items() if "adam/m" in k}
    for key, x in named.items():
        end = key.split("adam/")[-1]
        if "adam/m" in key and end.split("/")[-1] in kept:
            np.testing.assert_array_equal(x, by_end[end])
        elif "adam/m" in key:
            np.testing.assert_array_equal(x, 0)
    u, _ = new.update(BODY, restored, BODY)
    want, _ = old.update(BODY, state, BODY)
    np.testing.assert_array_equal(u["head"], want["head"])
    for name, source in report.moved.items():
        assert name not in before and source in before
    assert bool(report.moved) == ((old is ADAM) != (new is ADAM))


def test_a_group_that_is_new_begins_anew():
    saved = jopt.state_dict(FROZEN, after_steps(FROZEN, BODY))
    state, report = jopt.load_state_dict(PARTED, BODY, saved, partial=True)
    assert state.inner_states["body"].inner_state[0].count == 0
    assert state.inner_states["default"].inner_state[0].count == 3
    assert set(report.missing) == {
        *("body/adam/count", "body/adam/mu/body", "body/adam/nu/body")
    }
    grown = {**BODY, "extra": jnp.ones(2)}
    state, report = jopt.load_state_dict(ADAM, grown, saved, partial=True)
    assert state[0].count == 3 and not np.any(state[0].mu["extra"])
    assert report.moved["adam/count"] == "default/adam/count" and not report.unused


def test_groups_that_become_one_have_the_largest_count():
    state = after_steps(PARTED, BODY)
    body = state.inner_states["body"]
    adam = body.inner_state[0]._replace(count=jnp.int32(1))
    body = body._replace(inner_state=(adam, *body.inner_state[1:]))
    state = state._replace(inner_states={**state.inner_states, "body": body})
    state, report = jopt.load_state_dict(ADAM, BODY, jopt.state_dict(PARTED, state))
    assert state[0].count == 3 and report.moved["adam/count"] == "default/adam/count"

"""Leaves on several devices or meshes, outside of `jit`: each steps where it lives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jopt
from tests.catalogue import FORMS, METHODS

SHAPES = {"w": (4, 6), "stack": (2, 3, 4), "a": (6,), "b": (6,), "s": ()}

# Those that know the whole tree, or keep numbers of it; the others know a leaf alone.
NAMES = [
    *("adamw", "lamb", "adafactor", "contrib.muon", "galore", "schedule_free_adamw"),
    *("clip_by_global_norm", "contrib.normalize", "normalize_by_update_norm"),
    *("prodigy", "dadapt_adamw", "dog", "dowg", "mechanize", "momo", "momo_adam"),
    *("polyak_sgd", "sam", "lbfgs", "with_metrics", "reduce_on_plateau", "add_noise"),
]
ADAM = jopt.adam(0.1)
CLIPPED = jopt.chain(jopt.clip_by_global_norm(0.5), ADAM)
WRAPPED = {
    "apply_if_finite": lambda: jopt.apply_if_finite(ADAM, 2),
    "MultiSteps": lambda: jopt.MultiSteps(ADAM, 2),
    "skip_not_finite": lambda: jopt.MultiSteps(ADAM, 2, True, jopt.skip_not_finite),
    "skip_large_updates": lambda: jopt.MultiSteps(
        ADAM,
        2,
        should_skip_update_fn=functools.partial(
            jopt.skip_large_updates, max_squared_norm=1e3
        ),
    ),
    "inject": lambda: jopt.inject_hyperparams(jopt.adam)(0.1),
    "a schedule": lambda: jopt.adam(jopt.cosine_decay_schedule(0.1, 10)),
    "a user's schedule": lambda: jopt.chain(
        jopt.clip_by_global_norm(0.5), jopt.adam(lambda t: 0.1 if int(t) < 1 else 0.05)
    ),
    "masked": lambda: jopt.masked(
        CLIPPED, dict(w=True, stack=True, a=False, b=True, s=False)
    ),
    "partition": lambda: jopt.partition(
        {"dog": jopt.contrib.dog(), "clipped": CLIPPED},
        dict(w="dog", stack="dog", a="dog", b="clipped", s="clipped"),
    ),
    "conditionally": lambda: jopt.conditionally_transform(CLIPPED, lambda t: t % 2 < 1),
    "snapshot": lambda: jopt.snapshot("size", jopt.tree.norm),
}
MADE = {name: METHODS[name].make for name in NAMES} | WRAPPED
SIMILAR = set(NAMES) - set(FORMS) - {"adamw", "dog"} | {"skip_large_updates"}


def trees():
    rng = np.random.default_rng(0)

    def tree():
        return {
            k: jnp.asarray(rng.normal(size=s), jnp.float32) for k, s in SHAPES.items()
        }

    return tree(), [tree() for _ in range(3)]


def places(axis_type=AxisType.Auto):
    """Two meshes and two devices, one for each leaf; the first is the default one."""
    d = jax.devices()
    row = jax.make_mesh((2,), ("x",), (axis_type,), devices=d[2:4])
    square = jax.make_mesh((2, 2), ("x", "y"), (axis_type,) * 2, devices=d[4:8])
    return {
        "w": NamedSharding(row, PartitionSpec("x", None)),
        "stack": NamedSharding(square, PartitionSpec("x", None, "y")),
        "a": jax.sharding.SingleDeviceSharding(d[1]),
        "b": jax.sharding.SingleDeviceSharding(d[0]),
        "s": jax.sharding.SingleDeviceSharding(d[1]),
    }


def optimize(tx, params, grads, extra):
    state = tx.init(params)
    for g in grads:
        more = {k: jax.device_put(x, jax.devices()[7]) for k, x in extra.items()}
        updates, state = tx.update(g, state, params, **more)
        params = jopt.apply_updates(params, updates)
    return params, updates, state


def comparable(tree):
    """Its numbers, on the host."""

    def data(x):
        is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return jax.random.key_data(x) if is_key else x

    return jax.device_get([data(x) for x in jax.tree.leaves(tree)])


def check_that_each_leaf_is_at(where, tree):
    for k, place in where.items():
        assert tree[k].sharding.is_equivalent_to(place, tree[k].ndim), k


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in SIMILAR)) for name in MADE],
)
def test_a_step_is_that_of_one_device_and_each_leaf_stays(name):
    params, grads = trees()
    row = METHODS.get(name)
    needs_loss = row is not None and row.extra is not None
    extra = dict(value=jnp.float32(3.0)) if needs_loss else {}
    want = optimize(MADE[name](), params, grads, extra)
    where = places()
    apart = jax.device_put(params, where), [jax.device_put(g, where) for g in grads]
    got = optimize(MADE[name](), *apart, extra)
    check_that_each_leaf_is_at(where, got[0])
    check_that_each_leaf_is_at(where, got[1])
    for x, y in zip(comparable(got), comparable(want), strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-6)


def test_slots_live_with_their_leaf():
    params, grads = trees()
    where = places()
    apart = jax.device_put(params, where), [jax.device_put(g, where) for g in grads]
    for tx in (CLIPPED, jopt.apply_if_finite(CLIPPED, 2)):
        state = optimize(tx, *apart, {})[2]
        check_that_each_leaf_is_at(where, jopt.tree.get(state, "mu"))
        check_that_each_leaf_is_at(where, jopt.tree.get(state, "nu"))


@pytest.mark.parametrize("name", ["adamw", "clip_by_global_norm", "dog"])
def test_leaves_on_meshes_of_explicit_axes(name):
    params, grads = trees()
    want = optimize(MADE[name](), params, grads, {})
    where = places(AxisType.Explicit)
    apart = jax.device_put(params, where), [jax.device_put(g, where) for g in grads]
    got = optimize(MADE[name](), *apart, {})
    check_that_each_leaf_is_at(where, got[0])
    for x, y in zip(comparable(got), comparable(want), strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-6)


def test_the_same_devices_in_another_order_are_another_set():
    d = jax.devices()[:2]
    meshes = [jax.make_mesh((2,), ("x",), devices=some) for some in (d, d[::-1])]
    split = [NamedSharding(mesh, PartitionSpec("x")) for mesh in meshes]
    params = [jax.device_put(jnp.full(4, 2.0), place) for place in split]
    tx = jopt.chain(jopt.clip_by_global_norm(1.0), jopt.sgd(1.0))
    updates, _ = tx.update(params, tx.init(params), params)
    for u, place in zip(updates, split):
        np.testing.assert_allclose(u, -(8**-0.5), rtol=1e-6)
        assert u.sharding.is_equivalent_to(place, 1)


def put(slot, place):
    """A slot, or a row of them, where its leaf is."""
    if isinstance(place, NamedSharding):
        more = [None] * (slot.ndim - len(place.spec))
        place = NamedSharding(place.mesh, PartitionSpec(*more, *place.spec))
    return jax.device_put(slot, place)


COMMITTED = {
    "adamw": lambda: jopt.adamw(0.1),
    "a schedule": lambda: jopt.adamw(jopt.cosine_decay_schedule(0.1, 10)),
    **{k: MADE[k] for k in ("dog", "prodigy", "sam", "reduce_on_plateau", "add_noise")},
    "lbfgs": lambda: jopt.lbfgs(0.1, linesearch=None),
    **{k: WRAPPED[k] for k in ("inject", "apply_if_finite")},
    "MultiSteps": lambda: jopt.MultiSteps(ADAM, 2).gradient_transformation(),
}


@pytest.mark.parametrize("name", COMMITTED)
def test_numbers_of_a_state_may_be_committed_to_any_device(name):
    """As those of a state that was restored, or made on one device, are."""
    tx, (params, (g, *_)), where = COMMITTED[name](), trees(), places()
    extra = dict(value=jnp.float32(3.0)) if name == "reduce_on_plateau" else {}
    state = jax.device_put(tx.init(params), jax.devices()[7])
    want, _ = tx.update(g, tx.init(params), params, **extra)
    state = jopt.tree.map_params(tx, put, state, where)
    apart, params = jax.device_put((g, params), (where, where))
    got, state = tx.update(apart, state, params, **extra)
    check_that_each_leaf_is_at(where, got)
    for x, y in zip(comparable(got), comparable(want), strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-6)
    got, state = tx.update(apart, state, params, **extra)
    check_that_each_leaf_is_at(where, got)


def test_a_rate_may_be_committed_to_any_device():
    where = places()
    apart = jax.device_put(trees()[0], where)
    there = functools.partial(jax.device_put, device=jax.devices()[7])
    tx = jopt.sgd(lambda t: there(jnp.float32(0.5)))
    for g in (apart, dict(w=apart["w"])):
        updates, _ = tx.update(g, tx.init(g), g)
        for k, u in updates.items():
            np.testing.assert_array_equal(u, -0.5 * np.asarray(g[k]))
            assert g[k].sharding.is_equivalent_to(u.sharding, u.ndim)


REDUCTIONS = {
    "norm": jopt.tree.norm,
    "norm of ones": lambda t: jopt.tree.norm(t, 1),
    "largest": lambda t: jopt.tree.norm(t, "inf"),
    "norm past the range": lambda t: jopt.tree.norm(jopt.tree.scale(1e30, t)),
    "sum": jopt.tree.sum,
    "sum in pairs": lambda t: jopt.tree.sum(t, associative_reduction=True),
    "max": jopt.tree.max,
    "min": jopt.tree.min,
    "vdot": lambda t: jopt.tree.vdot(t, t),
    "allclose": lambda t: jopt.tree.allclose(t, t),
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_numbers_of_a_tree(name):
    params, _ = trees()
    apart = jax.device_put(params, places())
    got, want = REDUCTIONS[name](apart), REDUCTIONS[name](params)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    assert not got.committed, "so that it can be used with every leaf"


def test_periodic_update_of_leaves_on_several_devices():
    params, (new, *_) = trees()
    where = places()
    for step, want in ((4, new), (5, params)):
        there = jax.device_put((new, params), (where, where))
        got = jopt.periodic_update(there[0], there[1], step, 4)
        check_that_each_leaf_is_at(where, got)
        for k in want:
            np.testing.assert_array_equal(got[k], want[k])


def test_what_needs_one_set_of_devices_says_so():
    params = jax.device_put(
        dict(a=jnp.ones(2), b=jnp.ones(3)), dict(zip("ab", jax.devices()))
    )
    words = r"all of params must be on one set of devices, got \['a'\] on \[.*0\] and "
    words += r"\['b'\] on \[.*1\]"
    with pytest.raises(ValueError, match=f"flatten: {words}"):
        jopt.flatten(ADAM).init(params)
    tx = jopt.lbfgs(0.1)
    with pytest.raises(ValueError, match=f"scale_by_zoom_linesearch: {words}"):
        tx.update(
            params,
            tx.init(params),
            params,
            value=1.0,
            grad=params,
            value_fn=lambda p: 1.0,
        )

"""What the engine owns, so that no rule has to mention it."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jopt
from jopt.engine import step as engine_step


class MeanState(NamedTuple):
    count: jax.Array
    mean: jopt.Updates


def mean(update=None, init=None, **kwargs):
    """A rule to play with: the running sum of the gradients."""

    def default_init(p):
        return dict(mean=jnp.zeros_like(p))

    def default_update(g, s, p):
        return g, s._replace(mean=s.mean + g)

    return jopt.per_leaf(
        MeanState, init or default_init, update or default_update, **kwargs
    )


P = {"w": jnp.ones((2, 3)), "b": {"c": jnp.ones(3)}}


# ---------------------------------------------------------------------------- one trace


def leaf_calls(jaxpr):
    """The calls of one leaf each, by themselves or some in one call."""
    for e in jaxpr.eqns:
        if e.params.get("name") == "leaf":
            yield e
        elif e.params.get("name") == "many":
            yield from leaf_calls(e.params["jaxpr"])


def test_a_rule_is_traced_once_for_each_shape_of_the_whole_chain():
    traced = []

    def update(g, s, p):
        traced.append(g.shape)
        return g, s._replace(mean=g)

    tx = jopt.chain(jopt.scale(2.0), mean(update), jopt.scale(-1.0))
    params = {i: jnp.ones((i % 4 + 1, 3)) for i in range(40)}
    state = tx.init(params)
    jax.make_jaxpr(tx.update)(params, state)
    assert sorted(traced) == [(1, 3), (2, 3), (3, 3), (4, 3)]
    step = jopt.chain(jopt.clip_by_global_norm(1.0), jopt.adamw(1e-3))
    jaxpr = jax.make_jaxpr(step.update)(params, step.init(params), params)
    kernels = [*leaf_calls(jaxpr)]
    assert len(kernels) == 40, "clip, Adam, decay and rate are one call a leaf"
    assert len({id(e.params["jaxpr"]) for e in kernels}) == 4


def test_leaves_of_a_shape_of_their_own_are_inlined():
    tx = jopt.scale(2.0)
    params = {i: jnp.ones(i + 1) for i in range(5)}
    jaxpr = jax.make_jaxpr(tx.update)(params, tx.init(params))
    assert [e.primitive.name for e in jaxpr.eqns] == ["mul"] * 5


def test_masks_and_partitions_run_in_the_same_kernel():
    mask = {i: i % 2 == 0 for i in range(6)}
    params = {i: jnp.ones(3) for i in range(6)}
    tx = jopt.adamw(1e-3, mask=mask)
    jaxpr = jax.make_jaxpr(tx.update)(params, tx.init(params), params)
    calls = [e for e in jaxpr.eqns if "jaxpr" in e.params]
    names = [e.params["name"] for e in calls if not is_inlined_late(e)]
    assert names == ["_numbers"] + ["leaf"] * 6


def is_inlined_late(equation):
    """Whether a call is none to XLA: JAX takes it apart when it lowers it."""
    return getattr(equation.params["inline"], "name", "") == "JAX_LATE"


def additions_outside(function, *args):
    """How often leaves are added outside of the calls that are traced once."""
    jaxpr = jax.make_jaxpr(function)(*args)
    return sum(e.primitive.name == "add" and e.outvars[0].aval.ndim for e in jaxpr.eqns)


def test_new_parameters_are_made_with_the_updates():
    tx = jopt.adamw(0.1)
    params = {i: jnp.full(3, i, jnp.bfloat16) for i in range(20)}
    others = {i: jnp.full(3, 7 + i, jnp.bfloat16) for i in range(20)}
    state = tx.init(params)

    def step(g, p, q):
        u, _ = tx.update(g, state, p)
        return jopt.apply_updates(p, u), jopt.apply_updates(q, u), u

    def changed(g, p):
        u, _ = tx.update(g, state, p)
        u[0] = 2 * u[0]
        return jopt.apply_updates(p, u), u

    assert additions_outside(lambda g, p: step(g, p, p), params, params) == 0
    assert additions_outside(step, params, params, others) == 20
    assert additions_outside(changed, params, params) == 1
    new, moved, u = jax.jit(step)(others, params, others)
    chex.assert_trees_all_equal(new, optax.apply_updates(params, u))
    chex.assert_trees_all_equal(moved, optax.apply_updates(others, u))
    new, u = jax.jit(changed)(others, params)
    chex.assert_trees_all_equal(new, optax.apply_updates(params, u))
    assert not engine_step._sums, "nothing is kept when the traces are over"


# -------------------------------------------------------------------------------- eager


def test_eager_use_compiles_once_also_when_the_factory_is_called_again():
    traces = []

    @jopt.transformation
    def counted(factor=1.0):
        def update(g, s, p):
            traces.append(factor)
            return factor * g, s._replace(mean=g)

        return mean(update)

    state = counted().init(P)
    for _ in range(3):
        _, state = counted().update(P, state, P)
    assert traces == [1.0, 1.0], "two shapes"
    counted(2.0).update(P, state, P)
    assert traces == [1.0, 1.0, 2.0, 2.0]


def test_an_array_among_the_settings_may_change_without_compiling():
    traces = []

    @jopt.transformation
    def counted(learning_rate):
        def update(g, s, p):
            traces.append(g.shape)
            return learning_rate * g, s

        return mean(update)

    state = counted(0.1).init(P)
    for rate in (0.1, 0.2, 0.3):
        got, _ = counted(jnp.float32(rate)).update(P, state, P)
        np.testing.assert_allclose(got["w"], rate * P["w"], rtol=1e-6)
    assert len(traces) == 2, "one for each shape"


def test_a_schedule_with_python_control_flow_works_eagerly():
    tx = jopt.sgd(lambda count: 0.1 if count < 1 else 0.01)
    p = jnp.ones(2)
    state = tx.init(p)
    first, state = tx.update(p, state)
    second, _ = tx.update(p, state)
    np.testing.assert_allclose([first[0], second[0]], [-0.1, -0.01], rtol=1e-6)


def test_a_traced_setting_does_not_leak():
    @jax.jit
    def step(rate, p):
        tx = jopt.adam(rate)

        def body(carry, _):
            p, state = carry
            u, state = tx.update(p, state, p)
            return (jopt.apply_updates(p, u), state), None

        return jax.lax.scan(body, (p, tx.init(p)), length=2)[0][0]

    with jax.checking_leaks():
        a, b = step(0.1, P), step(0.2, P)
    assert not jnp.allclose(a["w"], b["w"])


# ------------------------------------------------------------------------------- leaves


def test_gradients_without_parameters():
    grads = {"w": jnp.ones(2), "none": None}
    tx = mean()
    updates, state = tx.update(grads, tx.init({"w": jnp.ones(2), "none": jnp.ones(3)}))
    assert updates["none"] is None
    chex.assert_trees_all_equal(state.mean["none"], jnp.zeros(3))


def test_frozen_leaves_may_come_with_zero_size_gradients():
    params = {"w": jnp.ones(2), "n": jnp.arange(3)}
    grads = jax.grad(lambda p: jnp.sum(p["w"]), allow_int=True)(params)
    tx = jopt.adam(0.1)
    updates, state = tx.update(grads, tx.init(params), params)
    new = jopt.apply_updates(params, updates)
    chex.assert_trees_all_equal(new["n"], params["n"])
    assert isinstance(state[0].mu["n"], jopt.MaskedNode)


def test_a_static_hint_reaches_each_leaf_through_a_mask():
    def update(g, s, p, axis):
        return g if axis is None else jnp.flip(g, axis), s

    tx = mean(update, hint=lambda params: {"w": 1, "b": {"c": None}})
    g = {"w": jnp.array([[1.0, 2.0]]), "b": {"c": jnp.ones(3)}}
    got, _ = tx.update(g, tx.init(g))
    assert got["w"].tolist() == [[2.0, 1.0]]
    hidden = jopt.masked(tx, {"w": True, "b": False})
    got, _ = hidden.update(g, hidden.init(g))
    assert got["w"].tolist() == [[2.0, 1.0]]


def test_a_number_over_the_tree_sees_the_leaves_under_its_mask():
    def update(g, s, p, total):
        return g / total, s

    tx = mean(update, reduce=lambda gs, ps: sum(jnp.sum(g) for g in gs))
    got, _ = tx.update(P, tx.init(P))
    np.testing.assert_allclose(got["w"], P["w"] / 9)
    tx = jopt.masked(tx, {"w": False, "b": True})
    got, _ = tx.update(P, tx.init(P))
    np.testing.assert_allclose(got["b"]["c"], P["b"]["c"] / 3)


# --------------------------------------------------------------------------- mismatches

WRONG = {
    "another method": (lambda: jopt.yogi(0.1).init(P), "ScaleByYogiState"),
    "optax's of another": (lambda: optax.sm3(0.1).init(P), "ScaleBySM3State"),
    "its part": (lambda: jopt.adam(0.1).init(P)[0], "chain: expected a tuple"),
    "a longer chain": (lambda: (*jopt.adam(0.1).init(P), ()), "2 parts .* got 3"),
    "other shapes": (
        lambda: jopt.adam(0.1).init({"w": jnp.ones((3, 2)), "b": {"c": jnp.ones(3)}}),
        r"'mu' at \['w'\] is f32\[3, 2\], the gradient is f32\[2, 3\]",
    ),
    "other names": (
        lambda: jopt.adam(0.1).init({"w": P["w"]}),
        r"'mu'.*\['b'\]\['c'\]",
    ),
    "integers": (
        lambda: jax.tree.map(lambda x: x.astype(int), jopt.adam(0.1).init(P)),
        "'mu' at .* is i32.*floating",
    ),
}


@pytest.mark.parametrize("make, words", WRONG.values(), ids=WRONG)
def test_a_wrong_state_is_refused(make, words):
    state = make()
    for update in (jopt.adam(0.1).update, jax.jit(jopt.adam(0.1).update)):
        with pytest.raises((ValueError, TypeError), match=words):
            update(P, state, P)


def test_a_complex_gradient_of_a_real_parameter_is_refused():
    tx = jopt.sgd(0.1)
    with pytest.raises(TypeError, match=r"updates at the root is c64\[2\]"):
        tx.update(jnp.ones(2, jnp.complex64), tx.init(jnp.ones(2)), jnp.ones(2))


def test_a_rule_that_changes_a_shape_is_refused():
    tx = mean(lambda g, s, p: (jnp.sum(g), s))
    with pytest.raises(ValueError, match=r"the rule turned f32\[3\] into f32\[\]"):
        tx.update(jnp.ones(3), tx.init(jnp.ones(3)))
    tx = mean(lambda g, s, p: (g, s._replace(mean=jnp.sum(g))))
    with pytest.raises(ValueError, match=r"slot f32\[3\] into f32\[\]"):
        tx.update(jnp.ones(3), tx.init(jnp.ones(3)))


def test_missing_parameters_are_named():
    tx = jopt.adamw(0.1)
    with pytest.raises(ValueError, match=r"^adamw: params is missing"):
        tx.update(P, tx.init(P))


# ------------------------------------------------------------------------- composition


def test_extra_arguments_reach_those_who_take_them():
    def update(updates, state, params=None, *, value, **extra):
        return jax.tree.map(lambda g: g * value, updates), state

    takes = jopt.GradientTransformationExtraArgs(lambda p: (), update)
    tx = jopt.chain(jopt.scale(2.0), takes, jopt.scale(-1.0))
    got, _ = tx.update(P, tx.init(P), value=3.0, ignored=1)
    chex.assert_trees_all_close(got, jax.tree.map(lambda x: -6 * x, P))
    hidden = jopt.masked(takes, {"w": True, "b": False})
    got, _ = hidden.update(P, hidden.init(P), P, value=3.0)
    np.testing.assert_allclose(got["w"], 3.0)
    np.testing.assert_allclose(got["b"]["c"], 1.0)


def test_partition_is_optax_s():
    labels = {"w": "a", "b": "b"}  # a prefix
    ours = jopt.partition({"a": jopt.adam(0.1), "b": jopt.lion(0.1)}, labels)
    theirs = optax.partition({"a": optax.adam(0.1), "b": optax.lion(0.1)}, labels)
    with jax.numpy_dtype_promotion("standard"):
        want, state = theirs.update(P, theirs.init(P), P)
    got, mine = ours.update(P, theirs.init(P), P)
    chex.assert_trees_all_close(got, want, rtol=2e-5)
    chex.assert_trees_all_close(*map(jax.tree.leaves, (mine, state)), rtol=1e-6)
    assert repr(ours.init(P)) == repr(theirs.init(P))


@pytest.mark.parametrize("x64", [False, True])
def test_leaves_of_different_precision_keep_theirs(x64):
    with jax.enable_x64(x64):
        wide = jnp.float64 if x64 else jnp.float32
        params = {"half": jnp.ones(2, jnp.float16), "wide": jnp.ones(2, wide)}
        tx = jopt.adam(0.1, b2=0.99)
        updates, state = tx.update(params, tx.init(params), params)
        assert updates["half"].dtype == jnp.float16 and updates["wide"].dtype == wide
        assert state[0].nu["half"].dtype == jnp.float32
        assert state[0].nu["wide"].dtype == wide


def test_a_count_stays_at_the_top():
    tx = jopt.adam(0.1)
    state = tx.init(P)
    top = jnp.int32(2**31 - 1)
    state = (state[0]._replace(count=top), *state[1:])
    updates, state = tx.update(P, state)
    assert state[0].count == top
    chex.assert_tree_all_finite(updates)


@pytest.mark.parametrize(
    "tx",
    [
        jopt.adam(0.1, mu_dtype=jnp.bfloat16),
        jopt.sgd(0.1, momentum=0.9, accumulator_dtype=jnp.float16),
        jopt.lion(0.1, mu_dtype="bfloat16"),
    ],
    ids=repr,
)
def test_slots_of_16_bits_stay_so_under_jit_and_vmap(tx):
    params = {"w": jnp.ones((3, 2)), "b": jnp.ones(3)}
    state = tx.init(params)
    small = [x for x in jax.tree.leaves(state) if x.dtype.itemsize == 2]
    assert len(small) == 2
    after = jax.jit(tx.update)(params, state, params)[1]
    assert jax.tree.map(jax.typeof, after) == jax.tree.map(jax.typeof, state)
    each = jax.vmap(tx.init)(params)
    got, after = jax.vmap(tx.update)(params, each, params)  # eager: traced inline
    assert jax.tree.map(jax.typeof, after) == jax.tree.map(jax.typeof, each)
    rows = [
        tx.update(x, tx.init(x), x)[0]["w"] for x in ({"w": w} for w in params["w"])
    ]
    chex.assert_trees_all_close(got["w"], jnp.stack(rows), rtol=1e-6)

"""The optimizers that find their own step size: what is particular to them."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jopt
from tests import references
from tests.runs import optax_rules, random_tree

MAKERS = dict(
    prodigy=jopt.prodigy,
    dadapt_adamw=jopt.dadapt_adamw,
    dog=jopt.dog,
    dog_learning_rate=functools.partial(jopt.dog, init_step=("learning_rate", 0.1)),
    dowg=jopt.dowg,
    ldog=functools.partial(jopt.scale_by_distance_over_gradients, global_scale=-1.0),
    cocob=jopt.cocob,
    mechanize=functools.partial(jopt.mechanize, jopt.sgd(1.0)),
    momo=jopt.momo,
    momo_adam=jopt.momo_adam,
    momo_bound=functools.partial(jopt.momo, adapt_lower_bound=True),
    polyak_sgd=jopt.polyak_sgd,
)
VALUED = ["momo", "momo_adam", "momo_bound", "polyak_sgd"]
# those that know a tree by its norms and inner products alone
ISOMETRIC = ["dog", "dog_learning_rate", "dowg", "ldog", "mechanize", *VALUED]
ISOMETRIC.remove("momo_adam")

each = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def run(tx, params, grads, value=1.0):
    """The parameters and the state after these gradients."""
    state = tx.init(params)
    with jax.disable_jit():  # operation by operation: these are compiled once
        for g in grads:
            updates, state = tx.update(g, state, params, value=value)
            params = jopt.apply_updates(params, updates)
    return params, state


def minimize(tx, loss, params, steps):
    def step(carry, _):
        p, state = carry
        value, g = jax.value_and_grad(loss)(p)
        u, state = tx.update(g, state, p, value=value)
        return (jopt.apply_updates(p, u), state), value

    def loop(p):
        return jax.lax.scan(step, (p, tx.init(p)), length=steps)[0]

    return jax.jit(loop)(params)


# ------------------------------------------------------------------------ the step size


@pytest.mark.parametrize("distance", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("make", [jopt.prodigy, jopt.dadapt_adamw])
def test_rate_found_is_a_bound_of_the_distance(make, distance):
    start = jnp.array([0.0, 0.0, 0.0])
    target = distance * jnp.array([1.0, -0.5, 0.25])

    def loss(p):
        return jnp.sum(jnp.abs(p - target))

    _, state = minimize(make(), loss, start, 400)
    assert 0.1 * distance < state.estim_lr <= 2 * distance  # from 1e-6


@pytest.mark.parametrize("make", [jopt.dog, jopt.dowg])
def test_distance_found_is_that_to_the_minimum(make):
    target = jnp.array([30.0, -40.0])

    def loss(p):
        return jnp.sqrt(jnp.sum((p - target) ** 2) + 1.0)

    _, (_, state, _) = minimize(make(), loss, jnp.zeros(2), 3000)
    come = state.max_dist if make is jopt.dog else jnp.sqrt(state.estim_sq_dist)
    assert 25 < come < 100


def test_mechanic_finds_the_learning_rate():
    target = jnp.array([3.0, -4.0])

    def loss(p):
        return jnp.sum((p - target) ** 2)

    for rate in (1e-2, 1.0):  # of the base optimizer, which is of no account
        p, _ = minimize(jopt.mechanize(jopt.sgd(rate)), loss, jnp.zeros(2), 500)
        assert loss(p) < 0.1 * loss(jnp.zeros(2))


WARM = jopt.linear_schedule(0.125, 1.0, 7)


@pytest.mark.parametrize(
    "name, settings, grown",
    [
        ("prodigy", {}, 1e4),
        ("prodigy", dict(learning_rate=WARM, safeguard_warmup=True), 1e4),
        ("dadapt_adamw", {}, 1e3),
        ("dog", {}, 1e2),
        ("dowg", {}, 1e2),
        ("cocob", {}, 1.0),
        ("mechanize", {}, 1e2),
    ],
)
def test_equals_its_paper_while_the_step_grows(name, settings, grown):
    """The gradients of the catalogue know nothing of the parameters; these do."""
    with jax.enable_x64(True):
        start = {"a": jnp.array([1.0, -2.0, 3.0]), "b": jnp.array([[0.5, 4.0]])}
        tx = MAKERS[name](**settings)

        def step(carry, _):
            p, state = carry
            g = jax.grad(_huber)(p)
            u, state = tx.update(g, state, p)
            size = jopt.tree.norm(u)
            return (jopt.apply_updates(p, u), state), (g, size)

        loop = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), length=150))
        (p, _), seen = loop(start)
        got, x, (gs, sizes) = jax.tree.map(np.asarray, (p, start, seen))
    reference = references.mechanize_sgd if name == "mechanize" else None
    reference = reference or getattr(references, name)
    if name == "cocob":
        want = {k: reference(x[k], [*gs[k]], **settings) for k in x}
    else:
        steps = [{k: gs[k][t] for k in gs} for t in range(150)]
        want = reference(x, steps, **settings)
    assert np.max(sizes) > grown * sizes[0]
    chex.assert_trees_all_close(got, want, rtol=1e-7)


def _huber(p):
    return sum(jnp.sum(jnp.sqrt(1 + (x - 7) ** 2)) for x in jax.tree.leaves(p))


def test_cocob_does_not_feel_the_scale_of_the_gradients():
    grads = [random_tree(i) for i in range(5)]
    large = [jax.tree.map(lambda g: 1024.0 * g, tree) for tree in grads]
    got, _ = run(jopt.cocob(), random_tree(9), large)
    want, _ = run(jopt.cocob(), random_tree(9), grads)
    chex.assert_trees_all_equal(got, want)


def test_momo_with_decay_stops_where_its_model_meets_the_bound():
    """The step is in the model that the decayed parameters are in."""
    p, g = jnp.array([1.0, 2.0]), jnp.array([0.5, -1.0])
    value, bound = 3.0, 2.5
    tx = jopt.momo(learning_rate=2.0, lower_bound=bound, weight_decay=0.1)
    u, _ = tx.update(g, tx.init(p), p, value=value)
    assert value + jnp.vdot(g, u) == pytest.approx(bound, rel=1e-6)


@pytest.mark.parametrize("scaling", [0.5, jopt.constant_schedule(0.5)])
def test_polyak_s_scaling_scales_the_step(scaling):
    p, g = jnp.ones(2), jnp.array([3.0, 4.0])
    plain, half = jopt.polyak_sgd(), jopt.polyak_sgd(scaling=scaling)
    want, _ = plain.update(g, plain.init(p), p, value=5.0)
    got, _ = half.update(g, half.init(p), p, value=5.0)
    chex.assert_trees_all_close(got, 0.5 * want, rtol=1e-6)


def test_layerwise_dog_equals_optax():
    ours, theirs = (m.scale_by_distance_over_gradients(1e-2) for m in (jopt, optax))
    params = their_params = random_tree(0)
    state = ours.init(params)
    with optax_rules():
        their_state = theirs.init(params)
    for i in range(5):
        g = random_tree(i + 1)
        u, state = ours.update(g, state, params)
        params = jopt.apply_updates(params, u)
        with optax_rules():
            v, their_state = theirs.update(g, their_state, their_params)
            their_params = optax.apply_updates(their_params, v)
        chex.assert_trees_all_close(u, v, rtol=1e-5)


# --------------------------------------------------------------- gradients of any size


@each
def test_gradients_of_zero_move_nothing_and_are_forgotten(make):
    params = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    p, state = run(make(), params, [zeros] * 3)
    chex.assert_trees_all_equal(p, params)
    chex.assert_tree_all_finite(state)
    p, state = run(make(), params, [zeros, *[params] * 3])
    chex.assert_tree_all_finite((p, state))
    if not hasattr(state, "lb") or state.lb == 0:  # the loss may have become the bound
        assert jnp.all(p["w"] < 1)


def test_first_step_of_dog_waits_for_a_gradient():
    p, g = jnp.ones(2), jnp.array([1.0, 2.0])
    tx = jopt.dog(init_step=("learning_rate", 0.1))
    got, _ = run(tx, p, [jnp.zeros(2), g])
    chex.assert_trees_all_close(got, p - 0.1 * g)


@each
@pytest.mark.parametrize("size", [1e-38, 1e-25, 1e-12, 1e8, 1e18])
def test_sizes_of_gradients_are_no_trouble(make, size):
    if "mechanize" in repr(make()) and size > 1e8:
        pytest.skip("its state holds the square of the square of the gradient")
    params = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
    grads = [jax.tree.map(lambda x: size * x, params)] * 3
    p, state = run(make(), params, grads)
    chex.assert_tree_all_finite((p, state))


# ------------------------------------------------------------------------------- leaves


@each
def test_masked_equals_alone(make):
    params, grads = random_tree(0), [random_tree(i) for i in (1, 2, 3)]
    mask = {"w": True, "stack": False, "b": True, "s": False}
    got, _ = run(jopt.masked(make(), mask), params, grads)
    some = [k for k in mask if mask[k]]
    alone = {k: params[k] for k in some}
    want, _ = run(make(), alone, [{k: g[k] for k in some} for g in grads])
    chex.assert_trees_all_equal({k: got[k] for k in some}, want)


@pytest.mark.parametrize("name", ISOMETRIC)
def test_complex_parameters_are_pairs_of_real_ones(name):
    rng = np.random.default_rng(0)
    pairs = [jnp.asarray(rng.normal(size=(2, 4)), jnp.float32) for _ in range(5)]
    as_complex = [jax.lax.complex(x, y) for x, y in pairs]
    tx = MAKERS[name]()
    got, _ = run(tx, as_complex[0], as_complex[1:])
    want, _ = run(tx, pairs[0], pairs[1:])
    assert got.dtype == jnp.complex64
    chex.assert_trees_all_close(jnp.stack([got.real, got.imag]), want, rtol=1e-5)


@each
def test_complex_parameters_stay_complex(make):
    p = jnp.array([1 + 2j, -1j], jnp.complex64)
    got, state = run(make(), p, [p, 1j * p, p])
    assert got.dtype == jnp.complex64
    chex.assert_tree_all_finite((got, state))
    assert jnp.all(got != p)


@each
def test_a_tree_of_two_precisions_keeps_both(make):
    with jax.enable_x64(True):
        params = {"a": jnp.ones(3, jnp.float64), "b": jnp.ones(3, jnp.float32)}
        p, _ = run(make(), params, [params] * 3)
    assert p["a"].dtype == jnp.float64 and p["b"].dtype == jnp.float32
    chex.assert_trees_all_close(p["a"].astype(jnp.float32), p["b"], rtol=1e-5)


@each
def test_an_empty_tree_is_no_trouble(make):
    for params in ({}, {"a": None}):
        got, _ = run(make(), params, [params])
        assert got == params


@each
def test_a_state_of_half_precision_made_by_optax_goes_on(make):
    name = {v: k for k, v in MAKERS.items()}[make].split("_le")[0].split("_bound")[0]
    if name in ("ldog", "mechanize", "polyak_sgd"):
        pytest.skip("made of other arguments, or without such a state")
    params = {"a": jnp.ones(3, jnp.bfloat16)}
    with optax_rules():
        state = getattr(optax.contrib, name)().init(params)
    tx = make()
    _, new = tx.update(params, state, params, value=1.0)
    types = [jax.tree.map(lambda x: (x.shape, x.dtype), s) for s in (state, new)]
    assert types[0] == types[1]


# ----------------------------------------------------------------------------- wrapping


@pytest.mark.parametrize("name", ["adam", "lion"])
def test_mechanic_of_other_optimizers_equals_optax(name):
    params, grads = random_tree(0), [random_tree(i) for i in range(1, 6)]
    base, their_base = (getattr(m, name)(1.0) for m in (jopt, optax))
    got, state = run(jopt.mechanize(base, s_init=0.1), params, grads)
    with optax_rules():
        mixed, _ = run(jopt.mechanize(their_base, s_init=0.1), params, grads)
        tx = optax.contrib.mechanize(their_base, s_init=0.1)
        want, their_state = run(tx, params, grads)
    chex.assert_trees_all_close(got, want, rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(mixed, got, rtol=1e-5, atol=1e-5)
    assert jax.tree.structure([*state[1:]]) == jax.tree.structure([*their_state[1:]])


def test_mechanic_passes_what_it_is_given_on():
    tx = jopt.mechanize(jopt.polyak_sgd())
    p = jnp.ones(3)
    with pytest.raises(ValueError, match="value is missing"):
        tx.update(p, tx.init(p), p)
    tx.update(p, tx.init(p), p, value=1.0)


# ------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("name", VALUED)
def test_a_missing_loss_is_named(name):
    tx, p = MAKERS[name](), jnp.ones(3)
    with pytest.raises(ValueError, match=r"value is missing.*value=loss"):
        tx.update(p, tx.init(p), p)
    with pytest.raises(ValueError, match="value must be one real number"):
        tx.update(p, tx.init(p), p, value=jnp.ones(3))


@pytest.mark.parametrize("value", [1, 1.0, np.float64(1.0), jnp.bfloat16(1)])
@pytest.mark.parametrize("name", VALUED)
def test_the_loss_may_be_any_real_number(name, value):
    p = jnp.ones(3)
    got, _ = run(MAKERS[name](), p, [p], value)
    want, _ = run(MAKERS[name](), p, [p], jnp.float32(1))
    chex.assert_trees_all_equal(got, want)


@each
def test_missing_parameters_are_named(make):
    tx, p = make(), jnp.ones(3)
    if "polyak" in repr(tx):
        pytest.skip("it needs none")
    with pytest.raises(ValueError, match="params is missing"):
        tx.update(p, tx.init(p), value=1.0)


@pytest.mark.parametrize(
    "make, error, words",
    [
        (
            lambda: jopt.dog(init_step=("far", 1.0)),
            ValueError,
            "init_step must be a pair",
        ),
        (lambda: jopt.dog(init_step=0.1), ValueError, "init_step must be a pair"),
        (
            lambda: jopt.dog(init_step=("distance", 0)),
            ValueError,
            "init_step.* positive",
        ),
        (lambda: jopt.prodigy(betas=0.9), ValueError, "betas must be two"),
        (lambda: jopt.prodigy(betas=(0.9, 1.0)), ValueError, r"betas\[1\] must be in"),
        (lambda: jopt.prodigy(beta3=1.0), ValueError, "beta3 must be in"),
        (lambda: jopt.prodigy(estim_lr0=0.0), ValueError, "estim_lr0 must be positive"),
        (lambda: jopt.dadapt_adamw(eps=0.0), ValueError, "eps must be positive"),
        (
            lambda: jopt.dowg(init_estim_sq_dist=0),
            ValueError,
            "init_estim_sq_dist must",
        ),
        (lambda: jopt.cocob(alpha=-1.0), ValueError, "alpha must be positive"),
        (
            lambda: jopt.polyak_sgd(variant="sps++"),
            ValueError,
            "variant must be one of",
        ),
        (lambda: jopt.momo(beta=1.0), ValueError, "beta must be in"),
        (lambda: jopt.momo(lower_bound=jnp.nan), ValueError, "lower_bound must be"),
        (lambda: jopt.mechanize(jopt.sgd), TypeError, "base_optimizer must be a grad"),
        (lambda: jopt.mechanize(jopt.sgd(1.0), num_betas=0), ValueError, "num_betas"),
        (lambda: jopt.mechanize(jopt.sgd(1.0), s_init=0.0), ValueError, "s_init must"),
    ],
)
def test_bad_settings_are_named(make, error, words):
    with pytest.raises(error, match=words):
        make()

"""Averages, ascents, plateaus, projections and privacy: what rows cannot say."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jopt

CLOSE = dict(rtol=1e-5, atol=1e-6)


def loosely():
    """optax itself needs JAX's looser promotion."""
    return jax.numpy_dtype_promotion("standard")


def assert_trees_close(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, **CLOSE)


def run(tx, p, grads, **extra):
    """The parameters and the states after each step."""
    state, states = tx.init(p), []
    for g in grads:
        u, state = tx.update(g, state, p, **extra)
        p = jax.tree.map(lambda x, y: x + y, p, u)
        states.append(state)
    return p, states


def normal(*shape, seed=0, n=None):
    draw = np.random.default_rng(seed).normal
    if n is None:
        return jnp.asarray(draw(size=shape), jnp.float32)
    return [jnp.asarray(draw(size=shape), jnp.float32) for _ in range(n)]


# ----------------------------------------------------------------------- schedule-free


def test_evaluation_takes_the_mean_of_the_base_iterates():
    p, grads = normal(5), normal(5, seed=1, n=12)
    end, states = run(jopt.schedule_free_sgd(0.1, weight_decay=0.0), p, grads)
    mean = np.mean([s.z for s in states], axis=0)  # equal weights at a constant rate
    x = jopt.schedule_free_eval_params(states[-1], end)
    np.testing.assert_allclose(x, mean, **CLOSE)
    assert np.max(np.abs(x - end)) > 1e-3, "the parameters are not the average"


def test_evaluation_finds_the_state_within_others():
    p = {"w": normal(3), "step": jnp.arange(2), "b": None}
    g = {"w": normal(3, seed=1), "step": None, "b": None}
    free = jopt.schedule_free_sgd(0.1)
    want = None
    for tx in (
        free,
        jopt.chain(jopt.clip(10.0), free),
        jopt.masked(free, {"w": True, "step": False, "b": True}),
        jopt.apply_if_finite(free, 3),
    ):
        _, state = tx.update(g, tx.init(p), p)
        _, state = tx.update(g, state, p)
        x = jopt.schedule_free_eval_params(state, p)
        assert x["b"] is None
        np.testing.assert_array_equal(x["step"], p["step"])
        want = x["w"] if want is None else want
        np.testing.assert_array_equal(x["w"], want)
    for state in (jopt.sgd(0.1).init(p), jopt.chain(free, free).init(p)):
        with pytest.raises(ValueError, match="expected one ScheduleFreeState"):
            jopt.schedule_free_eval_params(state, p)


def test_evaluation_of_a_state_that_optax_made():
    p = normal(4)
    with loosely():
        tx = optax.contrib.schedule_free_sgd(0.1)
        u, state = tx.update(p, tx.init(p), p)
        u, state = tx.update(p, state, p + u)
        want = optax.contrib.schedule_free_eval_params(state, p + u)
    got = jopt.schedule_free_eval_params(state, p + u)
    np.testing.assert_allclose(got, want, **CLOSE)


def test_the_average_weighs_by_the_rate_one_step_ahead():
    read = []

    def rate(count):
        read.append(int(count))
        return 0.1

    with jax.disable_jit():
        run(jopt.schedule_free(jopt.sgd(0.1), rate), normal(2), normal(2, n=3))
    assert read == [1, 2, 3]


def test_bfloat16_average_is_not_lost():
    """A thousand small steps: in 16 bits z would stand still."""
    tx = jopt.schedule_free_sgd(1e-4)
    p = jnp.ones(3, jnp.bfloat16)
    g = jnp.ones(3, jnp.bfloat16)

    @jax.jit
    def loop(p):
        def step(carry, _):
            p, state = carry
            u, state = tx.update(g, state, p)
            return (jopt.apply_updates(p, u), state), None

        return jax.lax.scan(step, (p, tx.init(p)), length=1000)[0]

    _, state = loop(p)
    assert state.z.dtype == jnp.float32
    np.testing.assert_allclose(state.z, 0.9, atol=1e-3)


def test_types_stay_with_a_base_of_optax():
    tx = jopt.schedule_free(optax.scale_by_adam(b1=0.0), 0.1, state_dtype=jnp.bfloat16)
    p, g = jnp.ones(3, jnp.bfloat16), jnp.ones(3)
    state = tx.init(p)
    with loosely():
        u, after = tx.update(g, state, p)
    assert [x.dtype for x in jax.tree.leaves(after)] == [
        x.dtype for x in jax.tree.leaves(state)
    ]
    assert u.dtype == g.dtype and after.z.dtype == jnp.bfloat16
    assert after.weight_sum.dtype == after.max_lr.dtype == after.b1.dtype == jnp.float32


def test_schedule_free_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"b1 must be in \(0, 1\], got 0"):
        jopt.schedule_free(jopt.sgd(0.1), 0.1, b1=0.0)
    with pytest.raises(TypeError, match="base_optimizer must be a gradient transf"):
        jopt.schedule_free(jopt.sgd, 0.1)
    tx = jopt.schedule_free_adamw()
    with pytest.raises(ValueError, match="schedule_free: params is missing"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
    with pytest.raises(ValueError, match="expected a ScheduleFreeState, got a"):
        tx.update(jnp.ones(2), jopt.adam(0.1).init(jnp.ones(2)), jnp.ones(2))


# --------------------------------------------------------------------------------- SAM


def quartic(p, i=0):
    return jax.grad(lambda p: sum(jnp.sum(x**4) for x in jax.tree.leaves(p)))(p)


CHOICES = {
    "paper": dict(),
    "three": dict(sync_period=3),
    "kept": dict(sync_period=3, reset_state=False),
}


@pytest.mark.parametrize("opaque", [False, True])
@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
def test_sam_equals_optax(choice, opaque):
    def path(library, contrib):
        p = {"w": np.array([0.3, -0.5, 1.0]), "b": np.array([0.1, -0.2])}
        p = jax.tree.map(jnp.asarray, p)
        grads = [jax.tree.map(lambda x, n=n: jnp.sin(n * x), p) for n in range(1, 8)]
        up = library.sgd(0.05, momentum=0.9)
        tx = contrib.sam(
            library.adamw(0.1, weight_decay=0.1), up, opaque_mode=opaque, **choice
        )
        return run(tx, p, grads, **(dict(grad_fn=quartic) if opaque else {}))

    with jax.enable_x64(True), loosely():  # optax's Adam is exact in float64 alone
        got, states = path(jopt, jopt)
        want, their_states = path(optax, optax.contrib)
    assert_trees_close(got, want)
    for ours, theirs in zip(states, their_states):
        assert_trees_close(ours.opt_state, theirs.opt_state)
        assert_trees_close(ours.cache, theirs.cache)
        assert ours.steps_since_sync == theirs.steps_since_sync
        if choice.get("sync_period") == 3:
            assert_trees_close(ours.adv_state, theirs.adv_state)
    assert type(ours).__name__ == type(theirs).__name__
    assert ours._fields == theirs._fields
    assert (ours.cache is None) == (theirs.cache is None) == opaque


@pytest.mark.parametrize("opaque", [False, True])
def test_sam_without_an_ascent_is_its_optimizer(opaque):
    # optax, where it is not opaque, steps from the parameters of the call before
    p, grads = normal(4), normal(4, seed=1, n=5)
    down, up = jopt.adamw(0.1, weight_decay=0.1), jopt.sgd(0.05)
    tx = jopt.sam(down, up, sync_period=1, opaque_mode=opaque)
    got, _ = run(tx, p, grads, **(dict(grad_fn=quartic) if opaque else {}))
    np.testing.assert_allclose(got, run(down, p, grads)[0], **CLOSE)


def test_opaque_sam_is_a_cycle_of_the_transparent():
    down, up = jopt.adam(0.1), jopt.chain(jopt.normalize(), jopt.sgd(0.05))
    tx = jopt.sam(down, up, sync_period=3)
    q = p = normal(4)
    state = tx.init(p)
    for _ in range(6):
        u, state = tx.update(quartic(q), state, q)
        q = q + u
    tx = jopt.sam(down, up, sync_period=3, opaque_mode=True)
    state = tx.init(p)
    for _ in range(2):
        u, state = tx.update(quartic(p), state, p, grad_fn=quartic)
        p = p + u
    np.testing.assert_allclose(q, p, **CLOSE)


def test_opaque_sam_counts_its_gradients_and_averages_them():
    numbers = []

    def grad_fn(q, i):
        numbers.append(i)
        return q * 0 + jax.lax.axis_index("batch").astype(q.dtype)

    tx = jopt.sam(
        jopt.sgd(1.0),
        jopt.sgd(1.0),
        sync_period=3,
        opaque_mode=True,
        batch_axis_name="batch",
    )

    def one(p):
        return tx.update(p, tx.init(p), p, grad_fn=grad_fn)[0]

    u = jax.vmap(one, axis_name="batch")(jnp.zeros((2, 3)))
    np.testing.assert_array_equal(u, -jnp.full((2, 3), 0.5))
    assert numbers == [0, 1]


def test_sam_says_what_is_missing():
    g = jnp.ones(2)
    tx = jopt.sam(jopt.sgd(0.1), jopt.sgd(0.1))
    with pytest.raises(ValueError, match="sam: params is missing"):
        tx.update(g, tx.init(g))
    tx = jopt.sam(jopt.sgd(0.1), jopt.sgd(0.1), opaque_mode=True)
    with pytest.raises(ValueError, match="sam: grad_fn is missing"):
        tx.update(g, tx.init(g), g)
    with pytest.raises(ValueError, match="sync_period must be at least 1, got 0"):
        jopt.sam(jopt.sgd(0.1), jopt.sgd(0.1), sync_period=0)


# ---------------------------------------------------------------------------- plateaus


def scales(values, **settings):
    tx = jopt.reduce_on_plateau(**settings)
    state, out = tx.init(jnp.ones(1)), []
    for value in values:
        u, state = tx.update(jnp.ones(1), state, value=value)
        assert u[0] == state.scale
        out.append(float(state.scale))
    return out


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("value", [-1.0, 1.0, 0.0])
def test_a_constant_metric_is_a_plateau_of_any_sign(mode, value):
    got = scales([value] * 8, factor=0.5, patience=2, mode=mode)
    assert got == [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]


@pytest.mark.parametrize("start", [-10.0, 0.0, 10.0])
def test_a_metric_that_improves_is_none(start):
    up = list(start + np.arange(8.0))
    assert scales(up, patience=1, mode="max") == [1] * 8
    assert scales(up[::-1], patience=1, mode="min") == [1] * 8
    assert scales(up, patience=7, factor=0.5, mode="min") == [1] * 7 + [0.5]


def test_the_margin_is_relative_to_the_size_of_the_best():
    assert scales([-100.0, -100.5], patience=1, rtol=0.01, factor=0.5) == [1, 0.5]
    assert scales([-100.0, -101.5], patience=1, rtol=0.01, factor=0.5) == [1, 1]


def test_values_are_averaged_before_they_are_judged():
    values = [3.0, 1.0, 2.0, 1.0, 1.0, 0.5]  # means: 2, 1.5, 0.75
    got = scales(values, patience=1, atol=0.6, accumulation_size=2, factor=0.5)
    assert got == [1, 1, 1, 0.5, 0.5, 0.5]


def test_no_value_counts_while_it_cools_down():
    got = scales([1.0] * 8, patience=1, cooldown=2, factor=0.5)
    assert got == [1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125]


def test_not_a_number_is_no_improvement():
    assert scales([1.0, jnp.nan, jnp.nan], patience=2, factor=0.5) == [1, 1, 0.5]
    assert scales([jnp.nan, 1.0, 0.5], patience=2, factor=0.5) == [1, 1, 1]


def test_plateaus_equal_optax():
    values = np.abs(np.random.default_rng(0).normal(size=40)) + np.linspace(2, 0.1, 40)
    settings = dict(patience=2, cooldown=2, rtol=0.05, atol=0.01, factor=0.7)
    with loosely():
        tx = optax.contrib.reduce_on_plateau(**settings, min_scale=0.2)
        state, want = tx.init(jnp.ones(1)), []
        update = jax.jit(tx.update)
        for value in values:
            _, state = update(jnp.ones(1), state, value=value)
            want.append(state.scale)
    got = scales(values, **settings, min_scale=0.2)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    assert len(set(got)) > 3


def test_a_metric_of_any_type_is_traced_once():
    tx, traces = jopt.reduce_on_plateau(), 0

    @jax.jit
    def step(state, value):
        nonlocal traces
        traces += 1
        return tx.update(jnp.ones(1), state, value=value)[1]

    state = tx.init(jnp.ones(1))
    for _ in range(3):
        state = step(state, 0.5)
    assert traces == 1
    assert not any(jax.typeof(x).weak_type for x in state)
    before = [x.dtype for x in state]
    for value in (1, np.float32(0.5), jnp.bfloat16(0.5), jnp.array(1)):
        state = tx.update(jnp.ones(1), state, value=value)[1]
        assert [x.dtype for x in state] == before


def test_plateau_says_what_is_wrong():
    tx = jopt.reduce_on_plateau()
    state = tx.init(jnp.ones(1))
    with pytest.raises(ValueError, match="reduce_on_plateau: value is missing"):
        tx.update(jnp.ones(1), state)
    with pytest.raises(ValueError, match="reduce_on_plateau: value must"):
        tx.update(jnp.ones(1), state, value=jnp.ones(2))
    with pytest.raises(ValueError, match='mode must be "min" or "max", got \'up\''):
        jopt.reduce_on_plateau(mode="up")
    for bad in (dict(factor=1.0), dict(factor=0.0), dict(rtol=2.0), dict(patience=-1)):
        with pytest.raises(ValueError, match=f"{next(iter(bad))} must be"):
            jopt.reduce_on_plateau(**bad)


# ----------------------------------------------------------------------------- complex


def test_split_parts_equal_optax():
    z = jax.lax.complex(normal(3), normal(3, seed=1))
    p = {"z": z, "r": normal(2)}
    grads = [jax.tree.map(lambda x, f=f: f(x), p) for f in (jnp.sin, jnp.cos, jnp.exp)]

    def path(library, contrib):
        return run(contrib.split_real_and_imaginary(library.adam(0.1)), p, grads)

    with loosely():
        got, states = path(jopt, jopt)
        want, their_states = path(optax, optax.contrib)
    assert got["z"].dtype == z.dtype
    assert_trees_close(got, want)
    assert_trees_close(states, their_states)
    tx = jopt.split_real_and_imaginary(jopt.adam(0.1))
    with loosely():
        u, _ = tx.update(grads[0], their_states[-1], p)  # a state of optax goes on
        v, _ = tx.update(grads[0], states[-1], p)
    assert_trees_close(u, v)


def test_split_parts_are_optimized_apart():
    z = jnp.array([3.0 + 4.0j])
    tx = jopt.split_real_and_imaginary(jopt.adam(0.1))
    u, state = tx.update(z, tx.init(z), z)
    np.testing.assert_allclose(u, [-0.1 - 0.1j], rtol=1e-4)
    assert state.inner_state[0].mu.imaginary.dtype == jnp.float32


def test_split_takes_real_and_missing_gradients_of_complex_parameters():
    p = {"a": jnp.array([1.0 + 1.0j]), "b": jnp.array([1.0j]), "c": 1.0 + 2.0j}
    g = {"a": jnp.array([2.0]), "b": None, "c": 1.0j}
    tx = jopt.split_real_and_imaginary(jopt.sgd(1.0))
    for params in (p, None):
        if params is None:
            g = {"a": p["a"], "b": None, "c": 1.0j}
        u, _ = tx.update(g, tx.init(p), params)
        assert u["b"] is None
        np.testing.assert_array_equal(u["a"], -g["a"].astype(jnp.complex64))
        np.testing.assert_array_equal(u["c"], -1.0j)


# ------------------------------------------------------------------------------ GaLore


def test_galore_steps_within_the_leading_directions():
    tx = jopt.scale_by_galore(rank=2, update_proj_gap=3)
    p = {"tall": normal(7, 4), "wide": normal(4, 7), "b": normal(3)}
    state, before = tx.init(p), None
    for t in range(6):
        g = jax.tree.map(lambda x, t=t: jnp.cos(x * (t + 1)), p)
        u, state = tx.update(g, state, p)
        basis = state.projector
        for k in ("tall", "wide"):
            np.testing.assert_allclose(basis[k].T @ basis[k], np.eye(2), atol=1e-5)
            outside = np.eye(7) - basis[k] @ basis[k].T
            along = u[k] if k == "tall" else u[k].T
            np.testing.assert_allclose(outside @ along, 0, atol=1e-4)
        same = before is not None and np.array_equal(before["tall"], basis["tall"])
        assert same == (t % 3 != 0)
        before = basis
    moments = state.base_optimizer_state.mu
    assert moments["tall"].shape == (2, 4) and moments["wide"].shape == (4, 2)
    assert state.projector["b"].shape == (0, 0)


def test_galore_of_full_rank_with_a_linear_base_is_the_base():
    p = {"w": normal(4, 6), "stack": normal(2, 3, 4)}
    numbers = {"w": jopt.GaLoreDimensionNumbers(1, 0), "stack": None}
    for spec in (None, numbers, jopt.GaLoreDimensionNumbers(-1, 0)):
        some = {"w": p["w"]} if isinstance(spec, tuple) else p
        tx = jopt.scale_by_galore(
            base_optimizer=jopt.trace(0.9), weight_dimension_numbers=spec
        )
        u, state = tx.update(some, tx.init(some), some)
        u, _ = tx.update(some, state, some)
        for k in some:
            np.testing.assert_allclose(u[k], 1.9 * p[k], rtol=1e-4, atol=1e-5)


def test_galore_projects_complex_matrices():
    p = jax.lax.complex(normal(5, 3), normal(5, 3, seed=1))
    for g in (p, p.T):
        tx = jopt.scale_by_galore(base_optimizer=jopt.identity())
        u, _ = tx.update(g, tx.init(g), g)
        np.testing.assert_allclose(u, g, rtol=1e-4, atol=1e-5)


def test_galore_says_what_is_wrong():
    p = {"w": jnp.ones((4, 6)), "c": jnp.ones((2, 3, 4))}
    for numbers in (jopt.GaLoreDimensionNumbers(), jopt.GaLoreDimensionNumbers(0, 5)):
        tx = jopt.scale_by_galore(weight_dimension_numbers=numbers)
        with pytest.raises(ValueError, match="must name each of its axes once"):
            tx.init(p)
    state = jopt.scale_by_galore(rank=2).init(p)
    with pytest.raises(ValueError, match=r"projector\['w'\] is f32\[6, 2\]"):
        jopt.scale_by_galore(rank=3).update(p, state, p)
    with pytest.raises(ValueError, match="rank must be at least 1, got 0"):
        jopt.galore(0.1, rank=0)
    tx = jopt.scale_by_galore(base_optimizer=jopt.adamw(0.1))
    with pytest.raises(ValueError, match="params is missing"):
        tx.update(p, tx.init(p), p)


# ------------------------------------------------------------------------------ privacy
# Gradients have a batch axis here, so that the promises for rows do not apply.

EXAMPLES = {"w": normal(5, 3, 4), "b": normal(5, 2, seed=1)}
PRIVATE = {"w": jnp.zeros((3, 4)), "b": jnp.zeros(2)}


@pytest.mark.parametrize("momentum", [None, 0.9])
def test_dpsgd_equals_optax_to_the_noise(momentum):
    grads = [jax.tree.map(lambda x, n=n: n * x, EXAMPLES) for n in (1.0, 0.1, 2.0)]
    got, states = run(jopt.dpsgd(0.1, 2.0, 0.5, 7, momentum), PRIVATE, grads)
    with loosely(), jax.numpy_rank_promotion("allow"):
        with pytest.warns(DeprecationWarning, match="seed"):
            theirs = optax.contrib.dpsgd(0.1, 2.0, 0.5, 7, momentum)
        want, their_states = run(theirs, PRIVATE, grads)
    assert_trees_close(got, want)
    ours, theirs = (
        jax.random.key_data(s[-1][0].rng_key) for s in (states, their_states)
    )
    np.testing.assert_array_equal(ours, theirs)
    assert [type(x).__name__ for x in states[-1]] == [
        type(x).__name__ for x in their_states[-1]
    ]
    with pytest.warns(DeprecationWarning, match="seed is deprecated: use key"):
        seeded = jopt.dpsgd(0.1, 2.0, 0.5, momentum=momentum, seed=7)
    assert_trees_close(run(seeded, PRIVATE, grads)[0], got)


@pytest.mark.parametrize("name", ["global", "layer"])
def test_clipped_examples_of_integers_are_floats(name):
    clip = getattr(jopt, f"per_example_{name}_norm_clip")
    ints = {"a": jnp.arange(6).reshape(3, 2), "b": jnp.ones((3, 2))}
    got, counts = clip(ints, 1.0)
    want, same = clip(jax.tree.map(lambda x: x.astype(jnp.float32), ints), 1.0)
    assert_trees_close(got, want)
    assert got["a"].dtype == jnp.float32
    jax.tree.map(np.testing.assert_array_equal, counts, same)


def test_no_example_weighs_more_than_the_bound():
    tx = jopt.differentially_private_aggregate(1.5, 0.0, key=0)
    state = tx.init(PRIVATE)
    base, _ = tx.update(EXAMPLES, state, PRIVATE)
    other = {k: x.at[2].multiply(-1e6) for k, x in EXAMPLES.items()}
    moved, _ = tx.update(other, state, PRIVATE)
    change = jopt.tree.norm(jax.tree.map(lambda x, y: x - y, base, moved))
    np.testing.assert_allclose(change, 2 * 1.5 / 5, rtol=1e-4)


def test_noise_has_the_deviation_of_the_bound_over_the_batch():
    g = {"a": jnp.zeros((4, 40_000)), "b": jnp.zeros((4, 40_000), jnp.bfloat16)}
    tx = jopt.differentially_private_aggregate(2.0, 3.0, key=jax.random.key(1))
    u, state = tx.update(g, tx.init(None))
    v, _ = tx.update(g, state)
    for k, dtype in (("a", jnp.float32), ("b", jnp.bfloat16)):
        assert u[k].dtype == dtype
        np.testing.assert_allclose(jnp.std(u[k].astype(jnp.float32)), 1.5, rtol=0.02)
    one, two, other = (x.astype(jnp.float32) for x in (u["a"], v["a"], u["b"]))
    for x in (two, other):
        assert abs(np.corrcoef(one, x)[0, 1]) < 0.02, "noise anew for step and leaf"


def test_dpsgd_descends():
    x = normal(32, 3)
    y = x @ jnp.array([1.0, -2.0, 0.5])

    def loss(p, x, y):
        return (x @ p - y) ** 2

    tx = jopt.dpsgd(0.1, 5.0, 0.05, key=0, momentum=0.5)

    @jax.jit
    def loop(p):
        def step(carry, _):
            p, state = carry
            g = jax.vmap(jax.grad(loss), (None, 0, 0))(p, x, y)
            u, state = tx.update(g, state, p)
            return (jopt.apply_updates(p, u), state), jnp.mean((x @ p - y) ** 2)

        return jax.lax.scan(step, (p, tx.init(p)), length=200)[1]

    losses = loop(jnp.zeros(3))
    assert losses[-1] < 0.01 * losses[0]


def test_private_aggregation_says_what_is_wrong():
    tx = jopt.differentially_private_aggregate(1.0, 1.0, key=0)
    state = tx.init(PRIVATE)
    with pytest.raises(ValueError, match="expected one gradient for each example"):
        tx.update(PRIVATE, state, PRIVATE)
    with pytest.raises(ValueError, match=r"missing in updates: \['b'\]"):
        tx.update({"w": EXAMPLES["w"]}, state, PRIVATE)
    with pytest.raises(ValueError, match="must have the batch as its first axis"):
        tx.update({"w": EXAMPLES["w"], "b": jnp.ones((4, 2))}, state)
    with pytest.raises(ValueError, match="key is missing"):
        jopt.dpsgd(0.1, 1.0, 1.0)
    with pytest.raises(ValueError, match="l2_norm_clip must be positive, got 0"):
        jopt.dpsgd(0.1, 0.0, 1.0, key=0)


def test_private_aggregation_leaves_what_has_no_gradient():
    p = {"w": jnp.zeros(2), "n": jnp.arange(3), "none": None, "unused": jnp.ones(1)}
    g = {"w": jnp.ones((4, 2)), "n": None, "none": None, "unused": None}
    tx = jopt.dpsgd(1.0, 10.0, 0.0, key=0)
    u, _ = tx.update(g, tx.init(p), p)
    np.testing.assert_allclose(u["w"], -jnp.ones(2), rtol=1e-6)
    assert u["n"] is None and u["none"] is None and u["unused"] is None


# ---------------------------------------------------------------------------- optimism


def test_optimism_ends_the_circles_of_a_game():
    def distance(tx, n=1000):
        p = jnp.array([1.0, 2.0])

        def step(carry, _):
            p, state = carry
            g = jnp.array([p[1], -p[0]])  # of x y, up in y
            u, state = tx.update(g, state, p)
            return (p + u, state), None

        (p, _), _ = jax.lax.scan(step, (p, tx.init(p)), length=n)
        return float(jnp.linalg.norm(p))

    start = 5**0.5
    assert distance(jopt.sgd(0.1)) > 10 * start
    assert distance(jopt.adam(0.1)) > start
    assert distance(jopt.optimistic_gradient_descent(0.1)) < 0.02 * start
    assert distance(jopt.optimistic_adam_v2(1.0, alpha=0.01)) < 0.02 * start


def test_optimism_refuses_schedules_for_its_weights():
    for name in ("alpha", "beta"):
        with pytest.raises(TypeError, match=f"{name} must be a number"):
            jopt.optimistic_gradient_descent(0.1, **{name: lambda count: 1.0})

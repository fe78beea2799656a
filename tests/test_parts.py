"""What is particular of the parts: magnitudes, non-finite values, noise, examples."""

import functools
import operator

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

import jopt
from tests import references

KEY = jax.random.key(0)


def update(tx, g, p=None):
    return tx.update(g, tx.init(g if p is None else p), p)[0]


def whole(tree):
    """All elements of a tree in float64."""
    return np.concatenate(
        [np.ravel(np.asarray(x, float)) for x in jax.tree.leaves(tree)]
    )


# ------------------------------------------- parts that the catalogue has in optimizers


def halving(count):
    return jnp.where(count < 3, 0.5, 0.25)


def averaged(p, gs, *, learning_rate, **settings):
    return p - learning_rate * sum(references.ema(p, gs, **settings))


def of_tall_matrices(p, gs, **settings):
    """Muon where its factor, the root of max(1, fan_out / fan_in), is one."""
    return references.muon(p.T, [g.T for g in gs], **settings).T


RATED = dict(b1=0.5, b2=0.8, eps=1e-3, eps_root=1e-4)
# Name, settings, the reference of the optimizer at a rate of one, and its settings.
ALONE = [
    ("scale_by_adam", dict(RATED, nesterov=True), references.adam, None),
    ("scale_by_amsgrad", RATED, references.amsgrad, None),
    ("scale_by_adamax", dict(b1=0.5, b2=0.8, eps=1e-3), references.adamax, None),
    ("scale_by_belief", RATED, references.adabelief, None),
    ("scale_by_radam", dict(RATED, threshold=4.5), references.radam, None),
    ("scale_by_novograd", RATED, references.novograd, None),
    ("scale_by_adadelta", dict(rho=0.8, eps=1e-3), references.adadelta, None),
    (
        "scale_by_rss",
        dict(initial_accumulator_value=0.3, eps=1e-3),
        references.adagrad,
        None,
    ),
    ("scale_by_rms", dict(decay=0.8, initial_scale=0.3), references.rmsprop, None),
    (
        "scale_by_stddev",
        dict(decay=0.8, eps=1e-3),
        references.rmsprop,
        dict(decay=0.8, eps=1e-3, centered=True),
    ),
    ("scale_by_sm3", dict(b1=0.5, b2=0.9), references.sm3, dict(momentum=0.5, b2=0.9)),
    ("scale_by_sign", {}, references.sign_sgd, None),
    (
        "trace",
        dict(decay=0.8, nesterov=True),
        references.sgd,
        dict(momentum=0.8, nesterov=True),
    ),
    (
        "scale_by_learning_rate",
        dict(learning_rate=halving, flip_sign=False),
        references.sgd,
        dict(learning_rate=halving),
    ),
    (
        "scale_by_schedule",
        dict(step_size_fn=halving),
        references.sgd,
        dict(learning_rate=halving),
    ),
    ("ema", dict(decay=0.8), averaged, None),
    ("ema", dict(decay=0.8, debias=False), averaged, None),
    (
        "scale_by_factored_rms",
        dict(min_dim_size_to_factor=2, decay_rate=0.6, epsilon=1e-3),
        references.adafactor,
        dict(
            min_dim_size_to_factor=2,
            decay_rate=0.6,
            eps=1e-3,
            multiply_by_parameter_scale=False,
            clipping_threshold=None,
        ),
    ),
    ("contrib.scale_by_acprop", RATED, references.acprop, None),
    (
        "contrib.scale_by_ademamix",
        dict(RATED, b3=0.9, alpha=2.0),
        references.ademamix,
        None,
    ),
    ("contrib.scale_by_muon", dict(beta=0.8), of_tall_matrices, dict(beta=0.8)),
    ("contrib.scale_by_adopt", dict(b1=0.5, b2=0.8), references.adopt, None),
    (
        "contrib.scale_by_simplified_ademamix",
        dict(RATED, alpha=2.0),
        references.simplified_ademamix,
        None,
    ),
    (
        "contrib.scale_by_madgrad",
        dict(learning_rate=1.0, momentum=0.5, eps=1e-3),
        references.madgrad,
        dict(learning_rate=1.0, momentum=0.5, eps=1e-3),
    ),
]


@pytest.mark.parametrize(
    "name, settings, reference, other", ALONE, ids=[row[0] for row in ALONE]
)
def test_parts_equal_optax_and_the_paper_by_themselves(
    name, settings, reference, other
):
    sign = 1 if "madgrad" in name else -1  # that one has its rate, and sign, itself

    def path(library, dtype):
        tx = operator.attrgetter(name)(library)(**settings)
        p = jnp.asarray(xs[0], dtype)
        state, ps = tx.init(p), []
        for x in xs[1:]:
            u, state = tx.update(jnp.asarray(x, dtype), state, p)
            p = p + sign * u
            ps.append(np.asarray(p, float))
        return ps

    xs = np.random.default_rng(0).normal(size=(6, 3, 4))
    for dtype, rtol in ((np.float32, 2e-5), (np.float64, 1e-6)):
        with jax.enable_x64(dtype == np.float64):
            got = path(jopt, dtype)
            with jax.numpy_dtype_promotion("standard"):
                want = path(optax, dtype)
        np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol)
    given = dict(learning_rate=1.0) | (settings if other is None else other)
    end = reference(xs[0], list(xs[1:]), **given)
    np.testing.assert_allclose(got[-1], end, rtol=1e-9, atol=1e-9)


OLD, NEW = np.random.default_rng(1).normal(size=(2, 3, 4))
UNITS = np.linalg.norm(OLD, axis=0, keepdims=True)
# Name, arguments and what it is.
FUNCTIONS = [
    ("incremental_update", (NEW, OLD, 0.3), 0.3 * NEW + 0.7 * OLD),
    ("periodic_update", (NEW, OLD, 6, 3), NEW),
    ("periodic_update", (NEW, OLD, 7, 3), OLD),
    ("transforms.unitwise_norm", (OLD,), UNITS + 0 * OLD),
    (
        "transforms.unitwise_clip",
        (UNITS + 0 * OLD, 1.5 * np.ones((3, 4)), OLD),
        OLD * np.minimum(1, 1.5 / UNITS),
    ),
]


@pytest.mark.parametrize("name, args, want", FUNCTIONS)
@pytest.mark.parametrize("dtype, rtol", [(np.float32, 2e-6), (np.float64, 1e-14)])
def test_functions_equal_optax_and_their_definition(name, args, want, dtype, rtol):
    with jax.enable_x64(dtype == np.float64):
        args = [jnp.asarray(x, dtype) if np.ndim(x) else x for x in args]
        got = operator.attrgetter(name)(jopt)(*args)
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            theirs = operator.attrgetter(name)(optax)(*args)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(
        got, np.broadcast_to(theirs, got.shape), rtol=rtol, atol=rtol
    )


# ----------------------------------------------------------------------------- clipping


@pytest.mark.parametrize(
    "size", [1e-38, 1e-30, 1e-20, 1e-10, 1.0, 1e10, 1e19, 1e30, 3e38]
)
def test_global_norm_is_clipped_at_any_magnitude(size):
    g = {"a": jnp.array([0.5, -1.0]) * size, "b": jnp.float32(0.25 * size)}
    for bound in (size / 3, 1e-3, 1e3):
        got = whole(update(jopt.clip_by_global_norm(bound), g))
        norm = np.linalg.norm(whole(g))
        want = whole(g) * min(1, bound / norm)
        big = np.abs(want) > 1.2e-38  # the rest is subnormal
        np.testing.assert_allclose(got[big], want[big], rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_global_norm_is_clipped_in_16_bits(dtype):
    g = {"a": jnp.full((64,), 300.0, dtype)}
    got = update(jopt.clip_by_global_norm(1.0), g)["a"]
    assert got.dtype == dtype
    np.testing.assert_allclose(np.asarray(got, float), 1 / 8, rtol=1e-2)


def test_clipping_leaves_alone_what_is_inside():
    g = {"a": jnp.array([0.1, -0.0, 1 / 3]), "b": jnp.float32(1e-30)}
    p = jax.tree.map(lambda x: 100 * jnp.ones_like(x), g)
    for tx in (
        jopt.clip(1.0),
        jopt.clip_by_global_norm(1.0),
        jopt.clip_by_block_rms(1.0),
        jopt.adaptive_grad_clip(0.5),
    ):
        chex.assert_trees_all_equal(update(tx, g, p), g)


def test_a_bound_of_zero_gives_zero():
    for g in (jnp.zeros(3), jnp.array([1.0, -2.0, 3.0])):
        for tx in (
            jopt.clip(0.0),
            jopt.clip_by_global_norm(0.0),
            jopt.clip_by_block_rms(0.0),
            jopt.adaptive_grad_clip(0.0),
        ):
            np.testing.assert_array_equal(update(tx, g, jnp.ones(3)), jnp.zeros(3))


@pytest.mark.parametrize("size", [0.0, 0.1, 10.0])
def test_clipping_has_derivatives(size):
    g = jnp.array([3.0, -4.0]) * size
    for tx in (
        jopt.clip_by_global_norm(1.0),
        jopt.clip_by_block_rms(1.0),
        jopt.adaptive_grad_clip(0.5),
        jopt.normalize_by_update_norm(),
    ):
        slope = jax.jacobian(lambda g, tx=tx: update(tx, g, jnp.ones(2)))(g)
        assert np.all(np.isfinite(slope)) and np.any(slope)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize(
    "make, alone",
    [
        (lambda: jopt.clip_by_global_norm(1.0), False),
        (lambda: jopt.clip_by_block_rms(1.0), True),
        (lambda: jopt.adaptive_grad_clip(0.1), True),
        (jopt.normalize, False),
        (jopt.normalize_by_update_norm, False),
    ],
)
def test_a_gradient_that_is_not_finite_has_no_direction(make, alone, bad):
    g = {"a": jnp.array([1.0, bad]), "b": jnp.array([2.0])}
    got = update(make(), g, jax.tree.map(jnp.ones_like, g))
    assert np.all(np.isnan(got["a"]))
    assert np.all(np.isnan(got["b"])) != alone


def test_clip_takes_complex_numbers_by_their_size():
    got = update(jopt.clip(1.0), jnp.array([3 + 4j, 0.3j, 0]))
    np.testing.assert_allclose(got, [0.6 + 0.8j, 0.3j, 0], rtol=1e-6)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_blocks_and_units_are_clipped_at_any_magnitude(size):
    g = jnp.array([[3.0, 1.0], [4.0, 0.0]]) * size
    got = update(jopt.clip_by_block_rms(size), g)
    np.testing.assert_allclose(got, g / np.sqrt(26 / 4), rtol=1e-6)
    np.testing.assert_allclose(jopt.unitwise_norm(g), [[5 * size, size]] * 2, rtol=1e-6)
    got = update(jopt.adaptive_grad_clip(0.5, eps=1e-37), g, g / 4)
    np.testing.assert_allclose(got, g / 8, rtol=1e-6)
    got = update(jopt.scale_by_param_block_rms(min_scale=0.0), g / size, g)
    np.testing.assert_allclose(got, g * np.sqrt(26 / 4), rtol=1e-6)


def test_units_of_different_magnitude_do_not_meet():
    g = jnp.array([[3e-25, 3e25], [4e-25, 4e25]])
    np.testing.assert_allclose(jopt.unitwise_norm(g)[0], [5e-25, 5e25], rtol=1e-6)


@pytest.mark.parametrize(
    "shape", [(), (3,), (1, 3), (2, 3), (2, 3, 4), (2, 2, 3, 4), (1, 2, 2, 3, 4)]
)
def test_units_are_those_of_optax(shape):
    x = jax.random.normal(KEY, shape)
    want = optax.transforms.unitwise_norm(x)
    np.testing.assert_allclose(jopt.unitwise_norm(x), want, rtol=1e-6)
    with pytest.raises(ValueError, match="6 axes"):
        jopt.unitwise_norm(jnp.ones((2,) * 6))


def test_units_of_16_bits_are_summed_in_32():
    g = jnp.full((4096,), 300, jnp.float16)
    norm = jopt.unitwise_norm(g)
    np.testing.assert_allclose(norm, 300 * 64, rtol=1e-6)
    clipped = jopt.unitwise_clip(norm, jnp.ones_like(norm), g)
    assert clipped.dtype == jnp.float16
    np.testing.assert_allclose(np.asarray(clipped, float), 1 / 64, rtol=1e-3)


@pytest.mark.parametrize("size", [1.0, 1e30])
def test_the_global_norm_spans_shards_that_are_named(size):
    mesh = jax.make_mesh((4,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    g = {"a": jnp.arange(1.0, 9.0) * size, "b": jnp.ones((4, 2)) * size}

    def clipped(g, axis_name):
        tx = jopt.clip_by_global_norm(1.0, axis_name=axis_name)
        shards = jax.shard_map(
            lambda g: update(tx, g),
            mesh=mesh,
            in_specs=PartitionSpec("x"),
            out_specs=PartitionSpec("x"),
        )
        return whole(jax.jit(shards)(g))

    want = whole(g) / np.linalg.norm(whole(g))
    np.testing.assert_allclose(clipped(g, "x"), want, rtol=1e-6)
    assert np.linalg.norm(clipped(g, None)) > 1.9  # each shard by itself


# -------------------------------------------------------------------------- per example


def clip_examples(grads, bound_of):
    """The sum of clipped examples and how many were, for each leaf by itself."""
    totals, counts = {}, {}
    for k, g in grads.items():
        norms = [np.linalg.norm(x) for x in g]
        factors = [min(1, bound_of(k) / n) for n in norms]
        totals[k] = sum(f * x for f, x in zip(factors, g))
        counts[k] = sum(n > bound_of(k) for n in norms)
    return totals, counts


@pytest.fixture
def examples():
    rng = np.random.default_rng(0)
    scale = np.array([0.1, 1.0, 10.0, 1e-9])
    return {
        "w": rng.normal(size=(4, 2, 3)) * scale[:, None, None],
        "b": rng.normal(size=(4, 5)) * scale[:, None],
    }


precisions = pytest.mark.parametrize(
    "dtype, rtol", [(np.float32, 1e-5), (np.float64, 1e-12)]
)


def clipped_by(name, examples, dtype, **kwargs):
    """The sum and the counts, of optax the same."""
    with jax.enable_x64(dtype == np.float64):
        grads = jax.tree.map(lambda x: jnp.asarray(x, dtype), examples)
        got = getattr(jopt, name)(grads, 2.0, **kwargs)
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            theirs = getattr(optax, name)(grads, 2.0, **kwargs)
    for x, y in zip(*map(jax.tree.leaves, (got, theirs)), strict=True):
        np.testing.assert_allclose(x, y, rtol=3e-6 if dtype == np.float32 else 1e-12)
    return got


@precisions
def test_examples_are_clipped_by_their_global_norm(examples, dtype, rtol):
    flat = {"all": np.concatenate([x.reshape(4, -1) for x in examples.values()], 1)}
    want, count = clip_examples(flat, lambda k: 2.0)
    got, got_count = clipped_by("per_example_global_norm_clip", examples, dtype)
    got = np.concatenate([np.ravel(got[k]) for k in examples])
    np.testing.assert_allclose(got, want["all"], rtol=rtol)
    assert got_count == count["all"] and got_count.dtype == jnp.int32


@precisions
@pytest.mark.parametrize("uniform", [True, False])
def test_examples_are_clipped_leaf_by_leaf(examples, uniform, dtype, rtol):
    share = {"w": 1 / 2, "b": 1 / 2} if uniform else {"w": 6 / 11, "b": 5 / 11}
    want, counts = clip_examples(examples, lambda k: 2.0 * share[k] ** 0.5)
    name = "per_example_layer_norm_clip"
    got, got_counts = clipped_by(name, examples, dtype, uniform=uniform)
    for k in examples:
        np.testing.assert_allclose(got[k], want[k], rtol=rtol)
        assert got_counts[k] == counts[k]


@pytest.mark.parametrize(
    "clipped", [jopt.per_example_global_norm_clip, jopt.per_example_layer_norm_clip]
)
def test_odd_examples(clipped):
    g = {"c": jnp.array([[3 + 4j], [0j]]), "h": jnp.full((2, 1), 3e4, jnp.float16)}
    got = jax.jit(clipped)(g, 1.0)[0]
    assert got["c"].dtype == jnp.complex64 and got["h"].dtype == jnp.float16
    chex.assert_tree_all_finite(got)
    bad = jnp.array([[1.0, jnp.inf], [1.0, 1.0]])
    assert np.all(np.isnan(clipped(bad, 1.0)[0]))
    zero = clipped(jnp.zeros((2, 3)), 0.0)[0]
    np.testing.assert_array_equal(zero, np.zeros(3))
    for wrong in ({"a": jnp.ones((4, 2)), "b": jnp.ones((3, 2))}, {"a": jnp.ones(())}):
        with pytest.raises(ValueError, match=r"batch as its first axis.*\['a'\]"):
            clipped(wrong, 1.0)


# ------------------------------------------------------------------------------- guards


def test_zero_nans_says_where():
    tx = jopt.zero_nans()
    g = {"a": jnp.array([1.0, jnp.nan]), "b": jnp.array([jnp.inf]), "c": jnp.ones(1)}
    got, state = tx.update(g, tx.init(g))
    np.testing.assert_array_equal(got["a"], [1.0, 0.0])
    np.testing.assert_array_equal(got["b"], [np.inf])
    assert {k: bool(x) for k, x in state.found_nan.items()} == dict(
        a=True, b=False, c=False
    )
    _, state = tx.update(tx.init(g).found_nan | got, state)
    assert not state.found_nan["a"], "of the last step alone"


def test_parameters_stay_at_zero_and_above():
    p = jnp.array([2.0, 0.1, 0.0, -1.0])
    g = jnp.array([-3.0, 0.5, -1e-30, 0.5])
    got = update(jopt.keep_params_nonnegative(), g, p)
    np.testing.assert_array_equal(p + got, jnp.array([0.0, 0.6, 0.0, 0.0]))


# -------------------------------------------------------------------------------- noise


def test_noise_has_the_variance_asked_for_and_fades():
    tx = jopt.add_noise(4.0, 1.0, KEY)
    zeros = {"a": jnp.zeros((300, 300)), "b": jnp.zeros((300, 300))}
    state = tx.init(zeros)
    for t in range(1, 5):
        noise, state = tx.update(zeros, state)
        a, b = (np.asarray(x).ravel() for x in (noise["a"], noise["b"]))
        np.testing.assert_allclose([a.std(), b.std()], (4 / t) ** 0.5, rtol=0.01)
        assert abs(a.mean()) < 0.03 and abs(np.corrcoef(a, b)[0, 1]) < 0.015
        assert state.count == t


def test_noise_repeats_in_jit_and_from_its_state():
    tx = jopt.add_noise(0.1, 0.5, 7)
    g = {"a": jnp.ones((3, 4)), "b": None, "c": jnp.ones(2, jnp.bfloat16)}
    state = tx.init(g)
    first, later = tx.update(g, state)
    chex.assert_trees_all_equal(first, jax.jit(tx.update)(g, state)[0])
    with jax.disable_jit():
        chex.assert_trees_all_close(first, tx.update(g, state)[0], rtol=1e-2)
    second, _ = tx.update(g, later)
    assert not np.any(first["a"] == second["a"])
    assert first["b"] is None and first["c"].dtype == jnp.bfloat16


def test_noise_is_that_of_optax():
    g = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}
    ours, theirs = jopt.add_noise(0.1, 0.5, 3), optax.add_noise(0.1, 0.5, 3)
    state, their_state = ours.init(g), theirs.init(g)
    for _ in range(3):
        got, state = ours.update(g, state)
        with jax.numpy_dtype_promotion("standard"):
            want, their_state = theirs.update(g, their_state)
        chex.assert_trees_all_close(got, want, rtol=1e-6)
    assert state.rng_key == their_state.rng_key


def test_noise_of_16_bits_is_drawn_in_32():
    tx = jopt.add_noise(1.0, 0.5, KEY)
    zeros = jnp.zeros(10_000, jnp.bfloat16)
    wide = update(tx, jnp.zeros(10_000))
    np.testing.assert_array_equal(update(tx, zeros), wide.astype(jnp.bfloat16))


def test_noise_of_complex_numbers():
    noise = np.asarray(
        update(jopt.add_noise(4.0, 1.0, KEY), jnp.zeros(40_000, complex))
    )
    np.testing.assert_allclose([noise.real.std(), noise.imag.std()], 2**0.5, rtol=0.02)


def test_noise_takes_keys_and_integers():
    make = functools.partial(jopt.add_noise, 0.1, 0.5)
    want = update(make(jax.random.key(5)), jnp.zeros(3))
    with pytest.warns(DeprecationWarning, match="seed is deprecated") as warned:
        seeded = make(seed=5)
    assert warned[0].filename == __file__  # where the program says it
    for tx in (make(5), seeded, make(np.int64(5)), make(jnp.uint32(5))):
        np.testing.assert_array_equal(update(tx, jnp.zeros(3)), want)
    np.testing.assert_array_equal(
        update(make(jax.random.PRNGKey(5)), jnp.zeros(3)), want
    )
    assert np.all(np.isfinite(update(make(2**40 + 5), jnp.zeros(3))))
    for wrong in (dict(), dict(key=1, seed=1)):
        with pytest.raises(ValueError, match=r"add_noise: .*key"):
            make(**wrong)
    for wrong in (True, 1.5, "1", jnp.ones(3), jax.random.split(KEY)):
        with pytest.raises(TypeError, match="add_noise: key"):
            make(wrong)
    with pytest.raises(ValueError, match="eta"):
        jopt.add_noise(-0.1, 0.5, 0)


# ---------------------------------------------------------------------------- functions


def test_functions_become_transformations():
    g, p = {"a": jnp.ones(2), "b": None}, {"a": jnp.full(2, 3.0), "b": jnp.ones(1)}
    by_leaf = jopt.stateless_with_tree_map(lambda g, p: g if p is None else g + p)
    np.testing.assert_array_equal(update(by_leaf, g, p)["a"], jnp.full(2, 4.0))
    np.testing.assert_array_equal(update(by_leaf, g)["a"], jnp.ones(2))
    assert update(by_leaf, g, p)["b"] is None
    whole_tree = jopt.stateless(lambda g, p: jopt.tree.scale(2.0, g))
    np.testing.assert_array_equal(update(whole_tree, g, p)["a"], jnp.full(2, 2.0))
    for make in (jopt.stateless, jopt.stateless_with_tree_map):
        assert make(jnp.tanh).init(p) == jopt.EmptyState()
        with pytest.raises(TypeError, match=f"{make.__name__}: f must be a function"):
            make(1.0)


def test_a_function_may_sum_over_a_batch():
    """The updates it takes need not look like the parameters."""
    tx = jopt.stateless(lambda g, p: jopt.per_example_global_norm_clip(g, 1.0)[0])
    got = update(
        jopt.chain(tx, jopt.scale(-1.0)), {"w": jnp.ones((4, 1))}, {"w": jnp.ones(1)}
    )
    np.testing.assert_array_equal(got["w"], [-4.0])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.complex64])
def test_scale_gradient_scales_what_comes_back(dtype):
    x = {"a": jnp.ones(3, dtype), "n": jnp.arange(2)}

    def loss(x, scale):
        y = jopt.scale_gradient(x, scale)
        assert y["n"].dtype == x["n"].dtype
        return jnp.sum(jnp.real(y["a"]) * 3)

    for scale in (-0.5, jnp.float32(-0.5)):
        g = jax.jit(jax.grad(loss, allow_int=True))(x, scale)
        assert g["a"].dtype == dtype
        np.testing.assert_array_equal(np.asarray(g["a"], complex), -1.5)
    assert loss(x, 7.0) == 9
    _, slope = jax.jvp(lambda t: jopt.scale_gradient(t, 2.0) * t, (3.0,), (1.0,))
    assert slope == 3 + 2 * 3


def test_apply_every_wants_a_number_of_steps():
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="apply_every: k must be at least 1"):
            jopt.apply_every(wrong)
    with pytest.raises(TypeError, match="apply_every: k must be an integer"):
        jopt.apply_every(2.0)


# -------------------------------------------------------------- where there is nothing


@pytest.mark.parametrize("library", [jopt, optax])
def test_none_in_the_place_of_a_whole_tree_stays_none(library):
    x = {"w": jnp.ones(2)}
    assert library.apply_updates(None, x) is None
    assert library.incremental_update(None, x, 0.5) is None
    assert library.incremental_update({"w": None}, x, 0.5) == {"w": None}
    tx = library.add_decayed_weights(0.1)
    updates, state = tx.update(None, tx.init(x), x)
    assert updates is None
    assert jax.tree.structure(state) == jax.tree.structure(tx.init(x))
    adam = jopt.adam(0.1)  # which would keep its means of nothing
    with pytest.raises(ValueError, match="structure"):
        adam.update(None, adam.init(x), x)

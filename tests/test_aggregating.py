"""Aggregators of examples' gradients, against NumPy over all examples and optax."""

import inspect
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax.experimental import aggregating as optaxs

import jopt
from jopt.experimental import aggregating
from jopt.experimental.aggregating import (
    Aggregator,
    accumulate_avg_updates,
    add_mean_variance_to_opt,
    average_incrementally_updates,
    average_per_element_updates,
    get_batch_size_from_per_elt_updates,
    get_per_element_mean_and_sum_sq_diff_grads,
    get_unbiased_mean_and_variance_ema,
    process,
    track_per_element_mean_and_variance_with_ema,
)

PARAMS = {"w": jnp.zeros((2, 3)), "b": jnp.zeros(2)}
N = 4


def examples(steps, shape=(N,), seed=0):
    """Float64 gradients of the examples of each step, far from zero."""
    rng = np.random.default_rng(seed)
    return [
        {k: 3.0 + rng.normal(size=(*shape, *p.shape)) for k, p in PARAMS.items()}
        for _ in range(steps)
    ]


def single(grads):
    return jax.tree.map(jnp.float32, grads)


def run(tx, grads, params=PARAMS, **extra_args):
    """The updates and the states after each step, under jit."""
    state, out, update = tx.init(params), [], jax.jit(tx.update)
    for g in grads:
        u, state = update(single(g), state, params, **extra_args)
        out.append((u, state))
    return out


def close(got, want, rtol=2e-6):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want)):
        assert np.shape(g) == np.shape(w)
        np.testing.assert_allclose(g, w, rtol=rtol, atol=1e-6)


def pooled(grads):
    """All examples of several steps in one axis."""
    return jax.tree.map(lambda *xs: np.concatenate(xs), *grads)


def means(grads):
    return jax.tree.map(lambda g: g.mean(axis=0), grads)


ZEROS = jax.tree.map(np.zeros_like, PARAMS)

# ------------------------------------------------------------------------------ means


def test_the_mean_over_examples():
    (g,) = examples(1)
    close(run(average_per_element_updates(), [g])[0][0], means(g))
    (g,) = examples(1, (2, N))
    want = jax.tree.map(lambda x: x.mean(axis=(0, 1)), g)
    close(run(average_per_element_updates([0, 1]), [g])[0][0], want)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_mean_of_several_steps(k):
    batches = examples(2 * k)
    for axis in (None, 0):
        tx = average_incrementally_updates(axis, k)
        assert isinstance(tx, Aggregator) == (axis == 0)
        grads = batches if axis == 0 else [means(g) for g in batches]
        for i, (u, state) in enumerate(run(tx, grads)):
            ready = (i + 1) % k == 0
            close(u, means(pooled(batches[i + 1 - k : i + 1])) if ready else ZEROS)
            if k > 1:
                assert bool(jopt.tree.get(state, "ready")) == ready
                assert int(jopt.tree.get(state, "micro_step")) == (i + 1) % k


@pytest.mark.parametrize("k", [1, 3])
def test_means_and_squared_differences(k):
    batches = examples(2 * k)
    tx = get_per_element_mean_and_sum_sq_diff_grads(0, k)
    for i, ((mean, aux), _) in enumerate(run(tx, batches)):
        if (i + 1) % k:
            close(mean, ZEROS)
            close(aux["sum_sq_diff_grads"], ZEROS)
            assert aux["sample_size"] == 0
            continue
        g = pooled(batches[i + 1 - k : i + 1])
        close(mean, means(g))
        close(
            aux["sum_sq_diff_grads"],
            jax.tree.map(lambda x: ((x - x.mean(axis=0)) ** 2).sum(axis=0), g),
        )
        assert aux["sample_size"] == N * k


def test_squared_differences_survive_a_large_mean():
    grads = [1e4 + np.random.default_rng(i).normal(size=(64, 3)) for i in range(4)]
    tx = get_per_element_mean_and_sum_sq_diff_grads(0, 4)
    grads = [np.float64(np.float32(g)) for g in grads]
    (_, aux), _ = run(tx, grads, jnp.zeros(3))[-1]
    g = np.concatenate(grads)
    want = ((g - g.mean(axis=0)) ** 2).sum(axis=0)
    np.testing.assert_allclose(aux["sum_sq_diff_grads"], want, rtol=1e-3)


def test_complex_gradients_have_real_variances():
    g = np.array([1 + 2j, 3 - 1j, 0.5j])
    tx = add_mean_variance_to_opt(jopt.sgd(1.0), accumulation_steps=2)
    params = jnp.zeros((), jnp.complex64)
    state = tx.init(params)
    for part in (g, 2 * g):
        _, state = tx.update(jnp.complex64(part), state, params)
    mean, variance = get_unbiased_mean_and_variance_ema(state)
    both = np.concatenate([g, 2 * g])
    np.testing.assert_allclose(mean, both.mean(), rtol=1e-5)
    np.testing.assert_allclose(variance, both.var(ddof=1), rtol=1e-5)
    assert variance.dtype == jnp.float32


@pytest.mark.parametrize("k", [1, 2])
def test_moving_averages_of_mean_and_variance(k):
    batches, decay = examples(4 * k), 0.7
    tx = add_mean_variance_to_opt(jopt.sgd(1.0), decay, 0, k)
    means_ema, variances_ema, t = ZEROS, ZEROS, 0
    for i, (u, state) in enumerate(run(tx, batches)):
        if (i + 1) % k:
            close(u, ZEROS)
        else:
            g, t = pooled(batches[i + 1 - k : i + 1]), t + 1
            close(u, jax.tree.map(lambda x: -x, means(g)))
            means_ema = jax.tree.map(
                lambda m, x: decay * m + (1 - decay) * x.mean(axis=0), means_ema, g
            )
            variances_ema = jax.tree.map(
                lambda v, x: decay * v + (1 - decay) * x.var(axis=0, ddof=1),
                variances_ema,
                g,
            )
        got = get_unbiased_mean_and_variance_ema(state)
        rest = 1 - decay**t
        close(
            [{k: x * rest for k, x in m.items()} for m in got],
            [means_ema, variances_ema],
        )


def test_one_example_has_no_variance():
    tx = add_mean_variance_to_opt(jopt.sgd(1.0))
    (_, state), *_ = run(tx, examples(1, (1,)))
    close(get_unbiased_mean_and_variance_ema(state)[1], ZEROS)


def test_the_decay_in_the_state_is_the_one_that_counts():
    tx = track_per_element_mean_and_variance_with_ema(0.9)
    state = tx.init(jnp.array(0.0))._replace(ema_decay=jnp.float32(0.5))
    aux = dict(sum_sq_diff_grads=jnp.array(6.0), sample_size=4)
    _, state = tx.update(jnp.array(2.0), state, **aux)
    assert (float(state.mean_grads_ema), float(state.variance_grads_ema)) == (1.0, 1.0)


def test_16_bits_are_averaged_in_32():
    params = jnp.zeros(3, jnp.bfloat16)
    grads = jnp.full((64, 3), 1.0, jnp.bfloat16).at[0].set(3.0)
    tx = accumulate_avg_updates(64)
    state, update = tx.init(params), jax.jit(tx.update)
    for g in grads:
        u, state = update(g, state, params)
    assert u.dtype == jnp.bfloat16
    assert state.avg_grad.dtype == jnp.float32
    np.testing.assert_allclose(np.float64(u), 66 / 64, rtol=2**-8)
    tx = add_mean_variance_to_opt(jopt.sgd(1.0), accumulation_steps=2)
    state = tx.init(params)
    types = jax.tree.map(jax.typeof, state)
    for _ in range(2):
        u, state = tx.update(grads, state, params)
        assert u.dtype == jnp.bfloat16
    assert jax.tree.map(jax.typeof, state) == types


# ---------------------------------------------------------------------------- process


def counting(name, seen):
    """Counts its steps, and notes what it was given."""

    def update(updates, state, params=None, **extra_args):
        seen.append((name, jax.tree.leaves(updates)[0].shape, sorted(extra_args)))
        return updates, state + 1

    return jopt.GradientTransformationExtraArgs(lambda p: jnp.int32(0), update)


@pytest.mark.parametrize("k", [1, 2])
def test_three_transformations_in_one(k):
    seen = []
    middle = get_per_element_mean_and_sum_sq_diff_grads(0, k)
    tx = process(counting("pre", seen), middle, counting("post", seen), True)
    out = run(tx, examples(4), value=jnp.array(1.0))
    aux = ["sample_size", "sum_sq_diff_grads", "value"]
    assert seen == [("pre", (N, 2), ["value"]), ("post", (2,), aux)]
    assert [int(state[0]) for _, state in out] == [1, 2, 3, 4]
    assert [int(state[2]) for _, state in out] == [i // k for i in (1, 2, 3, 4)]


def test_an_optimizer_sleeps_while_gradients_are_collected():
    batches = examples(6)
    tx = process(jopt.identity(), average_incrementally_updates(0, 2), jopt.adam(0.1))
    whole = jopt.adam(0.1)
    state = whole.init(PARAMS)
    for i, (u, (_, _, after)) in enumerate(run(tx, batches)):
        if i % 2:
            g = single(means(pooled(batches[i - 1 : i + 1])))
            want, state = whole.update(g, state, PARAMS)
            close(u, want, rtol=1e-5)
        else:
            close(u, ZEROS)
        close(after, state, rtol=1e-5)


def test_examples_are_clipped_before_they_are_averaged():
    mean = average_per_element_updates()
    tx = process(jopt.clip(1.0), mean, jopt.sgd(1.0))
    u, _ = tx.update(jnp.array([0.5, 8.0, -3.0]), tx.init(0.0), jnp.array(0.0))
    np.testing.assert_allclose(u, -(0.5 + 1 - 1) / 3, rtol=1e-6)
    assert isinstance(tx, Aggregator)
    accumulate = process(jopt.identity(), accumulate_avg_updates(2), jopt.sgd(1.0))
    assert isinstance(accumulate, jopt.GradientTransformation)


def test_parts_from_optax_and_of_ones_own():
    own = Aggregator(lambda params: (), lambda g, state, params: (means(g), state))
    theirs = optaxs.average_per_element_updates()
    for middle in (own, theirs):
        tx = process(optax.identity(), middle, optax.sgd(1.0))
        assert isinstance(tx, Aggregator)
        (g,) = examples(1)
        close(run(tx, [g])[0][0], jax.tree.map(lambda x: -x, means(g)))


def test_products_know_their_calls():
    mean = average_per_element_updates()
    tx = process(jopt.identity(), mean, jopt.adam(0.1))
    assert repr(tx) == "process(identity(), average_per_element_updates(), adam(0.1))"
    assert tx == process(jopt.identity(), average_per_element_updates(), jopt.adam(0.1))
    assert pickle.loads(pickle.dumps(tx)) == tx
    assert accumulate_avg_updates(2) != accumulate_avg_updates(3)


def test_under_jit_nothing_is_traced_again():
    traces = []

    def loud(g, params):
        traces.append(g)
        return g

    middle = get_per_element_mean_and_sum_sq_diff_grads(0, 2)
    track = track_per_element_mean_and_variance_with_ema()
    tx = process(jopt.stateless(loud), middle, jopt.chain(track, jopt.adam(0.1)), True)
    state, step = tx.init(PARAMS), jax.jit(tx.update)
    for g in examples(4):
        _, state = step(single(g), state, PARAMS)
    assert len(traces) == 1


# ------------------------------------------------------------------------------ optax

TRANSFORMATIONS = [
    (lambda m: m.average_per_element_updates(0), True),
    (lambda m: m.accumulate_avg_updates(2), False),
    (lambda m: m.average_incrementally_updates(0, 3), True),
    (lambda m: m.get_per_element_mean_and_sum_sq_diff_grads(0, 1), True),
    (lambda m: m.get_per_element_mean_and_sum_sq_diff_grads(0, 2), True),
    (lambda m: m.add_mean_variance_to_opt(optax.adam(0.1), 0.8, 0, 2), True),
]


@pytest.mark.parametrize("make, of_examples", TRANSFORMATIONS)
def test_updates_and_states_are_optaxs(make, of_examples):
    grads = examples(4)
    grads = grads if of_examples else [means(g) for g in grads]
    with jax.numpy_dtype_promotion("standard"):
        ours, theirs = (run(make(module), grads) for module in (aggregating, optaxs))

    def plain(tree):  # classes by name, so that the two compare
        if hasattr(tree, "_fields"):
            return {"": type(tree).__name__} | {
                name: plain(getattr(tree, name)) for name in tree._fields
            }
        if isinstance(tree, (tuple, list)):
            return [plain(x) for x in tree]
        if isinstance(tree, dict):
            return {k: plain(v) for k, v in sorted(tree.items())}
        return tree

    def check(a, b):
        if isinstance(a, dict):
            assert a.keys() == b.keys()
            [check(a[k], b[k]) for k in a]
        elif isinstance(a, list):
            assert len(a) == len(b)
            [check(x, y) for x, y in zip(a, b)]
        elif isinstance(a, str):
            assert a == b
        else:
            assert np.asarray(a).dtype == np.asarray(b).dtype
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)

    check(plain(ours), plain(theirs))


def test_all_of_optaxs_names_and_signatures_are_here():
    assert len(aggregating.__all__) == 14
    for name in aggregating.__all__:
        if name == "AggregatorUpdateFn":
            continue
        ours, theirs = (
            [(p.name, p.default) for p in inspect.signature(f).parameters.values()]
            for f in (getattr(aggregating, name), getattr(optaxs, name))
        )
        assert ours == theirs


# ----------------------------------------------------------------------------- errors


def test_the_number_of_examples():
    g = {"w": jnp.ones((2, 3, 4)), "b": jnp.ones((2, 3))}
    assert get_batch_size_from_per_elt_updates(g, 0) == 2
    assert get_batch_size_from_per_elt_updates(g, [0, 1]) == 6
    with pytest.raises(
        ValueError, match=r"\['b'\] has 3, per_elt_updates\['w'\] has 4"
    ):
        get_batch_size_from_per_elt_updates(g, -1)
    with pytest.raises(ValueError, match="none"):
        get_batch_size_from_per_elt_updates({}, 0)


def test_bad_arguments_are_refused():
    for make in (accumulate_avg_updates, lambda k: average_incrementally_updates(0, k)):
        with pytest.raises(ValueError, match="accumulation_steps must be at least 1"):
            make(0)
    with pytest.raises(TypeError, match="accumulation_steps must be an integer"):
        get_per_element_mean_and_sum_sq_diff_grads(0, 1.5)
    with pytest.raises(ValueError, match=r"ema_decay must be in \[0, 1\), got 1.0"):
        track_per_element_mean_and_variance_with_ema(1.0)
    with pytest.raises(TypeError, match="process: aggregator must be a gradient tran"):
        process(jopt.identity(), average_per_element_updates, jopt.identity())
    track = track_per_element_mean_and_variance_with_ema()
    with pytest.raises(TypeError, match="needs the keyword argument sum_sq_diff_grads"):
        track.update(jnp.ones(2), track.init(jnp.ones(2)))
    with pytest.raises(ValueError, match="holds no PerElementMeanAndVarianceEMAState"):
        get_unbiased_mean_and_variance_ema(jopt.adam(0.1).init(PARAMS))

"""Gradients whose squares are out of range, and means of any decay."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt import numerics

RATE = 1e-3
METHODS = [  # whose direction does not depend on the gradients' unit
    "adam",
    "adamw",
    "nadam",
    "amsgrad",
    "adabelief",
    "adan",
    "yogi",
    "lamb",
    "rmsprop",
    "adadelta",
    "novograd",
    "contrib.ademamix",
    "contrib.simplified_ademamix",
    "contrib.schedule_free_adamw",
]
SUMS = ["adagrad", "sm3"]  # whose sum of squares is full after one such step
OWN_RATE = ["contrib.dowg", "contrib.dog", "contrib.prodigy", "contrib.dadapt_adamw"]


def made(name, **settings):
    where = jopt
    for part in name.split("."):
        where = getattr(where, part)
    return where(**settings) if name in OWN_RATE else where(RATE, **settings)


def steps(tx, size, dtype, n=2):
    """The first updates, with gradients of this size; none of the state is infinite."""
    params = {"w": jnp.full((4, 6), 0.5, dtype), "b": jnp.ones(3, dtype)}
    grads = jax.tree.map(lambda p: jnp.full_like(p, size).at[0].set(-size), params)
    state, seen = tx.init(params), []
    for _ in range(n):
        u, state = tx.update(grads, state, params)
        seen.append(jax.tree.map(np.float64, u))
    for x in jax.tree.leaves((u, state)):
        assert np.all(np.isfinite(np.float64(x)))
    return seen


def assert_close(got, right, rtol):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(right)):
        np.testing.assert_allclose(a, b, rtol=rtol)


@pytest.mark.each_value_once
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("size", [1e20, 1e30])
@pytest.mark.parametrize("name", METHODS + SUMS + OWN_RATE)
def test_a_gradient_whose_square_overflows_moves_as_others_do(name, size, dtype):
    n = 1 if name in [*SUMS, "contrib.dog"] else 3
    got = steps(made(name), size, dtype, n)
    right = steps(made(name), 1e9, dtype, n)
    # Yogi and Adagrad start from a square that is not zero.
    assert_close(got, right, 2e-2 if dtype == jnp.bfloat16 else 2e-3)


@pytest.mark.parametrize("name", [*SUMS, "contrib.dog"])
def test_a_sum_of_squares_that_is_full_stays_so(name):
    first, second = steps(made(name), 1e25, jnp.float32)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second)):
        assert np.all(np.abs(b) >= 0.5 * np.abs(a))


@pytest.mark.parametrize("size", [1e19, 1e20, 1e30])
def test_adafactor_of_gradients_whose_squares_or_their_sums_overflow(size):
    tx = jopt.adafactor(RATE, min_dim_size_to_factor=2)
    # Of 1e19 the sums are out of range and not the squares: 1.8e19 is in their place.
    rtol = 0.5 if size == 1e19 else 1e-5
    assert_close(steps(tx, size, jnp.float32), steps(tx, 1.0, jnp.float32), rtol)


@pytest.mark.parametrize("name", ["adam", "rmsprop", "novograd", "adafactor"])
def test_a_complex_gradient_whose_square_overflows(name):
    p, g = jnp.ones(3, jnp.complex64), jnp.array([3e25 + 4e25j, 1, 1j])
    tx = made(name)
    u, _ = tx.update(g, tx.init(p), p)
    got = complex(u[0])
    assert 0.1 * RATE < abs(got) < 10 * RATE
    np.testing.assert_allclose(got / abs(got), -(0.6 + 0.8j), rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_adam_step_of_a_gradient_whose_square_overflows(dtype):
    with jax.enable_x64(dtype == np.float64):
        size = np.sqrt(np.finfo(dtype).max) * dtype(100)
        delta, _, _ = jopt.adam_step(jnp.array([size, -size], dtype), 0.0, 0.0, 1)
        np.testing.assert_allclose(delta, [1, -1], rtol=1e-5)


@pytest.mark.each_value_once
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("name", METHODS + SUMS)
def test_a_gradient_that_is_not_finite_is_not_hidden(name, bad):
    p, tx = jnp.ones(3), made(name)
    u, _ = tx.update(jnp.array([bad, 1.0, 1.0]), tx.init(p), p)
    assert not np.isfinite(u[0])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.complex64])
def test_gradients_in_range_keep_their_bits(dtype):
    rng = np.random.default_rng(0)
    x = rng.normal(size=100) * 10.0 ** rng.integers(-35, 18, 100)
    x = jnp.asarray(np.append(x, [0.0, -0.0, 1e-37, 1e19]), dtype)
    assert np.asarray(numerics.bounded(x)).tobytes() == np.asarray(x).tobytes()


# ------------------------------------------------------------------- moving averages


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("decay", [0.0, 1e-3, 0.25, 0.49, 0.5, 0.9, 0.999, 1 - 2**-20])
def test_a_moving_average_is_right_for_every_decay(decay, traced):
    rng = np.random.default_rng(0)
    mean, x = (rng.normal(size=200) * 10.0 ** rng.integers(-6, 7, 200) for _ in "mx")
    mean, x = np.float32(mean), np.float32(x)
    b = np.float64(np.float32(decay)) if traced else decay
    right = b * np.float64(mean) + (1 - b) * np.float64(x)
    scale = np.abs(b * mean) + np.abs((1 - b) * x)
    got = numerics.ema(x, mean, jnp.float32(decay) if traced else decay)
    assert np.max(np.abs(got - right) / scale) < 4e-7


def test_adam_step_without_memory_of_the_square():
    delta, _, vw = jopt.adam_step(jnp.array(-0.01), 0.0, 0.181, 1, beta2=0.0)
    np.testing.assert_allclose(vw, 1e-4, rtol=1e-6)
    np.testing.assert_allclose(delta, -0.01 / (0.01 + 1e-7) / (1 + 1e-6), rtol=1e-6)

"""Eigenvalues, roots, non-negative least squares and normal variables."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jopt.distributions import multi_normal
from jopt.linalg import matrix_inverse_pth_root, power_iteration
from jopt.nnls import nnls


def gram(n, seed=0):
    a = np.random.default_rng(seed).normal(size=(n, n))
    return a @ a.T


# ------------------------------------------------------------------------- eigenvalues


@pytest.mark.parametrize("sign", [1, -1])
def test_power_iteration_finds_the_largest_eigenvalue(sign):
    matrix = sign * gram(5)
    values, vectors = np.linalg.eigh(matrix)
    i = np.argmax(np.abs(values))
    value, vector = power_iteration(jnp.asarray(matrix, jnp.float32))
    np.testing.assert_allclose(value, values[i], rtol=1e-5)
    np.testing.assert_allclose(np.abs(vector @ vectors[:, i]), 1, rtol=1e-5)


def test_power_iteration_of_a_function_on_trees():
    with jax.enable_x64(True):
        matrix = jnp.asarray(gram(5))

        def apply(v):
            w = matrix @ jnp.concatenate([v["a"], v["b"]])
            return {"a": w[:2], "b": w[2:]}

        start = {"a": jnp.ones(2), "b": jnp.ones(3)}
        value, vector = power_iteration(
            apply, v0=start, num_iters=1000, error_tolerance=1e-9
        )
        np.testing.assert_allclose(value, np.linalg.eigvalsh(matrix)[-1], rtol=1e-12)
        chex.assert_trees_all_equal_shapes(vector, start)
        rest = jax.tree.map(lambda x, y: x - value * y, apply(vector), vector)
        assert np.max(np.abs(rest["a"])) < 1e-8


def precisions(*tolerances):
    """In which dtype, and how near to optax."""
    return pytest.mark.parametrize(
        "dtype, tolerance", [*zip((np.float32, np.float64), tolerances)]
    )


@pytest.mark.parametrize("steps", [1, 2, 3])
@precisions(1e-6, 1e-14)
def test_power_iteration_takes_the_steps_of_optax(steps, dtype, tolerance):
    with jax.enable_x64(dtype == np.float64):
        matrix, start = jnp.asarray(gram(5), dtype), jnp.ones(5, dtype)
        ours, _ = power_iteration(matrix, v0=start, num_iters=steps)
        with jax.numpy_dtype_promotion("standard"):
            theirs, _ = optax.power_iteration(matrix, v0=start, num_iters=steps)
    np.testing.assert_allclose(ours, theirs, rtol=tolerance)


def test_power_iteration_of_nothing():
    value, vector = power_iteration(jnp.zeros((3, 3)))
    assert value == 0
    np.testing.assert_allclose(jnp.linalg.norm(vector), 1, rtol=1e-6)
    with pytest.raises(ValueError, match="v0 is missing"):
        power_iteration(lambda v: v)
    with pytest.raises(ValueError, match="must be square"):
        power_iteration(jnp.zeros((3, 2)))


# ------------------------------------------------------------------------------- roots


@pytest.mark.parametrize("p", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_inverse_root_equals_that_of_the_eigenvalues(p, size):
    matrix = size * (gram(5) + 0.1 * np.eye(5))
    values, vectors = np.linalg.eigh(matrix)
    want = vectors @ np.diag(values ** (-1 / p)) @ vectors.T
    root, error = matrix_inverse_pth_root(
        jnp.asarray(matrix, jnp.float32), p, ridge_epsilon=0.0
    )
    np.testing.assert_allclose(root, want, atol=2e-5 * np.max(np.abs(want)))
    assert error < 1e-5


@pytest.mark.parametrize("p", [1, 2, 4, 8])  # for others optax is off by a quarter
@precisions(1e-4, 1e-4)
def test_inverse_root_equals_optax(p, dtype, tolerance):
    with jax.enable_x64(dtype == np.float64):
        matrix = jnp.asarray(gram(5), dtype)
        ours, _ = matrix_inverse_pth_root(matrix, p)
        with jax.numpy_dtype_promotion("standard"):
            theirs, _ = optax.matrix_inverse_pth_root(matrix, p)
    chex.assert_trees_all_close(ours, theirs, rtol=tolerance, atol=0.1 * tolerance)


def test_inverse_root_of_little():
    root, error = matrix_inverse_pth_root(jnp.zeros((3, 3)), 4)
    np.testing.assert_allclose(root, (1e-6 * 1e-6) ** -0.25 * np.eye(3), rtol=1e-4)
    assert error < 1e-5
    with pytest.raises(ValueError, match="p must be at least 1"):
        matrix_inverse_pth_root(jnp.eye(2), 0)
    with pytest.raises(TypeError, match="p must be an integer"):
        matrix_inverse_pth_root(jnp.eye(2), 0.5)
    with pytest.raises(ValueError, match="must be square"):
        matrix_inverse_pth_root(jnp.zeros((3, 2)), 2)


# ----------------------------------------------------------------------- least squares


@pytest.mark.parametrize("columns", [(), (3,)])
def test_nnls_satisfies_the_conditions_of_a_minimum(columns):
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        a, b = rng.normal(size=(8, 5)), rng.normal(size=(8, *columns))
        x = np.asarray(nnls(jnp.asarray(a), jnp.asarray(b), 3000))
    slope = a.T @ (a @ x - b)
    assert x.shape == (5, *columns)
    assert np.all(x >= 0)
    assert np.any(x == 0) and np.any(x > 0)
    assert np.all(slope > -1e-9)
    np.testing.assert_allclose(slope * x, 0, atol=1e-9)


@precisions(1e-5, 1e-12)
def test_nnls_equals_optax(dtype, tolerance):
    rng = np.random.default_rng(1)
    with jax.enable_x64(dtype == np.float64):
        a = jnp.asarray(rng.normal(size=(6, 4)), dtype)
        b = jnp.asarray(rng.normal(size=6), dtype)
        ours, other = nnls(a, b, 500), nnls(a, b, 500, unroll=4, L=20.0)
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            theirs = optax.nnls(a, b, 500)
    chex.assert_trees_all_close(ours, theirs, atol=tolerance)
    chex.assert_trees_all_close(other, ours, atol=1e-4)


def test_nnls_of_little():
    chex.assert_trees_all_equal(nnls(jnp.zeros((3, 2)), jnp.ones(3), 5), jnp.zeros(2))
    chex.assert_trees_all_equal(nnls(jnp.eye(2), jnp.ones(2), 0), jnp.zeros(2))
    with pytest.raises(ValueError, match="as many rows"):
        nnls(jnp.zeros((3, 2)), jnp.ones(2), 5)
    with pytest.raises(ValueError, match="iters"):
        nnls(jnp.zeros((3, 2)), jnp.ones(3), -1)


# -------------------------------------------------------------------- normal variables


@precisions(1e-5, 1e-12)
def test_multi_normal_equals_optax_and_its_density(dtype, tolerance):
    with jax.enable_x64(dtype == np.float64):
        loc = jnp.array([1.0, -2.0, 0.0], dtype)
        log_scale = jnp.array([0.0, 0.5, -1.0], dtype)
        key = jax.random.key(0)
        ours = multi_normal(loc, log_scale)
        with jax.numpy_rank_promotion("allow"):
            theirs = optax.multi_normal(loc, log_scale)
            draws = theirs.sample((4, 2), key)
            density = theirs.log_prob(draws)
        chex.assert_trees_all_close(ours.sample((4, 2), key), draws, rtol=tolerance)
        got = ours.log_prob(draws)
    chex.assert_trees_all_close(got, density, rtol=tolerance)
    loc, log_scale, draws = (np.asarray(x, float) for x in (loc, log_scale, draws))
    z = (draws - loc) / np.exp(log_scale)
    want = -0.5 * np.sum(z**2 + np.log(2 * np.pi) + 2 * log_scale, -1)
    np.testing.assert_allclose(got, want, rtol=tolerance)
    chex.assert_trees_all_equal(ours.params, [loc, log_scale])


@pytest.mark.parametrize(
    "loc, scale",
    [((3,), ()), ((), (3,)), ((2, 3), (3,)), ((3,), (2, 1)), ((2, 1), (1, 3))],
)
def test_multi_normal_of_shapes_that_broadcast_keeps_its_parameters(loc, scale):
    loc = jnp.asarray(np.random.default_rng(0).normal(size=loc), jnp.float32)
    scale = jnp.asarray(np.random.default_rng(1).normal(size=scale), jnp.float32)
    shape = np.broadcast_shapes(loc.shape, scale.shape)
    ours = multi_normal(loc, scale)
    assert [x.shape for x in ours.params] == [loc.shape, scale.shape]
    assert ours.log_scale.shape == scale.shape
    key = jax.random.key(0)
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        theirs = optax.multi_normal(loc, scale)
        want = theirs.sample((4,), key)
        x = [want, want[0], want[0].reshape(-1)[: shape[-1]]]
        densities = [theirs.log_prob(y) for y in x]
    np.testing.assert_allclose(ours.sample((4,), key), want, rtol=1e-6, atol=1e-6)
    for y, density in zip(x, densities):
        np.testing.assert_allclose(ours.log_prob(y), density, rtol=1e-5)


def test_multi_normal_is_differentiable():
    """Of E[x^2] = loc^2 + scale^2, by samples."""

    def mean_square(loc, log_scale):
        draws = multi_normal(loc, log_scale).sample((200_000,), jax.random.key(0))
        return jnp.mean(draws[:, 0] ** 2)

    got = jax.grad(mean_square, (0, 1))(jnp.array([0.5]), jnp.array([0.2]))
    np.testing.assert_allclose(got[0], [1.0], rtol=0.02)
    np.testing.assert_allclose(got[1], [2 * np.exp(0.4)], rtol=0.02)


def test_multi_normal_arguments():
    with pytest.raises(ValueError, match=r"\(3,\) and \(2,\)"):
        multi_normal(jnp.zeros(3), jnp.zeros(2))

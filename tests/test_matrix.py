"""Orthogonalization, and the choices of Muon that the catalogue does not hold."""

import jax
import jax.numpy as jnp
import numpy as np
import optax.contrib
import pytest

import jopt

P = {
    "wide": jnp.asarray(np.random.default_rng(0).normal(size=(4, 6)), jnp.float32),
    "tall": jnp.asarray(np.random.default_rng(1).normal(size=(6, 4)), jnp.float32),
    "stack": jnp.asarray(np.random.default_rng(2).normal(size=(3, 2, 5)), jnp.float32),
    "b": jnp.ones(3),
}


def dimension_numbers(library):
    one = library.MuonDimensionNumbers
    return {"wide": one(), "tall": one(1, 0), "stack": one((0,), (2,)), "b": None}


CHOICES = {
    "spectral": lambda lib: dict(preconditioning="spectral"),
    "aol": lambda lib: dict(preconditioning="aol"),
    "schatten": lambda lib: dict(preconditioning="schatten"),
    "dion": lambda lib: dict(ns_coeffs="dion"),
    "tree": lambda lib: dict(muon_weight_dimension_numbers=dimension_numbers(lib)),
    "function": lambda lib: dict(
        muon_weight_dimension_numbers=lambda p: dimension_numbers(lib)
    ),
}


@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
def test_muon_equals_optax(choice):
    def step(library):
        tx = library.muon(0.1, **choice(library))
        return tx.update(jax.tree.map(jnp.sin, P), tx.init(P), P)[0]

    got = step(jopt.contrib)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        want = step(optax.contrib)
    for name in P:  # Adam's leaves are as near as optax's bias correction
        np.testing.assert_allclose(got[name], want[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_hutchinson_s_estimate_is_exact_for_a_diagonal_hessian(dtype):
    """The loss is sum(p^4): its Hessian is 12 p^2."""
    x = np.random.default_rng(0).normal(size=(3, 4))
    with jax.enable_x64(dtype == np.float64):
        p = jnp.asarray(x, dtype)
        for library in (jopt, optax):
            tx = library.contrib.hutchinson_estimator_diag_hessian()
            with jax.numpy_dtype_promotion("standard"):
                u, _ = tx.update(p, tx.init(p), p, obj_fn=lambda p: jnp.sum(p**4))
            np.testing.assert_allclose(u, 12 * x**2, rtol=5e-6)
        assert u.dtype == dtype


def test_singular_values_of_five_standard_steps():
    x = jax.random.normal(jax.random.key(0), (128, 256))
    values = jnp.linalg.svd(jopt.orthogonalize(x), compute_uv=False)
    low, middle, high = jnp.min(values), jnp.median(values), jnp.max(values)
    np.testing.assert_allclose([low, middle, high], [0.682, 0.799, 1.134], atol=5e-4)


def test_matrices_of_one_size_are_one_batch():
    params = {i: jnp.ones((3, 4) if i % 2 else (4, 3)) for i in range(6)}
    tx = jopt.contrib.scale_by_muon()
    jaxpr = jax.make_jaxpr(tx.update)(params, tx.init(params))
    products = [e for e in jaxpr.eqns if e.primitive.name == "dot_general"]
    assert len(products) == 15, "three a step, whatever the number of matrices"


@pytest.mark.parametrize(
    "settings, words",
    [
        (dict(preconditioning="none"), "preconditioning must be one of"),
        (dict(ns_coeffs="fast"), "ns_coeffs must be one of"),
        (dict(ns_coeffs=(1.0, 2.0)), r"must have the shape \(3,\)"),
        (dict(ns_steps=-1), "ns_steps must be at least 0"),
    ],
    ids=str,
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(ValueError, match=f"scale_by_muon: .*{words}"):
        jopt.contrib.muon(0.1, **settings)


def test_a_leaf_that_is_no_matrix_is_refused_with_its_path():
    tx = jopt.contrib.scale_by_muon()
    with pytest.raises(ValueError, match=r"\['b'\] has the shape \(3,\)"):
        tx.update(P, tx.init(P))


@pytest.mark.parametrize("kind", ["Muon", "GaLore"])
def test_dimension_numbers_for_all_leave_a_bias_alone(kind):
    numbers = getattr(jopt, f"{kind}DimensionNumbers")(0, 1)
    p = {"w": jnp.ones((4, 3)), "b": jnp.ones(3)}
    g = jax.tree.map(jnp.cos, p)
    name = (
        "muon_weight_dimension_numbers"
        if kind == "Muon"
        else "weight_dimension_numbers"
    )
    make = getattr(jopt.contrib, kind.lower())
    got, want = (
        tx.update(g, tx.init(p), p)[0]
        for tx in (make(0.1, **{name: numbers}), make(0.1))
    )
    jax.tree.map(np.testing.assert_array_equal, got, want)

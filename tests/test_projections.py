"""Projections: the nearest point, by definition, and optax's where that is right."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jopt import projections
from tests.references.losses import sparsemax

NAMES = [n for n in dir(optax.projections) if n.startswith("projection_")]
RNG = np.random.default_rng(0)
X = {"a": RNG.normal(size=(3, 2)) * 2, "b": (np.float64(0.7), RNG.normal(size=4))}
A = jax.tree.map(lambda x: np.cos(3 * x), X)
ZERO = jax.tree.map(np.zeros_like, X)
LOW = jax.tree.map(lambda x: -abs(A["a"]).max() * np.ones_like(x), X)
HIGH = jax.tree.map(abs, A)

SETS = ["simplex", "l1_ball", "l1_sphere", "l2_ball", "l2_sphere"]
CALLS = [(f"projection_{n}", (X, s)) for n in SETS for s in (0.5, 1, 50.0)]
CALLS += [
    ("projection_linf_ball", (X, 0.5)),
    ("projection_non_negative", (X,)),
    ("projection_box", (X, LOW, HIGH)),
    ("projection_box", (X["a"], -0.5, np.array([0.0, 1.0]))),
    ("projection_hypercube", (X["a"],)),
    ("projection_hypercube", (X["a"], 0.5)),
    ("projection_hyperplane", (X, A, 3.0)),
    ("projection_halfspace", (X, A, -1.0)),
    ("projection_halfspace", (X, A, 100.0)),
    ("projection_vector", (X, A)),
]


def as_jax(tree, dtype):
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)


def flat(tree):
    return np.concatenate([np.ravel(x).astype(float) for x in jax.tree.leaves(tree)])


@pytest.mark.parametrize("name, args", CALLS)
def test_equals_optax_with_its_derivative(name, args):
    def run(module, x):
        function = getattr(module, name)
        direction = jax.tree.map(jnp.sin, x)
        y, dy = jax.jvp(lambda x: function(x, *rest), (x,), (direction,))
        pull = jax.grad(
            lambda x: sum(
                jnp.sum(jnp.sin(v)) for v in jax.tree.leaves(function(x, *rest))
            )
        )
        return y, dy, pull(x)

    with jax.enable_x64(True):
        x, *rest = as_jax(args, jnp.float64)
        got = jax.jit(lambda: run(projections, x))()
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            want = jax.jit(lambda: run(optax.projections, x))()
    assert jax.tree.structure(got) == jax.tree.structure(want)
    np.testing.assert_allclose(flat(got), flat(want), rtol=1e-9, atol=1e-12)

    x, *rest = as_jax(args, jnp.float32)
    narrow = getattr(projections, name)(x, *rest)
    for y, z in zip(jax.tree.leaves(narrow), jax.tree.leaves(x)):
        assert y.shape == np.shape(z) and y.dtype == jnp.float32
    np.testing.assert_allclose(flat(narrow), flat(want[0]), rtol=1e-6, atol=1e-6)


def test_names_and_arguments_are_those_of_optax():
    assert len(NAMES) == 12
    for name in NAMES:
        ours, theirs = (
            [
                (p.name, p.kind, p.default)
                for p in inspect.signature(f).parameters.values()
            ]
            for f in (getattr(projections, name), getattr(optax.projections, name))
        )
        assert ours == theirs


def inside(name, y, scale):
    size = dict(l1=np.abs(y).sum(), l2=np.sqrt(y @ y), linf=np.abs(y).max())
    if name == "simplex":
        return (y >= 0).all() and np.isclose(y.sum(), scale)
    kind, shape = name.split("_")
    if shape == "sphere":
        return np.isclose(size[kind], scale)
    return size[kind] <= scale * (1 + 1e-12)


@pytest.mark.parametrize("name", [*SETS, "linf_ball"])
def test_no_point_of_the_set_is_nearer(name):
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        project = jax.jit(getattr(projections, f"projection_{name}"))
        for scale in (0.3, 1.0, 4.0):
            x = rng.normal(size=6)
            y = np.asarray(project(x, scale))
            assert inside(name, y, scale)
            np.testing.assert_allclose(project(y, scale), y, atol=1e-9)
            far = np.sum((x - y) ** 2)
            for _ in range(200):
                z = (
                    rng.normal(size=6)
                    if rng.uniform() < 0.5
                    else y + 0.1 * rng.normal(6)
                )
                other = np.asarray(project(z, scale))
                assert np.sum((x - other) ** 2) >= far - 1e-12
            if name == "simplex":
                np.testing.assert_allclose(y, sparsemax(x, scale), atol=1e-12)


@pytest.mark.parametrize("name", ["simplex", "l1_ball", "l1_sphere"])
def test_sums_are_exact_to_a_scale_of_any_size(name):
    # Where many lie little below the largest, what sums of all of them round off is as
    # large as a small scale.
    rng = np.random.default_rng(2)
    for scale in (1e-6, 1e-3, 1.0):
        for many in (300, 3000):
            below = 0.1 + 1e-4 * rng.uniform(size=many)
            x = np.float32(1 - scale * np.append(0.0, below))
            got = getattr(projections, f"projection_{name}")(jnp.asarray(x), scale)
            want = sparsemax(np.float64(x), scale)
            got = np.float64(got)
            np.testing.assert_allclose(got, want, rtol=0, atol=2e-7 * scale)
            np.testing.assert_allclose(got.sum(), scale, rtol=2e-7)


def off_plane(x, a, b):
    return (a @ x - b) / (a @ a) * a


# All elements of all leaves together.
FORMULAS = {
    "box": np.clip,
    "hypercube": lambda x, scale=1.0: np.clip(x, 0, scale),
    "non_negative": lambda x: np.maximum(x, 0),
    "hyperplane": lambda x, a, b: x - off_plane(x, a, b),
    "halfspace": lambda x, a, b: x - (a @ x > b) * off_plane(x, a, b),
    "vector": lambda x, a: off_plane(x, a, 0),
}
GIVEN = [(n.split("_", 1)[1], args) for n, args in CALLS]


@pytest.mark.parametrize(
    "name, args", [(name, args) for name, args in GIVEN if name in FORMULAS]
)
def test_equals_its_formula(name, args):
    want = FORMULAS[name](*(flat(x) if isinstance(x, dict) else x for x in args))
    with jax.enable_x64(True):
        got = getattr(projections, f"projection_{name}")(*as_jax(args, jnp.float64))
    np.testing.assert_allclose(flat(got), flat(want), rtol=1e-12, atol=1e-14)


def test_boxes_take_numbers_and_trees():
    # optax refuses a number for a tree with more than one leaf
    x = as_jax(X, jnp.float32)
    for got in (
        projections.projection_box(x, -0.5, 0.5),
        projections.projection_box(x, jax.tree.map(lambda _: -0.5, x), 0.5),
        jax.jit(projections.projection_box)(x, -0.5, jnp.float32(0.5)),
    ):
        np.testing.assert_allclose(flat(got), np.clip(flat(x), -0.5, 0.5))
    got = projections.projection_hypercube(x, HIGH)
    np.testing.assert_allclose(flat(got), np.clip(flat(x), 0, flat(HIGH)), rtol=1e-6)


def test_zero_has_a_nearest_point_on_every_sphere():
    x = as_jax(ZERO, jnp.float32)
    for name in ("l1_sphere", "l2_sphere"):
        project = getattr(projections, f"projection_{name}")
        y = project(x, 2.0)
        assert inside(name, flat(y), 2.0)
        gradient = jax.grad(lambda x: jnp.sum(project(x)))(jnp.zeros(3))  # noqa: B023
        assert np.isfinite(gradient).all()
    tiny = projections.projection_l2_sphere(jnp.array([3e-30, 4e-30]))
    np.testing.assert_allclose(tiny, [0.6, 0.8], rtol=1e-6)
    huge = projections.projection_l2_ball(jnp.array([3e30, -4e30]), 5.0)
    np.testing.assert_allclose(huge, [3, -4], rtol=1e-6)


def test_balls_of_no_size():
    x = jnp.array([1.0, -2.0, 0.5])
    for name in (
        "simplex",
        "l1_ball",
        "l1_sphere",
        "l2_ball",
        "l2_sphere",
        "linf_ball",
    ):
        y = getattr(projections, f"projection_{name}")(x, 0)
        np.testing.assert_array_equal(y, 0)


def test_zero_normals_and_directions():
    x, a = as_jax(X, jnp.float32), as_jax(ZERO, jnp.float32)
    for name in ("hyperplane", "halfspace"):
        y = getattr(projections, f"projection_{name}")(x, a, -1.0)
        np.testing.assert_array_equal(flat(y), flat(x))
    np.testing.assert_array_equal(flat(projections.projection_vector(x, a)), 0)
    tiny = jnp.array([1e-30, 0.0])
    y = projections.projection_vector(jnp.array([2.0, 3.0]), tiny)
    np.testing.assert_allclose(y, [2, 0], rtol=1e-6)


def test_complex_trees():
    rng = np.random.default_rng(3)
    x, a = rng.normal(size=(2, 4)) + 1j * rng.normal(size=(2, 4))
    x, a = jnp.asarray(x, jnp.complex64), jnp.asarray(a, jnp.complex64)
    y = projections.projection_vector(x, a)
    np.testing.assert_allclose(jnp.vdot(a, x - y), 0, atol=1e-5)
    np.testing.assert_allclose(projections.projection_vector(y, a), y, rtol=1e-5)
    y = projections.projection_hyperplane(x, a, 2.0)
    np.testing.assert_allclose(jnp.vdot(a, y), 2, atol=1e-5)
    y = projections.projection_l1_ball(x)
    np.testing.assert_allclose(jnp.abs(y).sum(), 1, rtol=1e-6)
    np.testing.assert_allclose((y / x).imag, 0, atol=1e-6)
    mixed = projections.projection_l1_sphere([x, jnp.ones(1)], 3.0)
    assert [v.dtype for v in mixed] == [jnp.complex64, jnp.float32]
    for name in ("l2_ball", "l2_sphere"):
        y = getattr(projections, f"projection_{name}")(x)
        np.testing.assert_allclose(y, np.asarray(x) / np.linalg.norm(x), rtol=1e-5)
    with pytest.raises(TypeError, match="tree must be real, got complex64"):
        projections.projection_simplex(x)


@pytest.mark.parametrize("name", NAMES)
def test_dtypes_none_and_empty_trees(name):
    project = getattr(projections, name)
    more = dict(projection_box=(-1, 1), projection_vector=()).get(name, ())

    def run(x):
        if name in ("projection_halfspace", "projection_hyperplane"):
            return project(x, x, jnp.float32(0.5))
        return project(x, x) if name == "projection_vector" else project(x, *more)

    x = [
        jnp.array([1.0, 2], jnp.bfloat16),
        None,
        jnp.ones((), jnp.float16),
        jnp.ones(0),
    ]
    y = run(x)
    assert jax.tree.structure(y) == jax.tree.structure(x)
    assert [v.dtype for v in jax.tree.leaves(y)] == [
        v.dtype for v in jax.tree.leaves(x)
    ]
    exact = run([jnp.array([1.0, 2]), jnp.ones(()), jnp.ones(0)])
    np.testing.assert_allclose(flat(y), flat(exact), rtol=1e-2)
    assert run({}) == {}
    whole = run(jnp.array([1, -2]))  # integers
    kept = name.split("_", 1)[1] in ("box", "hypercube", "linf_ball", "non_negative")
    assert jnp.issubdtype(whole.dtype, jnp.integer) == kept
    xs = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)
    np.testing.assert_allclose(
        jax.vmap(run)(xs), np.stack([run(x) for x in xs]), rtol=1e-6, atol=1e-7
    )


p = projections


@pytest.mark.parametrize(
    "function, kind, words",
    [
        (
            lambda x: p.projection_simplex(x, -1.0),
            ValueError,
            "scale must be at least 0",
        ),
        (lambda x: p.projection_l2_ball(x, jnp.ones(2)), ValueError, "scale .* scalar"),
        (lambda x: p.projection_box(x, {"a": 0.0}, 1.0), ValueError, "lower must have"),
        (
            lambda x: p.projection_box(x, 0.0, jnp.ones(5)),
            ValueError,
            r"upper at \['a'\] is f32\[5\], which does not broadcast to f32\[3, 2\]",
        ),
        (
            lambda x: p.projection_hypercube(x["a"], jnp.ones((2, 3, 2))),
            ValueError,
            "scale at the root is f32",
        ),
        (lambda x: p.projection_vector(x, x["a"]), ValueError, "a must have the tree"),
        (
            lambda x: p.projection_halfspace(x["a"], x["a"][:1], 1.0),
            ValueError,
            r"a at the root is f32\[1, 2\], x there is f32\[3, 2\]",
        ),
        (
            lambda x: p.projection_hyperplane(x, x, jnp.ones(2)),
            ValueError,
            r"b must be a scalar, got an array of shape \(2,\)",
        ),
        (
            lambda x: p.projection_non_negative({"c": jnp.ones(1, complex)}),
            TypeError,
            r"\['c'\] must be real, got complex64\[1\]",
        ),
    ],
)
def test_errors_name_the_argument_and_the_place(function, kind, words):
    with pytest.raises(kind, match=words):
        function(jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), X))

"""Norms of one array: any magnitude, every platform's way of summing, derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jopt import numerics
from jopt.platforms import platform_of

RNG = np.random.default_rng(0)
SMALL, LARGE = RNG.normal(size=(3, 5)), RNG.normal(size=(70, 70))

platforms = pytest.mark.parametrize("platform", ["cpu", "tpu"])


@pytest.fixture
def on(monkeypatch, platform):
    monkeypatch.setattr(numerics, "platform_of", lambda x: platform)


@platforms
@pytest.mark.usefixtures("on")
@pytest.mark.parametrize("x", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("size", [1e-37, 1e-30, 1e-10, 1.0, 1e10, 1e25, 3e37])
def test_for_any_magnitude(platform, x, size):
    x = x / np.abs(x).max() * size
    given = jnp.asarray(x, jnp.float32)
    want = np.sqrt(np.mean(x**2))
    assert float(numerics.rms(given)) == pytest.approx(want, rel=2e-6)
    if want * np.sqrt(x.size) < 3e38:
        want = np.linalg.norm(x.ravel())
        assert float(numerics.norm(given)) == pytest.approx(want, rel=2e-6)


@platforms
@pytest.mark.usefixtures("on")
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e25])
@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
def test_the_derivative_is_the_direction(platform, size, dtype):
    x = SMALL + (1j * SMALL[::-1] if dtype == np.complex64 else 0)
    given = jnp.asarray(x * size, dtype)
    want = np.conj(x) / np.linalg.norm(x.ravel())
    np.testing.assert_allclose(jax.grad(numerics.norm)(given), want, rtol=1e-5)
    assert not np.any(jax.grad(numerics.norm)(jnp.zeros((3, 5), dtype)))


@platforms
@pytest.mark.usefixtures("on")
def test_what_is_not_finite_shows(platform):
    for x, want in ((np.inf, np.inf), (np.nan, np.nan), (0.0, 0.0)):
        given = jnp.asarray([1.0, x]) if x else jnp.zeros(2)
        np.testing.assert_array_equal(numerics.norm(given), want)


@platforms
@pytest.mark.usefixtures("on")
def test_rows_of_a_batch_are_scaled_each_by_itself(platform):
    rows = jnp.asarray([1e-30, 1.0, 1e30])[:, None] * jnp.asarray([[3.0, 4.0]])
    got = jax.vmap(numerics.norm)(rows)
    np.testing.assert_allclose(got, [5e-30, 5, 5e30], rtol=1e-6)


@platforms
@pytest.mark.usefixtures("on")
def test_zeros_that_the_compiler_knows(platform):
    assert jax.jit(lambda x: numerics.norm(x - x))(jnp.ones((3, 4))) == 0


def test_a_program_is_made_for_the_platform_of_its_mesh():
    topologies = pytest.importorskip("jax.experimental.topologies")
    pytest.importorskip("libtpu", reason="it knows the TPU's topologies")
    chips = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2")
    mesh = jax.sharding.Mesh(np.array(chips.devices[:1]), ("chips",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    seen = []

    def look(x):
        seen.append(platform_of(x))
        return x

    jax.jit(look).trace(jax.ShapeDtypeStruct((2,), np.float32, sharding=sharding))
    assert [*seen, platform_of(jnp.ones(2))] == ["tpu", "cpu"]


# -------------------------------------------------------------- numbers of whole arrays

X = RNG.normal(size=(3, 4))
Z = X + 1j * RNG.normal(size=(3, 4))
# Name, arguments, named arguments and what it is.
NUMBERS = [
    ("abs_sq", (X,), {}, X**2),
    ("abs_sq", (Z,), {}, np.abs(Z) ** 2),
    ("safe_increment", (np.int32(7),), {}, 8),
    ("safe_increment", (np.int32(2**31 - 1),), {}, 2**31 - 1),
    ("safe_increment", (np.uint8(255),), {}, 255),
    ("safe_norm", (X, 0.1), {}, np.linalg.norm(X)),
    ("safe_norm", (X, 100.0), {}, 100),
    ("safe_norm", (X, 1.5), dict(axis=1), np.maximum(np.linalg.norm(X, axis=1), 1.5)),
    (
        "safe_norm",
        (X, 0.5),
        dict(ord=1, axis=0, keepdims=True),
        np.maximum(abs(X).sum(0, keepdims=True), 0.5),
    ),
    ("safe_norm", (Z, 0.1), {}, np.linalg.norm(Z)),
    ("safe_norm", (0 * X, 0.5), {}, 0.5),
    ("safe_root_mean_squares", (X, 0.1), {}, np.sqrt(np.mean(X**2))),
    ("safe_root_mean_squares", (X, 10.0), {}, 10),
    ("safe_root_mean_squares", (Z, 0.1), {}, np.sqrt(np.mean(np.abs(Z) ** 2))),
]


@pytest.mark.parametrize(
    "name, args, named, want", NUMBERS, ids=[row[0] for row in NUMBERS]
)
@pytest.mark.parametrize("wide, rtol", [(False, 1e-6), (True, 1e-14)])
def test_numbers_equal_optax_and_their_definition(name, args, named, want, wide, rtol):
    with jax.enable_x64(wide):
        args = [jnp.asarray(args[0]), *args[1:]]
        got = getattr(numerics, name)(*args, **named)
        np.testing.assert_allclose(got, want, rtol=rtol)
        if not hasattr(optax, name):
            return
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            theirs = getattr(optax, name)(*args, **named)
    assert got.dtype == theirs.dtype and got.shape == theirs.shape
    np.testing.assert_allclose(got, theirs, rtol=rtol)

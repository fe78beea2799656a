"""What `with_metrics` keeps, at what cost, and what `metrics` gathers."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, PartitionSpec

import jopt
from tests.test_compiled import compiled, instructions, tree

P = {"w": jnp.array([[3.0, 0.0], [0.0, 4.0]]), "b": jnp.zeros(3)}
CLIPPED = jopt.chain(jopt.clip_by_global_norm(1.0), jopt.sgd(0.5))
NAMES = {"gradient_norm", "update_norm", "update_ratio"}


def one_step(tx, params=P, grads=P):
    return tx.update(grads, tx.init(params), params)


# -------------------------------------------------------------------- with_metrics


def test_what_is_measured():
    grads = jax.tree.map(lambda x: 2 * x, P)
    updates, state = one_step(jopt.with_metrics(CLIPPED), P, grads)
    want = dict(gradient_norm=10, clip_factor=0.1, update_norm=0.5, update_ratio=0.1)
    chex.assert_trees_all_close(jopt.metrics(state), jax.tree.map(np.float32, want))
    plain, inner_state = one_step(CLIPPED, P, grads)
    chex.assert_trees_all_equal(updates, plain)
    chex.assert_trees_all_equal(state.inner_state, inner_state)


def test_the_factor_is_one_inside_and_not_a_number_without_direction():
    tx = jopt.with_metrics(CLIPPED)
    small = jax.tree.map(lambda x: x / 100, P)
    assert jopt.metrics(one_step(tx, P, small)[1])["clip_factor"] == 1
    bad = {"w": P["w"].at[0, 0].set(jnp.inf), "b": P["b"]}
    found = jopt.metrics(one_step(tx, P, bad)[1])
    assert found["gradient_norm"] == jnp.inf and jnp.isnan(found["clip_factor"])


@pytest.mark.parametrize(
    "tx",
    [
        jopt.sgd(0.5),
        jopt.identity(),
        jopt.chain(jopt.scale(2.0), jopt.clip_by_global_norm(1.0)),
        jopt.masked(jopt.clip_by_global_norm(1.0), "w"),
        optax.chain(optax.clip_by_global_norm(1.0)),
    ],
    ids=["sgd", "identity", "scaled first", "masked", "optax"],
)
def test_no_factor_where_the_gradients_are_not_clipped_first(tx):
    assert set(jopt.metrics(one_step(jopt.with_metrics(tx))[1])) == NAMES


@pytest.mark.parametrize("shapes", [{"a": (100, 100)}, {i: (8, 6) for i in range(20)}])
def test_the_norm_of_the_gradients_is_computed_once(shapes):
    params = tree(shapes)
    adam = jopt.adamw(1e-3)
    clipped = jopt.chain(jopt.clip_by_global_norm(1.0), adam)

    def reductions(tx):
        return instructions(compiled(tx, params))["reduce"]

    one = reductions(clipped)
    assert one > 0 and reductions(adam) == 0
    # Three norms: of the gradients, the updates and the parameters.
    assert reductions(jopt.with_metrics(adam)) == 3 * one
    assert reductions(jopt.with_metrics(clipped)) == 3 * one


def test_a_loop_is_traced_once_and_types_stay():
    tx = jopt.with_metrics(jopt.adam(0.1))
    for dtype, kept in [(jnp.bfloat16, jnp.float32), (jnp.float32, jnp.float32)]:
        params = jax.tree.map(lambda x, d=dtype: x.astype(d), P)
        state = tx.init(params)
        loop = jax.jit(
            lambda p, s: jax.lax.scan(
                lambda s, _: (tx.update(p, s, p)[1], 0), s, None, 3
            )
        )
        new, _ = loop(params, state)
        chex.assert_trees_all_equal_shapes_and_dtypes(new, state)
        assert all(x.dtype == kept for x in jopt.metrics(new).values())


def test_leaves_that_are_no_arrays_and_missing_parameters():
    tx = jopt.with_metrics(jopt.sgd(1.0))
    params = {"w": jnp.array([3.0, 4.0]), "f": jnp.tanh, "n": 7, "none": None}
    grads = {"w": jnp.array([3.0, 4.0]), "f": None, "n": None, "none": None}
    _, state = tx.update(grads, tx.init(params), params)
    assert jopt.metrics(state) == dict(gradient_norm=5, update_norm=5, update_ratio=1)
    like = jax.ShapeDtypeStruct((2,), jnp.float32)
    abstract = tx.init({**params, "w": like})
    chex.assert_trees_all_equal_shapes_and_dtypes(abstract, state)
    grads = {"w": jnp.ones(2)}
    _, state = tx.update(grads, tx.init(grads))
    assert jnp.isnan(state.metrics["update_ratio"])


def test_norms_over_a_mesh():
    tx = jopt.with_metrics(jopt.clip_by_global_norm(1.0, axis_name="d"), axis_name="d")
    g = jnp.arange(16.0)
    step = jax.shard_map(
        lambda g: jopt.metrics(tx.update(g, tx.init(g), g)[1]),
        mesh=Mesh(jax.devices(), "d"),
        in_specs=PartitionSpec("d"),
        out_specs=PartitionSpec(),
    )
    norm = np.linalg.norm(np.arange(16.0))
    want = dict(gradient_norm=norm, clip_factor=1 / norm, update_norm=1)
    found = jax.jit(step)(g)
    np.testing.assert_allclose(found.pop("update_ratio"), 1 / norm, rtol=1e-6)
    assert found.keys() == want.keys()
    for name, value in want.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6, err_msg=name)


def test_what_is_no_transformation_is_refused():
    with pytest.raises(TypeError, match="with_metrics: inner must be a gradient trans"):
        jopt.with_metrics(jopt.sgd)
    tx = jopt.with_metrics(jopt.sgd(0.1))
    with pytest.raises(ValueError, match=r"with_metrics: .*expected a MetricsState"):
        tx.update(P, jopt.sgd(0.1).init(P), P)


# ------------------------------------------------------------------------- metrics


def test_nothing_measures_nothing():
    assert jopt.metrics(jopt.adam(0.1).init(P)) == {}


@pytest.mark.parametrize("library", [jopt, optax], ids=["jopt", "optax"])
def test_what_wrappers_and_parts_keep(library):
    bad = {"w": P["w"] * jnp.nan, "b": P["b"]}
    inner = library.chain(
        jopt.snapshot("size", jopt.tree.norm),
        jopt.monitor({"largest": lambda u: jopt.tree.norm(u, ord=jnp.inf)}),
        library.inject_hyperparams(library.sgd)(0.5),
    )
    with jax.numpy_dtype_promotion("standard"):
        tx = library.apply_if_finite(inner, 5)
        _, state = one_step(tx)
        _, state = tx.update(bad, state, P)
        assert jopt.metrics(state) == dict(
            size=5, largest=4, learning_rate=0.5, notfinite_count=1, total_notfinite=1
        )
        tx = library.MultiSteps(inner, 1, should_skip_update_fn=library.skip_not_finite)
        _, state = one_step(tx)
        _, state = tx.update(bad, state, P)
        found = jopt.metrics(state)
    assert found == dict(
        size=5,
        largest=4,
        learning_rate=0.5,
        gradient_step=1,
        should_skip=True,
        num_not_finite=4,
    )


def test_what_optimizers_find_themselves():
    plateau = jopt.contrib.reduce_on_plateau()
    assert jopt.metrics(plateau.init(P)) == dict(scale=1)
    assert jopt.metrics(jopt.contrib.prodigy().init(P)).keys() == {"estim_lr"}
    search = jopt.scale_by_backtracking_linesearch(5)
    assert jopt.metrics(search.init(P)) == dict(learning_rate=1)


def test_groups_have_their_names_before():
    tx = jopt.groups(
        {"b": jopt.with_metrics(jopt.sgd(1.0))}, jopt.with_metrics(CLIPPED)
    )
    found = jopt.metrics(one_step(tx)[1])
    assert found.keys() == {
        *(f"{group}/{name}" for group in ("b", "default") for name in NAMES),
        "default/clip_factor",
    }
    assert found["default/gradient_norm"] == 5 and found["b/gradient_norm"] == 0

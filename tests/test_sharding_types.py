"""On a mesh a state keeps the types, sharding included, that init gave it.

Along explicit axes the sharding stands in the types of arrays, so that a trace tells.
Along automatic ones only XLA knows: there the programs that it compiles are counted.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jopt
from jopt.experimental import aggregating
from tests.catalogue import METHODS, ROWS, by_form

P = PartitionSpec
SHAPES = {"w": (8, 16), "stack": (2, 8, 4), "b": (8,), "s": (), "odd": (3, 5)}
MESHES = {"8": ((8,), ("x",)), "4x2": ((4, 2), ("x", "y"))}
SPECS = {
    "8": {"w": P("x", None), "stack": P(None, "x", None), "b": P("x")},
    "4x2": {"w": P("x", "y"), "stack": P("y", "x", None), "b": P("x")},
}

# Methods with slots of other shapes than the parameters, of matrices, or that search.
ODD = ["adafactor", "galore", "lbfgs", "muon", "novograd", "scale_by_lbfgs", "sm3"]
ODD_METHODS = [row for row in METHODS.values() if row.name.split(".")[-1] in ODD]
ODD_ROWS = [row for row in ROWS if row.name.split(".")[-1] in ODD]
# Without L-BFGS, which is the part of that name and a rate.
ODD_FAST = [row for row in ODD_METHODS if row.name != "lbfgs"]
FACTORED = next(row for row in ROWS if "min_dim_size_to_factor" in row.settings)
OTHERS = [row for row in ROWS if row not in METHODS.values()]

# With a state of no parameter, with keys, averages, a loss as an argument.
MORE = ["add_noise", "reduce_on_plateau", "with_metrics", "noisy_sgd", "contrib.sophia"]
MORE += ["adam", "sgd", "lamb", "prodigy", "schedule_free", "momo", "lookahead", "sam"]

needs_explicit_axes = pytest.mark.skipif(
    not hasattr(jax, "set_mesh"), reason="this JAX has no explicit axes to set"
)


def random_tree(seed, row=None):
    rng = np.random.default_rng(seed)
    tree = {k: jnp.asarray(rng.normal(size=s), np.float32) for k, s in SHAPES.items()}
    if row is not None and "weight_dimension_numbers" in row.settings:
        del tree["odd"]  # the row's function names every leaf
    return tree


def mesh_of(size, kind):
    shape, names = MESHES[size]
    return jax.make_mesh(shape, names, axis_types=(kind,) * len(names))


def put(tree, size, mesh):
    def one(k, x):
        spec = SPECS[size].get(k, P(*[None] * x.ndim))
        return jax.device_put(x, NamedSharding(mesh, spec))

    return {k: one(k, x) for k, x in tree.items()}


def specs(tree):
    return jax.tree.map(lambda x: jax.typeof(x).sharding.spec, tree)


def types(tree):
    def one(x):
        kind = jax.typeof(x)
        spec = tuple(kind.sharding.spec)
        spec += (None,) * (len(kind.shape) - len(spec))
        return kind.shape, kind.dtype, kind.weak_type, spec

    return list(map(one, jax.tree.leaves(tree)))


def stepper(row, tx):
    """One step of the parameters and the state, the carry of a scan."""

    def step(carry, g):
        p, state = carry
        extra = row.extra(p) if row.extra else {}
        u, state = tx.update(g, state, p, **extra)
        return (jopt.apply_updates(p, u), state), u

    return step


def three_steps(row, tx, p, g):
    step = stepper(row, tx)
    gs = jax.tree.map(lambda x: jnp.stack([x, 2 * x, -x]), g)
    return jax.lax.scan(step, (p, tx.init(p)), gs)[0]


def check_types(row, tx, size):
    """By a trace alone."""
    mesh = mesh_of(size, AxisType.Explicit)

    def run(p, g):
        carry = p, tx.init(p)
        after, u = stepper(row, tx)(carry, g)
        assert jax.tree.structure(after) == jax.tree.structure(carry)
        assert types(after) == types(carry)
        assert types(u) == types(g)
        assert types(three_steps(row, tx, p, g)) == types(carry)

    with jax.set_mesh(mesh):
        p, g = (put(random_tree(seed, row), size, mesh) for seed in range(2))
        jax.eval_shape(run, p, g)


# ------------------------------------------------------------------------ explicit axes


@needs_explicit_axes
@pytest.mark.parametrize("row", METHODS.values(), ids=lambda row: row.id)
def test_types_stay_along_explicit_axes(row):
    check_types(row, row.make(), "4x2")


@needs_explicit_axes
@pytest.mark.parametrize("row", by_form(METHODS.values(), ODD_FAST))
def test_types_stay_along_one_explicit_axis(row):
    check_types(row, row.make(), "8")


@needs_explicit_axes
@pytest.mark.parametrize("row", OTHERS, ids=lambda row: row.id)
def test_types_stay_along_explicit_axes_with_other_settings(row):
    check_types(row, row.make(), "4x2")


@pytest.mark.each_value_once
@needs_explicit_axes
@pytest.mark.parametrize("size", ["4x2", pytest.param("8", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda tx: jopt.apply_if_finite(jopt.multi_steps(tx, 2), 3),
        lambda tx: jopt.masked(tx, lambda p: {k: k != "b" for k in p}),
    ],
    ids=["apply_if_finite(multi_steps)", "masked"],
)
@pytest.mark.parametrize("row", ODD_ROWS, ids=lambda row: row.id)
def test_types_stay_within_wrappers(row, wrap, size):
    check_types(row, wrap(row.make()), size)


@needs_explicit_axes
@pytest.mark.parametrize("size", ["4x2", pytest.param("8", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=row.id, marks=[pytest.mark.slow] * (row.name == "lbfgs"))
        for row in [*ODD_METHODS, FACTORED]
    ],
)
def test_a_scan_along_explicit_axes_equals_one_device(row, size):
    tx = row.make()
    p, g = (random_tree(seed) for seed in range(2))
    want = jax.jit(lambda p, g: three_steps(row, tx, p, g)[0])(p, g)
    mesh = mesh_of(size, AxisType.Explicit)
    with jax.set_mesh(mesh):
        p, g = (put(tree, size, mesh) for tree in (p, g))
        got = jax.jit(lambda p, g: three_steps(row, tx, p, g)[0])(p, g)
    want, got = jax.device_get((want, got))
    chex.assert_trees_all_close(got, want, rtol=5e-5, atol=5e-5)


# ----------------------------------------------------------------------- automatic axes


def assert_placed_alike(tree, like):
    for x, y in zip(jax.tree.leaves(tree), jax.tree.leaves(like), strict=True):
        assert x.sharding.device_set == y.sharding.device_set
        assert x.sharding.is_equivalent_to(y.sharding, x.ndim)
        assert x.committed == y.committed


def check_programs(row, tx, p, g, programs):
    """One program for each step from an eager init and from a compiled one."""
    made = tx.init(p), jax.jit(tx.init)(p)
    assert_placed_alike(*made)
    step = jax.jit(stepper(row, tx))
    first = (p, made[0]), (p, made[1])
    compiled = []
    for carry in first:
        for _ in range(2):
            del programs[:]
            before, (carry, _) = carry, step(carry, g)
            compiled.append(len(programs))
            assert_placed_alike(carry, before)
    assert compiled == [1, 0, 0, 0]


def on_auto_mesh(size, row=None, names=SHAPES):
    mesh = mesh_of(size, AxisType.Auto)
    trees = [put(random_tree(seed, row), size, mesh) for seed in range(2)]
    return [{k: x for k, x in tree.items() if k in names} for tree in trees]


@pytest.mark.parametrize("row", by_form(METHODS.values(), ODD_FAST))
def test_no_second_program_on_a_mesh_of_two_axes(row, programs):
    few = SHAPES if row in ODD_METHODS else ("w", "b", "s")
    check_programs(row, row.make(), *on_auto_mesh("4x2", row, few), programs)


@pytest.mark.parametrize(
    "row",
    [
        *(pytest.param(row, id=row.id) for row in [*ODD_FAST, FACTORED]),
        *(
            pytest.param(METHODS[name], id=METHODS[name].id, marks=pytest.mark.slow)
            for name in [*MORE, "lbfgs"]
        ),
    ],
)
def test_no_second_program_on_a_mesh_of_one_axis(row, programs):
    check_programs(row, row.make(), *on_auto_mesh("8", row), programs)


WRAPPED = {
    "multi_steps": lambda: jopt.multi_steps(jopt.adafactor(0.1), 2),
    "apply_if_finite": lambda: jopt.apply_if_finite(jopt.sgd(0.1), 2),
    "inject_hyperparams": lambda: jopt.inject_hyperparams(jopt.sgd)(0.1),
    "groups": lambda: jopt.partition(
        {"a": jopt.sm3(0.1), "b": jopt.sgd(lambda count: 0.1)},
        lambda p: {k: "ab"[k == "b"] for k in p},
    ),
    "ema": lambda: jopt.chain(jopt.sgd(0.1), jopt.params_ema(0.9)),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_no_second_program_within_wrappers(name, programs):
    check_programs(METHODS["sgd"], WRAPPED[name](), *on_auto_mesh("4x2"), programs)


AGGREGATORS = {
    "mean": aggregating.accumulate_avg_updates(3),
    "sums": aggregating.get_per_element_mean_and_sum_sq_diff_grads(0, 3),
    "variance": aggregating.track_per_element_mean_and_variance_with_ema(0.5),
}


@pytest.mark.parametrize("name", AGGREGATORS)
def test_aggregates_lie_as_the_parameters(name):
    p, _ = on_auto_mesh("4x2")
    state = AGGREGATORS[name].init(p)
    assert_placed_alike(state, jax.jit(AGGREGATORS[name].init)(p))
    slots = [x for x in jax.tree.leaves(state) if x.shape == SHAPES["w"]]
    assert slots
    assert all(x.sharding.is_equivalent_to(p["w"].sharding, 2) for x in slots)


@needs_explicit_axes
@pytest.mark.parametrize("size", MESHES)
def test_an_aggregate_keeps_its_type_along_explicit_axes(size):
    check_types(METHODS["sgd"], AGGREGATORS["mean"], size)


@pytest.mark.each_value_once
@pytest.mark.parametrize("name", ["adam", "noisy_sgd", "reduce_on_plateau"])
@pytest.mark.parametrize("place", [0, 1, "mesh"])
def test_no_second_program_on_one_device(name, place, programs):
    device = jax.devices()[place if place != "mesh" else 1]
    if place == "mesh":
        device = NamedSharding(jax.sharding.Mesh([device], "x"), P())
    p, g = (jax.device_put(random_tree(seed), device) for seed in range(2))
    check_programs(METHODS[name], METHODS[name].make(), p, g, programs)


def test_a_state_of_parameters_on_several_devices_stays_free():
    p = [jax.device_put(jnp.ones(2), device) for device in jax.devices()[:2]]
    assert not jopt.scale_by_adam().init(p).count.committed
    assert not jopt.scale_by_adam().init(jnp.ones(2)).count.committed


def test_a_loaded_state_is_stepped_by_the_same_program(programs):
    p, g = on_auto_mesh("4x2")
    tx = jopt.adam(0.1)
    step = jax.jit(stepper(METHODS["adam"], tx))
    (p, state), _ = step((p, tx.init(p)), g)
    del programs[:]
    saved = jax.device_get(jopt.state_dict(tx, state))
    loaded, _ = jopt.load_state_dict(tx, p, saved)
    assert_placed_alike(loaded, state)
    del programs[:]
    step((p, loaded), g)
    assert not programs


# -------------------------------------------------------------------- where slots lie


def abstract(tree):
    return {
        k: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
        for k, x in tree.items()
    }


def expected_specs():
    adam, factored, sm3 = (
        jopt.scale_by_adam(),
        jopt.scale_by_factored_rms(min_dim_size_to_factor=2),
        jopt.scale_by_sm3(),
    )
    lbfgs, galore = jopt.scale_by_lbfgs(3), jopt.scale_by_galore(rank=2)
    return {
        "adam": (adam, lambda s: s.nu["w"], P("x", "y")),
        "rows": (factored, lambda s: s.v_row["w"], P("x")),
        "columns": (factored, lambda s: s.v_col["w"], P("y")),
        "sm3 rows": (sm3, lambda s: s.mu["w"][0], P("x")),
        "sm3 columns": (sm3, lambda s: s.mu["w"][1], P("y")),
        "pairs": (lbfgs, lambda s: s.diff_params_memory["w"], P(None, "x", "y")),
        "basis": (galore, lambda s: s.projector["w"], P("y", None)),
        "small": (galore, lambda s: s.base_optimizer_state.mu["w"], P("x", None)),
    }


@needs_explicit_axes
@pytest.mark.parametrize("case", expected_specs().values(), ids=expected_specs())
def test_an_abstract_state_carries_the_specs(case):
    tx, slot, spec = case
    mesh = mesh_of("4x2", AxisType.Explicit)
    with jax.set_mesh(mesh):
        p = abstract(put(random_tree(0), "4x2", mesh))
        assert slot(jax.eval_shape(tx.init, p)).sharding.spec == spec
        assert slot(tx.init(p)).sharding.spec == spec


@pytest.mark.parametrize("case", expected_specs().values(), ids=expected_specs())
def test_init_under_jit_splits_slots_along_axes_that_are_not_explicit(case):
    tx, slot, spec = case
    mesh = mesh_of("4x2", AxisType.Auto)
    x = slot(jax.jit(tx.init)(put(random_tree(0), "4x2", mesh)))
    assert x.sharding.is_equivalent_to(NamedSharding(mesh, spec), x.ndim)


# --------------------------------------------------------------- rules that users write


class Rows(NamedTuple):
    """A state of another sharding than that of its parameter's rows."""

    rows: jax.Array


def of_shapes(p):
    return Rows(jnp.zeros(p.shape[:1], p.dtype))


def row_means(g, s, p=None):
    return g, Rows(s.rows + jnp.mean(g, axis=1))


@needs_explicit_axes
@pytest.mark.parametrize(
    "tx",
    [
        jopt.per_leaf(Rows, lambda p: of_shapes(p)._asdict(), row_means),
        jopt.apply_if_finite(jopt.GradientTransformation(of_shapes, row_means), 3),
        jopt.multi_steps(jopt.GradientTransformation(of_shapes, row_means), 2),
    ],
    ids=["per_leaf", "apply_if_finite", "multi_steps"],
)
def test_a_slot_made_of_its_shape_keeps_its_type(tx):
    mesh = mesh_of("4x2", AxisType.Explicit)
    with jax.set_mesh(mesh):
        p = put(random_tree(0), "4x2", mesh)["w"]
        carry = p, tx.init(p)
        after = jax.eval_shape(lambda p: three_steps(METHODS["sgd"], tx, p, p), p)
    assert types(after) == types(carry)


@needs_explicit_axes
def test_a_gradient_that_is_split_where_its_parameter_is_whole():
    mesh = mesh_of("8", AxisType.Explicit)
    tx = jopt.adam(0.1)
    with jax.set_mesh(mesh):
        g = put(random_tree(0), "8", mesh)["w"]
        p = jax.device_put(random_tree(1)["w"], NamedSharding(mesh, P(None, None)))

        def run(p, g):
            u, state = tx.update(g, tx.init(p), p)
            return u, jopt.apply_updates(p, u), state

        u, new, state = jax.eval_shape(run, p, g)
    assert specs(u) == P("x", None)
    assert types(new) == types(p)
    assert types(state[0].mu) == types(p)


# --------------------------------------------------------------------------- matrices


@needs_explicit_axes
@pytest.mark.parametrize("preconditioning", ["frobenius", "spectral", "aol"])
def test_orthogonalize_along_explicit_axes(preconditioning):
    x = random_tree(0)["stack"]
    want = jopt.orthogonalize(x, preconditioning=preconditioning)
    mesh = mesh_of("4x2", AxisType.Explicit)
    with jax.set_mesh(mesh):
        split = jax.device_put(x, NamedSharding(mesh, P("y", "x", None)))
        got = jopt.orthogonalize(split, preconditioning=preconditioning)
    assert specs(got) == P("y", "x", None)
    chex.assert_trees_all_close(jax.device_get(got), jax.device_get(want), atol=1e-5)


@needs_explicit_axes
@pytest.mark.parametrize(
    "function",
    [
        lambda x: jopt.power_iteration(x)[0],
        lambda x: jopt.power_iteration(
            lambda v: jnp.sum(x * v[None], axis=1), v0=jnp.ones(8)
        )[0],
        lambda x: jopt.matrix_inverse_pth_root(x, 2)[0],
    ],
    ids=["power_iteration", "of_a_function", "matrix_inverse_pth_root"],
)
def test_iterations_along_explicit_axes(function):
    x = random_tree(0)["w"]
    x = x @ x.T
    mesh = mesh_of("4x2", AxisType.Explicit)
    want = function(x)
    with jax.set_mesh(mesh):
        got = function(jax.device_put(x, NamedSharding(mesh, P("x", "y"))))
    chex.assert_trees_all_close(jax.device_get(got), jax.device_get(want), rtol=1e-4)

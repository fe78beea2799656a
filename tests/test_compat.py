"""What differs between versions of JAX: one place takes it, and has another way."""

import ast
import importlib.util
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jopt
from benchmarks import tpu
from jopt import compat

ROOT = pathlib.Path(__file__).parent.parent
NOT_PROMISED = ("_src", "core", "experimental", "extend", "interpreters", "lib", "util")


def address(node):
    """`a.b.c` of an expression that is names alone."""
    if isinstance(node, ast.Attribute):
        return f"{address(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def addresses(path):
    """The modules and names of JAX that a file takes."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Attribute):
            yield address(node)


def test_only_one_file_takes_what_jax_does_not_promise():
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for folder in ("jopt", "examples", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
        if path != pathlib.Path(compat.__file__)
        for name in addresses(path)
        if name.startswith(tuple(f"jax.{x}." for x in NOT_PROMISED))
        or (name.startswith("jax.lax.") and name.endswith("_p"))
    ]
    assert found == ["benchmarks/tpu.py: jax.experimental.topologies"]


@pytest.fixture
def other_ways(monkeypatch):
    """`compat` as it is where JAX has none of the names."""
    spec = importlib.util.spec_from_file_location("jopt.other", compat.__file__)
    module = importlib.util.module_from_spec(spec)
    with monkeypatch.context() as patch:  # JAX itself needs some of them later
        for name in ("jax.experimental.xla_metadata", "jax.extend.core"):
            patch.setitem(sys.modules, name, None)
        for name in ("Tracer", "ShapedArray"):
            patch.delattr(jax.core, name)
        spec.loader.exec_module(module)
    monkeypatch.delattr(jax.lax, "convert_element_type_p")
    return module


def test_kinds_without_their_names(other_ways):
    assert other_ways.Tracer is compat.Tracer
    assert other_ways.ShapedArray is compat.ShapedArray


def test_jaxprs_are_run_without_a_function_for_it(other_ways):
    jaxpr = jax.make_jaxpr(lambda x: (x + jnp.arange(2.0), {"a": x * 2}))(jnp.ones(2))
    for module in (compat, other_ways):
        total, double = module.jaxpr_as_fun(jaxpr)(jnp.ones(2))
        np.testing.assert_array_equal(total, [1, 2])
        np.testing.assert_array_equal(double, [2, 2])


def test_metadata_that_cannot_be_set_is_left_out(other_ways):
    for module in (compat, other_ways):
        with module.set_xla_metadata(inlineable="false"):
            assert jax.jit(jnp.negative)(1.0) == -1


@pytest.mark.parametrize("x", [1.5, 2, 1j], ids=["float", "int", "complex"])
@pytest.mark.parametrize("shape", [(), (2,)])
def test_weak_types_in_both_ways(x, shape, other_ways):
    strong = jnp.full(shape, x, jnp.result_type(x))
    for module in (compat, other_ways):
        for function in (module.with_weak_type, jax.jit(module.with_weak_type)):
            weak = function(strong)
            assert jax.typeof(weak).weak_type and not jax.typeof(strong).weak_type
            assert weak.dtype == strong.dtype
            np.testing.assert_array_equal(weak, strong)


def test_a_weak_half_is_no_wider_than_what_it_meets(other_ways):
    half, eighth = jnp.bfloat16(0.5), jnp.full(3, 0.125, jnp.float16)
    for module in (compat, other_ways):
        product = module.with_weak_type(half) * eighth
        assert product.dtype == jnp.float16
        np.testing.assert_array_equal(product, 0.0625)


def test_weak_types_where_the_primitive_has_other_parameters(monkeypatch):
    class Other:
        def bind(self, x, *, new_dtype, weak):
            raise AssertionError("called with what it does not take")

    monkeypatch.setattr(jax.lax, "convert_element_type_p", Other())
    assert jax.typeof(compat.with_weak_type(jnp.float32(1))).weak_type


def test_jaxprs_at_every_place_of_an_equation():
    def function(x):
        y = jax.lax.cond(jnp.any(x > 0), jnp.sin, jnp.cos, x)
        y = jax.lax.fori_loop(0, 3, lambda i, c: jnp.tan(c), y)
        return jax.lax.while_loop(lambda c: c.sum() < 9, lambda c: jnp.exp(c), y)

    def names(jaxpr):
        inner = set().union(*map(names, compat.subjaxprs(jaxpr)))
        return inner | {e.primitive.name for e in jaxpr.eqns}

    jaxpr = jax.make_jaxpr(jax.jit(jax.checkpoint(function)))(jnp.ones(2)).jaxpr
    assert {"sin", "cos", "tan", "exp", "lt"} <= names(jaxpr)


def test_jopt_runs_on_a_jax_without_any_of_them():
    program = """
import sys
import jax, jax.core, jax.lax
import jax.numpy as jnp
sys.modules["jax.experimental.xla_metadata"] = None
sys.modules["jax.extend.core"] = None
names = {name: vars(jax.core).pop(name) for name in ("Tracer", "ShapedArray")}
del jax.lax.convert_element_type_p
import jopt
vars(jax.core).update(names)  # JAX itself needs some of them
params = {f"w{i}": jnp.ones((8, 6)) for i in range(20)}
schedule = jopt.cosine_decay_schedule(0.1, 10)
for tx in (
    jopt.adamw(schedule),
    jopt.inject_hyperparams(jopt.adafactor)(0.1),
    jopt.muon(0.1),
):
    for init, update in ((tx.init, tx.update), map(jax.jit, tx)):
        updates, state = update(params, init(params), params)
        params = jopt.apply_updates(params, updates)
mean = jopt.microbatching.microbatch(
    lambda x: x.sum(0), 0, 2, jopt.microbatching.AccumulationType.SUM
)
assert mean(jnp.ones((6, 3)))[0] == 6
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=ROOT, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()


def test_imports_and_factories_start_no_backend():
    """What must come before that, such as `jax.distributed.initialize`, still can."""
    program = """
import importlib, pkgutil
import jax
import jopt
for module in pkgutil.walk_packages(jopt.__path__, "jopt."):
    importlib.import_module(module.name)
jopt.chain(jopt.noisy_sgd(jopt.linear_schedule(0.1, 0.0, 9), key=0), jopt.adamw(1e-3))
jax.config.update("jax_num_cpu_devices", 3)  # an error from then on
assert jax.device_count("cpu") == 3
"""
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)


def test_benchmarks_without_a_compiler_for_other_machines(monkeypatch):
    monkeypatch.setattr(tpu, "topologies", None)
    assert not tpu.installed()
    with pytest.raises(ImportError, match="topologies"):
        tpu.devices()


# ---------------------------------------------------------------------------- sharding

MESHES = [("Auto", "Auto"), ("Explicit", "Explicit"), ("Explicit", "Auto")]


def on_mesh(x, kinds, *spec):
    kinds = tuple(getattr(AxisType, kind) for kind in kinds)
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=kinds)
    return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))


@pytest.mark.each_value_once
@pytest.mark.parametrize("kinds", MESHES, ids="-".join)
@pytest.mark.parametrize("spec", [("x", "y"), ("y",), (None, ("x", "y")), ()], ids=str)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.complex64])
def test_slots_are_sharded_as_their_parameter(kinds, spec, dtype):
    """Whatever they are made of, and whatever the parameter's values are."""
    p = on_mesh(jnp.full((8, 16), jnp.nan, dtype), kinds, *spec)

    def slots(p):
        made = (
            jnp.zeros_like(p),
            jnp.zeros(p.shape),
            jnp.full(p.shape, 3, jnp.int8),
            jnp.full(p.shape, 2.0),
        )
        return [compat.shard_alike(p, slot) for slot in made]

    for made in (jax.jit(slots)(p), jax.jit(jax.vmap(slots))(p[None])):
        for slot, value in zip(made, (0, 0, 3, 2)):
            slot = slot.reshape(p.shape) if slot.ndim > 2 else slot
            assert slot.sharding.is_equivalent_to(p.sharding, 2)
            np.testing.assert_array_equal(slot, value)


@pytest.mark.parametrize("kinds", MESHES, ids="-".join)
@pytest.mark.parametrize("in_context", [False, True])
def test_init_under_jit_shards_the_state_as_the_parameters(kinds, in_context):
    params = {
        "w": on_mesh(jnp.ones((8, 16)), kinds, "x", "y"),
        "b": on_mesh(jnp.ones(16), kinds, "y"),
    }
    tx = jopt.adam(0.1)
    if in_context:
        if not hasattr(jax, "set_mesh"):
            pytest.skip("this JAX sets no mesh for a block of a program")
        with jax.set_mesh(params["w"].sharding.mesh):
            state = jax.jit(tx.init)(params)
    else:
        state = jax.jit(tx.init)(params)
    for slots in (state[0].mu, state[0].nu):
        for k, p in params.items():
            assert slots[k].sharding.is_equivalent_to(p.sharding, p.ndim)


def test_accumulators_of_an_axis_are_sharded_as_that_axis():
    params = {"w": on_mesh(jnp.ones((8, 16)), MESHES[0], "x", "y")}
    state = jax.jit(jopt.sm3(0.1).init)(params)
    for along, name in zip(state[0].mu["w"], "xy"):
        want = NamedSharding(params["w"].sharding.mesh, PartitionSpec(name))
        assert along.sharding.is_equivalent_to(want, 1)


def test_slots_that_differ_between_devices_stay_as_they_are():
    p = on_mesh(jnp.arange(8.0), MESHES[0], "x")
    mesh = p.sharding.mesh

    def slots(p):
        zeros = jnp.zeros(p.shape)
        assert jax.typeof(compat.shard_alike(p, zeros)) == jax.typeof(zeros)
        return compat.shard_alike(p, p * 2)

    split = PartitionSpec("x")
    got = jax.shard_map(slots, mesh=mesh, in_specs=split, out_specs=split)(p)
    np.testing.assert_array_equal(got, p * 2)

"""Steps compiled for TPU ahead of time, without one: what a step moves, and how.

Needs the `libtpu` that `jax[tpu]` names. With no TPU in the machine, set
`JAX_PLATFORMS=cpu`.
"""

import importlib.util
import os
import time
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from . import trees
from .cases import Case
from .hlo import collectives, traffic
from .measure import abstract_step, build

try:
    from jax.experimental import topologies
except ImportError:  # nothing is compiled for other machines then
    topologies = None

TREES = {
    "400": trees.small(400),
    "gpt2": trees.gpt2(),
    "scan12": trees.stacked(12, 768),
    "4x16M": trees.square(4, 4096),
}
LAYOUTS = {"one chip": 1, "FSDP over 8": 8}


class Program(NamedTuple):
    """A step compiled for TPU; bytes are for each device."""

    compile_seconds: float
    words: tuple[float, ...]  # in HBM a parameter, for each branch
    collectives: int
    collective_bytes: int
    temporary_bytes: int


def installed() -> bool:
    """Whether the compiler for TPU is there."""
    return topologies is not None and importlib.util.find_spec("libtpu") is not None


def devices(topology: str = "v5e:2x4") -> Any:
    """The chips of a topology, to compile for."""
    if topologies is None:
        raise ImportError("this JAX has no jax.experimental.topologies to compile for")
    # It need not ask the cloud which machine this is.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices


def compare(
    libraries: dict[str, ModuleType], case: Case, shapes: trees.Shapes, chips: int
) -> dict[str, dict[str, Any]]:
    """The program of each library."""
    mesh = Mesh(np.array(devices()[:chips]), ("chips",))
    return {
        name: measure(lib, case, shapes, mesh)._asdict()
        for name, lib in libraries.items()
    }


def measure(lib: ModuleType, case: Case, shapes: trees.Shapes, mesh: Mesh) -> Program:
    """The program of one step, donated, every array laid out as `sharded` says."""
    compiled, seconds = compile_step(lib, case, shapes, mesh)
    hlo = compiled.as_text() or ""
    parameter_bytes = 4 * trees.count(shapes) / mesh.size
    found = collectives(hlo)
    return Program(
        seconds,
        tuple(x / parameter_bytes for x in traffic(hlo)),
        sum(c.times for c in found),
        sum(c.times * c.bytes for c in found),
        compiled.memory_analysis().temp_size_in_bytes,
    )


def compile_step(
    lib: ModuleType, case: Case, shapes: trees.Shapes, mesh: Mesh
) -> tuple[jax.stages.Compiled, float]:
    """The step compiled, and the seconds that XLA takes for it."""
    params = {k: jax.ShapeDtypeStruct(s, np.float32) for k, s in shapes.items()}
    params, state, grads = jax.tree.map(
        lambda x: sharded(x, mesh), abstract_step(lib, case, params)
    )
    _, step = build(lib, case)
    shardings = jax.tree.map(lambda x: x.sharding, (params, state))
    step = jax.jit(step, donate_argnums=(0, 1), out_shardings=shardings)
    lowered = step.lower(params, state, grads)
    start = time.perf_counter()
    return lowered.compile(), time.perf_counter() - start


def sharded(x: jax.ShapeDtypeStruct, mesh: Mesh) -> jax.ShapeDtypeStruct:
    """Its largest axis that the chips divide, split over them; as FSDP does it."""
    whole = [i for i, n in enumerate(x.shape) if n % mesh.size == 0]
    axis = max(whole, key=lambda i: x.shape[i], default=None)
    spec = [mesh.axis_names[0] if i == axis else None for i in range(len(x.shape))]
    sharding = NamedSharding(mesh, PartitionSpec(*spec))
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

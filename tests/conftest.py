"""What every test runs under: 8 CPU devices, JAX's strictest promotion, no warnings."""

import contextlib
import gc
import os
import pathlib
import re
import tempfile
import zlib

os.environ["JAX_PLATFORMS"] = "cpu"
_FLAGS = "--xla_force_host_platform_device_count=8"
# Most of the time goes to compiling what runs once: LLVM need not try its best.
_FLAGS += " --xla_backend_optimization_level=0"
if _FLAGS not in os.environ.get("XLA_FLAGS", ""):  # a worker has them of its parent
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAGS}".strip()
# What one worker has compiled serves the others, other files and the next run. JAX
# knows its version, XLA's and the flags by the name of an entry.
_CACHE = (
    pathlib.Path(tempfile.gettempdir()) / f"jopt-tests-{getattr(os, 'getuid', int)()}"
)
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "error")
    # Another worker is just writing it: it is compiled then.
    entry = "ignore:Error (reading|writing) persistent compilation cache entry"
    config.addinivalue_line("filterwarnings", entry)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file is one worker's, so that nothing is compiled by two at once."""
    if config.option.dist != "load":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return part_of(nodeid)

    config.option.loadscopereorder = False
    return ByFile(config, log)


def part_of(nodeid):
    """The file of a test; one file is so long that it is parted by the method."""
    file, _, test = nodeid.partition("::")
    method = re.search(r"\[.*?([\w.]+)\(", test)
    if file != LAST or method is None:
        return file
    return f"{file} {zlib.crc32(method[1].encode()) % 16}"


LAST = "tests/test_every_optimizer.py"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """What can be parted comes last, so that all workers end at about the same time."""
    items.sort(key=lambda item: item.nodeid.startswith(LAST))
    products = {}
    for item in items:
        if item.get_closest_marker("each_value_once"):
            products.setdefault(item.function, []).append(item)
    for product in products.values():
        leave_out(product)


def leave_out(product):
    """Marks as slow what is not needed to have each value of each argument once."""
    values = {
        item: {(k, id(x)) for k, x in item.callspec.params.items()} for item in product
    }
    left = set.union(*values.values())
    kept = set()
    while left:
        best = max(product, key=lambda item: len(values[item] & left))
        kept.add(best)
        left -= values[best]
    for item in product:
        if item not in kept:
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish():
    """A million objects stay to the end: whoever collects need not look at them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def programs_of_one_file_alone():
    """Thousands of compiled programs are gigabytes, and slow whoever walks the heap."""
    yield
    jax.clear_caches()
    gc.collect()
    gc.freeze()


@pytest.fixture
def compilations():
    """A list that grows by one for each program that XLA compiles."""
    with _events("/jax/core/compile/backend_compile_duration") as seen:
        yield seen


@pytest.fixture
def programs():
    """A list that grows by one for each program that is handed to XLA."""
    with _events("/jax/core/compile/jaxpr_to_mlir_module_duration") as seen:
        yield seen


@contextlib.contextmanager
def _events(name):
    seen = []

    def listen(event, duration, **kwargs):
        if event == name:
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    if hasattr(jax.monitoring, "unregister_event_duration_listener"):
        jax.monitoring.unregister_event_duration_listener(listen)

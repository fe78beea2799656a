"""What every test runs under: 8 CPU devices, JAX's strictest promotion, no warnings."""

import contextlib
import os

os.environ["JAX_PLATFORMS"] = "cpu"
_FLAGS = "--xla_force_host_platform_device_count=8"
# Most of the time goes to compiling what runs once: LLVM need not try its best.
_FLAGS += " --xla_backend_optimization_level=0"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAGS}".strip()

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "error")


@pytest.fixture(autouse=True, scope="module")
def programs_of_one_file_alone():
    """Thousands of compiled programs are gigabytes, and slow whoever walks the heap."""
    yield
    jax.clear_caches()


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

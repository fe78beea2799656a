"""Schedules: functions from the step count to a value.

The first step has count 0. A count is a Python number or an array, traced or not; the
value has its shape, for a curve is a schedule of `jnp.arange(n)`. It is float32, or
float64 where `jax_enable_x64` is on and no float32 array was given. A schedule prints,
compares, hashes and pickles as the call that made it.

Numbers of steps are static integers (`1e4` is one); other numbers may be traced, to
differentiate or `vmap` over them, and are then not checked.
"""

from .base import Schedule as Schedule, only_public_names as _only_public_names
from .curves import *

# optax has what wraps optimizers at this address too.
from .wrappers import (
    InjectHyperparamsState as InjectHyperparamsState,
    InjectStatefulHyperparamsState as InjectStatefulHyperparamsState,
    StatefulSchedule as StatefulSchedule,
    WrappedSchedule as WrappedSchedule,
    inject_hyperparams as inject_hyperparams,
)

_only_public_names(globals())

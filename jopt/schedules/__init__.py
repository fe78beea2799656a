"""Schedules: functions from the step count to a value.

The first step has count 0. A count is a Python number or an array, traced or not; the
value has its shape, for a curve is a schedule of `jnp.arange(n)`. It is float32, or
float64 where `jax_enable_x64` is on and no float32 array was given. A schedule prints,
compares, hashes and pickles as the call that made it.

Numbers of steps are static integers (`1e4` is one); other numbers may be traced, to
differentiate or `vmap` over them, and are then not checked.
"""

import typing as _typing

from ..base import Schedule as Schedule, publish as _publish
from .cooldown import *
from .cycle import *
from .decay import *
from .piecewise import *
from .plot import *
from .restarts import *
from .warmup import *

# optax's address for what wraps optimizers, a floor above; looked up when asked for.
_ELSEWHERE = {
    "InjectHyperparamsState",
    "InjectStatefulHyperparamsState",
    "StatefulSchedule",
    "WrappedSchedule",
    "inject_hyperparams",
}

if _typing.TYPE_CHECKING:
    from ..wrappers import (
        InjectHyperparamsState as InjectHyperparamsState,
        InjectStatefulHyperparamsState as InjectStatefulHyperparamsState,
        StatefulSchedule as StatefulSchedule,
        WrappedSchedule as WrappedSchedule,
        inject_hyperparams as inject_hyperparams,
    )
else:

    def __getattr__(name: str):
        if name not in _ELSEWHERE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from .. import wrappers

        return getattr(wrappers, name)


_publish(globals(), *_ELSEWHERE)

"""What the parts of an optimizer measured, gathered from its state."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..base import OptState
from ..boxes import content, unboxed
from ..optimizers import ProdigyState
from ..optimizers.dadapt_adamw import DAdaptAdamWState
from ..parts import (
    MonitorState,
    ReduceLROnPlateauState,
    ScaleByBacktrackingLinesearchState,
    ScaleByZoomLinesearchState,
    SnapshotState,
)
from ..tree.states import walk
from ..wrappers import ApplyIfFiniteState, MetricsState, MultiStepsState
from .hyperparameters import in_state
from .names import Entry, named

__all__ = ["metrics"]

# Classes of states that say what they measure; optax's of these names measure the same.
_MEASURING = {
    kind.__name__: kind.measured
    for kind in (
        ApplyIfFiniteState,
        DAdaptAdamWState,
        MetricsState,
        MonitorState,
        MultiStepsState,
        ProdigyState,
        ReduceLROnPlateauState,
        ScaleByBacktrackingLinesearchState,
        ScaleByZoomLinesearchState,
        SnapshotState,
    )
}


def metrics(state: OptState) -> dict[str, Any]:
    """What the parts of an optimizer measured in the last step, by name.

    Through whatever wrappers: what `with_metrics`, `monitor` and `snapshot` keep; how
    many steps `apply_if_finite` left out, `notfinite_count` in a row and
    `total_notfinite` in all; the steps that `multi_steps` took, `gradient_step`, and
    what it skipped; the learning rate, where a state has it (all of them:
    `hyperparams(state, tx)`), as `scale` that of `reduce_on_plateau`, as `estim_lr`
    that of `prodigy`. Names are told apart as those of `hyperparams` are. The class of
    a state says what it measures: in one of your own, `measured = ("field",)`.

    Args:
        state: the state of an optimizer.

    Returns:
        A flat dict of what was found; empty if no part measures. Everything is on the
        device yet: `jax.device_get` brings it to the host in one transfer.

    Example:
        >>> tx = jopt.with_metrics(
        ...     jopt.chain(jopt.clip_by_global_norm(1.0), jopt.sgd(0.5)))
        >>> p = jnp.array([3.0, 4.0])
        >>> _, state = tx.update(p, tx.init(p), p)
        >>> {name: round(float(x), 3) for name, x in jopt.metrics(state).items()}
        {'clip_factor': 0.2, 'gradient_norm': 5.0, 'update_norm': 0.5, \
'update_ratio': 0.1}
    """
    return {name: entry.value for name, entry in named(_measured(state)).items()}


def _measured(state: OptState) -> Iterator[Entry]:
    for path, node in walk(state):
        kind = type(node)
        for field in getattr(kind, "measured", _MEASURING.get(kind.__name__, ())):
            value = content(getattr(node, field))
            if isinstance(value, Mapping):
                for name, x in unboxed(value).items():
                    yield Entry(path, name, x)
            elif np.ndim(value) == 0:
                yield Entry(path, field, value)
    for entry in in_state(state):
        if entry.name == "learning_rate":
            yield entry

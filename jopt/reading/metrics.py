"""What the parts of an optimizer measured, gathered from its state."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..base import OptState
from ..boxes import unboxed
from ..tree import NamedTupleKey
from ..tree.states import walk
from .hyperparameters import in_state
from .names import Entry, named

__all__ = ["metrics"]

# The fields of states that tell how training goes: numbers, or dicts of them by name.
_MEASURED = (
    "metrics",  # with_metrics
    "measurement",  # snapshot
    "measurements",  # monitor
    "notfinite_count",  # apply_if_finite
    "total_notfinite",
    "gradient_step",  # multi_steps
    "skip_state",
    "scale",  # reduce_on_plateau
    "estim_lr",  # prodigy, dadapt_adamw
    "learning_rate",  # line searches
)


def metrics(state: OptState) -> dict[str, Any]:
    """What the parts of an optimizer measured in the last step, by name.

    Through whatever wrappers: what `with_metrics`, `monitor` and `snapshot` keep; how
    many steps `apply_if_finite` left out, `notfinite_count` in a row and
    `total_notfinite` in all; the steps that `multi_steps` took, `gradient_step`, and
    what it skipped; the learning rate, where a state has it (all of them:
    `hyperparams(state, tx)`), as `scale` that of `reduce_on_plateau`, as `estim_lr`
    that of `prodigy`. Names are told apart as those of `hyperparams` are.

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
    for path, value in walk(state):
        *where, last = path or (None,)
        if not isinstance(last, NamedTupleKey) or last.name not in _MEASURED:
            continue
        if isinstance(value, Mapping):
            for name, x in unboxed(value).items():
                yield Entry(tuple(where), name, x)
        elif np.ndim(value) == 0:
            yield Entry(tuple(where), last.name, value)
    for entry in in_state(state):
        if entry.name == "learning_rate":
            yield entry

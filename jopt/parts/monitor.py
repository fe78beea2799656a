"""Looking at the updates in the middle of a chain."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ..base import (
    EmptyState,
    GradientTransformation,
    GradientTransformationExtraArgs,
    OptState,
    Updates,
    with_extra_args_support,
)
from ..engine import transformation, types_of, whole_tree
from ..kinds import is_transformation
from ..settings import DECAY
from .average import ema

__all__ = ["MonitorState", "SnapshotState", "measure_with_ema", "monitor", "snapshot"]

Measure = Callable[[Updates], Any]


class SnapshotState(NamedTuple):
    """What the last step measured, by its name."""

    measurement: dict[str, Any]

    measured = ("measurement",)  # what `metrics` shows


class MonitorState(NamedTuple):
    """What the last step measured, by name, and what the measures remember."""

    measurements: dict[str, Any]
    measure_states: tuple[OptState, ...]

    measured = ("measurements",)  # what `metrics` shows


@transformation
def snapshot(measure_name: str, measure: Measure) -> GradientTransformationExtraArgs:
    """Leaves the updates as they are, and keeps what a function says of them.

    `jopt.tree.get(state, measure_name)` finds it. It has the dtypes that `measure`
    returns for the parameters, and is zero before the first step.

    Args:
        measure_name: the name.
        measure: a function of the updates that returns an array or a tree of them.

    Returns:
        A transformation whose state is `SnapshotState({measure_name: measurement})`.

    Raises:
        TypeError: `measure_name` is no string or `measure` no function.

    Example:
        >>> tx = jopt.chain(
        ...     jopt.sgd(0.1), jopt.snapshot("size", jopt.tree.norm), jopt.clip(0.05))
        >>> p = jnp.array([3.0, 4.0])
        >>> u, state = tx.update(p, tx.init(p))
        >>> jopt.tree.get(state, "size")
        Array(0.5, dtype=float32)
    """
    if not isinstance(measure_name, str):
        raise TypeError(
            f"snapshot: measure_name must be a string, got {measure_name!r}"
        )
    if not callable(measure):
        raise TypeError(f"snapshot: measure must be a function, got {measure!r}")

    def init(params):
        return SnapshotState({measure_name: _zeros(measure, params)})

    def update(updates, state, params=None, **extra_args):
        new = {measure_name: measure(updates)}
        return updates, SnapshotState(_in_types_of(state.measurement, new))

    return whole_tree(init, update)


@transformation
def monitor(
    measures: dict[str, Measure | GradientTransformation],
) -> GradientTransformationExtraArgs:
    """Leaves the updates as they are, and keeps measurements of them by name.

    `jopt.tree.get(state, name)` finds one. They have the dtypes that the measures
    return for the parameters, and are zero before the first step.

    Args:
        measures: by name, functions of the updates, or transformations whose updates
            are the measurement, as `measure_with_ema`.

    Returns:
        A transformation whose state is `MonitorState(measurements, measure_states)`, a
        dict and a tuple of the transformations' states, `EmptyState()` for functions.

    Raises:
        TypeError: `measures` is no dict of functions and transformations by name.

    Example:
        >>> tx = jopt.monitor({
        ...     "size": jopt.tree.norm,
        ...     "large": jopt.measure_with_ema(lambda u: jopt.tree.norm(u) > 1.0, 0.5)})
        >>> g = jnp.array([3.0, 4.0])
        >>> u, state = tx.update(g, tx.init(g))
        >>> {name: round(float(x), 3) for name, x in state.measurements.items()}
        {'large': 1.0, 'size': 5.0}
    """
    if not isinstance(measures, dict):
        raise TypeError(
            "monitor: measures must be a dict of functions by name, "
            f"got a {type(measures).__name__}"
        )
    parts = {name: _as_transformation(name, x) for name, x in measures.items()}

    def init(params):
        states = {name: tx.init(params) for name, tx in parts.items()}
        measured = {
            name: _zeros(lambda p, tx=tx, s=states[name]: tx.update(p, s, p)[0], params)
            for name, tx in parts.items()
        }
        return MonitorState(measured, tuple(states.values()))

    def update(updates, state, params=None, **extra_args):
        measured, states = {}, []
        for (name, tx), old in zip(parts.items(), state.measure_states):
            measured[name], new = tx.update(updates, old, params, **extra_args)
            states.append(new)
        measured = _in_types_of(state.measurements, measured)
        return updates, MonitorState(measured, tuple(states))

    return whole_tree(init, update)


@transformation(decay=DECAY)
def measure_with_ema(
    measure: Measure,
    decay: float,
    debias: bool = True,
    accumulator_dtype: DTypeLike | None = None,
) -> GradientTransformationExtraArgs:
    """The exponential moving average of a measurement, for `monitor`.

    Args:
        measure: a function of the updates; what it returns is averaged as floats, so
            that the average of a condition is how often it held.
        decay: the weight of the past, in [0, 1).
        debias: whether to divide the weight of the zero start out.
        accumulator_dtype: dtype the average is stored in, as `ema` takes it.

    Returns:
        A transformation whose updates are the average and whose state is
        `(EmptyState, EmaState)`.

    Raises:
        ValueError: `decay` is outside its range.
        TypeError: `measure` is no function.

    Example:
        >>> tx = jopt.measure_with_ema(jopt.tree.norm, 0.5)
        >>> g = jnp.array([3.0, 4.0])
        >>> average, state = tx.update(g, tx.init(g))
        >>> round(float(average), 3)
        5.0
    """
    if not callable(measure):
        raise TypeError(
            f"measure_with_ema: measure must be a function, got {measure!r}"
        )
    mean = ema(decay, debias, accumulator_dtype)

    def floats(updates):
        return jax.tree.map(_as_float, measure(updates))

    def init(params):
        return EmptyState(), mean.init(_zeros(floats, params))

    def update(updates, state, params=None, **extra_args):
        average, new = mean.update(floats(updates), state[1])
        return average, (state[0], new)

    return whole_tree(init, update)


def _as_transformation(name: Any, measure: Any) -> GradientTransformationExtraArgs:
    if is_transformation(measure):
        return with_extra_args_support(measure)
    if not (callable(measure) and isinstance(name, str)):
        raise TypeError(
            "monitor: measures must hold functions or transformations by name, got "
            f"{measure!r} for {name!r}"
        )

    def update(updates, state, params=None, **extra_args):
        return measure(updates), state

    return whole_tree(lambda params: EmptyState(), update)


def _zeros(measure: Measure, params: Any) -> Any:
    """Zeros as the measurement will be, without measuring."""

    def measured(params):
        return jax.tree.map(jnp.asarray, measure(params))

    try:
        like = types_of(measured, params)
    except jax.errors.ConcretizationTypeError:  # it looks at values
        like = jax.eval_shape(lambda: measured(params))
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)


def _in_types_of(old: Any, new: Any) -> Any:
    new = jax.tree.map(jnp.asarray, new)
    if jax.tree.structure(old) != jax.tree.structure(new):
        return new  # a state that another library began
    return jax.tree.map(lambda x, y: x.astype(jax.dtypes.result_type(y)), new, old)


def _as_float(x: Any) -> jax.Array:
    x = jnp.asarray(x)
    inexact = jnp.issubdtype(x.dtype, jnp.inexact)
    return x if inexact else x.astype(jnp.result_type(float))

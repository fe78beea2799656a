"""Averages over the steps: of the updates, and of the parameters."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from .. import numerics
from ..base import (
    GradientTransformationExtraArgs,
    Params,
    ScalarOrSchedule,
    Updates,
)
from ..engine import per_leaf, transformation
from ..kinds import is_schedule
from ..numerics import one_minus_power, zeros_in
from ..settings import DECAY, scalar, scheduled

__all__ = [
    "EmaState",
    "ParamsEmaState",
    "TraceState",
    "ema",
    "params_ema",
    "trace",
]


class TraceState(NamedTuple):
    """The decaying sum of the updates."""

    trace: Updates


@transformation
def trace(
    decay: float, nesterov: bool = False, accumulator_dtype: DTypeLike | None = None
) -> GradientTransformationExtraArgs:
    """Momentum as a decaying sum: each update stays, weighted less at every step.

        trace <- g + decay trace
        u      = trace,  or g + decay trace with the new trace if `nesterov`

    Args:
        decay: the weight of the past, in [0, 1].
        nesterov: whether to look ahead along the sum.
        accumulator_dtype: dtype `trace` is stored in. The parameter's, or float32 if
            that has 16 bits, if `None`.

    Returns:
        A transformation whose state is `TraceState(trace)`, in the shapes of the
        parameters (memory: one copy).

    Example:
        >>> tx = jopt.trace(0.9)
        >>> tx.update(jnp.ones(2), jopt.TraceState(jnp.ones(2)))[0]
        Array([1.9, 1.9], dtype=float32)

    Reference:
        Sutskever, Martens, Dahl & Hinton, On the importance of initialization and
        momentum in deep learning, ICML 2013.
    """

    def init(p):
        return dict(trace=zeros_in(p, accumulator_dtype))

    def trace(g, s, p):
        u = new = g + decay * s.trace
        if nesterov:
            u = g + decay * new
        return u, s._replace(trace=new)

    return per_leaf(TraceState, init, trace)


class EmaState(NamedTuple):
    """The step count and the mean update."""

    count: jax.Array
    ema: Updates


@transformation(decay=DECAY)
def ema(
    decay: float, debias: bool = True, accumulator_dtype: DTypeLike | None = None
) -> GradientTransformationExtraArgs:
    """Replaces the updates by their exponential moving average.

        ema <- decay ema + (1 - decay) g
        u    = ema / (1 - decay^t),  or ema unless `debias`

    Args:
        decay: the weight of the past, in [0, 1).
        debias: whether to divide the weight of the zero start out.
        accumulator_dtype: dtype `ema` is stored in. The parameter's, or float32 if
            that has 16 bits, if `None`.

    Returns:
        A transformation whose state is `EmaState(count: i32[], ema)`, `ema` in the
        shapes of the parameters (memory: one copy).

    Example:
        >>> tx = jopt.ema(0.9, debias=False)
        >>> tx.update(jnp.ones(2), tx.init(jnp.ones(2)))[0]
        Array([0.1, 0.1], dtype=float32)
    """

    def init(p):
        return dict(ema=zeros_in(p, accumulator_dtype))

    def each(t):
        return 1 / one_minus_power(decay, t) if debias else 1

    def ema(g, s, p, scale):
        mean = numerics.ema(g, s.ema, decay)
        return scale * mean, s._replace(ema=mean)

    return per_leaf(EmaState, init, ema, each=each)


class ParamsEmaState(NamedTuple):
    """The step count and the mean parameters."""

    count: jax.Array
    average: Params


@transformation
def params_ema(
    decay: ScalarOrSchedule, debias: bool = True
) -> GradientTransformationExtraArgs:
    """Keeps an exponential moving average of the parameters, to evaluate with.

        average <- average + r (p + u - average)
        r        = (1 - decay) / (1 - decay^t),  or 1 - decay unless `debias`

    The updates pass as they are. It comes last, where they are those that the
    parameters get: `chain(adam(1e-3), params_ema(0.999))`.

    Args:
        decay: the weight of the past, in [0, 1], or a schedule of it. With `debias` 1
            is the plain mean of the parameters after every step, `r = 1 / t`.
        debias: whether the average is of the steps alone. Otherwise the first
            parameters are in it, with the weight `decay^t`.

    Returns:
        A transformation whose state is `ParamsEmaState(count: i32[], average)`,
        `average` in the shapes of the parameters, float32 at least (memory: one copy),
        which `eval_params` finds. The update needs the parameters.

    Raises:
        ValueError: `decay` is outside [0, 1], or `params` is missing.

    Example:
        >>> tx = jopt.chain(jopt.sgd(1.0), jopt.params_ema(0.5, debias=False))
        >>> p = jnp.array(1.0)
        >>> u, state = tx.update(jnp.array(1.0), tx.init(p), p)
        >>> jopt.eval_params(state, jopt.apply_updates(p, u))
        Array(0.5, dtype=float32)

    Reference:
        Polyak & Juditsky, Acceleration of Stochastic Approximation by Averaging, SIAM
        Journal on Control and Optimization, 1992, which is `decay=1`.
    """

    def init(p):
        return dict(average=p)

    def each(t):
        d: Any = decay
        if not isinstance(d, (int, float)):
            where = "params_ema"
            if is_schedule(d):
                d = scheduled(where, "decay", d, t - 1)
            else:
                d = scalar(where, "decay", d)
        if not debias:
            return 1 - d
        weight = one_minus_power(d, t)
        is_mean = weight == 0  # the limit of the quotient where the decay is one
        whole = jnp.where(is_mean, t.astype(weight.dtype), weight)
        return jnp.where(is_mean, 1, 1 - d) / whole

    def params_ema(u, s, p, rate):
        average = s.average + rate * (p + u - s.average)
        return u, s._replace(average=average)

    return per_leaf(ParamsEmaState, init, params_ema, each=each, needs_params=True)

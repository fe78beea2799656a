"""Adafactor: the mean square of a matrix, kept as one number a row and a column."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from ..base import GradientTransformationExtraArgs, MaskOrFn, PerLeaf, Updates
from ..engine import per_leaf, transformation
from ..numerics import abs_sq, bounded, ema, finite, safe_increment
from ..parts.average import ema as mean_update
from ..parts.clip import clip_by_block_rms
from ..parts.combine import chain
from ..parts.decay import add_decayed_weights
from ..parts.normalize import scale_by_param_block_rms
from ..parts.scale import scale, scale_by_learning_rate
from ..settings import FRACTION, NOT_NEGATIVE, Range, scheduled
from ..sharding import zeros_of

__all__ = ["FactoredState", "adafactor", "scale_by_factored_rms"]


class FactoredState(NamedTuple):
    """The step count, and mean squares by row and column, or of each element."""

    count: jax.Array
    v_row: Updates
    v_col: Updates
    v: Updates


def power_decay(step: jax.Array, decay_rate: float) -> jax.Array:
    """The paper's decay, `1 - (step + 1)^-decay_rate`."""
    t = safe_increment(step).astype(jnp.result_type(float))
    return 1 - t ** (-decay_rate)


@transformation(
    decay_rate=NOT_NEGATIVE, epsilon=NOT_NEGATIVE, min_dim_size_to_factor=NOT_NEGATIVE
)
def scale_by_factored_rms(
    factored: bool = True,
    decay_rate: float = 0.8,
    step_offset: int = 0,
    min_dim_size_to_factor: int = 128,
    epsilon: float = 1e-30,
    decay_rate_fn: Callable[[jax.Array, float], jax.Array] = power_decay,
) -> GradientTransformationExtraArgs:
    """Adafactor's direction: the gradient over a factored root mean square.

        b      = 1 - (t - step_offset)^-decay_rate
        v_row <- b v_row + (1 - b) mean(|g|^2 + epsilon, the largest axis)
        v_col <- b v_col + (1 - b) mean(|g|^2 + epsilon, the second largest)
        u      = g / sqrt(v_row v_col / mean(v_row))

    Leaves that are not factored keep `v`, the mean square of each element.

    Args:
        factored: whether to factor at all.
        decay_rate: exponent of the decay, not negative.
        step_offset: the steps that do not count, where a run goes on.
        min_dim_size_to_factor: a leaf is factored if two axes are at least as long.
        epsilon: added to the squared gradient, not negative.
        decay_rate_fn: from the steps taken and `decay_rate` to the decay `b`.

    Returns:
        A transformation whose state is `FactoredState(count: i32[], v_row, v_col, v)`.
        A factored `f32[m, n]` with n the longer has `v_row` `f32[m]`, `v_col` `f32[n]`
        and `v` `f32[1]`; others have `v` in their shape, and `f32[1]` twice.

    Example:
        >>> tx = jopt.scale_by_factored_rms(min_dim_size_to_factor=2)
        >>> tx.init(jnp.ones((2, 3))).v_col
        Array([0., 0., 0.], dtype=float32)

    Reference:
        Shazeer & Stern, Adafactor: Adaptive Learning Rates with Sublinear Memory
        Cost, ICML 2018, arXiv:1804.04235.
    """

    def factored_axes(shape):
        if not factored or len(shape) < 2:
            return None
        *_, second, first = np.argsort(shape, kind="stable")
        return (second, first) if shape[second] >= min_dim_size_to_factor else None

    def init(p):
        axes = factored_axes(p.shape)
        none = jnp.zeros((1,), p.real.dtype)
        if axes is None:
            return dict(v_row=none, v_col=none, v=jnp.zeros_like(p.real))
        second, first = axes
        return dict(v_row=zeros_of(p, (first,)), v_col=zeros_of(p, (second,)), v=none)

    def each(t):
        steps = t - 1 - step_offset
        where = "scale_by_factored_rms"
        return scheduled(where, "decay_rate_fn", decay_rate_fn, steps, decay_rate)

    def scale_by_factored_rms(g, s, p, decay):
        axes = factored_axes(g.shape)
        if axes is None:
            g = bounded(g)
            v = ema(abs_sq(g) + epsilon, s.v, decay)
            return g * _inverse_root(v), s._replace(v=v)
        second, first = axes
        # XLA on CPU would write one square, to read it twice; of two it writes neither.
        minus = -abs_sq(g) if jnp.iscomplexobj(g) else -g * g
        by_row = finite(jnp.mean(abs_sq(g), axis=first) + epsilon)
        by_col = finite(-jnp.mean(minus, axis=second) + epsilon)
        v_row, v_col = ema(by_row, s.v_row, decay), ema(by_col, s.v_col, decay)
        among_rows = second - 1 if second > first else second
        mean = finite(jnp.mean(v_row, axis=among_rows, keepdims=True))
        # XLA multiplies by inverses: that of the largest numbers is zero to it.
        less = jnp.where(mean > 1, 0.25, 1).astype(mean.dtype)
        relative = (v_row * less) / (mean * less)
        rows = jnp.expand_dims(_inverse_root(relative), first)
        columns = jnp.expand_dims(_inverse_root(v_col), second)
        u = bounded(g) * rows * columns
        return u, s._replace(v_row=v_row, v_col=v_col)

    return per_leaf(FactoredState, init, scale_by_factored_rms, each=each)


def _inverse_root(x: jax.Array) -> jax.Array:
    """`1 / sqrt(x)`, and 0 where there is nothing to divide by."""
    return jnp.where(x > 0, jax.lax.rsqrt(jnp.where(x > 0, x, 1)), 0)


@transformation(
    decay_rate=NOT_NEGATIVE,
    clipping_threshold=Range(1),
    momentum=FRACTION,
    min_dim_size_to_factor=NOT_NEGATIVE,
)
def adafactor(
    learning_rate: PerLeaf | None = None,
    min_dim_size_to_factor: int = 128,
    decay_rate: float = 0.8,
    decay_offset: int = 0,
    multiply_by_parameter_scale: bool = True,
    clipping_threshold: float | None = 1.0,
    momentum: float | None = None,
    dtype_momentum: DTypeLike = jnp.float32,
    weight_decay_rate: PerLeaf | None = None,
    eps: float = 1e-30,
    factored: bool = True,
    weight_decay_mask: MaskOrFn = None,
) -> GradientTransformationExtraArgs:
    """Adafactor: adaptive steps in almost no memory.

        u  = u / max(1, rms(u) / clipping_threshold)   with u of `scale_by_factored_rms`
        p <- p - learning_rate max(rms(p), 1e-3) u

    then momentum and `weight_decay_rate p`, where given.

    Args:
        learning_rate: a number, or a schedule of the steps taken so far; 1 if `None`.
        min_dim_size_to_factor: a leaf is factored if two axes are at least as long.
        decay_rate: exponent of the decay, not negative.
        decay_offset: the steps that do not count, where a run goes on.
        multiply_by_parameter_scale: whether steps are relative to the parameter.
        clipping_threshold: the largest root mean square of a leaf's step, at least 1;
            none if `None`.
        momentum: decay of a mean over the steps in [0, 1], or `None` for none.
        dtype_momentum: dtype that mean is stored in.
        weight_decay_rate: decay, not times the learning rate; none if `None`.
        eps: added to the squared gradient, not negative.
        factored: whether to factor at all.
        weight_decay_mask: which leaves decay, all if `None`.

    Returns:
        A transformation whose state is the tuple of its parts' states, the first
        `FactoredState` (memory: rows and columns of factored leaves, one copy of the
        others, one copy more with momentum). The update needs the parameters.

    Example:
        >>> tx = jopt.adafactor(1e-2)

    Reference:
        Shazeer & Stern, Adafactor: Adaptive Learning Rates with Sublinear Memory
        Cost, ICML 2018, arXiv:1804.04235.
    """
    parts = [
        scale_by_factored_rms(
            factored, decay_rate, decay_offset, min_dim_size_to_factor, eps
        )
    ]
    if clipping_threshold is not None:
        parts.append(clip_by_block_rms(clipping_threshold))
    if learning_rate is not None:
        parts.append(scale_by_learning_rate(learning_rate, flip_sign=False))
    if multiply_by_parameter_scale:
        parts.append(scale_by_param_block_rms())
    if momentum is not None:
        parts.append(mean_update(momentum, False, dtype_momentum))
    if weight_decay_rate is not None:
        parts.append(add_decayed_weights(weight_decay_rate, weight_decay_mask))
    return chain(*parts, scale(-1))

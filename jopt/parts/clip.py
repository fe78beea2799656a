"""Clipping: by value, by the global norm, by block, by unit."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ..base import EmptyState, GradientTransformationExtraArgs
from ..engine import stateless_leaf, transformation
from ..numerics import abs_sq, cast, compute_dtype, rms, safe_sqrt
from ..settings import POSITIVE, check_integer
from ..tree.norms import scaled_norm

__all__ = [
    "AdaptiveGradClipState",
    "ClipByGlobalNormState",
    "ClipState",
    "adaptive_grad_clip",
    "clip",
    "clip_by_block_rms",
    "clip_by_global_norm",
    "unitwise_clip",
    "unitwise_norm",
]

ClipState = EmptyState
ClipByGlobalNormState = EmptyState
AdaptiveGradClipState = EmptyState


@transformation
def clip(max_delta: float) -> GradientTransformationExtraArgs:
    """Clips every element of the updates to `[-max_delta, max_delta]`.

    Complex elements are clipped in absolute value; NaN stays.

    Args:
        max_delta: the largest absolute value, not negative.

    Returns:
        A transformation whose state is `EmptyState()`.

    Example:
        >>> jopt.clip(1.0).update(jnp.array([-3.0, 0.5]), jopt.EmptyState())[0]
        Array([-1. ,  0.5], dtype=float32)
    """

    def clip(g, p, max_delta):
        return clip_elements(g, max_delta)

    return stateless_leaf(clip, numbers=max_delta)


@transformation
def clip_by_global_norm(
    max_norm: float, *, axis_name: str | tuple[str, ...] | None = None
) -> GradientTransformationExtraArgs:
    """Scales the updates down if their norm over the whole tree is above a bound.

        u = g                    if |g| < max_norm
        u = g max_norm / |g|     otherwise

    The norm is computed in float32 at least and for any magnitude of the elements; a
    gradient with a NaN or infinite element has no direction, and its update is NaN
    throughout, never silently zero.

    Args:
        max_norm: the largest norm, not negative.
        axis_name: within `shard_map`, the mesh axes along which every leaf is split;
            without it each shard is clipped by a norm of its own. Not needed under
            `jit`, where the norm is that of the whole array.

    Returns:
        A transformation whose state is `EmptyState()`.

    Example:
        >>> tx = jopt.clip_by_global_norm(1.0)
        >>> tx.update(jnp.array([3.0, 4.0]), jopt.EmptyState())[0]
        Array([0.6, 0.8], dtype=float32)

    Reference:
        Pascanu, Mikolov & Bengio, On the difficulty of training recurrent neural
        networks, ICML 2013, arXiv:1211.5063.
    """

    def reduce(gs, ps):
        return clip_factors(gs, max_norm, axis_name)

    def clip_by_global_norm(g, p, factors):
        scale, shrink = factors
        return g * scale * shrink

    return stateless_leaf(clip_by_global_norm, reduce=reduce)


def clip_factors(
    gs: list, max_norm: ArrayLike, axis_name: Any = None
) -> tuple[jax.Array, jax.Array]:
    """Two factors by which the norm of all is at most that; 1 where it is so before."""
    root, scale = scaled_norm(gs, axis_name)
    inside = root / scale < max_norm
    # Two factors, since their product may be out of range; both are 1 inside.
    return jnp.where(inside, 1, scale), jnp.where(inside, 1, max_norm / root)


@transformation
def clip_by_block_rms(threshold: float) -> GradientTransformationExtraArgs:
    """Scales a leaf's update down if its root mean square is above a bound.

        u = g / max(1, rms(g) / threshold)

    Args:
        threshold: the largest root mean square of a leaf, not negative.

    Returns:
        A transformation whose state is `EmptyState()`.

    Example:
        >>> tx = jopt.clip_by_block_rms(1.0)
        >>> tx.update(jnp.full(4, 2.0), jopt.EmptyState())[0]
        Array([1., 1., 1., 1.], dtype=float32)

    Reference:
        Shazeer & Stern, Adafactor: Adaptive Learning Rates with Sublinear Memory
        Cost, ICML 2018, arXiv:1804.04235 (section 6).
    """

    def clip_by_block_rms(g, p, threshold):
        return shrink(g, rms(g), threshold)

    return stateless_leaf(clip_by_block_rms, numbers=threshold)


def clip_elements(x: Any, bound: Any) -> jax.Array:
    """Every element within `[-bound, bound]`, a complex one in absolute value."""
    if jnp.iscomplexobj(x):
        return shrink(x, jnp.abs(x), bound)
    return jnp.clip(x, -bound, bound)


def shrink(g: jax.Array, size: jax.Array, most: ArrayLike) -> jax.Array:
    """`g` where its size is at most `most`, scaled down to that elsewhere.

    An infinite size is no size: the result is NaN, where a quotient would be zero.
    """
    inside = size <= most
    usable = jnp.where(jnp.isfinite(size), size, jnp.nan)
    return g * jnp.where(inside, 1, most / jnp.where(inside, 1, usable))


def unitwise_norm(x: jax.Array, axis: int | tuple[int, ...] | None = None) -> jax.Array:
    """The norm of each unit of an array: the weights into one output.

    Vectors and scalars are one unit, matrices `[in, out]` one a column, kernels of
    convolutions `[h, w, in, out]` (and with three spatial axes) one an output channel.
    Computed in float32 at least, for any magnitude of the elements.

    Args:
        x: the array.
        axis: the axes within a unit, if they are not the usual ones.

    Returns:
        The norms, broadcast to the shape of `x`.

    Raises:
        ValueError: `x` has more than five axes and `axis` is not given.

    Example:
        >>> jopt.unitwise_norm(jnp.array([[3.0, 1.0], [4.0, 0.0]]))
        Array([[5., 1.],
               [5., 1.]], dtype=float32)
    """
    if axis is None:
        if jnp.squeeze(x).ndim <= 1:
            axis = tuple(range(x.ndim))
        elif x.ndim in (2, 3):
            axis = 0
        elif x.ndim in (4, 5):
            axis = tuple(range(x.ndim - 1))
        else:
            raise ValueError(
                f"unitwise_norm: x has {x.ndim} axes, at most 5 are expected; "
                "say with axis which belong to one unit"
            )
    x = cast(x, compute_dtype(x.dtype))
    largest = jnp.max(jnp.abs(jax.lax.stop_gradient(x)), axis, keepdims=True, initial=0)
    usable = (largest > 0) & jnp.isfinite(largest)
    scale = jnp.where(usable, largest, 1)
    squares = jnp.sum(abs_sq(x / scale.astype(x.dtype)), axis, keepdims=True)
    return jnp.broadcast_to(safe_sqrt(squares) * scale, x.shape)


def unitwise_clip(
    g_norm: jax.Array,
    max_norm: jax.Array,
    grad: jax.Array,
    div_eps: ArrayLike = 1e-6,
) -> jax.Array:
    """Scales the units of a gradient down whose norm is above their bound.

    Args:
        g_norm: the norm of each element's unit; where it is not finite the result is
            NaN, never silently zero.
        max_norm: the bound of each element's unit.
        grad: the gradient, in the same shape.
        div_eps: lower bound of the divisor, positive.

    Returns:
        The clipped gradient, in the dtype of `grad`.

    Example:
        >>> jopt.unitwise_clip(jnp.array([2.0]), jnp.array([1.0]), jnp.array([2.0]))
        Array([1.], dtype=float32)
    """
    usable = jnp.where(jnp.isfinite(g_norm), g_norm, jnp.nan)
    clipped = grad * (max_norm / jnp.maximum(usable, div_eps)).astype(grad.dtype)
    return jnp.where(g_norm < max_norm, grad, clipped)


@transformation(eps=POSITIVE)
def adaptive_grad_clip(
    clipping: float, eps: float = 1e-3, axis: int | tuple[int, ...] | None = None
) -> GradientTransformationExtraArgs:
    """Clips the gradient of each unit to a fraction of the unit's own norm.

        u = g                                       if |g| <= clipping max(|p|, eps)
        u = g clipping max(|p|, eps) / |g|          otherwise

    with the norms of `unitwise_norm`.

    Args:
        clipping: the fraction, not negative.
        eps: lower bound of the parameter's norm, positive, so that units that start
            at zero can move.
        axis: the axes within a unit, as `unitwise_norm` takes it.

    Returns:
        A transformation whose state is `EmptyState()`; it needs the parameters.

    Example:
        >>> tx = jopt.adaptive_grad_clip(0.1)
        >>> p = jnp.array([3.0, 4.0])
        >>> tx.update(2 * p, tx.init(p), p)[0]
        Array([0.3, 0.4], dtype=float32)

    Reference:
        Brock, De, Smith & Simonyan, High-Performance Large-Scale Image Recognition
        Without Normalization, ICML 2021, arXiv:2102.06171.
    """
    for one in axis if isinstance(axis, tuple) else (axis,):
        if one is not None:
            check_integer("adaptive_grad_clip", "axis", one, low=None)

    def adaptive_grad_clip(g, p, numbers):
        clipping, eps = numbers
        max_norm = clipping * jnp.maximum(unitwise_norm(p, axis), eps)
        return shrink(g, unitwise_norm(g, axis), max_norm)

    return stateless_leaf(
        adaptive_grad_clip, numbers=(clipping, eps), needs_params=True
    )

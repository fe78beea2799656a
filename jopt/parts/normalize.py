"""Centring and normalizing: by a mean, by a norm of the update or of the parameter."""

import jax.numpy as jnp

from ..base import EmptyState, GradientTransformationExtraArgs
from ..engine import stateless_leaf, transformation
from ..numerics import norm, rms
from ..tree.norms import scaled_norm

__all__ = [
    "NormalizeState",
    "centralize",
    "normalize",
    "normalize_by_update_norm",
    "scale_by_param_block_norm",
    "scale_by_param_block_rms",
]

NormalizeState = EmptyState


@transformation
def centralize() -> GradientTransformationExtraArgs:
    """Subtracts from the gradient of each output its mean over the inputs.

        u = g - mean(g, all axes but the first)

    for leaves of two axes and more; the others pass through.

    Returns:
        A transformation whose state is `EmptyState()`.

    Example:
        >>> tx = jopt.centralize()
        >>> tx.update(jnp.array([[1.0, 2.0, 3.0]]), jopt.EmptyState())[0]
        Array([[-1.,  0.,  1.]], dtype=float32)

    Reference:
        Yong, Huang, Hua & Zhang, Gradient Centralization, ECCV 2020,
        arXiv:2004.01461.
    """

    def centralize(g, p):
        if g.ndim < 2 or not g.size:
            return g
        return g - jnp.mean(g, axis=tuple(range(1, g.ndim)), keepdims=True)

    return stateless_leaf(centralize)


@transformation
def normalize() -> GradientTransformationExtraArgs:
    """Divides the updates by their norm over the whole tree.

        u = g / |g|,  or 0 where the norm is zero

    A gradient with a NaN or infinite element has no direction: its update is NaN.

    Returns:
        A transformation whose state is `EmptyState()`.

    Example:
        >>> jopt.normalize().update(jnp.array([3.0, 4.0]), jopt.EmptyState())[0]
        Array([0.6, 0.8], dtype=float32)
    """

    def normalize(g, p, norm):
        root, scale = norm
        return g * scale / root

    return stateless_leaf(normalize, reduce=lambda gs, ps: scaled_norm(gs))


@transformation
def normalize_by_update_norm(
    scale_factor: float = 1.0, eps: float = 1e-6
) -> GradientTransformationExtraArgs:
    """Divides the updates by their norm over the whole tree, and scales them.

        u = scale_factor g / (|g| + eps)

    A gradient with a NaN or infinite element has no direction: its update is NaN.

    Args:
        scale_factor: the norm that they get.
        eps: added to the norm, not negative.

    Returns:
        A transformation whose state is `EmptyState()`.

    Example:
        >>> tx = jopt.normalize_by_update_norm(scale_factor=-1.0, eps=0.0)
        >>> tx.update(jnp.array([3.0, 4.0]), jopt.EmptyState())[0]
        Array([-0.6, -0.8], dtype=float32)
    """

    def reduce(gs, ps):
        root, scale = scaled_norm(gs)
        return scale, root + eps * scale, scale_factor

    def normalize_by_update_norm(g, p, numbers):
        scale, root, scale_factor = numbers
        return scale_factor * (g * scale / root)

    return stateless_leaf(normalize_by_update_norm, reduce=reduce)


@transformation
def scale_by_param_block_norm(
    min_scale: float = 1e-3,
) -> GradientTransformationExtraArgs:
    """Multiplies each leaf's update by the norm of its parameter.

        u = max(|p|, min_scale) g

    Args:
        min_scale: the smallest factor, not negative.

    Returns:
        A transformation whose state is `EmptyState()`; it needs the parameters.

    Example:
        >>> tx = jopt.scale_by_param_block_norm()
        >>> p = jnp.array([3.0, 4.0])
        >>> tx.update(jnp.ones(2), tx.init(p), p)[0]
        Array([5., 5.], dtype=float32)
    """

    def scale_by_param_block_norm(g, p, min_scale):
        return g * jnp.maximum(norm(p), min_scale)

    return stateless_leaf(
        scale_by_param_block_norm, numbers=min_scale, needs_params=True
    )


@transformation
def scale_by_param_block_rms(
    min_scale: float = 1e-3,
) -> GradientTransformationExtraArgs:
    """Multiplies each leaf's update by the root mean square of its parameter.

        u = max(rms(p), min_scale) g

    Args:
        min_scale: the smallest factor, not negative.

    Returns:
        A transformation whose state is `EmptyState()`; it needs the parameters.

    Example:
        >>> tx = jopt.scale_by_param_block_rms()
        >>> p = jnp.full(4, 2.0)
        >>> tx.update(jnp.ones(4), tx.init(p), p)[0]
        Array([2., 2., 2., 2.], dtype=float32)

    Reference:
        Shazeer & Stern, Adafactor: Adaptive Learning Rates with Sublinear Memory
        Cost, ICML 2018, arXiv:1804.04235 (section 8).
    """

    def scale_by_param_block_rms(g, p, min_scale):
        return g * jnp.maximum(rms(p), min_scale)

    return stateless_leaf(
        scale_by_param_block_rms, numbers=min_scale, needs_params=True
    )

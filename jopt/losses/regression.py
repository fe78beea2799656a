"""Losses of predicted numbers and vectors."""

import math

import jax
import jax.numpy as jnp

from ..settings import NOT_NEGATIVE
from .arithmetic import within
from .inputs import Input, Reduction, loss

__all__ = [
    "cosine_distance",
    "cosine_similarity",
    "huber_loss",
    "l2_loss",
    "log_cosh",
    "squared_error",
]


@loss("predictions", "targets", equal=True)
def squared_error(
    predictions: Input,
    targets: Input | None = None,
    *,
    where: Input | None = None,
    reduction: Reduction = None,
) -> jax.Array:
    """The square of each error.

        loss = (predictions - targets)^2

    Args:
        predictions: floats, `[...]`.
        targets: numbers of the same shape; zeros if `None`.
        where: booleans that broadcast to the losses: which of them count. The others
            are zero.
        reduction: what to make of the losses that count: their `"mean"` or `"sum"`,
            `[]`, or nothing if `None`.

    Returns:
        The losses, `[...]`, in the dtype of the floats given.

    Raises:
        ValueError: the shapes differ.
        TypeError: an argument is no array of real numbers, or `predictions` not of
            floats.

    Example:
        >>> jopt.losses.squared_error(jnp.array([1.0, 3.0]), jnp.array([0.0, 1.0]))
        Array([1., 4.], dtype=float32)

    Reference:
        Hastie, Tibshirani & Friedman, The Elements of Statistical Learning, 2009.
    """
    return jnp.square(_errors(predictions, targets))


@loss("predictions", "targets", equal=True)
def l2_loss(
    predictions: Input,
    targets: Input | None = None,
    *,
    where: Input | None = None,
    reduction: Reduction = None,
) -> jax.Array:
    """Half the square of each error, whose derivative is the error.

        loss = (predictions - targets)^2 / 2

    Args:
        predictions: floats, `[...]`.
        targets: numbers of the same shape; zeros if `None`.
        where: booleans that broadcast to the losses: which of them count. The others
            are zero.
        reduction: what to make of the losses that count: their `"mean"` or `"sum"`,
            `[]`, or nothing if `None`.

    Returns:
        The losses, `[...]`, in the dtype of the floats given.

    Raises:
        ValueError: the shapes differ.
        TypeError: as `squared_error`.

    Example:
        >>> jopt.losses.l2_loss(jnp.array([1.0, 3.0]), jnp.array([0.0, 1.0]))
        Array([0.5, 2. ], dtype=float32)

    Reference:
        Bishop, Pattern Recognition and Machine Learning, 2006.
    """
    return 0.5 * jnp.square(_errors(predictions, targets))


@loss("predictions", "targets", elementwise=True, delta=NOT_NEGATIVE)
def huber_loss(
    predictions: Input,
    targets: Input | None = None,
    *,
    delta: Input = 1.0,
    where: Input | None = None,
    reduction: Reduction = None,
) -> jax.Array:
    """Half the square of small errors, and a line for those larger than delta.

        loss = e^2 / 2                      if |e| <= delta,  e = predictions - targets
               delta (|e| - delta / 2)      elsewhere

    Its derivative is the error clipped to `[-delta, delta]`.

    Args:
        predictions: floats, `[...]`.
        targets: numbers that broadcast with them; zeros if `None`.
        delta: the largest slope, not negative.
        where: booleans that broadcast to the losses: which of them count. The others
            are zero.
        reduction: what to make of the losses that count: their `"mean"` or `"sum"`,
            `[]`, or nothing if `None`.

    Returns:
        The losses, `[...]`, in the dtype of `predictions` and `targets`.

    Raises:
        ValueError: the shapes do not broadcast, or one of fewer dimensions stretches
            one of more.
        TypeError: as `squared_error`.

    Example:
        >>> jopt.losses.huber_loss(jnp.array([0.5, -3.0]))
        Array([0.125, 2.5  ], dtype=float32)

    Reference:
        Huber, Robust Estimation of a Location Parameter, Annals of Statistics, 1964.
    """
    size = jnp.abs(_errors(predictions, targets))
    small = jnp.minimum(size, delta)
    return 0.5 * jnp.square(small) + delta * (size - small)


@loss("predictions", "targets")
def log_cosh(
    predictions: Input,
    targets: Input | None = None,
    *,
    where: Input | None = None,
    reduction: Reduction = None,
) -> jax.Array:
    """The logarithm of the hyperbolic cosine of each error.

        loss = log(cosh(predictions - targets))

    About `e^2 / 2` for small errors and `|e| - log(2)` for large ones, exact for both.

    Args:
        predictions: floats, `[...]`.
        targets: numbers that broadcast with them; zeros if `None`.
        where: booleans that broadcast to the losses: which of them count. The others
            are zero.
        reduction: what to make of the losses that count: their `"mean"` or `"sum"`,
            `[]`, or nothing if `None`.

    Returns:
        The losses, `[...]`, in the dtype of the floats given.

    Raises:
        ValueError: as `huber_loss`.
        TypeError: as `squared_error`.

    Example:
        >>> jopt.losses.log_cosh(jnp.array([0.0, 100.0]))
        Array([ 0.      , 99.306854], dtype=float32)

    Reference:
        Chen et al., Log Hyperbolic Cosine Loss Improves Variational Auto-Encoder, 2019.
    """
    return _log_cosh(_errors(predictions, targets))


@jax.custom_jvp
def _log_cosh(e: jax.Array) -> jax.Array:
    size = jnp.abs(e)
    large = size + jnp.log1p(jnp.exp(-2 * size)) - math.log(2)
    # cosh(e) = 1 + 2 sinh(e/2)^2, without the cancellation of `large`
    half = jnp.sinh(jnp.minimum(size, 1) / 2)
    return jnp.where(size < 1, jnp.log1p(2 * half * half), large)


@_log_cosh.defjvp
def _log_cosh_jvp(primals, tangents):
    (e,), (de,) = primals, tangents
    return _log_cosh(e), jnp.tanh(e) * de


def _errors(predictions, targets):
    return predictions if targets is None else predictions - targets


@loss("predictions", "targets", where="elements", epsilon=NOT_NEGATIVE)
def cosine_similarity(
    predictions: Input,
    targets: Input,
    *,
    epsilon: Input = 0.0,
    axis: int | tuple[int, ...] | None = -1,
    where: Input | None = None,
    reduction: Reduction = None,
) -> jax.Array:
    """The cosine of the angle between two vectors, 0 if one of them is zero.

        similarity = <p, t> / (n(p) n(t)),  n(x) = sqrt(max(|x|^2, epsilon))

    A zero vector has no direction: its derivative is zero too. Vectors are scaled
    before they are squared, so that any magnitude has its angle.

    Args:
        predictions: floats, `[..., dim]`.
        targets: numbers that broadcast with them.
        epsilon: the least square of a norm, not negative, as in optax.
        axis: the axis or axes of a vector; all of them if `None`.
        where: booleans that broadcast to the elements: which of them count.
        reduction: what to make of the losses that count: their `"mean"` or `"sum"`,
            `[]`, or nothing if `None`.

    Returns:
        The similarities, `[...]`, in [-1, 1], in the dtype of the floats given.

    Raises:
        ValueError: the shapes do not broadcast, or one of fewer dimensions stretches
            one of more; `axis` is out of bounds.
        TypeError: as `squared_error`, or `where` is not of booleans.

    Example:
        >>> jopt.losses.cosine_similarity(jnp.array([3.0, 4.0]), jnp.array([1.0, 0.0]))
        Array(0.6, dtype=float32)

    Reference:
        Salton & McGill, Introduction to Modern Information Retrieval, 1983.
    """
    p, t = unit(predictions, epsilon, axis), unit(targets, epsilon, axis)
    return within(jnp.sum(p * t, axis), -1, 1)


@loss("predictions", "targets", where="elements", epsilon=NOT_NEGATIVE)
def cosine_distance(
    predictions: Input,
    targets: Input,
    *,
    epsilon: Input = 0.0,
    axis: int | tuple[int, ...] | None = -1,
    where: Input | None = None,
    reduction: Reduction = None,
) -> jax.Array:
    """One minus the cosine of the angle between two vectors, never negative.

        distance = 1 - similarity

    Args:
        predictions: floats, `[..., dim]`.
        targets: numbers that broadcast with them.
        epsilon: the least square of a norm, not negative, as in optax.
        axis: the axis or axes of a vector; all of them if `None`.
        where: booleans that broadcast to the elements: which of them count.
        reduction: what to make of the losses that count: their `"mean"` or `"sum"`,
            `[]`, or nothing if `None`.

    Returns:
        The distances, `[...]`, in [0, 2], 1 if a vector is zero, in the dtype of the
        floats given.

    Raises:
        ValueError: as `cosine_similarity`.
        TypeError: as `cosine_similarity`.

    Example:
        >>> jopt.losses.cosine_distance(jnp.array([0.0, 4.0]), jnp.array([1.0, 0.0]))
        Array(1., dtype=float32)

    Reference:
        Salton & McGill, Introduction to Modern Information Retrieval, 1983.
    """
    similarity = cosine_similarity(
        predictions, targets, epsilon=epsilon, axis=axis, where=where
    )
    return 1 - similarity


def unit(
    x: jax.Array,
    epsilon: Input = 0.0,
    axis: int | tuple[int, ...] | None = -1,
) -> jax.Array:
    """The vectors over their norms, which count as `sqrt(epsilon)` at least."""
    least = jnp.sqrt(epsilon)
    scale = jnp.max(jnp.abs(x), axis, keepdims=True, initial=0)
    scale = jax.lax.stop_gradient(jnp.maximum(scale, least))
    scale = jnp.where(scale > 0, scale, 1)
    x = x / scale
    square = jnp.sum(x * x, axis, keepdims=True)
    square = jnp.maximum(square, jnp.square(least / scale))
    zero = square == 0
    return jnp.where(zero, 0, x / jnp.sqrt(jnp.where(zero, 1, square)))

"""Losses of the probabilities of classes, given by their logits."""

import math

import jax
import jax.numpy as jnp

from ..settings import FINITE, FRACTION
from .arithmetic import below_top, log_total, masked, surprisal, weighted
from .inputs import Input, Reduction, at_label, axes, class_labels, loss

__all__ = [
    "poly_loss_cross_entropy",
    "safe_softmax_cross_entropy",
    "smooth_labels",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
]


@loss("logits", "labels", where="either")
def softmax_cross_entropy(
    logits: Input,
    labels: Input,
    axis: int | tuple[int, ...] | None = -1,
    where: Input | None = None,
    *,
    reduction: Reduction = None,
) -> jax.Array:
    """The cross-entropy of predicted and true probabilities of classes.

        loss = -sum_k labels_k log(p_k),  p = softmax(logits)

    A class of probability zero adds nothing, also where its logit is minus infinity.

    Args:
        logits: floats, `[..., classes]`.
        labels: the true probabilities, that broadcast with them.
        axis: the axis or axes of the classes; all of them if `None`.
        where: booleans: which classes there are, if they broadcast to the logits; or,
            in the shape of the losses, which examples count.
        reduction: what to make of the losses that count: their `"mean"` or `"sum"`,
            `[]`, or nothing if `None`.

    Returns:
        The losses, `[...]`, in the dtype of the floats given; zero where all is
        masked.

    Raises:
        ValueError: the shapes do not broadcast, or one of fewer dimensions stretches
            one of more; `axis` is out of bounds.
        TypeError: an argument is no array of real numbers, `logits` not of floats, or
            `where` not of booleans.

    Example:
        >>> logits = jnp.array([[0.0, 0.0], [9.0, -jnp.inf]])
        >>> labels = jnp.array([[0.5, 0.5], [1.0, 0.0]])
        >>> jopt.losses.softmax_cross_entropy(logits, labels)
        Array([0.6931472, 0.       ], dtype=float32)

    Reference:
        Goodfellow, Bengio & Courville, Deep Learning, 2016, section 6.2.2.3.
    """
    surprise = surprisal(logits, axis, where)
    return jnp.sum(weighted(labels, surprise), axis)


@loss("logits", "labels", axis=-1)
def safe_softmax_cross_entropy(
    logits: Input,
    labels: Input,
    *,
    where: Input | None = None,
    reduction: Reduction = None,
) -> jax.Array:
    """`softmax_cross_entropy` along the last axis, under the name it has in optax.

    There only this one is finite where logit and label say that a class cannot be;
    here both are.

    Args:
        logits: floats, `[..., classes]`.
        labels: the true probabilities, that broadcast with them.
        where: booleans that broadcast to the losses: which of them count. The others
            are zero.
        reduction: what to make of the losses that count: their `"mean"` or `"sum"`,
            `[]`, or nothing if `None`.

    Returns:
        The losses, `[...]`, in the dtype of the floats given.

    Raises:
        ValueError: as `softmax_cross_entropy`.
        TypeError: as `softmax_cross_entropy`.

    Example:
        >>> logits = jnp.array([9.0, -jnp.inf])
        >>> jopt.losses.safe_softmax_cross_entropy(logits, jnp.array([1.0, 0.0]))
        Array(0., dtype=float32)

    Reference:
        Goodfellow, Bengio & Courville, Deep Learning, 2016, section 6.2.2.3.
    """
    return softmax_cross_entropy(logits, labels)


@loss("logits", "labels", where="either", epsilon=FINITE)
def poly_loss_cross_entropy(
    logits: Input,
    labels: Input,
    *,
    epsilon: Input = 2.0,
    axis: int | tuple[int, ...] | None = -1,
    where: Input | None = None,
    reduction: Reduction = None,
) -> jax.Array:
    """The cross-entropy with the first term of its expansion in `1 - p` changed.

        loss = sum_k labels_k (-log(p_k) + epsilon (1 - p_k)),  p = softmax(logits)

    Args:
        logits: floats, `[..., classes]`.
        labels: the true probabilities, that broadcast with them.
        epsilon: the change of the first coefficient, at finite; below -1 the loss may
            be negative. The paper has 2 for ImageNet and -1 for detection.
        axis: the axis or axes of the classes; all of them if `None`.
        where: booleans: which classes there are, if they broadcast to the logits; or,
            in the shape of the losses, which examples count.
        reduction: what to make of the losses that count: their `"mean"` or `"sum"`,
            `[]`, or nothing if `None`.

    Returns:
        The losses, `[...]`, in the dtype of `logits` and `labels`; zero where all is
        masked.

    Raises:
        ValueError: as `softmax_cross_entropy`.
        TypeError: as `softmax_cross_entropy`.

    Example:
        >>> jopt.losses.poly_loss_cross_entropy(jnp.zeros(2), jnp.array([1.0, 0.0]))
        Array(1.6931472, dtype=float32)

    Reference:
        Leng et al., PolyLoss: A Polynomial Expansion Perspective of Classification Loss
        Functions, ICLR 2022, arXiv:2204.12511.
    """
    surprise = surprisal(logits, axis, where)
    first = -jnp.expm1(-surprise)  # 1 - p
    entropy = jnp.sum(weighted(labels, surprise), axis)
    return entropy + epsilon * jnp.sum(labels * first, axis)


@loss("logits", where="either")
def softmax_cross_entropy_with_integer_labels(
    logits: Input,
    labels: Input,
    axis: int | tuple[int, ...] = -1,
    where: Input | None = None,
    *,
    reduction: Reduction = None,
) -> jax.Array:
    """The cross-entropy of predicted probabilities and the number of the true class.

        loss = -log(p[labels]),  p = softmax(logits)

    Args:
        logits: floats, `[..., classes]`.
        labels: integers from 0 to `classes - 1`, `[...]`. Negative ones count from the
            end; the loss of others is NaN.
        axis: the axis of the classes. If there are several, a label is the place in
            the row-major order of these axes, as they are given.
        where: booleans: which classes there are, if they broadcast to the logits; or,
            in the shape of the losses, which examples count.
        reduction: what to make of the losses that count: their `"mean"` or `"sum"`,
            `[]`, or nothing if `None`.

    Returns:
        The losses, `[...]`, in the dtype of the logits. Zero where the true class is
        masked, as with one-hot labels, so that no loss is negative.

    Raises:
        ValueError: `labels` have not the shape of the logits without classes; `where`
            broadcasts to neither; `axis` is out of bounds.
        TypeError: `labels` are not integers, `logits` not floats, or `where` not
            booleans.

    Example:
        >>> loss = jopt.losses.softmax_cross_entropy_with_integer_labels
        >>> loss(jnp.array([[0.0, 0.0], [9.0, -jnp.inf]]), jnp.array([1, 0]))
        Array([0.6931472, 0.       ], dtype=float32)

    Reference:
        Goodfellow, Bengio & Courville, Deep Learning, 2016, section 6.2.2.3.
    """
    classes = axes("softmax_cross_entropy_with_integer_labels", axis, logits.ndim)
    kept = tuple(i for i in range(logits.ndim) if i not in classes)
    shape = tuple(logits.shape[i] for i in kept)
    labels = class_labels(
        "softmax_cross_entropy_with_integer_labels", labels, "logits", shape
    )

    n = math.prod(logits.shape[i] for i in classes)

    def flat(x):
        return jnp.transpose(x, kept + classes).reshape(*shape, n)

    logits = flat(logits)
    where = None if where is None else flat(where)
    top, rest = log_total(logits, -1, where)
    value = jnp.squeeze(rest - below_top(at_label(logits, labels), top), -1)
    if where is None:
        return value
    return jnp.where(jnp.squeeze(at_label(where, labels), -1), value, 0)


@loss("labels", integers=True, elementwise=True, where="counted", alpha=FRACTION)
def smooth_labels(
    labels: Input,
    alpha: Input,
    *,
    axis: int | tuple[int, ...] | None = -1,
    where: Input | None = None,
) -> jax.Array:
    """Labels mixed with the uniform distribution.

        smooth = (1 - alpha) labels + alpha / n

    with `n` the number of classes, of those that `where` leaves.

    Args:
        labels: probabilities, one-hot usually, `[..., classes]`.
        alpha: how much is mixed in, in [0, 1].
        axis: the axis or axes of the classes; all of them if `None`.
        where: booleans that broadcast to the labels: which classes there are. Masked
            ones are smoothed as the others, for the loss to mask.

    Returns:
        The labels in their shape and dtype, of floats if they are integers.

    Raises:
        ValueError: `where` does not broadcast to the labels; `axis` is out of bounds.
        TypeError: `labels` are not numbers, or `where` not booleans.

    Example:
        >>> jopt.losses.smooth_labels(jnp.array([0.0, 1.0]), 0.1)
        Array([0.05, 0.95], dtype=float32)

    Reference:
        Müller, Kornblith & Hinton, When Does Label Smoothing Help?, NeurIPS 2019,
        arXiv:1906.02629.
    """
    counted = masked(jnp.ones_like(labels), where)
    n = jnp.maximum(jnp.sum(counted, axis, keepdims=True), 1)
    return (1 - alpha) * labels + alpha / n

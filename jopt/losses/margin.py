"""Losses of scores: how far the right one leads, or falls short."""

import jax
import jax.numpy as jnp

from .arithmetic import below_top
from .inputs import Input, Reduction, at_label, class_labels, loss

__all__ = [
    "hinge_loss",
    "multiclass_hinge_loss",
    "multiclass_perceptron_loss",
    "perceptron_loss",
]


@loss("predictor_outputs", "targets", integers=True)
def hinge_loss(
    predictor_outputs: Input,
    targets: Input,
    *,
    where: Input | None = None,
    reduction: Reduction = None,
) -> jax.Array:
    """By how much a score on the right side is less than one.

        loss = max(0, 1 - targets predictor_outputs)

    Args:
        predictor_outputs: scores, `[...]`.
        targets: the true sides, -1 or 1, that broadcast with them.
        where: booleans that broadcast to the losses: which of them count. The others
            are zero.
        reduction: what to make of the losses that count: their `"mean"` or `"sum"`,
            `[]`, or nothing if `None`.

    Returns:
        The losses, `[...]`, in the dtype of the floats given, the default one if there
        are only integers.

    Raises:
        ValueError: the shapes do not broadcast, or one of fewer dimensions stretches
            one of more.
        TypeError: an argument is no array of real numbers.

    Example:
        >>> jopt.losses.hinge_loss(jnp.array([3.0, 0.5, 2.0]), jnp.array([1, 1, -1]))
        Array([0. , 0.5, 3. ], dtype=float32)

    Reference:
        Cortes & Vapnik, Support-Vector Networks, Machine Learning, 1995.
    """
    return jnp.maximum(0, 1 - targets * predictor_outputs)


@loss("predictor_outputs", "targets", integers=True, equal=True)
def perceptron_loss(
    predictor_outputs: Input,
    targets: Input,
    *,
    where: Input | None = None,
    reduction: Reduction = None,
) -> jax.Array:
    """By how much a score is on the wrong side.

        loss = max(0, -targets predictor_outputs)

    Args:
        predictor_outputs: scores, `[...]`.
        targets: the true sides, -1 or 1, in the same shape.
        where: booleans that broadcast to the losses: which of them count. The others
            are zero.
        reduction: what to make of the losses that count: their `"mean"` or `"sum"`,
            `[]`, or nothing if `None`.

    Returns:
        The losses, `[...]`, in the dtype of the floats given, the default one if there
        are only integers.

    Raises:
        ValueError: the shapes differ.
        TypeError: an argument is no array of real numbers.

    Example:
        >>> scores, sides = jnp.array([3.0, 0.5, 2.0]), jnp.array([1, -1, -1])
        >>> jopt.losses.perceptron_loss(scores, sides)
        Array([0. , 0.5, 2. ], dtype=float32)

    Reference:
        Rosenblatt, The Perceptron, Psychological Review, 1958.
    """
    return jnp.maximum(0, -targets * predictor_outputs)


@loss("scores", integers=True, axis=-1)
def multiclass_hinge_loss(
    scores: Input,
    labels: Input,
    *,
    where: Input | None = None,
    reduction: Reduction = None,
) -> jax.Array:
    """By how much the true class leads any other one by less than one.

        loss = max_k (scores_k + [k != labels]) - scores[labels]

    Args:
        scores: one for each class, `[..., classes]`.
        labels: integers from 0 to `classes - 1`, `[...]`. Negative ones count from the
            end; the loss of others is NaN.
        where: booleans that broadcast to the losses: which of them count. The others
            are zero.
        reduction: what to make of the losses that count: their `"mean"` or `"sum"`,
            `[]`, or nothing if `None`.

    Returns:
        The losses, `[...]`, not negative, in the dtype of the scores, the default one
        of floats if these are integers.

    Raises:
        ValueError: `labels` have not the shape of the scores without classes.
        TypeError: `labels` are not integers, or `scores` not real numbers.

    Example:
        >>> jopt.losses.multiclass_hinge_loss(jnp.array([1.0, 3.0, 2.5]), 1)
        Array(0.5, dtype=float32)

    Reference:
        Crammer & Singer, On the Algorithmic Implementation of Multiclass Kernel-based
        Vector Machines, JMLR 2001.
    """
    labels = class_labels("multiclass_hinge_loss", labels, "scores", scores.shape[:-1])
    n = scores.shape[-1]
    true = jnp.where(labels < 0, labels + n, labels)
    classes = jax.lax.broadcasted_iota(
        true.dtype, (1,) * (scores.ndim - 1) + (n,), scores.ndim - 1
    )
    return _lead(jnp.where(classes == true, scores, scores + 1), scores, labels)


@loss("scores", integers=True, axis=-1)
def multiclass_perceptron_loss(
    scores: Input,
    labels: Input,
    *,
    where: Input | None = None,
    reduction: Reduction = None,
) -> jax.Array:
    """By how much another class leads the true one.

        loss = max_k scores_k - scores[labels]

    Args:
        scores: one for each class, `[..., classes]`.
        labels: integers from 0 to `classes - 1`, `[...]`. Negative ones count from the
            end; the loss of others is NaN.
        where: booleans that broadcast to the losses: which of them count. The others
            are zero.
        reduction: what to make of the losses that count: their `"mean"` or `"sum"`,
            `[]`, or nothing if `None`.

    Returns:
        The losses, `[...]`, not negative, in the dtype of the scores, the default one
        of floats if these are integers.

    Raises:
        ValueError: `labels` have not the shape of the scores without classes.
        TypeError: `labels` are not integers, or `scores` not real numbers.

    Example:
        >>> jopt.losses.multiclass_perceptron_loss(jnp.array([1.0, 3.0, 2.5]), 2)
        Array(0.5, dtype=float32)

    Reference:
        Collins, Discriminative Training Methods for Hidden Markov Models, EMNLP 2002.
    """
    labels = class_labels(
        "multiclass_perceptron_loss", labels, "scores", scores.shape[:-1]
    )
    return _lead(scores, scores, labels)


def _lead(others, scores, labels):
    """How far the largest of others is above the score of the label."""
    top = jnp.max(others, -1, keepdims=True)
    return -jnp.squeeze(below_top(at_label(scores, labels), top), -1)

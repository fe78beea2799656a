"""Losses of the probability of yes, given by its logit."""

import jax

from ..settings import FRACTION, NOT_NEGATIVE
from .arithmetic import power, weighted
from .inputs import Input, Reduction, loss

__all__ = [
    "sigmoid_binary_cross_entropy",
    "sigmoid_focal_loss",
]


@loss("logits", "labels")
def sigmoid_binary_cross_entropy(
    logits: Input,
    labels: Input,
    *,
    where: Input | None = None,
    reduction: Reduction = None,
) -> jax.Array:
    """The cross-entropy of each yes-or-no prediction.

        loss = -labels log(p) - (1 - labels) log(1 - p),  p = sigmoid(logits)

    An infinite logit that agrees with its label has loss zero.

    Args:
        logits: floats, `[...]`.
        labels: the probabilities of yes, in [0, 1], that broadcast with them.
        where: booleans that broadcast to the losses: which of them count. The others
            are zero.
        reduction: what to make of the losses that count: their `"mean"` or `"sum"`,
            `[]`, or nothing if `None`.

    Returns:
        The losses, `[...]`, in the dtype of the floats given.

    Raises:
        ValueError: the shapes do not broadcast, or one of fewer dimensions stretches
            one of more.
        TypeError: an argument is no array of real numbers, or `logits` not of floats.

    Example:
        >>> logits = jnp.array([0.0, jnp.inf])
        >>> jopt.losses.sigmoid_binary_cross_entropy(logits, jnp.array([1, 1]))
        Array([0.6931472, 0.       ], dtype=float32)

    Reference:
        Goodfellow, Bengio & Courville, Deep Learning, 2016, section 6.2.2.2.
    """
    return _cross_entropy(logits, labels)


def _cross_entropy(logits, labels):
    no = weighted(1 - labels, jax.nn.softplus(logits))
    return weighted(labels, jax.nn.softplus(-logits)) + no


@loss("logits", "labels", elementwise=True, alpha=FRACTION, gamma=NOT_NEGATIVE)
def sigmoid_focal_loss(
    logits: Input,
    labels: Input,
    *,
    alpha: Input | None = None,
    gamma: Input = 2.0,
    where: Input | None = None,
    reduction: Reduction = None,
) -> jax.Array:
    """The cross-entropy of each yes-or-no prediction, less of it for easy ones.

        loss = alpha_t (1 - p_t)^gamma BCE(logits, labels)
        1 - p_t = labels (1 - p) + (1 - labels) p,  p = sigmoid(logits)
        alpha_t = labels alpha + (1 - labels) (1 - alpha), or 1

    Args:
        logits: floats, `[...]`.
        labels: the probabilities of yes, in [0, 1], that broadcast with them.
        alpha: the weight of yes, in [0, 1]; that of no is `1 - alpha`. None of both if
            `None`.
        gamma: how strongly easy predictions count less, not negative.
        where: booleans that broadcast to the losses: which of them count. The others
            are zero.
        reduction: what to make of the losses that count: their `"mean"` or `"sum"`,
            `[]`, or nothing if `None`.

    Returns:
        The losses, `[...]`, in the dtype of `logits` and `labels`.

    Raises:
        ValueError: as `sigmoid_binary_cross_entropy`.
        TypeError: as `sigmoid_binary_cross_entropy`.

    Example:
        >>> logits, labels = jnp.array([0.0, 4.0]), jnp.array([1, 1])
        >>> jopt.losses.sigmoid_focal_loss(logits, labels).round(5)
        Array([1.7329e-01, 1.0000e-05], dtype=float32)

    Reference:
        Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, arXiv:1708.02002.
    """
    wrong = labels * jax.nn.sigmoid(-logits) + (1 - labels) * jax.nn.sigmoid(logits)
    value = weighted(power(wrong, gamma), _cross_entropy(logits, labels))
    if alpha is None:
        return value
    return (labels * alpha + (1 - labels) * (1 - alpha)) * value

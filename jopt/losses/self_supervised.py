"""Losses of embeddings: like ones near, unlike ones far."""

import jax
import jax.numpy as jnp

from ..settings import NOT_NEGATIVE, POSITIVE, check_number
from ..words import spell
from .arithmetic import log_total, masked, power
from .inputs import Input, Reduction, loss, real
from .regression import unit

__all__ = ["ntxent", "triplet_margin_loss"]


@loss("embeddings", temperature=POSITIVE)
def ntxent(embeddings: Input, labels: Input, temperature: Input = 0.07) -> jax.Array:
    """The cross-entropy of finding a like embedding among the unlike ones.

        loss = mean over pairs i != j of one label of
               -log(exp(s_ij) / (exp(s_ij) + sum_k exp(s_ik)))
        s = cosine_similarity / temperature, k over the other labels

    Args:
        embeddings: floats, `[batch, dim]`.
        labels: what is alike, `[batch]`.
        temperature: positive; the smaller, the more the nearest unlike ones count.

    Returns:
        The loss, `[]`, not negative, in the dtype of the embeddings; zero if no two
        labels are equal.

    Raises:
        ValueError: the shapes are not `[batch, dim]` and `[batch]`.
        TypeError: `embeddings` are not of floats, or `labels` not real numbers.

    Example:
        >>> embeddings = jnp.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
        >>> jopt.losses.ntxent(embeddings, jnp.array([0, 0, 1]), temperature=1.0)
        Array(0.3132617, dtype=float32)

    Reference:
        Chen et al., A Simple Framework for Contrastive Learning of Visual
        Representations, ICML 2020, arXiv:2002.05709.
    """
    labels = real("ntxent", "labels", labels)
    if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1]:
        raise ValueError(
            "ntxent: embeddings must be [batch, dim] and labels [batch], got "
            f"{spell(embeddings)} and {spell(labels)}"
        )
    u = unit(embeddings)
    s = jnp.matmul(u, u.T, precision="highest") / temperature
    alike = labels[:, None] == labels[None]
    top, rest = log_total(s, 1, ~alike)
    unlike = jnp.where(jnp.all(alike, 1, keepdims=True), -jnp.inf, top + rest)
    pairs = alike & ~jnp.eye(len(labels), dtype=bool)
    total = jnp.sum(masked(jax.nn.softplus(unlike - s), pairs))
    return total / jnp.maximum(jnp.sum(pairs, dtype=s.dtype), 1)


@loss("anchors", "positives", "negatives", margin=NOT_NEGATIVE, eps=NOT_NEGATIVE)
def triplet_margin_loss(
    anchors: Input,
    positives: Input,
    negatives: Input,
    axis: int | tuple[int, ...] = -1,
    norm_degree: Input = 2,
    margin: Input = 1.0,
    eps: Input = 1e-6,
    *,
    where: Input | None = None,
    reduction: Reduction = None,
) -> jax.Array:
    """By how much less than a margin an anchor is nearer to its like than its unlike.

        loss = max(0, d(anchors, positives) - d(anchors, negatives) + margin)
        d(x, y) = (sum_i |x_i - y_i|^n + eps)^(1 / n),  n = norm_degree

    Args:
        anchors: floats, `[..., dim]`.
        positives: embeddings like them, that broadcast with them.
        negatives: embeddings unlike them, that broadcast with them.
        axis: the axis or axes of an embedding.
        norm_degree: the degree of the norm, positive. optax leaves out the absolute
            value, and is wrong for any but even integers.
        margin: by how much the unlike must be farther away.
        eps: added under the root, not negative.
        where: booleans that broadcast to the losses: which of them count. The others
            are zero.
        reduction: what to make of the losses that count: their `"mean"` or `"sum"`,
            `[]`, or nothing if `None`.

    Returns:
        The losses, `[...]`, in the dtype of the embeddings.

    Raises:
        ValueError: the shapes do not broadcast, or one of fewer dimensions stretches
            one of more; `axis` is out of bounds.
        TypeError: an argument is no array of real numbers, or `anchors` not of floats.

    Example:
        >>> x, y = jnp.array([0.0, 0.0]), jnp.array([3.0, 4.0])
        >>> jopt.losses.triplet_margin_loss(x, x, y, margin=7.0)
        Array(2.001, dtype=float32)

    Reference:
        Schroff, Kalenichenko & Philbin, FaceNet: A Unified Embedding for Face
        Recognition and Clustering, CVPR 2015, arXiv:1503.03832.
    """

    check_number("triplet_margin_loss", "norm_degree", norm_degree, POSITIVE)
    n = norm_degree
    if not isinstance(n, (int, float)):  # a static degree compiles to products
        n = jnp.asarray(n, anchors.dtype)

    def distance(x):
        return power(jnp.sum(power(jnp.abs(anchors - x), n), axis) + eps, 1 / n)

    return jnp.maximum(0, distance(positives) - distance(negatives) + margin)

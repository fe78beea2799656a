"""Losses made from a maximum over outputs, and those of the sparsemax."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..projections.balls import on_simplex
from ..settings import check_function
from ..words import spell
from .arithmetic import below_top, weighted, within
from .inputs import Input, Reduction, at_label, class_labels, loss

__all__ = ["make_fenchel_young_loss", "multiclass_sparsemax_loss", "sparsemax_loss"]


def make_fenchel_young_loss(max_fun: Callable[..., Input]) -> Callable[..., jax.Array]:
    """A loss from the largest regularized score over all outputs.

        loss(scores, targets) = max_fun(scores) - <targets, scores>
        max_fun(scores) = max_y <y, scores> - omega(y)

    Its derivative is the maximizer minus the target. It is not negative for targets of
    zero `omega`, such as one-hot ones for the entropy.

    Args:
        max_fun: a function of one vector of scores, and of what else the loss is
            called with, to a scalar; `jax.nn.logsumexp` makes the cross-entropy.

    Returns:
        `loss(scores, targets, *args, **kwargs)`: scores `[..., n]` and targets that
        broadcast with them make `[...]`.

    Raises:
        TypeError: `max_fun` cannot be called; from the loss, the scores are not floats.
        ValueError: from the loss, the shapes do not broadcast, or one of fewer
            dimensions stretches one of more.

    Example:
        >>> loss = jopt.losses.make_fenchel_young_loss(jax.nn.logsumexp)
        >>> loss(jnp.array([0.0, 0.0]), jnp.array([1.0, 0.0]))
        Array(0.6931472, dtype=float32)

    Reference:
        Blondel, Martins & Niculae, Learning with Fenchel-Young Losses, JMLR 2020,
        arXiv:1901.02324.
    """
    check_function("make_fenchel_young_loss", "max_fun", max_fun)

    @loss("scores", "targets", axis=-1)
    def fenchel_young_loss(
        scores: Input, targets: Input, *args: Any, **kwargs: Any
    ) -> jax.Array:
        def highest(vector):
            value = jnp.asarray(max_fun(vector, *args, **kwargs), vector.dtype)
            if value.ndim:
                raise ValueError(
                    "fenchel_young_loss: max_fun must return a scalar, it returned "
                    f"{spell(value)} for {spell(vector)}"
                )
            return value

        product = jnp.sum(weighted(targets, scores), -1)
        return jnp.vectorize(highest, signature="(n)->()")(scores) - product

    return fenchel_young_loss


@loss("logits", "labels")
def sparsemax_loss(
    logits: Input,
    labels: Input,
    *,
    where: Input | None = None,
    reduction: Reduction = None,
) -> jax.Array:
    """The sparsemax loss of each yes-or-no prediction, zero if it is sure enough.

        loss = (1 - labels) f(logits) + labels f(-logits)
        f(x) = 0                if x <= -1
               (x + 1)^2 / 4    between
               x                if x >= 1

    Args:
        logits: floats, `[...]`.
        labels: no or yes, 0 or 1, that broadcast with them.
        where: booleans that broadcast to the losses: which of them count. The others
            are zero.
        reduction: what to make of the losses that count: their `"mean"` or `"sum"`,
            `[]`, or nothing if `None`.

    Returns:
        The losses, `[...]`, not negative, in the dtype of the floats given.

    Raises:
        ValueError: the shapes do not broadcast, or one of fewer dimensions stretches
            one of more.
        TypeError: an argument is no array of real numbers, or `logits` not of floats.

    Example:
        >>> jopt.losses.sparsemax_loss(jnp.array([2.0, 0.0, 2.0]), jnp.array([1, 1, 0]))
        Array([0.  , 0.25, 2.  ], dtype=float32)

    Reference:
        Blondel, Martins & Niculae, Learning with Fenchel-Young Losses, JMLR 2020,
        arXiv:1901.02324, section 4.4.
    """
    no = weighted(1 - labels, _sparse_plus(logits))
    return no + weighted(labels, _sparse_plus(-logits))


def _sparse_plus(x):
    near = jnp.clip(x, -1, 1)
    return jnp.square(near + 1) / 4 + jnp.maximum(x - 1, 0)


@loss("scores", integers=True, axis=-1)
def multiclass_sparsemax_loss(
    scores: Input,
    labels: Input,
    *,
    where: Input | None = None,
    reduction: Reduction = None,
) -> jax.Array:
    """The sparsemax loss: zero as soon as the true class leads all others by one.

        loss = <p, scores> - |p|^2 / 2 + 1 / 2 - scores[labels],  p = sparsemax(scores)

    where the sparsemax is the nearest point of the simplex. The derivative is
    `p - one_hot(labels)`.

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
        >>> scores = jnp.array([[2.0, 0.5], [0.0, 0.0]])
        >>> jopt.losses.multiclass_sparsemax_loss(scores, jnp.array([0, 0]))
        Array([0.  , 0.25], dtype=float32)

    Reference:
        Martins & Astudillo, From Softmax to Sparsemax: A Sparse Model of Attention and
        Multi-Label Classification, ICML 2016, arXiv:1602.02068.
    """
    shape = scores.shape[:-1]
    labels = class_labels("multiclass_sparsemax_loss", labels, "scores", shape)
    # Only differences matter; from the top no infinite one is met, nor cancellation.
    top = jax.lax.stop_gradient(jnp.max(scores, -1, keepdims=True))
    scores = below_top(scores, top)
    p = on_simplex(scores)
    best = jnp.sum(weighted(p, scores) - p * p / 2, -1) + 0.5
    return within(best - jnp.squeeze(at_label(scores, labels), -1), 0)

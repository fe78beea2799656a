"""Connectionist temporal classification: sequences whose alignment is not known."""

import jax
import jax.numpy as jnp

from ..settings import Range, check_integer
from ..words import spell
from .arithmetic import log_add, surprisal, within
from .inputs import Input, Reduction, loss, real

__all__ = ["ctc_loss", "ctc_loss_with_forward_probs"]

_EPSILON = Range(high=0, finite=False)


@loss("logits", axis=(1, 2), finite=True, log_epsilon=_EPSILON)
def ctc_loss(
    logits: Input,
    logit_paddings: Input,
    labels: Input,
    label_paddings: Input,
    *,
    blank_id: int = 0,
    log_epsilon: Input = -1e5,
    where: Input | None = None,
    reduction: Reduction = None,
) -> jax.Array:
    """Minus the logarithm of the probability of a sequence, over all its alignments.

        loss = -log sum over paths of prod_t p[t, path_t],  p = softmax(logits)

    A path names a class for each frame. It spells the labels once repeated classes are
    merged and blanks removed.

    Args:
        logits: floats, `[batch, frames, classes]`.
        logit_paddings: 1 where a frame is padding, else 0, `[batch, frames]`.
        labels: integers from 0 to `classes - 1`, `[batch, n]`.
        label_paddings: 1 where a label is padding, else 0, `[batch, n]`; all padding of
            a sequence is at its end.
        blank_id: the class of the blank, from 0 to `classes - 1`.
        log_epsilon: what the logarithm of zero counts as, not positive: so that the
            loss of labels that the frames cannot spell is large and not infinite. Its
            gradient is zero. No other probability is changed by it, small as it may be.
        where: booleans that broadcast to the losses: which of them count. The others
            are zero.
        reduction: what to make of the losses that count: their `"mean"` or `"sum"`,
            `[]`, or nothing if `None`.

    Returns:
        The losses, `[batch]`, never negative, in the dtype of the logits; a loss beyond
        what 16 bits hold is the largest number that they do. NaN if a label is out of
        range.

    Raises:
        ValueError: the shapes do not fit, or `blank_id` is out of range.
        TypeError: `logits` are not floats, `labels` or `blank_id` no integers.

    Example:
        >>> logits = jnp.log(jnp.array([[[0.25, 0.75], [0.5, 0.5]]]))
        >>> none = jnp.zeros((1, 2)), jnp.zeros((1, 1))
        >>> loss = jopt.losses.ctc_loss(logits, none[0], jnp.array([[1]]), none[1])
        >>> jnp.exp(-loss)  # 1 and blank, blank and 1, 1 and 1
        Array([0.875], dtype=float32)

    Reference:
        Graves, Fernández, Gomez & Schmidhuber, Connectionist Temporal Classification,
        ICML 2006.
    """
    return ctc_loss_with_forward_probs(
        logits,
        logit_paddings,
        labels,
        label_paddings,
        blank_id=blank_id,
        log_epsilon=log_epsilon,
    )[0]


@loss("logits", finite=True, log_epsilon=_EPSILON)
def ctc_loss_with_forward_probs(
    logits: Input,
    logit_paddings: Input,
    labels: Input,
    label_paddings: Input,
    *,
    blank_id: int = 0,
    log_epsilon: Input = -1e5,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`ctc_loss`, with the probabilities of the beginnings of its paths.

    After frame `t` a path has spelt `n` labels and ended with a blank, or with label
    `n` itself:

        blank[t, n] = p[t, blank] (blank[t-1, n] + label[t-1, n])
        label[t, n] = p[t, y_n] (label[t-1, n] + blank[t-1, n-1]
                                 + label[t-1, n-1] if y_n != y_{n-1})

    Args:
        logits: floats, `[batch, frames, classes]`.
        logit_paddings: 1 where a frame is padding, else 0, `[batch, frames]`.
        labels: integers from 0 to `classes - 1`, `[batch, n]`.
        label_paddings: 1 where a label is padding, else 0, `[batch, n]`.
        blank_id: the class of the blank, from 0 to `classes - 1`.
        log_epsilon: what the logarithm of zero counts as, not positive.

    Returns:
        The losses `[batch]`, the logarithms of `blank`, `[frames, batch, n + 1]`, and
        those of `label`, `[frames, batch, n]`, in the dtype of the logits. As in optax
        the last frame of `blank` also has the paths that end with label `n`: minus the
        loss stands there, at the number of labels.

    Raises:
        ValueError: as `ctc_loss`.
        TypeError: as `ctc_loss`.

    Example:
        >>> loss, blank, label = jopt.losses.ctc_loss_with_forward_probs(
        ...     jnp.zeros((1, 4, 3)), jnp.zeros((1, 4)), jnp.array([[1, 2]]),
        ...     jnp.zeros((1, 2)))
        >>> blank.shape, label.shape
        ((4, 1, 3), (4, 1, 2))

    Reference:
        Graves, Fernández, Gomez & Schmidhuber, Connectionist Temporal Classification,
        ICML 2006, section 4.1.
    """
    name = "ctc_loss"
    logit_paddings, labels, label_paddings = _read(
        name, logits, logit_paddings, labels, label_paddings, blank_id
    )
    classes = logits.shape[-1]
    # Labels in padding play no part; those out of range become NaN, negative ones too.
    inside = jnp.clip(labels, 0, classes - 1)
    outside = jnp.where(labels < 0, classes, labels)
    labels = jnp.where(label_paddings, inside, outside)

    log_p = -surprisal(logits, -1)
    log_blank = log_p[..., blank_id]
    log_label = jnp.take_along_axis(
        log_p, labels[:, None], -1, mode="fill", fill_value=jnp.nan
    )
    repeated = labels[:, 1:] == labels[:, :-1]

    def step(state, frame):
        blank, label = state
        log_blank, log_label, padded = frame
        ended = log_add(blank[:, 1:], label)  # n labels, whatever the end
        after = jnp.where(repeated, blank[:, 1:-1], ended[:, :-1])
        start = jnp.concatenate([blank[:, :1], after], 1)[:, : label.shape[1]]
        new = (
            log_blank[:, None] + jnp.concatenate([blank[:, :1], ended], 1),
            log_label + log_add(label, start),
        )
        new, top = _below_largest(*new)
        keep = padded[:, None]
        state = jax.tree.map(lambda now, old: jnp.where(keep, old, now), new, state)
        return state, (*state, jnp.where(keep, 0, top))

    batch, n = labels.shape
    label = jnp.full((batch, n), -jnp.inf, log_p.dtype)
    blank = jnp.concatenate([jnp.zeros((batch, 1), log_p.dtype), label], 1)
    frames = (log_blank.T, jnp.swapaxes(log_label, 0, 1), logit_paddings.T)
    (blank, label), (blanks, ends, tops) = jax.lax.scan(step, (blank, label), frames)

    total = jnp.concatenate([blank[:, :1], log_add(blank[:, 1:], label)], 1)
    tops = jnp.cumsum(tops, 0)  # of many frames: a tree of sums, which rounds least
    blanks = jnp.concatenate([blanks[:-1], total[None]]) + tops
    length = jnp.sum(~label_paddings, 1, keepdims=True)
    log_probability = jnp.take_along_axis(blanks[-1], length, 1)[:, 0]
    loss, blanks, ends = (
        jnp.where(x == -jnp.inf, log_epsilon, x)
        for x in (log_probability, blanks, ends + tops)
    )
    return within(-loss, 0), blanks, ends


def _below_largest(
    blank: jax.Array, label: jax.Array
) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    """The logarithms less the largest of each sequence, and that, `[batch, 1]`.

    Those of the paths that count stay near zero, where floats are dense: after a
    thousand frames the logarithms themselves are some thousands, and their differences
    lose three digits. As it is added again, the derivative does not see it.
    """
    top = jnp.maximum(jnp.max(blank, 1), jnp.max(label, 1, initial=-jnp.inf))
    top = jax.lax.stop_gradient(jnp.where(top == -jnp.inf, 0, top))[:, None]
    return (blank - top, label - top), top


def _read(where, logits, logit_paddings, labels, label_paddings, blank_id):
    """The paddings as booleans and the labels, if the shapes fit."""
    if logits.ndim != 3 or not logits.shape[1]:
        raise ValueError(
            f"{where}: logits must be [batch, frames, classes] with a frame at least, "
            f"got {spell(logits)}"
        )
    check_integer(where, "blank_id", blank_id, 0)
    if blank_id >= logits.shape[-1]:
        raise ValueError(
            f"{where}: blank_id must be less than the {logits.shape[-1]} classes of "
            f"the logits, got {blank_id}"
        )
    labels = real(where, "labels", labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"{where}: labels must be integers, got {spell(labels)}")
    logit_paddings = real(where, "logit_paddings", logit_paddings)
    label_paddings = real(where, "label_paddings", label_paddings)
    batch, frames = logits.shape[:2]
    if labels.ndim != 2 or len(labels) != batch:
        raise ValueError(
            f"{where}: labels must be [batch, n] with the batch of {batch} that the "
            f"logits have, got {spell(labels)}"
        )
    if logit_paddings.shape != (batch, frames):
        raise ValueError(
            f"{where}: logit_paddings are {spell(logit_paddings)}, the logits "
            f"{spell(logits)}: the first two dimensions must be equal"
        )
    if label_paddings.shape != labels.shape:
        raise ValueError(
            f"{where}: label_paddings are {spell(label_paddings)}, the labels "
            f"{spell(labels)}: the shapes must be equal"
        )
    return logit_paddings > 0, labels.astype(int), label_paddings > 0

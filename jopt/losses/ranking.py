"""Losses of the order of the items of a list."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ..settings import check_function
from .arithmetic import surprisal, weighted
from .inputs import Input, loss

__all__ = ["ranking_softmax_loss"]


@loss("logits", "labels", "weights", where="elements", axis=-1)
def ranking_softmax_loss(
    logits: Input,
    labels: Input,
    *,
    where: Input | None = None,
    weights: Input | None = None,
    reduce_fn: Callable[..., Input] | None = jnp.mean,
) -> jax.Array:
    """The cross-entropy of the items' relevance and of the softmax of their scores.

        loss = -sum_i weights_i labels_i log(p_i),  p = softmax(logits)

    Args:
        logits: the scores of the items of each list, floats, `[..., items]`.
        labels: how relevant each item is, not negative.
        where: booleans: which items there are. Lists without one do not count.
        weights: the weights of the items; ones if `None`.
        reduce_fn: what to make of the losses of the lists, called with them and with
            `where`, which is `None` or says which lists have an item (all, if none has
            one). `jnp.mean` and `jnp.sum` are such functions; `None` leaves the losses
            as they are.

    Returns:
        The loss, `[]`, or `[...]` if `reduce_fn` is `None`, in the dtype of the floats
        given; zero if there is no item.

    Raises:
        ValueError: the shapes do not broadcast, or one of fewer dimensions stretches
            one of more.
        TypeError: an argument is no array of real numbers, `logits` not of floats, or
            `where` not of booleans.

    Example:
        >>> jopt.losses.ranking_softmax_loss(jnp.zeros(4), jnp.array([1, 0, 0, 0]))
        Array(1.3862944, dtype=float32)

    Reference:
        Cao et al., Learning to Rank: From Pairwise Approach to Listwise Approach,
        ICML 2007.
    """
    if reduce_fn is not None:
        check_function("ranking_softmax_loss", "reduce_fn", reduce_fn)
    surprise = surprisal(logits, -1, where)
    relevance = labels if weights is None else labels * weights
    losses = jnp.sum(weighted(relevance, surprise), -1)
    if reduce_fn is None:
        return losses
    if where is not None:
        where = jnp.any(where, -1)
        where = where | ~jnp.any(where)  # a mean of nothing would be NaN
    return jnp.asarray(reduce_fn(losses, where=where))

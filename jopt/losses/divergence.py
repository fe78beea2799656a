"""How far a predicted distribution is from the true one."""

import jax
import jax.numpy as jnp

from ..deprecated import deprecated
from .arithmetic import masked, within
from .inputs import Input, Reduction, loss

__all__ = [
    "convex_kl_divergence",
    "generalized_kl_divergence",
    "kl_divergence",
    "kl_divergence_with_log_targets",
]


@loss("log_predictions", "targets", where="elements")
def kl_divergence(
    log_predictions: Input,
    targets: Input,
    axis: int | tuple[int, ...] | None = -1,
    where: Input | None = None,
    *,
    reduction: Reduction = None,
) -> jax.Array:
    """The Kullback-Leibler divergence of a prediction from the true distribution.

        loss = sum_k t_k (log(t_k) - log_p_k)

    with `0 log(0) = 0`, whatever the prediction there, and derivative zero. Not
    negative, but for rounding, if both sum to one; for others it may be.
    `generalized_kl_divergence` never is.

    Args:
        log_predictions: logarithms of predicted probabilities, floats, `[..., dim]`.
        targets: the true probabilities, that broadcast with them.
        axis: the axis or axes of a distribution; all of them if `None`.
        where: booleans that broadcast to the elements: which of them count.
        reduction: what to make of the losses that count: their `"mean"` or `"sum"`,
            `[]`, or nothing if `None`.

    Returns:
        The divergences, `[...]`, in the dtype of the floats given; zero where all is
        masked.

    Raises:
        ValueError: the shapes do not broadcast, or one of fewer dimensions stretches
            one of more; `axis` is out of bounds.
        TypeError: an argument is no array of real numbers, `log_predictions` not of
            floats, or `where` not of booleans.

    Example:
        >>> log_p = jnp.log(jnp.array([0.5, 0.5]))
        >>> jopt.losses.kl_divergence(log_p, jnp.array([1.0, 0.0]))
        Array(0.6931472, dtype=float32)

    Reference:
        Kullback & Leibler, On Information and Sufficiency, Annals of Mathematical
        Statistics, 1951.
    """
    return jnp.sum(_terms(log_predictions, targets), axis)


@loss("log_predictions", "log_targets", where="elements")
def kl_divergence_with_log_targets(
    log_predictions: Input,
    log_targets: Input,
    axis: int | tuple[int, ...] | None = -1,
    where: Input | None = None,
    *,
    reduction: Reduction = None,
) -> jax.Array:
    """The Kullback-Leibler divergence from a distribution given by its logarithm.

        loss = sum_k exp(log_t_k) (log_t_k - log_p_k)

    Args:
        log_predictions: logarithms of predicted probabilities, floats, `[..., dim]`.
        log_targets: those of the true ones, that broadcast with them; minus infinity
            adds nothing.
        axis: the axis or axes of a distribution; all of them if `None`.
        where: booleans that broadcast to the elements: which of them count.
        reduction: what to make of the losses that count: their `"mean"` or `"sum"`,
            `[]`, or nothing if `None`.

    Returns:
        The divergences, `[...]`, in the dtype of the floats given; zero where all is
        masked.

    Raises:
        ValueError: as `kl_divergence`.
        TypeError: as `kl_divergence`.

    Example:
        >>> log_p = jnp.log(jnp.array([0.5, 0.5]))
        >>> log_t = jnp.array([0.0, -jnp.inf])
        >>> jopt.losses.kl_divergence_with_log_targets(log_p, log_t)
        Array(0.6931472, dtype=float32)

    Reference:
        Kullback & Leibler, On Information and Sufficiency, Annals of Mathematical
        Statistics, 1951.
    """
    live = log_targets != -jnp.inf
    gap = jnp.where(live, log_targets - log_predictions, 0)
    return jnp.sum(jnp.exp(log_targets) * gap, axis)


@loss("log_predictions", "targets", where="elements")
def generalized_kl_divergence(
    log_predictions: Input,
    targets: Input,
    axis: int | tuple[int, ...] | None = -1,
    where: Input | None = None,
    *,
    reduction: Reduction = None,
) -> jax.Array:
    """The Kullback-Leibler divergence of measures that need not sum to one.

        loss = sum_k t_k (log(t_k) - log_p_k) - t_k + exp(log_p_k)

    No term is negative, and all are zero only where the measures are equal.

    Args:
        log_predictions: logarithms of the predicted masses, floats, `[..., dim]`.
        targets: the true masses, not negative, that broadcast with them.
        axis: the axis or axes of a measure; all of them if `None`.
        where: booleans that broadcast to the elements: which of them count.
        reduction: what to make of the losses that count: their `"mean"` or `"sum"`,
            `[]`, or nothing if `None`.

    Returns:
        The divergences, `[...]`, in the dtype of the floats given; zero where all is
        masked.

    Raises:
        ValueError: as `kl_divergence`.
        TypeError: as `kl_divergence`.

    Example:
        >>> log_p = jnp.log(jnp.array([0.5, 0.5]))
        >>> jopt.losses.generalized_kl_divergence(log_p, jnp.array([2.0, 0.5]))
        Array(1.2725887, dtype=float32)

    Reference:
        Boyd & Vandenberghe, Convex Optimization, 2004, page 90.
    """
    terms = _terms(log_predictions, targets) - targets + jnp.exp(log_predictions)
    return jnp.sum(masked(within(terms, 0), where), axis)


@deprecated("convex_kl_divergence", "generalized_kl_divergence")
def convex_kl_divergence(
    log_predictions: Input,
    targets: Input,
    axis: int | tuple[int, ...] | None = -1,
    where: Input | None = None,
    *,
    reduction: Reduction = None,
) -> jax.Array:
    """`generalized_kl_divergence` under an older name, which optax has deprecated.

    It warns when it is called.

    Args:
        log_predictions: logarithms of the predicted masses, floats, `[..., dim]`.
        targets: the true masses, not negative, that broadcast with them.
        axis: the axis or axes of a measure; all of them if `None`.
        where: booleans that broadcast to the elements: which of them count.
        reduction: what to make of the losses that count: their `"mean"` or `"sum"`,
            `[]`, or nothing if `None`.

    Returns:
        The divergences, `[...]`, as `generalized_kl_divergence`.

    Raises:
        ValueError: as `kl_divergence`.
        TypeError: as `kl_divergence`.

    Example:
        >>> log_p = jnp.log(jnp.array([0.5, 0.5]))
        >>> p = jnp.array([0.5, 0.5])
        >>> jopt.losses.generalized_kl_divergence(log_p, p)  # in its place
        Array(0., dtype=float32)

    Reference:
        Boyd & Vandenberghe, Convex Optimization, 2004, page 90.
    """
    return generalized_kl_divergence(
        log_predictions, targets, axis, where, reduction=reduction
    )


def _terms(log_p, t):
    live = t != 0
    return t * jnp.where(live, jnp.log(jnp.where(live, t, 1)) - log_p, 0)

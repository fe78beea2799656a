"""Fromage: steps relative to the norm of each leaf."""

from typing import Any

import jax

from ..base import GradientTransformationExtraArgs, MaskOrFn, PerLeaf
from ..engine import transformation
from ..kinds import is_schedule
from ..parts.combine import chain
from ..parts.decay import add_decayed_weights, decay_parts
from ..parts.scale import scale_by_learning_rate, scale_by_trust_ratio

__all__ = ["fromage"]


@transformation
def fromage(
    learning_rate: PerLeaf,
    min_norm: float = 1e-6,
    *,
    weight_decay: PerLeaf | None = None,
    mask: MaskOrFn = None,
) -> GradientTransformationExtraArgs:
    """Fromage: a step of a fixed fraction of each leaf's norm.

        p <- (p - learning_rate |p| / |g| g) / sqrt(1 + learning_rate^2)

    Args:
        learning_rate: as `descend` takes it.
        min_norm: lower bound of both norms, not negative.
        weight_decay, mask: as `descend` takes them, decoupled decay inside
            the parenthesis; no decay if `None`.

    Returns:
        A transformation whose state is `(EmptyState, EmptyState, EmptyState)`. The
        update needs the parameters.

    Example:
        >>> tx = jopt.fromage(0.01)

    Reference:
        Bernstein, Vahdat, Yue & Liu, On the distance between two neural networks and
        the stability of learning, NeurIPS 2020, arXiv:2002.03432.
    """
    before, beside, after = decay_parts(weight_decay, mask)
    return chain(
        *before,
        scale_by_trust_ratio(min_norm),
        *beside,
        scale_by_learning_rate(_share(learning_rate, 0)),
        add_decayed_weights(_share(learning_rate, 1)),
        *after,
    )


def _share(learning_rate: Any, i: int) -> Any:
    """One of the shares of every rate; of a schedule's, at each step."""

    def of(rate):
        return (lambda t: of(rate(t))) if is_schedule(rate) else _shares(rate)[i]

    return jax.tree.map(of, learning_rate)


def _shares(rate):
    """`rate / root` and `1 / root - 1` for `root = sqrt(1 + rate^2)`."""
    root = (1 + rate * rate) ** 0.5
    return rate / root, -rate * rate / (root * (1 + root))  # without cancellation

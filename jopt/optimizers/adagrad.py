"""Adagrad: the gradient over the root of the sum of its squares."""

from typing import NamedTuple

import jax.numpy as jnp

from ..base import GradientTransformationExtraArgs, MaskOrFn, PerLeaf, Updates
from ..engine import per_leaf, transformation
from ..numerics import abs_sq, bounded, finite, safe_sqrt
from ..parts.scale import descend
from ..settings import NOT_NEGATIVE

__all__ = ["ScaleByRssState", "adagrad", "scale_by_rss"]


class ScaleByRssState(NamedTuple):
    """The sum of the squared gradients."""

    sum_of_squares: Updates


@transformation(eps_outside=NOT_NEGATIVE)
def scale_by_rss(
    initial_accumulator_value: float = 0.1,
    eps: float = 1e-7,
    *,
    eps_outside: float = 0.0,
) -> GradientTransformationExtraArgs:
    """Adagrad's direction: the gradient over the root of the sum of its squares.

        sum <- sum + |g|^2
        u    = g / (sqrt(sum + eps) + eps_outside),  0 where sum is 0

    Args:
        initial_accumulator_value: where the sum starts, not negative.
        eps: added inside the root, not negative.
        eps_outside: added outside the root, not negative. PyTorch has 1e-10, with
            `eps = 0` and a sum that starts at 0.

    Returns:
        A transformation whose state is `ScaleByRssState(sum_of_squares)`, in the
        shapes of the parameters (memory: one copy).

    Example:
        >>> tx = jopt.scale_by_rss(initial_accumulator_value=0.0, eps=0.0)
        >>> tx.update(jnp.array([2.0, 0.0]), tx.init(jnp.zeros(2)))[0]
        Array([1., 0.], dtype=float32)

    Reference:
        Duchi, Hazan & Singer, Adaptive Subgradient Methods for Online Learning and
        Stochastic Optimization, JMLR 2011.
    """

    def init(p):
        zeros = abs_sq(jnp.zeros_like(p))
        return dict(sum_of_squares=zeros + initial_accumulator_value)

    def scale_by_rss(g, s, p):
        g = bounded(g)
        total = finite(s.sum_of_squares + abs_sq(g))
        root = safe_sqrt(total + eps) + eps_outside
        u = g / jnp.where(root == 0, 1, root)
        return u, s._replace(sum_of_squares=total)

    return per_leaf(ScaleByRssState, init, scale_by_rss)


@transformation(eps_outside=NOT_NEGATIVE)
def adagrad(
    learning_rate: PerLeaf,
    initial_accumulator_value: float = 0.1,
    eps: float = 1e-7,
    *,
    weight_decay: PerLeaf | None = None,
    mask: MaskOrFn = None,
    eps_outside: float = 0.0,
) -> GradientTransformationExtraArgs:
    """Adagrad: steps that shrink with all the gradients a coordinate has seen.

        p <- p - learning_rate u        with u of `scale_by_rss`

    Args:
        learning_rate: as `descend` takes it.
        initial_accumulator_value: where the sum of squares starts, not negative.
        eps: added inside the root, not negative.
        weight_decay, mask: as `descend` takes them; no decay if `None`.
        eps_outside: as `scale_by_rss` takes it. PyTorch's `lr_decay` is the schedule
            `lambda t: lr / (1 + lr_decay * t)`.

    Returns:
        A transformation whose state is `(ScaleByRssState, EmptyState)` (memory: one
        copy of the parameters).

    Example:
        >>> tx = jopt.adagrad(0.1)

    Reference:
        Duchi, Hazan & Singer, Adaptive Subgradient Methods for Online Learning and
        Stochastic Optimization, JMLR 2011.
    """
    direction = scale_by_rss(initial_accumulator_value, eps, eps_outside=eps_outside)
    return descend(direction, learning_rate, weight_decay, mask)

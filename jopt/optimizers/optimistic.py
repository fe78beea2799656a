"""Optimistic gradients: a step that counts on the change of the gradient."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ..base import GradientTransformationExtraArgs, MaskOrFn, PerLeaf, Updates
from ..engine import per_tree, transformation
from ..parts.combine import chain
from ..parts.decay import decay_parts
from ..parts.scale import descend, scale_by_learning_rate
from ..settings import FINITE, check_number
from .adam import scale_by_adam

__all__ = [
    "ScaleByOptimisticGradientState",
    "optimistic_adam_v2",
    "optimistic_gradient_descent",
    "scale_by_optimistic_gradient",
]


class ScaleByOptimisticGradientState(NamedTuple):
    """Whether no step was taken yet, and the gradient of the step before."""

    is_initial_step: jax.Array
    previous_gradient: Updates


@transformation(alpha=FINITE, beta=FINITE)
def scale_by_optimistic_gradient(
    alpha: float = 1.0, beta: float = 1.0
) -> GradientTransformationExtraArgs:
    """The gradient, and its change since the step before.

        u = alpha g + beta (g - g_before),  alpha g at the first step

    Args:
        alpha: the weight of the gradient.
        beta: the weight of its change, the negative momentum.

    Returns:
        A transformation whose state is `ScaleByOptimisticGradientState(is_initial_step:
        bool[], previous_gradient)`; the gradient has the shapes of the parameters
        (memory: one copy).

    Raises:
        ValueError: a number is not finite.
        TypeError: one is no number: its state counts no steps for a schedule.

    Example:
        >>> tx = jopt.scale_by_optimistic_gradient()
        >>> _, state = tx.update(jnp.ones(1), tx.init(jnp.ones(1)))
        >>> tx.update(jnp.full(1, 3.0), state)[0]
        Array([5.], dtype=float32)

    Reference:
        Mokhtari, Ozdaglar & Pattathil, A Unified Analysis of Extra-gradient and
        Optimistic Gradient Methods for Saddle Point Problems, AISTATS 2020,
        arXiv:1901.08511.
    """
    check_number("scale_by_optimistic_gradient", "alpha", alpha, FINITE)
    check_number("scale_by_optimistic_gradient", "beta", beta, FINITE)

    def init(p):
        return dict(previous_gradient=jnp.zeros_like(p))

    def reduce(gs, s, ps, **extra_args):
        return s.is_initial_step, dict(is_initial_step=False)

    def scale_by_optimistic_gradient(g, s, p, first):
        change = jnp.where(first, 0, g - s.previous_gradient)
        return alpha * g + beta * change, s._replace(previous_gradient=g)

    return per_tree(
        ScaleByOptimisticGradientState,
        init,
        scale_by_optimistic_gradient,
        reduce=reduce,
        whole=dict(is_initial_step=True),
    )


@transformation(alpha=FINITE, beta=FINITE)
def optimistic_gradient_descent(
    learning_rate: PerLeaf,
    alpha: float = 1.0,
    beta: float = 1.0,
    *,
    weight_decay: PerLeaf | None = None,
    mask: MaskOrFn = None,
) -> GradientTransformationExtraArgs:
    """Optimistic gradient descent, for games: it does not circle around saddle points.

        p <- p - learning_rate (alpha g + beta (g - g_before))

    without the second term at the first step. It approximates the extra-gradient
    method with one gradient a step.

    Args:
        learning_rate: as `descend` takes it.
        alpha, beta: as `scale_by_optimistic_gradient` takes them.
        weight_decay, mask: as `descend` takes them; no decay if `None`.

    Returns:
        A transformation whose state is `(ScaleByOptimisticGradientState, EmptyState)`
        (memory: one copy of the parameters).

    Example:
        >>> tx = jopt.optimistic_gradient_descent(0.1)

    Reference:
        Mokhtari, Ozdaglar & Pattathil, A Unified Analysis of Extra-gradient and
        Optimistic Gradient Methods for Saddle Point Problems, AISTATS 2020,
        arXiv:1901.08511.
    """
    direction = scale_by_optimistic_gradient(alpha, beta)
    return descend(direction, learning_rate, weight_decay, mask)


@transformation(learning_rate=FINITE, optimism=FINITE)
def optimistic_adam(
    learning_rate: float,
    optimism: float | None = None,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = True,
) -> GradientTransformationExtraArgs:
    """Optimistic Adam as optax had it first; `optimistic_adam_v2` replaces it.

        p <- p - learning_rate u - optimism (u - u_before)        with u of `adam`

    without the last term at the first step.

    Args:
        learning_rate: a number, no schedule.
        optimism: the weight of the change; the learning rate if `None`.
        b1, b2, eps, eps_root, mu_dtype, nesterov: as `scale_by_adam` takes them.

    Returns:
        A transformation whose state is that of `optimistic_adam_v2`.

    Reference:
        Daskalakis, Ilyas, Syrgkanis & Zeng, Training GANs with Optimism, ICLR 2018,
        arXiv:1711.00141.
    """
    adam = scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov)
    beta = learning_rate if optimism is None else optimism
    optimistic = scale_by_optimistic_gradient(learning_rate, beta)
    return chain(adam, optimistic, scale_by_learning_rate(1.0))


@transformation(alpha=FINITE, beta=FINITE)
def optimistic_adam_v2(
    learning_rate: PerLeaf,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    mu_dtype: DTypeLike | None = None,
    nesterov: bool = True,
    weight_decay: PerLeaf | None = None,
    mask: MaskOrFn = None,
) -> GradientTransformationExtraArgs:
    """Optimistic Adam: Adam's direction and its change since the step before.

        p <- p - learning_rate (alpha u + beta (u - u_before))    with u of `adam`

    without the second term at the first step.

    Args:
        learning_rate: as `descend` takes it.
        alpha, beta: as `scale_by_optimistic_gradient` takes them.
        b1, b2, eps, eps_root, mu_dtype, nesterov: as `scale_by_adam` takes them.
        weight_decay, mask: as `descend` takes them; no decay if `None`.

    Returns:
        A transformation whose state is `(ScaleByAdamState,
        ScaleByOptimisticGradientState, EmptyState)` (memory: three copies of the
        parameters).

    Example:
        >>> tx = jopt.optimistic_adam_v2(1e-3)

    Reference:
        Daskalakis, Ilyas, Syrgkanis & Zeng, Training GANs with Optimism, ICLR 2018,
        arXiv:1711.00141, whose step is that with `alpha = beta = 1` and `nesterov`
        off.
    """
    adam = scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov)
    optimistic = scale_by_optimistic_gradient(alpha, beta)
    before, beside, after = decay_parts(weight_decay, mask)
    rate = scale_by_learning_rate(learning_rate)
    return chain(*before, adam, optimistic, *beside, rate, *after)

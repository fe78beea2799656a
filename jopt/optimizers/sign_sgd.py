"""Steps along the sign of the gradient, or of its mean."""

import jax.numpy as jnp
from jax.typing import DTypeLike

from ..base import GradientTransformationExtraArgs, MaskOrFn, PerLeaf
from ..engine import stateless_leaf, transformation
from ..parts.average import ema
from ..parts.combine import chain
from ..parts.decay import decay_parts
from ..parts.scale import descend, scale_by_learning_rate

__all__ = ["scale_by_sign", "sign_sgd", "signum"]


@transformation
def scale_by_sign() -> GradientTransformationExtraArgs:
    """Replaces the updates by their signs (complex ones by their directions).

    Returns:
        A transformation whose state is `EmptyState()`.

    Example:
        >>> jopt.scale_by_sign().update(jnp.array([-3.0, 2.0]), jopt.EmptyState())[0]
        Array([-1.,  1.], dtype=float32)
    """
    return stateless_leaf(lambda g, p: jnp.sign(g))


@transformation
def sign_sgd(
    learning_rate: PerLeaf,
    *,
    weight_decay: PerLeaf | None = None,
    mask: MaskOrFn = None,
) -> GradientTransformationExtraArgs:
    """Steps of one size in every coordinate, against the sign of the gradient.

        p <- p - learning_rate sign(g)

    Args:
        learning_rate: as `descend` takes it.
        weight_decay, mask: as `descend` takes them; no decay if `None`.

    Returns:
        A transformation whose state is `(EmptyState, EmptyState)`.

    Example:
        >>> tx = jopt.sign_sgd(1e-3)

    Reference:
        Bernstein et al., signSGD: Compressed Optimisation for Non-Convex Problems,
        ICML 2018, arXiv:1802.04434.
    """
    return descend(scale_by_sign(), learning_rate, weight_decay, mask)


@transformation
def signum(
    learning_rate: PerLeaf,
    beta: float = 0.9,
    accumulator_dtype: DTypeLike | None = None,
    *,
    weight_decay: PerLeaf | None = None,
    mask: MaskOrFn = None,
) -> GradientTransformationExtraArgs:
    """Steps of one size in every coordinate, against the sign of the mean gradient.

        mu <- beta mu + (1 - beta) g
        p  <- p - learning_rate sign(mu)

    Args:
        learning_rate: as `descend` takes it.
        beta: decay of the mean gradient, in [0, 1).
        accumulator_dtype: dtype the mean is stored in, as `ema` takes it.
        weight_decay, mask: as `descend` takes them; no decay if `None`.

    Returns:
        A transformation whose state is `(EmaState, EmptyState, EmptyState)` (memory:
        one copy of the parameters).

    Example:
        >>> tx = jopt.signum(1e-3)

    Reference:
        Bernstein et al., signSGD: Compressed Optimisation for Non-Convex Problems,
        ICML 2018, arXiv:1802.04434.
    """
    before, beside, after = decay_parts(weight_decay, mask)
    return chain(
        *before,
        ema(beta, debias=False, accumulator_dtype=accumulator_dtype),
        scale_by_sign(),
        *beside,
        scale_by_learning_rate(learning_rate),
        *after,
    )

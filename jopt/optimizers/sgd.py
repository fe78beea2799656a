"""Stochastic gradient descent, plain or with momentum."""

from jax.typing import DTypeLike

from ..base import GradientTransformationExtraArgs, MaskOrFn, PerLeaf
from ..engine import transformation
from ..parts.average import trace
from ..parts.combine import identity
from ..parts.scale import descend

__all__ = ["sgd"]


@transformation
def sgd(
    learning_rate: PerLeaf,
    momentum: float | None = None,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    *,
    weight_decay: PerLeaf | None = None,
    mask: MaskOrFn = None,
) -> GradientTransformationExtraArgs:
    """Stochastic gradient descent, plain or with (Nesterov's) momentum.

        trace <- g + momentum trace
        p     <- p - learning_rate trace

    With `nesterov` the step is `learning_rate (g + momentum trace)`, without momentum
    `learning_rate g`.

    Args:
        learning_rate: as `descend` takes it.
        momentum: the weight of the past in [0, 1], or `None` for none.
        nesterov: whether to look ahead along the momentum.
        accumulator_dtype: dtype the momentum is stored in, as `trace` takes it.
        weight_decay, mask: as `descend` takes them; no decay if `None`.

    Returns:
        A transformation whose state is `(TraceState, EmptyState)` with momentum
        (memory: one copy of the parameters), `(EmptyState, EmptyState)` without; the
        last is `ScaleByScheduleState` with a schedule.

    Example:
        >>> tx = jopt.sgd(0.1, momentum=0.9)

    Reference:
        Robbins & Monro, A Stochastic Approximation Method, 1951. Sutskever, Martens,
        Dahl & Hinton, On the importance of initialization and momentum in deep
        learning, ICML 2013.
    """
    direction = identity()
    if momentum is not None:
        direction = trace(momentum, nesterov, accumulator_dtype)
    return descend(direction, learning_rate, weight_decay, mask)

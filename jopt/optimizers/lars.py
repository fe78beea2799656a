"""LARS: momentum with steps relative to the norm of each leaf."""

from ..base import GradientTransformationExtraArgs, MaskOrFn, PerLeaf
from ..engine import transformation
from ..parts.average import trace
from ..parts.combine import chain, masked
from ..parts.decay import add_decayed_weights
from ..parts.scale import scale_by_learning_rate, scale_by_trust_ratio
from ..settings import OWN_DECAY

__all__ = ["lars"]


@transformation(weight_decay=OWN_DECAY)
def lars(
    learning_rate: PerLeaf,
    weight_decay: PerLeaf = 0.0,
    weight_decay_mask: MaskOrFn = True,
    trust_coefficient: float = 0.001,
    eps: float = 0.0,
    trust_ratio_mask: MaskOrFn = True,
    momentum: float = 0.9,
    nesterov: bool = False,
) -> GradientTransformationExtraArgs:
    """LARS: momentum whose steps are a fraction of each leaf's norm.

        g     <- g + weight_decay p
        step   = learning_rate trust_coefficient |p| / (|g| + eps) g
        trace <- step + momentum trace
        p     <- p - trace

    The paper divides by `|g| + weight_decay |p|` with the norms taken apart; here the
    norm of the sum is taken.

    Args:
        learning_rate: as `descend` takes it.
        weight_decay: an L2 penalty, added to the gradient; not negative.
        weight_decay_mask: which leaves decay: a tree of booleans or a function that
            makes one.
        trust_coefficient: the fraction, not negative.
        eps: added to the gradient's norm, not negative.
        trust_ratio_mask: which leaves are scaled by their norm.
        momentum: the weight of past steps, in [0, 1].
        nesterov: whether to look ahead along the momentum.

    Returns:
        A transformation whose state is `(MaskedState, MaskedState, EmptyState,
        TraceState)` (memory: one copy of the parameters). The update needs the
        parameters.

    Example:
        >>> tx = jopt.lars(1.0, weight_decay=1e-4)

    Reference:
        You, Gitman & Ginsburg, Large Batch Training of Convolutional Networks, 2017,
        arXiv:1708.03888.
    """
    return chain(
        masked(add_decayed_weights(weight_decay), weight_decay_mask),
        masked(
            scale_by_trust_ratio(trust_coefficient=trust_coefficient, eps=eps),
            trust_ratio_mask,
        ),
        scale_by_learning_rate(learning_rate),
        trace(momentum, nesterov),
    )

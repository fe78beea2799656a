"""LAMB: AdamW with steps relative to the norm of each leaf."""

from ..base import GradientTransformationExtraArgs, MaskOrFn, PerLeaf
from ..engine import transformation
from ..parts.combine import chain
from ..parts.decay import add_decayed_weights
from ..parts.scale import scale_by_learning_rate, scale_by_trust_ratio
from ..settings import PLAIN_DECAY
from .adam import scale_by_adam

__all__ = ["lamb"]


@transformation(weight_decay=PLAIN_DECAY)
def lamb(
    learning_rate: PerLeaf,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-6,
    eps_root: float = 0.0,
    weight_decay: PerLeaf = 0.0,
    mask: MaskOrFn = None,
) -> GradientTransformationExtraArgs:
    """LAMB: AdamW with steps relative to the norm of each leaf.

        r  = u + weight_decay p        with u of `scale_by_adam`
        p <- p - learning_rate |p| / |r| r

    with a ratio of 1 where a norm is zero.

    Args:
        learning_rate: as `descend` takes it.
        b1, b2, eps, eps_root: as `scale_by_adam` takes them.
        weight_decay: inside the normalized step, not negative.
        mask: which leaves decay, all if `None`.

    Returns:
        A transformation whose state is `(ScaleByAdamState, EmptyState, EmptyState,
        EmptyState)` (memory: two copies of the parameters). The update needs the
        parameters.

    Example:
        >>> tx = jopt.lamb(1e-3, weight_decay=0.01)

    Reference:
        You et al., Large Batch Optimization for Deep Learning: Training BERT in 76
        minutes, ICLR 2020, arXiv:1904.00962.
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root),
        add_decayed_weights(weight_decay, mask),
        scale_by_trust_ratio(),
        scale_by_learning_rate(learning_rate),
    )

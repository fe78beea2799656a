"""LARS: momentum with steps relative to the norm of each leaf."""

import jax
import jax.numpy as jnp

from ..base import EmptyState, GradientTransformationExtraArgs, MaskOrFn, PerLeaf
from ..engine import per_leaf, transformation
from ..parts.average import trace
from ..parts.combine import chain, masked
from ..parts.decay import WeightDecaySchedule, add_decayed_weights, which_decay
from ..parts.scale import scale_by_learning_rate, scale_by_trust_ratio
from ..settings import PLAIN_DECAY, is_scheduled, products
from ..tree import norm

__all__ = ["lars"]


@transformation(weight_decay=PLAIN_DECAY)
def lars(
    learning_rate: PerLeaf,
    weight_decay: PerLeaf = 0.0,
    weight_decay_mask: MaskOrFn = True,
    trust_coefficient: float = 0.001,
    eps: float = 0.0,
    trust_ratio_mask: MaskOrFn = True,
    momentum: float = 0.9,
    nesterov: bool = False,
    *,
    separate_norms: bool = False,
) -> GradientTransformationExtraArgs:
    """LARS: momentum whose steps are a fraction of each leaf's norm.

        g     <- g + weight_decay p
        step   = learning_rate trust_coefficient |p| / (|g| + eps) g
        trace <- step + momentum trace
        p     <- p - trace

    with the `g` of the first line. With `separate_norms`, as the paper has it, the step
    is divided by `|g| + weight_decay |p| + eps` with the gradient as it came.

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
        separate_norms: whether the norms of gradient and decay are taken apart.

    Returns:
        A transformation whose state is `(MaskedState, MaskedState, EmptyState,
        TraceState)` (memory: one copy of the parameters), with one `EmptyState` in the
        place of both masked ones if `separate_norms`. The update needs the parameters.

    Example:
        >>> tx = jopt.lars(1.0, weight_decay=1e-4)

    Reference:
        You, Gitman & Ginsburg, Large Batch Training of Convolutional Networks, 2017,
        arXiv:1708.03888.
    """
    if separate_norms:
        return chain(
            _decay_and_trust(
                weight_decay,
                weight_decay_mask,
                trust_coefficient,
                eps,
                trust_ratio_mask,
            ),
            scale_by_learning_rate(learning_rate),
            trace(momentum, nesterov),
        )
    return chain(
        masked(add_decayed_weights(weight_decay), weight_decay_mask),
        masked(
            scale_by_trust_ratio(trust_coefficient=trust_coefficient, eps=eps),
            trust_ratio_mask,
        ),
        scale_by_learning_rate(learning_rate),
        trace(momentum, nesterov),
    )


def _decay_and_trust(
    weight_decay: PerLeaf,
    weight_decay_mask: MaskOrFn,
    trust_coefficient: float,
    eps: float,
    trust_ratio_mask: MaskOrFn,
) -> GradientTransformationExtraArgs:
    """Eq. 6 and algorithm 1 of the paper, but for the momentum."""
    state = WeightDecaySchedule if is_scheduled(weight_decay) else EmptyState
    numbers = products("lars", 1, weight_decay=weight_decay)
    masks = which_decay(weight_decay_mask), which_decay(trust_ratio_mask)

    def hint(params):
        return jax.tree.map(lambda *flags: _WHICH[flags], *(m(params) for m in masks))

    def lars(g, s, p, decay, which):
        decay = decay if "decays" in which else jnp.zeros_like(decay)
        u = g + decay * p
        if "trusts" not in which:
            return u, s
        p_norm, g_norm = norm(p), norm(g)
        below = g_norm + decay * p_norm
        no_ratio = (p_norm == 0) | (below == 0)
        ratio = trust_coefficient * p_norm / jnp.where(no_ratio, 1, below + eps)
        return u * jnp.where(no_ratio, 1, ratio), s

    return per_leaf(
        state, lambda p: {}, lars, by_leaf=numbers, hint=hint, needs_params=True
    )


_WHICH = {
    (decays, trusts): "decays " * decays + "trusts" * trusts
    for decays in (False, True)
    for trusts in (False, True)
}

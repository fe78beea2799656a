"""Stochastic gradient descent that keeps its examples private."""

from jax.typing import ArrayLike

from ..base import GradientTransformationExtraArgs, MaskOrFn, PerLeaf
from ..deprecated import seed_as_key
from ..engine import transformation
from ..parts.average import trace
from ..parts.combine import chain, identity
from ..parts.decay import decay_parts
from ..parts.differentially_private import differentially_private_aggregate
from ..parts.scale import scale_by_learning_rate
from ..settings import NOT_NEGATIVE, POSITIVE

__all__ = ["dpsgd"]


@transformation(
    normal=seed_as_key, l2_norm_clip=POSITIVE, noise_multiplier=NOT_NEGATIVE
)
def dpsgd(
    learning_rate: PerLeaf,
    l2_norm_clip: float,
    noise_multiplier: float,
    key: ArrayLike | None = None,
    momentum: float | None = None,
    nesterov: bool = False,
    *,
    seed: int | None = None,
    weight_decay: PerLeaf | None = None,
    mask: MaskOrFn = None,
) -> GradientTransformationExtraArgs:
    """DP-SGD: descent along the noisy mean of the examples' clipped gradients.

        p <- p - learning_rate u        with u of `differentially_private_aggregate`

    or with momentum along u, as `sgd` has it. What it tells of a single example is
    bounded; how much, an accountant computes from the noise, the batch size and the
    number of steps.

    Args:
        learning_rate: as `descend` takes it.
        l2_norm_clip, noise_multiplier, key, seed: as
            `differentially_private_aggregate` takes them.
        momentum: the weight of the past in [0, 1], or `None` for none.
        nesterov: whether to look ahead along the momentum.
        weight_decay, mask: as `descend` takes them, `l2` after the
            gradients are private; no decay if `None`.

    Returns:
        A transformation of gradients `[batch, ...]`, one for each example, whose state
        is `(DifferentiallyPrivateAggregateState, EmptyState, EmptyState)`; with
        momentum the second is `TraceState` (memory: one copy of the parameters).

    Raises:
        ValueError: a number is outside its range; a leaf has no batch axis; neither
            `key` nor `seed` is given, or both are.

    Example:
        >>> tx = jopt.dpsgd(0.1, l2_norm_clip=1.0, noise_multiplier=1.1, key=0)
        >>> p = jnp.zeros(2)
        >>> g = jax.vmap(jax.grad(lambda p, x: p @ x), (None, 0))(p, jnp.eye(2))
        >>> u, state = tx.update(g, tx.init(p), p)
        >>> u.shape
        (2,)

    Reference:
        Abadi et al., Deep Learning with Differential Privacy, CCS 2016,
        arXiv:1607.00133.
    """
    before, beside, after = decay_parts(weight_decay, mask)
    return chain(
        differentially_private_aggregate(
            l2_norm_clip, noise_multiplier, key, seed=seed
        ),
        *before,  # of the mean: what the examples tell is bounded without it
        identity() if momentum is None else trace(momentum, nesterov),
        *beside,
        scale_by_learning_rate(learning_rate),
        *after,
    )

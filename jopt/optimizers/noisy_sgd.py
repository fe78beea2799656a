"""Gradient descent with noise on the gradients that fades."""

from jax.typing import ArrayLike

from ..base import GradientTransformationExtraArgs, MaskOrFn, PerLeaf
from ..deprecated import seed_as_key
from ..engine import transformation
from ..parts.noise import add_noise
from ..parts.scale import descend
from ..settings import FINITE

__all__ = ["noisy_sgd"]


@transformation(normal=seed_as_key, gamma=FINITE)
def noisy_sgd(
    learning_rate: PerLeaf,
    eta: float = 0.01,
    gamma: float = 0.55,
    key: ArrayLike | None = None,
    *,
    seed: int | None = None,
    weight_decay: PerLeaf | None = None,
    mask: MaskOrFn = None,
) -> GradientTransformationExtraArgs:
    """Stochastic gradient descent with Gaussian noise that fades over the steps.

        p <- p - learning_rate (g + sqrt(eta / t^gamma) n)        with n normal

    Args:
        learning_rate: as `descend` takes it.
        eta: variance of the noise at the first step, not negative.
        gamma: how fast it falls.
        key, seed: where the noise comes from, as `add_noise` takes them.
        weight_decay, mask: as `descend` takes them; no decay if `None`.

    Returns:
        A transformation whose state is `(AddNoiseState, EmptyState)` (memory: none of
        the parameters' size).

    Raises:
        ValueError: neither `key` nor `seed` is given, or both are.

    Example:
        >>> tx = jopt.noisy_sgd(0.1, key=jax.random.key(0))

    Reference:
        Neelakantan et al., Adding Gradient Noise Improves Learning for Very Deep
        Networks, 2015, arXiv:1511.06807.
    """
    direction = add_noise(eta, gamma, key, seed=seed)
    return descend(direction, learning_rate, weight_decay, mask)

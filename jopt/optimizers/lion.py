"""Lion: the sign of an interpolated momentum."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ..base import GradientTransformationExtraArgs, MaskOrFn, PerLeaf, Updates
from ..engine import per_leaf, transformation
from ..numerics import ema, zeros_in
from ..parts.clip import clip_elements
from ..parts.scale import descend
from ..settings import POSITIVE

__all__ = ["ScaleByLionState", "lion", "scale_by_lion"]


class ScaleByLionState(NamedTuple):
    """The step count and the mean gradient."""

    count: jax.Array
    mu: Updates


@transformation(smooth_beta=POSITIVE)
def scale_by_lion(
    b1: float = 0.9,
    b2: float = 0.99,
    mu_dtype: DTypeLike | None = None,
    *,
    mode: str = "hard",
    smooth_beta: float = 1.0,
) -> GradientTransformationExtraArgs:
    """Lion's direction: the sign of the mean gradient, leaning to the present one.

        u   = sign(b1 mu + (1 - b1) g)
        mu <- b2 mu + (1 - b2) g

    The sign may be a softer one: `"smooth"` is `tanh(smooth_beta x)`, `"refined"` is
    `x` kept within [-1, 1].

    Args:
        b1: weight of the past in the direction, in [0, 1).
        b2: decay of the mean gradient, in [0, 1).
        mu_dtype: dtype `mu` is stored in. The parameter's, or float32 if that has 16
            bits, if `None`.
        mode: the sign, `"hard"`, `"smooth"` or `"refined"`.
        smooth_beta: how steep the smooth sign is, positive.

    Returns:
        A transformation whose state is `ScaleByLionState(count: i32[], mu)`, `mu` in
        the shapes of the parameters (memory: one copy).

    Raises:
        ValueError: a number is outside its range, or there is no such `mode`.

    Example:
        >>> tx = jopt.chain(jopt.scale_by_lion(), jopt.scale(-1e-4))

    Reference:
        Chen et al., Symbolic Discovery of Optimization Algorithms, NeurIPS 2023,
        arXiv:2302.06675.
    """
    signs = dict(
        hard=jnp.sign,
        smooth=lambda x: jnp.tanh(smooth_beta * x),
        refined=lambda x: clip_elements(x, 1.0),
    )
    if mode not in signs:
        raise ValueError(f"scale_by_lion: mode must be in {list(signs)}, got {mode!r}")
    sign = signs[mode]

    def init(p):
        return dict(mu=zeros_in(p, mu_dtype))

    def scale_by_lion(g, s, p):
        mu = ema(g, s.mu, b2)
        if isinstance(b2, (int, float)) and b2 >= 0.5:
            # The same mean, of the new `mu`: XLA on CPU would copy the old one first,
            # since it is read after it is written. Four fifths of the step's time.
            return sign(ema(g, mu, b1 / b2)), s._replace(mu=mu)
        return sign(ema(g, s.mu, b1)), s._replace(mu=mu)

    return per_leaf(ScaleByLionState, init, scale_by_lion)


@transformation
def lion(
    learning_rate: PerLeaf,
    b1: float = 0.9,
    b2: float = 0.99,
    mu_dtype: DTypeLike | None = None,
    weight_decay: PerLeaf = 1e-3,
    mask: MaskOrFn = None,
) -> GradientTransformationExtraArgs:
    """Lion: steps of one size in every coordinate, along the sign of the momentum.

        p <- p - learning_rate (u + weight_decay p)        with u of `scale_by_lion`

    It wants a learning rate 3 to 10 times smaller than AdamW's and as much more decay.

    Args:
        learning_rate, weight_decay, mask: as `descend` takes them.
        b1, b2, mu_dtype: as `scale_by_lion` takes them.

    Returns:
        A transformation whose state is `(ScaleByLionState, EmptyState, EmptyState)`
        (memory: one copy of the parameters). The update needs the parameters.

    Example:
        >>> tx = jopt.lion(1e-4, weight_decay=0.1)

    Reference:
        Chen et al., Symbolic Discovery of Optimization Algorithms, NeurIPS 2023,
        arXiv:2302.06675.
    """
    return descend(scale_by_lion(b1, b2, mu_dtype), learning_rate, weight_decay, mask)

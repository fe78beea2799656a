"""D-Adaptation for AdamW: its learning rate from a lower bound of the distance."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from .. import tree
from ..base import (
    GradientTransformationExtraArgs,
    MaskOrFn,
    PerLeaf,
    Updates,
)
from ..engine import per_tree, transformation
from ..numerics import abs_sq, bounded, ema, one_minus_power, safe_sqrt
from ..parts.decay import which_decay
from ..settings import DECAY, PLAIN_DECAY, POSITIVE, check_number, once_each, setting_at
from ..settings.resolve import Own, largest

__all__ = ["DAdaptAdamWState", "dadapt_adamw"]


class DAdaptAdamWState(NamedTuple):
    """Adam's moments, the mean step, and the learning rate with its numerator."""

    exp_avg: Updates
    exp_avg_sq: Updates
    grad_sum: Updates
    estim_lr: jax.Array
    numerator_weighted: jax.Array
    count: jax.Array

    measured = ("estim_lr",)  # what `metrics` shows


@transformation(
    eps=POSITIVE,
    estim_lr0=POSITIVE,
    weight_decay=PLAIN_DECAY,
)
def dadapt_adamw(
    learning_rate: PerLeaf = 1.0,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    estim_lr0: float = 1e-6,
    weight_decay: PerLeaf = 0.0,
    *,
    mask: MaskOrFn = None,
    use_bias_correction: bool = True,
) -> GradientTransformationExtraArgs:
    """AdamW that takes its learning rate from a lower bound of how far it has to go.

        c  = learning_rate sqrt(1 - b2^t) / (1 - b1^t)
        r <- b3 r + (1 - b3) c d <g, s / (sqrt(v) + eps)>        with b3 = sqrt(b2)
        s <- b3 s + (1 - b3) c d g
        m <- b1 m + (1 - b1) c d g
        v <- b2 v + (1 - b2) |g|^2
        p <- p - m / (sqrt(v) + eps) - c d weight_decay p
        d <- max(d, r / ((1 - b3) |s|_1))

    from `d = estim_lr0`. While no gradient has been other than zero there is no
    estimate, and `d` stays.

    There is one `d` for the whole tree. Where leaves have rates of their own, these
    are the units that a leaf is measured in: `r` has the largest rate in `c`, and `s`,
    `m` and the decay that of the leaf.

    Args:
        learning_rate: factor of the rate it finds, to be left at 1; or a schedule of
            the steps taken so far, which best ends near 0; or several, as `descend`
            takes them.
        betas: decays `b1` and `b2` of the mean and the mean square, in [0, 1).
        eps: added outside the root, positive.
        estim_lr0: the first, too low estimate of the rate, positive.
        weight_decay: decoupled decay, not negative, as `descend` takes it.
        mask: which leaves decay, as `descend` takes it.
        use_bias_correction: whether `c` has Adam's corrections, as in optax; the
            authors' code leaves them out by default, and then `c = learning_rate`.

    Returns:
        A transformation whose state is `DAdaptAdamWState(exp_avg, exp_avg_sq,
        grad_sum, estim_lr: f32[], numerator_weighted: f32[], count: i32[])`: `m`, `v`
        and `s` in the shapes of the parameters (memory: three copies), `d` and `r`.
        The update needs the parameters.

    Raises:
        ValueError: a number is outside its range.

    Example:
        >>> tx = jopt.dadapt_adamw(jopt.cosine_decay_schedule(1.0, 1000))

    Reference:
        Defazio & Mishchenko, Learning-Rate-Free Learning by D-Adaptation, ICML 2023,
        arXiv:2301.07733.
    """
    b1, b2 = two_decays("dadapt_adamw", betas)
    b3 = square_root(b2)

    def init(p):
        return dict(
            exp_avg=jnp.zeros_like(p),
            exp_avg_sq=abs_sq(jnp.zeros_like(p)),
            grad_sum=jnp.zeros_like(p),
        )

    def reduce(gs, s, ps, *, owns, **extra_args):
        gs, d = [bounded(g) for g in gs], s.estim_lr
        decays = (b1, b2) if use_bias_correction else None

        @once_each
        def rate_of(learning_rate):
            return d * corrected("dadapt_adamw", learning_rate, s.count, d, decays)

        rates = [rate_of(own.learning_rate) for own in owns]
        rate = rate_of(largest([own.learning_rate for own in owns]))
        sums = [ema(r * g, x, b3) for r, g, x in zip(rates, gs, s.grad_sum)]
        before = [x / (safe_sqrt(v) + eps) for x, v in zip(s.grad_sum, s.exp_avg_sq)]
        come = rate * jnp.real(tree.vdot(gs, before))
        numerator = ema(come, s.numerator_weighted, b3)
        new = larger(d, numerator, (1 - b3) * tree.norm(sums, 1))

        def numbers(own):
            return rate_of(own.learning_rate), own.weight_decay

        return numbers, dict(estim_lr=new, numerator_weighted=numerator)

    def dadapt_adamw(g, s, p, numbers, decays):
        rate, weight_decay = numbers
        g = bounded(g)
        m = ema(rate * g, s.exp_avg, b1)
        v = ema(abs_sq(g), s.exp_avg_sq, b2)
        total = ema(rate * g, s.grad_sum, b3)
        u = m / (safe_sqrt(v) + eps)
        u = u + rate * weight_decay * p if decays else u
        return -u, s._replace(exp_avg=m, exp_avg_sq=v, grad_sum=total)

    return per_tree(
        DAdaptAdamWState,
        init,
        dadapt_adamw,
        reduce=reduce,
        whole=dict(estim_lr=estim_lr0, numerator_weighted=0.0),
        hint=which_decay(mask),
        settings=Own(learning_rate, weight_decay),
        needs_params=True,
    )


def two_decays(where: str, betas: tuple[float, float]) -> tuple[float, float]:
    """Both of Adam's decays, checked."""
    try:
        b1, b2 = betas
    except (TypeError, ValueError):
        raise ValueError(
            f"{where}: betas must be two numbers in [0, 1), got {betas!r}"
        ) from None
    check_number(where, "betas[0]", b1, DECAY)
    check_number(where, "betas[1]", b2, DECAY)
    return b1, b2


def bias_corrections(b1, b2, t, like) -> jax.Array:
    """Adam's bias corrections at step `t`, as a factor of the learning rate."""
    scale = safe_sqrt(one_minus_power(b2, t)) / one_minus_power(b1, t)
    return scale.astype(like.dtype)


def corrected(where, learning_rate, t, like, decays) -> jax.Array:
    """The rate of step `t`, with Adam's corrections for means of decays if any."""
    rate = setting_at(where, "learning_rate", learning_rate, t, like)
    if decays is None:
        return rate
    b1, b2 = decays
    return rate * bias_corrections(b1, b2, t, like)


def share_of(rate: jax.Array, most: jax.Array, d: jax.Array) -> jax.Array:
    """`d` times what the rate is of the largest one."""
    return d if rate is most else d * rate / jnp.where(most == 0, 1, most)


def larger(d: jax.Array, numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """The larger of `d` and the quotient, if there is one."""
    known = denominator > 0
    quotient = numerator / jnp.where(known, denominator, 1)
    return jnp.where(known, jnp.maximum(d, quotient), d)


def square_root(x: float | jax.Array) -> float | jax.Array:
    """The root, exact for a Python number."""
    return math.sqrt(x) if isinstance(x, (int, float)) else jnp.sqrt(x)

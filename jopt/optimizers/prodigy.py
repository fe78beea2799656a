"""Prodigy: AdamW that finds its learning rate from how far it has come."""

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
from ..numerics import abs_sq, bounded, ema, finite, safe_sqrt
from ..parts.decay import which_decay
from ..settings import DECAY, PLAIN_DECAY, POSITIVE, once_each
from ..settings.resolve import Own, largest
from .dadapt_adamw import corrected, larger, share_of, square_root, two_decays

__all__ = ["ProdigyState", "prodigy"]


class ProdigyState(NamedTuple):
    """Moments of the scaled gradients, where it began, and its learning rate."""

    exp_avg: Updates
    exp_avg_sq: Updates
    grad_sum: Updates
    params0: Updates
    estim_lr: jax.Array
    numerator_weighted: jax.Array
    count: jax.Array

    measured = ("estim_lr",)  # what `metrics` shows


@transformation(
    beta3=DECAY,
    eps=POSITIVE,
    estim_lr0=POSITIVE,
    estim_lr_coef=POSITIVE,
    weight_decay=PLAIN_DECAY,
)
def prodigy(
    learning_rate: PerLeaf = 1.0,
    betas: tuple[float, float] = (0.9, 0.999),
    beta3: float | None = None,
    eps: float = 1e-8,
    estim_lr0: float = 1e-6,
    estim_lr_coef: float = 1.0,
    weight_decay: PerLeaf = 0.0,
    safeguard_warmup: bool = False,
    weight_decay_mask: MaskOrFn = None,
    *,
    use_bias_correction: bool = True,
) -> GradientTransformationExtraArgs:
    """Prodigy: AdamW that finds its learning rate from how far it has come.

        c  = learning_rate sqrt(1 - b2^t) / (1 - b1^t)
        r <- b3 r + c d^2/d0 <g, p0 - p>
        s <- b3 s + c d^2/d0 g
        m <- b1 m + (1 - b1) d g
        v <- b2 v + (1 - b2) |d g|^2
        d' = max(d, estim_lr_coef r / |s|_1)
        p <- p - c d (m / (sqrt(v) + d' eps) + weight_decay p)

    from `d = d0 = estim_lr0`, and then `d <- d'`. While no gradient has been other
    than zero there is no estimate, and `d` stays.

    There is one `d` for the whole tree. Where leaves have rates of their own, these
    are the units that a leaf is measured in: the sum `r` has the largest rate in `c`,
    `s` and the step that of the leaf. So a leaf with a rate of 0 has no part in `d`.

    Args:
        learning_rate: factor of the rate it finds, to be left at 1; or a schedule of
            the steps taken so far, which best ends near 0; or several, as `descend`
            takes them.
        betas: decays `b1` and `b2` of the mean and the mean square, in [0, 1).
        beta3: decay `b3` of the estimate's sums, in [0, 1); `sqrt(b2)` if `None`.
        eps: added outside the root, positive.
        estim_lr0: the first, too low estimate of the rate, positive.
        estim_lr_coef: factor of the estimate, positive: 0.5 or 2 to tune the method.
        weight_decay: decoupled decay, not negative, as `descend` takes it.
        safeguard_warmup: whether `s` leaves out the factor `c`, so that a learning
            rate that starts near zero does not raise the estimate.
        weight_decay_mask: which leaves decay: a tree of booleans or a function that
            makes one; all if `None`.
        use_bias_correction: whether `c` has Adam's corrections, as in optax; the
            authors' code leaves them out by default, and then `c = learning_rate`.

    Returns:
        A transformation whose state is `ProdigyState(exp_avg, exp_avg_sq, grad_sum,
        params0, estim_lr: f32[], numerator_weighted: f32[], count: i32[])`: `m`, `v`,
        `s` and `p0` in the shapes of the parameters (memory: four copies), `d` and
        `r`. The update needs the parameters.

    Raises:
        ValueError: a number is outside its range.

    Example:
        >>> tx = jopt.prodigy(jopt.cosine_decay_schedule(1.0, 1000))

    Reference:
        Mishchenko & Defazio, Prodigy: An Expeditiously Adaptive Parameter-Free
        Learner, ICML 2024, arXiv:2306.06101.
    """
    b1, b2 = two_decays("prodigy", betas)
    b3 = square_root(b2) if beta3 is None else beta3

    def init(p):
        return dict(
            exp_avg=jnp.zeros_like(p),
            exp_avg_sq=abs_sq(jnp.zeros_like(p)),
            grad_sum=jnp.zeros_like(p),
            params0=p,
        )

    def sum_gradients(g, total, weight):
        return b3 * total + weight * g

    def reduce(gs, s, ps, *, owns, **extra_args):
        gs, d = [bounded(g) for g in gs], s.estim_lr
        decays = (b1, b2) if use_bias_correction else None
        most = largest([own.learning_rate for own in owns])
        scale = d / jnp.asarray(estim_lr0, d.dtype)

        @once_each
        def rate_of(learning_rate):
            return d * corrected("prodigy", learning_rate, s.count, d, decays)

        @once_each
        def weight_of(own):
            if safeguard_warmup:
                return scale * share_of(own.learning_rate, most, d)
            return scale * rate_of(own.learning_rate)

        rate = rate_of(most)
        weights = map(weight_of, owns)
        sums = [sum_gradients(*x) for x in zip(gs, s.grad_sum, weights)]
        come = jnp.real(tree.vdot(gs, tree.sub(s.params0, ps)))
        numerator = b3 * s.numerator_weighted + scale * rate * come
        new = larger(d, estim_lr_coef * numerator, tree.norm(sums, 1))
        whole = dict(estim_lr=new, numerator_weighted=numerator)

        def numbers(own):
            mine = rate_of(own.learning_rate), weight_of(own), own.weight_decay
            return d, new, *mine

        return numbers, whole

    def prodigy(g, s, p, numbers, decays):
        d, new, rate, weight, weight_decay = numbers
        g = bounded(g)
        m = ema(d * g, s.exp_avg, b1)
        v = ema(finite(abs_sq(d * g)), s.exp_avg_sq, b2)
        total = sum_gradients(g, s.grad_sum, weight)
        u = m / (safe_sqrt(v) + new * eps)
        u = u + weight_decay * p if decays else u
        return -rate * u, s._replace(exp_avg=m, exp_avg_sq=v, grad_sum=total)

    return per_tree(
        ProdigyState,
        init,
        prodigy,
        reduce=reduce,
        whole=dict(estim_lr=estim_lr0, numerator_weighted=0.0),
        hint=which_decay(weight_decay_mask),
        settings=Own(learning_rate, weight_decay),
        needs_params=True,
    )

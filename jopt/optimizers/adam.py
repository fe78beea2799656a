"""Adam and its kin that share its moments: AdamW, NAdam, NAdamW."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ..base import GradientTransformationExtraArgs, MaskOrFn, PerLeaf, Updates
from ..engine import per_leaf, per_tree, transformation
from ..numerics import (
    abs_sq,
    bounded,
    ema,
    finite,
    one_minus_power,
    safe_increment,
    safe_sqrt,
    zeros_in,
)
from ..parts.scale import descend
from ..settings import NOT_NEGATIVE

__all__ = [
    "ScaleByAdamState",
    "ScaleByNadamState",
    "adam",
    "adamw",
    "nadam",
    "nadamw",
    "scale_by_adam",
]


Scalar = float | jax.Array


class ScaleByAdamState(NamedTuple):
    """The step count, the mean gradient and the mean squared gradient."""

    count: jax.Array
    mu: Updates
    nu: Updates


class ScaleByNadamState(NamedTuple):
    """Adam's state, and the product of the momenta of all steps."""

    count: jax.Array
    mu: Updates
    nu: Updates
    mu_product: jax.Array


def adam_rule(
    g: jax.Array,
    mu: jax.Array,
    nu: jax.Array,
    scale_mu: Scalar,
    scale_nu: Scalar,
    *,
    b1: Scalar,
    b2: Scalar,
    eps: Scalar,
    eps_root: Scalar = 0.0,
    scale_g: Scalar | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Adam for one array: the direction and both new moments.

        mu <- b1 mu + (1 - b1) g
        nu <- b2 nu + (1 - b2) |g|^2
        u   = (scale_mu mu + scale_g g) / (sqrt(scale_nu nu + eps_root) + eps)

    The bias corrections come as the two scales: `1 / (1 - b1^t)` and `1 / (1 - b2^t)`
    put `eps` beside the corrected root, as the paper's algorithm 1 does;
    `sqrt(1 - b2^t) / (1 - b1^t)` and 1 beside the uncorrected one, as its section 2
    suggests. `scale_g` is Nesterov's share of the gradient itself.
    """
    square, g = finite(abs_sq(g)), bounded(g)  # in kernels of their own
    mu, nu = ema(g, mu, b1), ema(square, nu, b2)
    m = scale_mu * mu if scale_g is None else scale_mu * mu + scale_g * g
    return m / (safe_sqrt(scale_nu * nu + eps_root) + eps), mu, nu


@transformation
def scale_by_adam(
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
) -> GradientTransformationExtraArgs:
    r"""Adam's direction: the mean gradient over the root of its mean square.

        mu <- b1 mu + (1 - b1) g
        nu <- b2 nu + (1 - b2) |g|^2
        m   = mu / (1 - b1^t)
        u   = m / (sqrt(nu / (1 - b2^t) + eps_root) + eps)

    and with `nesterov`, as Dozat proposes,

        m   = b1 mu / (1 - b1^(t+1)) + (1 - b1) g / (1 - b1^t)

    Args:
        b1: decay of the mean gradient, in [0, 1).
        b2: decay of the mean squared gradient, in [0, 1).
        eps: added outside the root, not negative.
        eps_root: added inside the root, not negative.
        mu_dtype: dtype `mu` is stored in. The parameter's, or float32 if that has 16
            bits, if `None`.
        nesterov: whether to look ahead.

    Returns:
        A transformation whose state is `ScaleByAdamState(count: i32[], mu, nu)`; `mu`
        and `nu` have the shapes of the parameters (memory: two copies).

    Raises:
        ValueError: a number is outside its range.
        TypeError: `mu_dtype` is no floating dtype.

    Example:
        >>> tx = jopt.chain(jopt.scale_by_adam(), jopt.scale(-1e-3))

    Reference:
        Kingma & Ba, Adam: A Method for Stochastic Optimization, ICLR 2015,
        arXiv:1412.6980. Dozat, Incorporating Nesterov Momentum into Adam, 2016.
    """

    def init(p):
        return dict(mu=zeros_in(p, mu_dtype), nu=abs_sq(jnp.zeros_like(p)))

    def each(t):
        scale_nu = 1 / one_minus_power(b2, t)
        if not nesterov:
            return 1 / one_minus_power(b1, t), scale_nu, None
        scale_g = (1 - b1) / one_minus_power(b1, t)
        return b1 / one_minus_power(b1, safe_increment(t)), scale_nu, scale_g

    def scale_by_adam(g, s, p, scales):
        scale_mu, scale_nu, scale_g = scales
        u, mu, nu = adam_rule(
            g,
            s.mu,
            s.nu,
            scale_mu,
            scale_nu,
            b1=b1,
            b2=b2,
            eps=eps,
            eps_root=eps_root,
            scale_g=scale_g,
        )
        return u, s._replace(mu=mu, nu=nu)

    return per_leaf(ScaleByAdamState, init, scale_by_adam, each=each)


@transformation
def adam(
    learning_rate: PerLeaf,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
    weight_decay: PerLeaf | None = None,
    mask: MaskOrFn = None,
) -> GradientTransformationExtraArgs:
    """Adam: the mean gradient over the root of its mean square.

        p <- p - learning_rate u        with u of `scale_by_adam`

    Args:
        learning_rate: as `descend` takes it.
        b1: decay of the mean gradient, in [0, 1).
        b2: decay of the mean squared gradient, in [0, 1).
        eps: added outside the root, not negative.
        eps_root: added inside the root, not negative.
        mu_dtype: dtype `mu` is stored in, as `scale_by_adam` takes it.
        nesterov: whether to look ahead, which makes it NAdam.
        weight_decay, mask: as `descend` takes them; no decay if `None`.

    Returns:
        A transformation whose state is `(ScaleByAdamState, EmptyState)` (memory: two
        copies of the parameters); the last is `ScaleByScheduleState` with a schedule.

    Raises:
        ValueError: a number is outside its range.
        TypeError: `learning_rate` is no number or schedule.

    Example:
        >>> tx = jopt.adam(1e-3)

    Reference:
        Kingma & Ba, Adam: A Method for Stochastic Optimization, ICLR 2015,
        arXiv:1412.6980.
    """
    direction = scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov)
    return descend(direction, learning_rate, weight_decay, mask)


@transformation
def adamw(
    learning_rate: PerLeaf,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: PerLeaf = 1e-4,
    mask: MaskOrFn = None,
    *,
    nesterov: bool = False,
) -> GradientTransformationExtraArgs:
    """AdamW: Adam with weight decay beside its direction, not inside it.

        p <- p - learning_rate (u + weight_decay p)        with u of `scale_by_adam`

    Args:
        learning_rate: as `descend` takes it.
        b1: decay of the mean gradient, in [0, 1).
        b2: decay of the mean squared gradient, in [0, 1).
        eps: added outside the root, not negative.
        eps_root: added inside the root, not negative.
        mu_dtype: dtype `mu` is stored in, as `scale_by_adam` takes it.
        weight_decay, mask: as `descend` takes them.
        nesterov: whether to look ahead, which makes it NAdamW.

    Returns:
        A transformation whose state is `(ScaleByAdamState, EmptyState, EmptyState)`
        (memory: two copies of the parameters). The update needs the parameters.

    Raises:
        ValueError: a number is outside its range.
        TypeError: `learning_rate` is no number or schedule.

    Example:
        >>> tx = jopt.adamw(1e-3, weight_decay=0.01)

    Reference:
        Loshchilov & Hutter, Decoupled Weight Decay Regularization, ICLR 2019,
        arXiv:1711.05101.
    """
    direction = scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov)
    return descend(direction, learning_rate, weight_decay, mask)


@transformation(momentum_decay=NOT_NEGATIVE)
def nadam(
    learning_rate: PerLeaf,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = True,
    weight_decay: PerLeaf | None = None,
    mask: MaskOrFn = None,
    momentum_decay: float | None = None,
) -> GradientTransformationExtraArgs:
    """NAdam: Adam that looks ahead along its mean gradient, as Nesterov's method does.

        p <- p - learning_rate u        with u of `scale_by_adam(nesterov=True)`

    Args:
        learning_rate: as `descend` takes it.
        b1, b2, eps, eps_root, mu_dtype: as `adam` takes them.
        nesterov: whether to look ahead; `adam` if not.
        weight_decay, mask: as `descend` takes them; no decay if `None`.
        momentum_decay: how fast the momentum warms up, as Dozat proposes: `b1` of step
            `t` is `b1 (1 - 0.96^(t momentum_decay) / 2)`, and the corrections are of
            their products. PyTorch has 0.004; it is constant if `None`.

    Returns:
        A transformation with the state of `adam`; with `momentum_decay` its first part
        is `ScaleByNadamState`, which has the product too.

    Raises:
        ValueError: a number is outside its range, or there is a `momentum_decay`
            without `nesterov`.

    Example:
        >>> tx = jopt.nadam(1e-3)

    Reference:
        Dozat, Incorporating Nesterov Momentum into Adam, ICLR 2016 workshop.
    """
    direction = _nadam_direction(
        "nadam", b1, b2, eps, eps_root, mu_dtype, nesterov, momentum_decay
    )
    return descend(direction, learning_rate, weight_decay, mask)


@transformation(momentum_decay=NOT_NEGATIVE)
def nadamw(
    learning_rate: PerLeaf,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: PerLeaf = 1e-4,
    mask: MaskOrFn = None,
    *,
    nesterov: bool = True,
    momentum_decay: float | None = None,
) -> GradientTransformationExtraArgs:
    """NAdamW: NAdam with decoupled weight decay.

        p <- p - learning_rate (u + weight_decay p)

    with u of `scale_by_adam(nesterov=True)`.

    Args:
        learning_rate, weight_decay, mask: as `descend` takes them.
        b1, b2, eps, eps_root, mu_dtype: as `adam` takes them.
        nesterov: whether to look ahead; `adamw` if not.
        momentum_decay: as `nadam` takes it.

    Returns:
        A transformation with the state of `adamw`; the update needs the parameters.

    Example:
        >>> tx = jopt.nadamw(1e-3, weight_decay=0.01)

    Reference:
        Dozat, Incorporating Nesterov Momentum into Adam, ICLR 2016 workshop.
    """
    direction = _nadam_direction(
        "nadamw", b1, b2, eps, eps_root, mu_dtype, nesterov, momentum_decay
    )
    return descend(direction, learning_rate, weight_decay, mask)


def _nadam_direction(
    where: str,
    b1: float,
    b2: float,
    eps: float,
    eps_root: float,
    mu_dtype: DTypeLike | None,
    nesterov: bool,
    momentum_decay: float | None,
) -> GradientTransformationExtraArgs:
    if momentum_decay is None:
        return scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov)
    if not nesterov:
        raise ValueError(f"{where}: momentum_decay needs nesterov=True")
    return _warmed_up(b1, b2, eps, eps_root, mu_dtype, momentum_decay)


def _warmed_up(
    b1: float,
    b2: float,
    eps: float,
    eps_root: float,
    mu_dtype: DTypeLike | None,
    momentum_decay: float,
) -> GradientTransformationExtraArgs:
    """Dozat's algorithm 2 with its schedule of the momentum."""

    def init(p):
        return dict(mu=zeros_in(p, mu_dtype), nu=abs_sq(jnp.zeros_like(p)))

    def momentum(t, like):
        return b1 * (1 - 0.5 * 0.96 ** (t.astype(like.dtype) * momentum_decay))

    def reduce(gs, s, ps, **extra_args):
        t, before = s.count, s.mu_product
        now, ahead = (momentum(n, before) for n in (t, safe_increment(t)))
        product = before * now
        scales = (
            ahead / (1 - product * ahead),
            (1 / one_minus_power(b2, t)).astype(before.dtype),
            (1 - now) / (1 - product),
        )
        return scales, dict(mu_product=product)

    def scale_by_nadam(g, s, p, scales):
        scale_mu, scale_nu, scale_g = scales
        u, mu, nu = adam_rule(
            g,
            s.mu,
            s.nu,
            scale_mu,
            scale_nu,
            b1=b1,
            b2=b2,
            eps=eps,
            eps_root=eps_root,
            scale_g=scale_g,
        )
        return u, s._replace(mu=mu, nu=nu)

    return per_tree(
        ScaleByNadamState,
        init,
        scale_by_nadam,
        reduce=reduce,
        whole=dict(mu_product=1.0),
    )

"""Losses of overlap between predicted and true regions."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ..kinds import is_known
from ..settings import NOT_NEGATIVE
from .arithmetic import surprisal
from .inputs import Input, axes, loss, real

__all__ = ["binary_dice_loss", "dice_loss", "multiclass_generalized_dice_loss"]


def dice_loss(
    predictions: Input,
    targets: Input,
    *,
    class_weights: Input | None = None,
    smooth: Input = 1.0,
    alpha: Input = 0.5,
    beta: Input = 0.5,
    apply_softmax: bool = True,
    reduction: str = "mean",
    ignore_background: bool = False,
    axis: int | Sequence[int] | None = None,
) -> jax.Array:
    """How much predicted and true regions of each class miss of one another.

        loss_c = 1 - (I + smooth) / (I + alpha (P - I) + beta (T - I) + smooth)
        I = sum_i p_ic t_ic,  P = sum_i p_ic,  T = sum_i t_ic

    The Dice loss for `alpha = beta = 1/2`, otherwise that of Tversky.

    Args:
        predictions: logits of the classes, floats, `[batch, ..., classes]`.
        targets: which class is where, one-hot, in the same shape. Of one class, either
            may lack the last axis.
        class_weights: factors of the classes' losses, `[classes]`; ones if `None`.
        smooth: added above and below, not negative. Where the quotient is 0/0, in an
            empty class with `smooth = 0`, the loss is zero.
        alpha: the weight of what is predicted and not there, not negative.
        beta: the weight of what is there and not predicted, not negative.
        apply_softmax: whether to make probabilities of the logits: the softmax, or for
            one class the sigmoid. Otherwise `predictions` are probabilities: those of
            several classes sum to one.
        reduction: what to make of the classes' losses: their `"mean"`, their `"sum"`,
            or nothing (`"none"`).
        ignore_background: whether to leave out the first of several classes.
        axis: the axes summed over, not the last; all but the first and the last if
            `None`.

    Returns:
        The losses, `[batch]`, or `[batch, classes]` if `reduction="none"`, in the dtype
        of `predictions` and `targets`.

    Raises:
        ValueError: the shapes differ, `class_weights` are not `[classes]`, `axis` is
            the last or out of bounds, or `reduction` unknown; or `predictions` with
            `apply_softmax=False` are no probabilities, where their values are known
            (outside of `jit`).
        TypeError: an argument is no array of real numbers.

    Example:
        >>> targets = jnp.array([[[1.0, 0.0], [0.0, 1.0]]])
        >>> jopt.losses.dice_loss(targets, targets, apply_softmax=False)
        Array([0.], dtype=float32)

    Reference:
        Milletari, Navab & Ahmadi, V-Net, 3DV 2016, arXiv:1606.04797; Salehi, Erdogmus &
        Gholipour, Tversky Loss Function for Image Segmentation, MLMI 2017,
        arXiv:1706.05721.
    """
    predictions, targets = _with_channels("dice_loss", predictions, targets)
    if not apply_softmax:
        _check_distributions("dice_loss", predictions)
    return _dice_loss(
        predictions,
        targets,
        class_weights=class_weights,
        smooth=smooth,
        alpha=alpha,
        beta=beta,
        apply_softmax=apply_softmax,
        reduction=reduction,
        ignore_background=ignore_background,
        axis=axis,
    )


@loss(
    "predictions",
    "targets",
    integers=True,
    equal=True,
    class_weights=NOT_NEGATIVE,
    smooth=NOT_NEGATIVE,
    alpha=NOT_NEGATIVE,
    beta=NOT_NEGATIVE,
)
def _dice_loss(
    predictions: Input,
    targets: Input,
    *,
    class_weights: Input | None = None,
    smooth: Input,
    alpha: Input,
    beta: Input,
    apply_softmax: bool,
    reduction: str,
    ignore_background: bool,
    axis: int | Sequence[int] | None = None,
) -> jax.Array:
    _check_classes("dice_loss", predictions)
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(
            f"dice_loss: reduction must be 'mean', 'sum' or 'none', got {reduction!r}"
        )
    rank, classes = predictions.ndim, predictions.shape[-1]
    over = range(1, rank - 1) if axis is None else axes("dice_loss", axis, rank)
    if rank - 1 in over:
        raise ValueError(
            f"dice_loss: axis must not contain the last one, of the classes, got {axis}"
        )
    p = _probabilities(predictions) if apply_softmax else predictions
    losses = _tversky(p, targets, tuple(over), smooth, alpha, beta)
    if class_weights is not None:
        if class_weights.shape != (classes,):
            raise ValueError(
                f"dice_loss: class_weights must have shape ({classes},), one for each "
                f"class, got {class_weights.shape}"
            )
        losses = losses * class_weights.reshape((1,) * (losses.ndim - 1) + (classes,))
    if ignore_background and classes > 1:
        losses = losses[..., 1:]
    if reduction == "none":
        return losses
    return jnp.mean(losses, -1) if reduction == "mean" else jnp.sum(losses, -1)


def binary_dice_loss(
    predictions: Input,
    targets: Input,
    *,
    smooth: Input = 1.0,
    apply_sigmoid: bool = True,
) -> jax.Array:
    """How much a predicted and a true region miss of one another.

        loss = 1 - (sum_i p_i t_i + smooth) / (sum_i (p_i + t_i) / 2 + smooth)

    Args:
        predictions: logits, floats, `[batch, ...]` or `[batch, ..., 1]`.
        targets: where the region is, 0 or 1, in either of these shapes.
        smooth: added above and below, not negative.
        apply_sigmoid: whether to make probabilities of the logits; otherwise
            `predictions` are probabilities.

    Returns:
        The losses, `[batch]`, in the dtype of the floats given.

    Raises:
        ValueError: the shapes differ.
        TypeError: an argument is no array of real numbers.

    Example:
        >>> p, t = jnp.array([[1.0, 0.0, 1.0]]), jnp.array([[1, 0, 0]])
        >>> jopt.losses.binary_dice_loss(p, t, apply_sigmoid=False)
        Array([0.2], dtype=float32)

    Reference:
        Milletari, Navab & Ahmadi, V-Net, 3DV 2016, arXiv:1606.04797.
    """

    def with_channel(name, x):
        x = real("binary_dice_loss", name, x)
        return x if x.shape[-1:] == (1,) else x[..., None]

    return dice_loss(
        with_channel("predictions", predictions),
        with_channel("targets", targets),
        smooth=smooth,
        apply_softmax=apply_sigmoid,
    )


def multiclass_generalized_dice_loss(
    predictions: Input,
    targets: Input,
    *,
    smooth: Input = 1.0,
    apply_softmax: bool = True,
    ignore_background: bool = False,
) -> jax.Array:
    """The Dice loss of all classes together, with rare classes weighted up.

        loss = 1 - (sum_c w_c I_c + smooth) / (sum_c w_c (P_c + T_c) / 2 + smooth)
        I_c = sum_i p_ic t_ic,  P_c = sum_i p_ic,  T_c = sum_i t_ic,  w_c ~ 1 / T_c^2

    with sums over the whole batch. The weights have a mean of one, which only `smooth`
    sees; the paper has `smooth = 0`. A class that does not occur weighs as much as the
    rarest one that does.

    This is the paper's rule. optax has the mean of every example's and class's
    `dice_loss` times `w_c`, in which a class that does not occur outweighs all others.

    Args:
        predictions: logits of the classes, floats, `[batch, ..., classes]`.
        targets: which class is where, one-hot, in the same shape.
        smooth: added above and below, not negative. Where the quotient is 0/0 the loss
            is zero.
        apply_softmax: whether to make probabilities of the logits: the softmax, or for
            one class the sigmoid. Otherwise `predictions` are probabilities: those of
            several classes sum to one.
        ignore_background: whether to leave out the first of several classes.

    Returns:
        The loss, `[]`, in the dtype of the floats given.

    Raises:
        ValueError: the shapes differ; or `predictions` with `apply_softmax=False` are
            no probabilities, where their values are known (outside of `jit`).
        TypeError: an argument is no array of real numbers.

    Example:
        >>> p = jnp.array([[[1.0, 0.0], [0.0, 1.0]]])
        >>> jopt.losses.multiclass_generalized_dice_loss(p, p, apply_softmax=False)
        Array(0., dtype=float32)

    Reference:
        Sudre et al., Generalised Dice Overlap as a Deep Learning Loss Function for
        Highly Unbalanced Segmentations, DLMIA 2017, arXiv:1707.03237, section 2.1; for
        classes that do not occur, the authors' code in NiftyNet.
    """
    if not apply_softmax:
        where = "multiclass_generalized_dice_loss"
        _check_distributions(where, real(where, "predictions", predictions))
    return _multiclass_generalized_dice_loss(
        predictions,
        targets,
        smooth=smooth,
        apply_softmax=apply_softmax,
        ignore_background=ignore_background,
    )


@loss("predictions", "targets", integers=True, equal=True, smooth=NOT_NEGATIVE)
def _multiclass_generalized_dice_loss(
    predictions: Input,
    targets: Input,
    *,
    smooth: Input,
    apply_softmax: bool,
    ignore_background: bool,
) -> jax.Array:
    _check_classes("multiclass_generalized_dice_loss", predictions)
    p = _probabilities(predictions) if apply_softmax else predictions
    t = targets
    if ignore_background and p.shape[-1] > 1:
        p, t = p[..., 1:], t[..., 1:]
    both, missed = _overlap(p, t, tuple(range(p.ndim - 1)), 0.5, 0.5)
    sizes = jnp.sum(t, tuple(range(t.ndim - 1)))
    occurs = sizes > 0
    rarest = jnp.min(sizes, where=occurs, initial=jnp.inf)
    rarest = jnp.where(jnp.isinf(rarest), 1, rarest)
    weights = (rarest / jnp.where(occurs, sizes, rarest)) ** 2  # at most 1
    weights = weights / jnp.mean(weights)
    return _quotient(jnp.sum(weights * both), jnp.sum(weights * missed), smooth)


def _with_channels(where: str, predictions: Input, targets: Input) -> tuple:
    """Both with an axis of classes, where one alone lacks that of its only class."""
    p, t = real(where, "predictions", predictions), real(where, "targets", targets)
    if t.shape == (*p.shape, 1):
        p = p[..., None]
    elif p.shape == (*t.shape, 1):
        t = t[..., None]
    return p, t


def _check_distributions(where: str, p: jax.Array) -> None:
    """Refuse what are no probabilities, if their values are known."""
    if not is_known(p) or not p.size:
        return
    floating = jnp.issubdtype(p.dtype, jnp.floating)
    rounding = max(1e-5, float(jnp.finfo(p.dtype).eps) if floating else 0)
    values = np.asarray(p, np.float64)
    sums = values.sum(-1) if p.shape[-1:] > (1,) else np.ones(1)
    inside = (values >= -rounding) & (values <= 1 + rounding)
    if not (inside.all() and (abs(sums - 1) <= rounding).all()):
        raise ValueError(
            f"{where}: predictions must be probabilities with apply_softmax=False, "
            "those of several classes with a sum of 1 along the last axis; got "
            f"numbers in [{values.min():.6g}, {values.max():.6g}] with sums in "
            f"[{sums.min():.6g}, {sums.max():.6g}]; were these logits?"
        )


def _check_classes(where: str, predictions: jax.Array) -> None:
    if not predictions.ndim:
        raise ValueError(f"{where}: predictions must have an axis of classes, got []")


def _probabilities(logits: jax.Array) -> jax.Array:
    if logits.shape[-1] == 1:
        return jax.nn.sigmoid(logits)
    return jnp.exp(-surprisal(logits, -1))


def _tversky(p, t, axis, smooth, alpha, beta):
    return _quotient(*_overlap(p, t, axis, alpha, beta), smooth)


def _overlap(p, t, axis, alpha, beta):
    """What is predicted and there, and what is only one of both, weighted."""
    both = jnp.sum(p * t, axis)
    missed = alpha * jnp.sum(p * (1 - t), axis) + beta * jnp.sum((1 - p) * t, axis)
    return both, missed


def _quotient(both, missed, smooth):
    whole = both + missed + smooth
    empty = whole == 0
    return jnp.where(empty, 0, missed / jnp.where(empty, 1, whole))

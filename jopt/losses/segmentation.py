"""Losses of overlap between predicted and true regions."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ..settings import NOT_NEGATIVE
from .arguments import Input, axes, loss, real
from .arithmetic import surprisal

__all__ = ["binary_dice_loss", "dice_loss", "multiclass_generalized_dice_loss"]


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
        targets: which class is where, one-hot, in the same shape.
        class_weights: factors of the classes' losses, `[classes]`; ones if `None`.
        smooth: added above and below, not negative. Where the quotient is 0/0, in an
            empty class with `smooth = 0`, the loss is zero.
        alpha: the weight of what is predicted and not there, not negative.
        beta: the weight of what is there and not predicted, not negative.
        apply_softmax: whether to make probabilities of the logits: the softmax, or for
            one class the sigmoid. Otherwise `predictions` are probabilities, which
            need not sum to one.
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
            the last or out of bounds, or `reduction` unknown.
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


@loss("predictions", "targets", integers=True, equal=True, smooth=NOT_NEGATIVE)
def multiclass_generalized_dice_loss(
    predictions: Input,
    targets: Input,
    *,
    smooth: Input = 1.0,
    apply_softmax: bool = True,
    ignore_background: bool = False,
) -> jax.Array:
    """The Dice loss with rare classes weighted up.

        loss = mean_{b, c} w_c dice_bc,  w_c = (classes / W) / (n_c^2 + 1e-7)

    with `n_c` the size of class `c` in the whole batch, `W` such that the mean weight
    is one, and `dice_bc` as `dice_loss(..., reduction="none")`. This is optax's rule;
    the paper weights the sums within one quotient instead. A class that does not occur
    outweighs all others.

    Args:
        predictions: logits of the classes, floats, `[batch, ..., classes]`.
        targets: which class is where, one-hot, in the same shape.
        smooth: added above and below, not negative.
        apply_softmax: whether to make probabilities of the logits: the softmax, or for
            one class the sigmoid. Otherwise `predictions` are probabilities.
        ignore_background: whether to leave out the first of several classes, though its
            weight stays in `W`.

    Returns:
        The loss, `[]`, in the dtype of the floats given.

    Raises:
        ValueError: the shapes differ.
        TypeError: an argument is no array of real numbers.

    Example:
        >>> p = jnp.array([[[1.0, 0.0], [0.0, 1.0]]])
        >>> jopt.losses.multiclass_generalized_dice_loss(p, p, apply_softmax=False)
        Array(0., dtype=float32)

    Reference:
        Sudre et al., Generalised Dice Overlap as a Deep Learning Loss Function for
        Highly Unbalanced Segmentations, DLMIA 2017, arXiv:1707.03237.
    """
    _check_classes("multiclass_generalized_dice_loss", predictions)
    rank = predictions.ndim
    p = _probabilities(predictions) if apply_softmax else predictions
    losses = _tversky(p, targets, tuple(range(1, rank - 1)), smooth, 0.5, 0.5)
    sizes = jnp.sum(targets, tuple(range(rank - 1)))
    weights = 1 / (sizes * sizes + 1e-7)
    weights = weights / jnp.mean(weights)
    losses = losses * weights.reshape((1,) * (losses.ndim - 1) + weights.shape)
    return jnp.mean(losses[..., 1:] if ignore_background and len(sizes) > 1 else losses)


def _check_classes(where: str, predictions: jax.Array) -> None:
    if not predictions.ndim:
        raise ValueError(f"{where}: predictions must have an axis of classes, got []")


def _probabilities(logits: jax.Array) -> jax.Array:
    if logits.shape[-1] == 1:
        return jax.nn.sigmoid(logits)
    return jnp.exp(-surprisal(logits, -1))


def _tversky(p, t, axis, smooth, alpha, beta):
    both = jnp.sum(p * t, axis)
    missed = alpha * jnp.sum(p * (1 - t), axis) + beta * jnp.sum((1 - p) * t, axis)
    whole = both + missed + smooth
    empty = whole == 0
    return jnp.where(empty, 0, missed / jnp.where(empty, 1, whole))

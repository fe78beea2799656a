"""What a loss may be given: arrays that promote and broadcast together."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from ..numerics import cast, compute_dtype
from ..settings import Range, check_array, check_integer, check_real
from ..settings.call import signature_of
from ..words import spell
from .arithmetic import masked, saturated

__all__ = []

Input = Any  # an array or a number as given, a JAX array where a body sees it
Reduction = Literal["mean", "sum"] | None  # of the losses that count

P = ParamSpec("P")
R = TypeVar("R")


def loss(
    *names: str,
    integers: bool = False,
    equal: bool = False,
    elementwise: bool = False,
    where: Literal["losses", "elements", "either", "counted"] = "losses",
    axis: int | tuple[int, ...] = (),
    finite: bool = False,
    **numbers: Range,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """The decorator of losses, whose bodies are arithmetic on alike arrays alone.

    A body gets real arrays of one rank that broadcast, in a dtype to compute in
    (float32 at least), zero where they are masked. Its value is masked and reduced, and
    returned in the dtype that they promoted to.

    Args:
        names: the arrays; the first, the prediction, must be of floats.
        integers: whether the first may be of integers too.
        equal: whether the shapes must be equal.
        elementwise: whether the numbers broadcast with the arrays.
        where: what the argument `where` masks: losses, elements that make a loss, in
            fewer dimensions either, or what the body counts and nothing besides.
        axis: the axes that losses do not have, if that is no argument.
        finite: whether a number that the dtype returned cannot hold becomes its
            largest one, and not infinity.
        numbers: other numbers, which take no part in promotion, and their ranges.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        name = function.__name__.lstrip("_")

        @functools.wraps(function)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
            signature = signature_of(function)
            parameters = signature.parameters.values()
            optional = {p.name for p in parameters if p.default is None}
            given = signature.bind(*args, **kwargs)
            given.apply_defaults()
            values = given.arguments
            missing = {n for n in optional if values[n] is None}
            arrays, extra = (
                {n: real(name, n, values[n]) for n in some if n not in missing}
                for some in (names, numbers)
            )
            if not integers:
                _check_floats(name, names[0], arrays[names[0]])
            if equal:
                _check_equal(name, arrays)
            dtype = floating_dtype(*arrays.values())
            wide = compute_dtype(dtype)
            together = arrays | extra if elementwise else arrays
            shape = joint_shape(name, together)
            for n in extra:
                check_array(name, n, values[n], numbers[n])
            values |= {n: cast(x, wide) for n, x in extra.items()}
            values |= {
                n: cast(_with_rank(x, len(shape)), wide) for n, x in together.items()
            }
            if "axis" in values:
                axes(name, values["axis"], len(shape))
            elif axis == -1 and not shape:
                raise ValueError(
                    f"{name}: {names[0]} must have one dimension at least, got "
                    f"{spell(arrays[names[0]])}"
                )
            reduction = values["reduction"] if "reduction" in optional else None
            check_reduction(name, reduction)
            counts = None  # which losses
            if values.get("where") is not None:
                lost = axes(name, values.get("axis", axis), len(shape))
                values["where"], counts = _masks(
                    name, values["where"], shape, lost, where
                )
                if where != "counted":  # NaN in padding must not reach a derivative
                    values |= {n: masked(values[n], values["where"]) for n in arrays}
            value = function(*given.args, **given.kwargs)
            if where == "losses" or reduction:
                value = jax.tree.map(lambda x: reduce(x, counts, reduction), value)
            if finite and dtype != wide:
                value = jax.tree.map(lambda x: saturated(x, dtype), value)
            return jax.tree.map(lambda x: cast(x, dtype), value)

        return wrapped

    return decorate


def check_reduction(where: str, reduction: Any) -> None:
    known = isinstance(reduction, str) and reduction in ("mean", "sum")
    if reduction is not None and not known:
        raise ValueError(
            f"{where}: reduction must be None, 'mean' or 'sum', got {reduction!r}"
        )


def reduce(
    losses: jax.Array, counts: jax.Array | None, reduction: Reduction
) -> jax.Array:
    """The losses that count, zero elsewhere, or their mean or sum; of none, zero."""
    losses = masked(losses, counts)
    if reduction is None:
        return losses
    if reduction == "sum":
        return jnp.sum(losses)
    n = jnp.asarray(losses.size if counts is None else jnp.sum(counts), losses.dtype)
    return jnp.sum(losses) / jnp.maximum(n, 1)


def real(where: str, name: str, x: Any) -> jax.Array:
    """The argument as an array of real numbers."""
    check_real(where, name, x)
    return jnp.asarray(x)


def floating_dtype(*arrays: jax.Array) -> np.dtype:
    """What the floats promote to; the default dtype of floats if there are none."""
    floats = [x for x in arrays if jnp.issubdtype(x.dtype, jnp.floating)]
    with jax.numpy_dtype_promotion("standard"):
        return jnp.dtype(jnp.result_type(*floats or [float]))


def _check_floats(where: str, name: str, x: jax.Array) -> None:
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"{where}: {name} must be of floats, got {spell(x)}: were the arguments "
            "exchanged?"
        )


def _check_equal(where: str, arrays: dict[str, jax.Array]) -> None:
    (first, like), *others = arrays.items()
    for name, x in others:
        if x.shape != like.shape:
            raise ValueError(
                f"{where}: {name} is {spell(x)}, {first} is {spell(like)}: the shapes "
                "must be equal"
            )


def joint_shape(where: str, arrays: dict[str, jax.Array]) -> tuple[int, ...]:
    """The shape that arrays broadcast to.

    An array of fewer dimensions must not stretch one of more: `[n]` with `[n, 1]`
    would quietly make `[n, n]`.
    """
    (first, like), *others = arrays.items()
    shape = like.shape
    for name, x in others:
        try:
            both = np.broadcast_shapes(shape, x.shape)
        except ValueError:
            both = None
        longest = max(shape, x.shape, key=len)
        if both is None or (len(shape) != x.ndim and both != longest):
            raise ValueError(
                f"{where}: {name} is {spell(x)}, {first} is {spell(like)}: the shapes "
                "must be equal or broadcast; one of fewer dimensions must not stretch "
                "one of more"
            )
        shape = both
    return shape


def _with_rank(x: jax.Array, rank: int) -> jax.Array:
    missing = rank - x.ndim
    return x.reshape((1,) * missing + x.shape) if x.ndim and missing else x


def _masks(
    where: str, value: Any, shape: tuple[int, ...], lost: tuple[int, ...], masks: str
) -> tuple[jax.Array, jax.Array]:
    """`where` in that shape, and without the axes that losses have lost."""
    value = real(where, "where", value)
    if value.dtype != jnp.bool_:
        raise TypeError(f"{where}: where must be of booleans, got {spell(value)}")
    of_losses = tuple(n for i, n in enumerate(shape) if i not in lost)
    fewer = 0 < value.ndim < len(shape)
    try:
        full = value
        if masks == "losses" or (masks == "either" and fewer):
            full = jnp.expand_dims(jnp.broadcast_to(value, of_losses), lost)
        full = jnp.broadcast_to(full, shape)
    except ValueError:
        wanted = f"{shape} of the elements"
        wanted += " or that of the losses" if masks == "either" else ""
        wanted = f"{of_losses} of the losses" if masks == "losses" else wanted
        raise ValueError(
            f"{where}: where is {spell(value)}, which does not broadcast to the shape "
            + wanted
        ) from None
    return full, jnp.any(full, lost)


def axes(where: str, axis: Any, rank: int) -> tuple[int, ...]:
    """The axes as a tuple of numbers that are not negative, in the order given."""
    if axis is None:
        return tuple(range(rank))
    given = tuple(axis) if isinstance(axis, Sequence) else (axis,)
    for i in given:
        check_integer(where, "axis", i, low=None)
        if not -rank <= i < rank:
            raise ValueError(
                f"{where}: axis {i} is out of bounds for {rank} dimensions"
            )
    found = tuple(int(i) % rank for i in given)
    if len(set(found)) < len(found):
        raise ValueError(f"{where}: axis must not name one twice, got {axis}")
    return found


def class_labels(
    where: str, labels: Any, name: str, shape: tuple[int, ...]
) -> jax.Array:
    """Integer labels of examples of that shape, with a last axis of length one."""
    labels = real(where, "labels", labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(
            f"{where}: labels must be the integers of classes, got {spell(labels)}"
        )
    pairs = zip(labels.shape, shape)
    alike = labels.ndim == len(shape) and all(a == b or 1 in (a, b) for a, b in pairs)
    if labels.ndim and not alike:
        raise ValueError(
            f"{where}: labels are {spell(labels)}, but the examples of {name} have the "
            f"shape {shape}"
        )
    labels = labels.astype(int)
    return labels.reshape(labels.shape + (1,) * (len(shape) + 1 - labels.ndim))


def at_label(x: jax.Array, labels: jax.Array) -> jax.Array:
    """The elements of the last axis that labels name, that axis kept."""
    fill = False if x.dtype == jnp.bool_ else jnp.nan
    return jnp.take_along_axis(x, labels, -1, mode="fill", fill_value=fill)

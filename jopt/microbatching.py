"""Functions of a large batch, computed on one part of it after another.

A batch of `num * size` rows is `num` microbatches; number i has the rows `i, i + num,
i + 2 num, ...`, so that a batch whose rows are spread over devices leaves a part of
each microbatch on every device. The parts are read where they lie, without a copy.
"""

import enum
import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr

from .base import ArrayTree
from .compat import Tracer, jaxpr_as_fun
from .numerics import cast, compute_dtype
from .settings import check_function, check_integer

__all__ = [
    "AccumulationType",
    "Accumulator",
    "micro_grad",
    "micro_vmap",
    "microbatch",
    "reshape_batch_axis",
]


class AccumulationType(enum.Enum):
    """How the results of microbatches become one.

    `SUM` adds them, `MEAN` divides the sum by the number of all microbatches.
    `RUNNING_MEAN` is the mean of those that were computed, which cannot overflow where
    they do not. `CONCAT` puts the rows back in the order of the batch; scalars become
    a vector. Results of 16 bits are accumulated in float32, and returned in 16 bits.
    """

    MEAN = enum.auto()
    SUM = enum.auto()
    RUNNING_MEAN = enum.auto()
    CONCAT = enum.auto()


@dataclass(frozen=True)
class Accumulator:
    """Another way to accumulate: `carry = update(carry, result, i)`, then `finalize`.

    Args:
        init: makes the first carry of a result's `jax.ShapeDtypeStruct`.
        update: the next carry, of the carry, a result and the microbatch's number.
        finalize: what is returned, of the last carry.
        aggregate: reduces the first axis of results for single rows to one result for
            a microbatch. Only `micro_vmap` and `micro_grad` call it.

    Example:
        >>> largest = jopt.microbatching.Accumulator(
        ...     init=lambda like: jnp.full(like.shape, -jnp.inf, like.dtype),
        ...     update=lambda carry, x, i: jnp.maximum(carry, x),
        ...     finalize=lambda carry: carry,
        ...     aggregate=lambda rows: rows.max(0))
        >>> jopt.microbatch(jnp.max, 0, 2, largest)(jnp.arange(6.0))
        Array(5., dtype=float32)
    """

    init: Callable[[ArrayTree], ArrayTree]
    update: Callable[[ArrayTree, ArrayTree, int], ArrayTree]
    finalize: Callable[[ArrayTree], ArrayTree]
    aggregate: Callable[[ArrayTree], ArrayTree]


class Aux(NamedTuple):
    """What `micro_grad` returns for each row: the loss, the metrics, `fun`'s own."""

    values: Any
    metrics: Any = None
    aux: Any = None


def microbatch(
    fun: Callable[..., Any],
    argnums: int | Sequence[int],
    microbatch_size: int | None,
    accumulator: Accumulator | AccumulationType | Any = AccumulationType.SUM,
    *,
    argnames: str | Sequence[str] = (),
    in_axes: int | Sequence[int] = 0,
    num_real_microbatches: int | jax.Array | None = None,
) -> Callable[..., Any]:
    """Computes a function of a batch in parts, in a loop that keeps one part at a time.

    The memory that `fun` needs for its intermediates is that of one microbatch.

    Args:
        fun: any function.
        argnums: the positions of the arguments that have a batch axis.
        microbatch_size: rows in each part; it must divide the rows of the batch. With
            `None` there is but one part: `fun` itself is returned.
        accumulator: how to combine the results: one of `AccumulationType`, an
            `Accumulator`, or a tree of them that is a prefix of `fun`'s result.
        argnames: the names of the keyword arguments that have a batch axis.
        in_axes: that axis; one for all, or one for each of `argnums` and `argnames`.
        num_real_microbatches: how many are computed, from the first on; all if `None`.
            It may be traced: batches of several sizes then share a program, which has
            no reverse-mode derivative. `CONCAT` fills up with zeros.

    Returns:
        A function of the same arguments.

    Raises:
        ValueError: a batch axis is missing, differs between arguments or is not
            divisible; the accumulator is unknown or does not suit a result.
        TypeError: `microbatch_size` is no integer, or an argument is not given.

    Example:
        >>> types = jopt.microbatching.AccumulationType
        >>> def fun(x):
        ...     return x + 1, jnp.sum(3 * x)
        >>> jopt.microbatch(fun, 0, 2, (types.CONCAT, types.SUM))(jnp.arange(4))
        (Array([1, 2, 3, 4], dtype=int32), Array(18, dtype=int32))
    """
    check_function("microbatch", "fun", fun)
    _check_accumulator("microbatch", accumulator)
    keys = (*_sequence(argnums), *_sequence(argnames))
    axes = _sequence(in_axes) * (len(keys) if isinstance(in_axes, int) else 1)
    if not keys or len(axes) != len(keys):
        raise ValueError(
            "microbatch: in_axes must be one integer, or one for each of argnums and "
            f"argnames, of which there must be one; got {in_axes} for {keys}"
        )
    for axis in axes:
        check_integer("microbatch", "each of in_axes", axis, low=None)
    if microbatch_size is None:
        return fun
    check_integer("microbatch", "microbatch_size", microbatch_size)

    @functools.wraps(fun)
    def microbatched(*args, **kwargs):
        given = dict(enumerate(args)) | kwargs
        axis_of = dict(zip(_from_left(keys, len(args)), axes))
        num = _count("microbatch", given, axis_of, microbatch_size)

        def part(i):
            def now(key):
                if key not in axis_of:
                    return given[key]
                take = functools.partial(_part, i, axis_of[key], microbatch_size)
                return jax.tree.map(take, given[key])

            return fun(*map(now, range(len(args))), **{k: now(k) for k in kwargs})

        # traced once, for the shapes of the results and for the loop
        jaxpr, like = jax.make_jaxpr(part, return_shape=True)(jnp.int32(0))
        run, structure = jaxpr_as_fun(jaxpr), jax.tree.structure(like)

        def step(i, carry):
            result = structure.unflatten(run(jnp.asarray(i, jnp.int32)))
            return jax.tree.map(
                lambda how, c, x: _lift(how, num).update(c, x, i),
                accumulator,
                carry,
                result,
            )

        first = jax.tree_util.tree_map_with_path(
            lambda path, how, x: _first_carry(path, how, num, x), accumulator, like
        )
        steps = _steps("microbatch", num_real_microbatches, num)
        last = jax.lax.fori_loop(0, steps, step, first)
        return jax.tree.map(
            lambda how, c, x: _finish(how, num, c, x), accumulator, last, like
        )

    return microbatched


def micro_vmap(
    fun: Callable[..., Any],
    in_axes: int | Sequence[int | None] = 0,
    out_axes: Any = 0,
    *,
    microbatch_size: int | None = None,
    vmap_fn: Callable[..., Callable[..., Any]] = jax.vmap,
    accumulator: Accumulator | AccumulationType | Any = AccumulationType.CONCAT,
    num_real_microbatches: int | jax.Array | None = None,
) -> Callable[..., Any]:
    """`jax.vmap` in parts, in a loop that keeps one part at a time.

    Args:
        fun: a function of one row.
        in_axes: the batch axis of each positional argument, `None` for those that have
            none; one integer for all. Keyword arguments have axis 0.
        out_axes: 0.
        microbatch_size: rows in each part; it must divide the rows of the batch. All at
            once if `None`.
        vmap_fn: `jax.vmap`, or another function of `(fun, in_axes, 0)`.
        accumulator: what to do with the results of the rows, as for `microbatch`:
            `CONCAT` returns them all, `SUM` and `MEAN` need the memory of one part.
        num_real_microbatches: how many parts are computed; see `microbatch`. Not used
            without a `microbatch_size`.

    Returns:
        A function of arguments with a batch axis.

    Raises:
        NotImplementedError: `out_axes` is not 0.
        ValueError: as for `microbatch`, or no argument has a batch axis.

    Example:
        >>> jopt.microbatching.micro_vmap(jnp.square, microbatch_size=2)(jnp.arange(6))
        Array([ 0,  1,  4,  9, 16, 25], dtype=int32)
    """
    if not (isinstance(out_axes, int) and out_axes == 0):
        raise NotImplementedError(
            f"micro_vmap: out_axes must be 0, got {out_axes!r}; move the axis of the "
            "result with jnp.moveaxis"
        )
    check_function("micro_vmap", "fun", fun)
    _check_accumulator("micro_vmap", accumulator)

    @functools.wraps(fun)
    def mapped(*args, **kwargs):
        axes = _sequence(in_axes) * (len(args) if isinstance(in_axes, int) else 1)
        rows = vmap_fn(fun, axes, 0)

        def aggregated(*args, **kwargs):
            return jax.tree.map(
                lambda how, x: _lift(how).aggregate(x),
                accumulator,
                rows(*args, **kwargs),
            )

        batched = [i for i, axis in enumerate(axes) if axis is not None]
        return microbatch(
            aggregated,
            batched,
            microbatch_size,
            accumulator,
            argnames=tuple(kwargs),
            in_axes=[axes[i] for i in batched] + [0] * len(kwargs),
            num_real_microbatches=num_real_microbatches,
        )(*args, **kwargs)

    return mapped


def micro_grad(
    fun: Callable[..., Any],
    has_aux: bool = False,
    argnums: int | Sequence[int] = 0,
    *,
    batch_argnums: int | Sequence[int] = 1,
    keep_batch_dim: bool = True,
    microbatch_size: int | None = None,
    accumulator: Accumulator | AccumulationType | Any = AccumulationType.SUM,
    transform_fn: Callable[[ArrayTree], ArrayTree] = lambda grads: grads,
    metrics_fn: Callable[[ArrayTree], ArrayTree] = lambda grads: None,
    num_real_microbatches: int | jax.Array | None = None,
) -> Callable[..., tuple[Any, Aux]]:
    """The gradient of each row, transformed and then summed, a part at a time.

        g_i   = gradient of fun(params, batch[i:i + 1])
        value = sum_i transform_fn(g_i)

    To clip each row's gradient, or to take second moments over rows.

    Args:
        fun: the loss, a scalar.
        has_aux: whether `fun` returns `(loss, aux)`.
        argnums: the positions of the arguments to differentiate.
        batch_argnums: the positions of the arguments whose axis 0 is the batch. Keyword
            arguments are mapped over it too.
        keep_batch_dim: whether `fun` is given rows as batches of size one.
        microbatch_size: rows in each part; it must divide the rows of the batch. All at
            once if `None`.
        accumulator: how to combine the rows; see `microbatch`.
        transform_fn: what to do with a row's gradient before it is added.
        metrics_fn: what to keep of a row's gradient: a few numbers, such as its norm.
        num_real_microbatches: how many parts are computed; see `microbatch`.

    Returns:
        A function of the arguments of `fun` that returns the accumulated gradients and
        `Aux(values, metrics, aux)`, each with a row for every row of the batch.

    Raises:
        ValueError: as for `microbatch`.

    Example:
        >>> def loss(w, x):
        ...     return jnp.sum(w * x)
        >>> grad = jopt.microbatching.micro_grad(loss, transform_fn=jnp.sign)
        >>> grad(1.0, jnp.array([1.0, -2.0, 3.0]))[0]
        Array(1., dtype=float32)

    Reference:
        Roulet & Agarwala, Per-example gradients: a new frontier for understanding and
        improving optimizers, 2025, arXiv:2510.00236.
    """
    check_function("micro_grad", "fun", fun)
    _check_accumulator("micro_grad", accumulator)
    batched = _sequence(batch_argnums)
    value_and_grad = jax.value_and_grad(fun, argnums, has_aux=has_aux)

    @functools.wraps(fun)
    def micro_gradient(*args, **kwargs):
        mapped = _from_left(batched, len(args))

        def of_row(*args, **kwargs):
            if keep_batch_dim:
                args = [
                    jax.tree.map(lambda x: x[None], x) if i in mapped else x
                    for i, x in enumerate(args)
                ]
            values, grads = value_and_grad(*args, **kwargs)
            values, aux = values if has_aux else (values, None)
            return transform_fn(grads), Aux(values, metrics_fn(grads), aux)

        return micro_vmap(
            of_row,
            [0 if i in mapped else None for i in range(len(args))],
            microbatch_size=microbatch_size,
            accumulator=(accumulator, AccumulationType.CONCAT),
            num_real_microbatches=num_real_microbatches,
        )(*args, **kwargs)

    return micro_gradient


def reshape_batch_axis(tree: ArrayTree, microbatch_size: int, axis: int = 0) -> Any:
    """The batch axis as two: `[num * size, ...] -> [num, size, ...]`.

    Part i has the rows `i, i + num, i + 2 num, ...`: a batch axis that is sharded
    leaves the second of the two sharded alike.

    Args:
        tree: arrays with a batch axis.
        microbatch_size: rows in each part, a divisor of the rows of the batch.
        axis: the batch axis.

    Returns:
        The tree of reshaped arrays.

    Raises:
        ValueError: an array has no such axis, or it is not divisible.
        TypeError: `microbatch_size` is no integer.

    Example:
        >>> jopt.microbatching.reshape_batch_axis(jnp.arange(6), 2)
        Array([[0, 3],
               [1, 4],
               [2, 5]], dtype=int32)
    """
    check_integer("reshape_batch_axis", "microbatch_size", microbatch_size)

    def reshape(path, x):
        _rows("reshape_batch_axis", f"tree{keystr(path)}", x, axis, microbatch_size)
        x, axis_of_num = _split(x, axis, microbatch_size)
        return x.swapaxes(axis_of_num - 1, axis_of_num)

    return jax.tree_util.tree_map_with_path(reshape, tree)


# ------------------------------------------------------------------------- the batch


def _sequence(x: Any) -> tuple:
    one = isinstance(x, str) or not isinstance(x, Iterable)
    return (x,) if one else tuple(x)


def _from_left(keys: tuple, num_args: int) -> list:
    return [k + num_args if isinstance(k, int) and k < 0 else k for k in keys]


def _count(where: str, given: dict, axis_of: dict, size: int) -> int:
    """How many microbatches of `size` rows there are in the batch."""
    found = {}
    for key, axis in axis_of.items():
        if key not in given:
            raise TypeError(
                f"{where}: the argument {key!r} must be given: it is batched"
            )
        for path, x in jax.tree_util.tree_leaves_with_path(given[key]):
            name = f"argument {key!r}{keystr(path)}"
            found[name] = _rows(where, name, x, axis, size)
    if len(set(found.values())) != 1:
        rows = ", ".join(f"{name} has {n}" for name, n in found.items()) or "none"
        raise ValueError(f"{where}: batches must have equally many rows: {rows}")
    return next(iter(found.values())) // size


def _rows(where: str, name: str, x: Any, axis: int, size: int) -> int:
    if not isinstance(x, (int, float, np.generic, np.ndarray, jax.Array)):
        raise TypeError(f"{where}: {name} must be an array, got {type(x).__name__}")
    check_integer(where, "axis", axis, low=None)
    shape = np.shape(x)
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"{where}: {name} of shape {shape} has no batch axis {axis}")
    if shape[axis] == 0 or shape[axis] % size:
        raise ValueError(
            f"{where}: {name} has {shape[axis]} rows along axis {axis}, which must be "
            f"a multiple of microbatch_size={size}"
        )
    return shape[axis]


def _split(x: jax.Array, axis: int, size: int) -> tuple[jax.Array, int]:
    """Rows as `[size, num]`, in place; and the axis of `num`."""
    axis %= x.ndim
    shape = (size, x.shape[axis] // size)
    return x.reshape(x.shape[:axis] + shape + x.shape[axis + 1 :]), axis + 1


def _part(i: jax.Array, axis: int, size: int, x: jax.Array) -> jax.Array:
    x, axis_of_num = _split(x, axis, size)
    return jax.lax.dynamic_index_in_dim(x, i, axis_of_num, keepdims=False)


def _steps(where: str, steps: Any, num: int) -> Any:
    if steps is None:
        return num
    if isinstance(steps, Tracer):
        return jnp.clip(steps, 0, num)
    if isinstance(steps, (np.ndarray, jax.Array)) and not steps.ndim:
        steps = steps.item()
    check_integer(where, "num_real_microbatches", steps, low=None)
    if not 0 <= steps <= num:
        raise ValueError(
            f"{where}: num_real_microbatches must be from 0 to {num}, the number of "
            f"microbatches, got {steps}"
        )
    return steps


# ------------------------------------------------------------------- the accumulators


def _check_accumulator(where: str, accumulator: Any) -> None:
    for path, how in jax.tree_util.tree_leaves_with_path(accumulator):
        if not isinstance(how, (Accumulator, AccumulationType)):
            raise ValueError(
                f"{where}: accumulator{keystr(path)} must be an AccumulationType or an "
                f"Accumulator, got {how!r}"
            )


def _lift(how: Accumulator | AccumulationType, num: int = 1) -> Accumulator:
    """The accumulator of a type, for `num` microbatches."""
    if isinstance(how, Accumulator):
        return how
    init, update, finalize, aggregate = _TYPES[how.name]
    return Accumulator(
        lambda like: jax.tree.map(lambda x: init(x, num), like),
        lambda carry, x, i: jax.tree.map(lambda c, x: update(c, x, i), carry, x),
        lambda carry: jax.tree.map(lambda c: finalize(c, num), carry),
        lambda rows: jax.tree.map(aggregate, rows),
    )


def _zeros(x, num):
    return jnp.zeros(x.shape, compute_dtype(x.dtype))


def _add(c, x, i):
    return c + cast(x, c.dtype)


def _step_to(c, x, i):
    return c + (cast(x, c.dtype) - c) / jnp.asarray(i + 1, c.real.dtype)


def _buffer(x, num):
    return jnp.zeros((*x.shape[:1], num, *x.shape[1:]), x.dtype)


def _put(c, x, i):
    return jax.lax.dynamic_update_index_in_dim(c, x, i, axis=min(x.ndim, 1))


def _in_order(c, num):
    return c if c.ndim == 1 else c.reshape(-1, *c.shape[2:])


def _same(c, num):
    return c


# init(x, num), update(carry, x, i), finalize(carry, num), aggregate(rows)
_TYPES = dict(
    SUM=(_zeros, _add, _same, lambda x: jnp.sum(x, axis=0)),
    MEAN=(_zeros, _add, lambda c, num: c / num, lambda x: jnp.mean(x, axis=0)),
    RUNNING_MEAN=(_zeros, _step_to, _same, lambda x: jnp.mean(x, axis=0)),
    CONCAT=(_buffer, _put, _in_order, lambda x: x),
)


def _first_carry(path: tuple, how: Any, num: int, like: ArrayTree) -> ArrayTree:
    if how in (AccumulationType.MEAN, AccumulationType.RUNNING_MEAN):
        for below, x in jax.tree_util.tree_leaves_with_path(like):
            if not jnp.issubdtype(x.dtype, jnp.inexact):
                raise ValueError(
                    f"microbatch: the result{keystr(path + below)} is {x.dtype}; "
                    f"{how.name} accumulates floating-point values"
                )
    return _lift(how, num).init(like)


def _finish(how: Any, num: int, carry: ArrayTree, like: ArrayTree) -> ArrayTree:
    result = _lift(how, num).finalize(carry)
    if isinstance(how, Accumulator):
        return result
    return jax.tree.map(lambda r, x: cast(r, x.dtype), result, like)

"""One call, no state object: weights and gradients in, new weights out.

Every array or number may be a pytree. A leaf standing where the weights have a subtree
serves every leaf below it, as the learning rate does in `lr={"enc": 0.1, "dec": 0.01}`.
Arrays broadcast within a leaf, never beyond the shape of the weights.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from .base import ArrayTree
from .numerics import cast, compute_dtype, norm, one_minus_power, safe_sqrt
from .operands import (
    check_fits,
    check_framework,
    fit,
    joint_shape,
    read_flags,
    read_floats,
    read_rates,
    read_scalars,
    strict_call,
    with_rank,
)
from .optimizers.adam import adam_rule
from .parts.apply import apply_updates
from .prefixes import LeafArguments, join, split

__all__ = [
    "adam_step",
    "adam_update",
    "apply_updates",
    "gradient_descent_update",
    "lamb_update",
    "lars_update",
    "optimizer_update",
]


@strict_call
def optimizer_update(
    w: ArrayTree,
    effective_grad: ArrayTree,
    lr: ArrayTree,
    /,
    *,
    stop_gradients: bool | ArrayTree = True,
    out: ArrayTree | None = None,
    inplace: bool | None = None,
) -> ArrayTree:
    """Steps down an effective gradient, whichever method made it.

        w - lr effective_grad

    Args:
        w: the weights.
        effective_grad: the direction to step against.
        lr: the learning rate.
        stop_gradients: whether the new weights are constants to an outer
            differentiation; a bool, or a tree of them for parts of the weights.
        out: arrays whose shapes and dtypes the new weights take; not written to.
        inplace: without effect, no array is ever written; donate buffers with
            `jax.jit(..., donate_argnums=0)`.

    Returns:
        The new weights, in the structure, shapes and dtypes of `w`.

    Raises:
        ValueError: an argument has more structure than `w`, or does not broadcast to
            it.
        TypeError: a leaf is no real number or array of them.

    Example:
        >>> jopt.optimizer_update(jnp.array([1.0, 2.0]), jnp.array([1.0, 0.0]), 0.5)
        Array([0.5, 2. ], dtype=float32)
    """
    w, u = read_floats("w", w), read_floats("effective_grad", effective_grad)
    return _descend(w, {"effective_grad": u}, read_rates("lr", lr), stop_gradients, out)


@strict_call
def gradient_descent_update(
    w: ArrayTree,
    dcdw: ArrayTree,
    lr: ArrayTree,
    /,
    *,
    stop_gradients: bool | ArrayTree = True,
    out: ArrayTree | None = None,
    inplace: bool | None = None,
    f: object = None,
) -> ArrayTree:
    """Steps down the gradient.

        w - lr dcdw

    Args:
        w: the weights.
        dcdw: the gradient of the cost by the weights.
        lr: the learning rate.
        stop_gradients, out, inplace: as in `optimizer_update`.
        f: the framework, `None`, `"jax"` or the module `jax`.

    Returns:
        The new weights, in the structure, shapes and dtypes of `w`.

    Raises:
        ValueError, TypeError: as in `optimizer_update`.

    Example:
        >>> w = {"a": jnp.array([1.0, 2.0]), "b": jnp.array([3.0])}
        >>> jopt.gradient_descent_update(w, w, {"a": 0.5, "b": 0.0})
        {'a': Array([0.5, 1. ], dtype=float32), 'b': Array([3.], dtype=float32)}
    """
    check_framework(f)
    w, g = read_floats("w", w), read_floats("dcdw", dcdw)
    return _descend(w, {"dcdw": g}, read_rates("lr", lr), stop_gradients, out)


@strict_call
def lars_update(
    w: ArrayTree,
    dcdw: ArrayTree,
    lr: ArrayTree,
    /,
    *,
    decay_lambda: ArrayTree = 0,
    stop_gradients: bool | ArrayTree = True,
    out: ArrayTree | None = None,
    inplace: bool | None = None,
) -> ArrayTree:
    """Steps down the gradient by a fraction of each leaf's own norm.

        u     = dcdw + decay_lambda w
        ratio = |w| / (|dcdw| + decay_lambda |w| + 1e-12), and 1 where |w| = 0
        w - lr ratio u

    with 2-norms over all elements of a leaf.

    Args:
        w: the weights.
        dcdw: the gradient of the cost by the weights.
        lr: the learning rate, times the paper's trust coefficient.
        decay_lambda: the weight decay, not negative.
        stop_gradients, out, inplace: as in `optimizer_update`.

    Returns:
        The new weights, in the structure, shapes and dtypes of `w`.

    Raises:
        ValueError, TypeError: as in `optimizer_update`; `decay_lambda` is negative.

    Example:
        >>> jopt.lars_update(jnp.array([3.0, 4.0]), jnp.array([0.0, 2.0]), 0.1)
        Array([3. , 3.5], dtype=float32)

    Reference:
        You, Gitman & Ginsburg, Large Batch Training of Convolutional Networks, 2017,
        arXiv:1708.03888. That a zero weight has the ratio 1 is not in the paper; it
        lets weights leave zero.
    """

    def step(w, g, decay):
        g = jnp.broadcast_to(g, w.shape)
        size = norm(w)
        u = g + decay * w
        # |w| (u / ...) and not (|w| / ...) u, which overflows for small gradients.
        scaled = size * _over(u, norm(g) + decay * size)
        return jnp.where(size > 0, scaled, u)

    w, g = read_floats("w", w), read_floats("dcdw", dcdw)
    settings = {"decay_lambda": read_scalars("decay_lambda", decay_lambda)}
    return _descend(
        w, {"dcdw": g}, read_rates("lr", lr), stop_gradients, out, step, settings
    )


@strict_call
def adam_step(
    dcdw: ArrayTree,
    mw: ArrayTree,
    vw: ArrayTree,
    step: ArrayTree,
    /,
    *,
    beta1: ArrayTree = 0.9,
    beta2: ArrayTree = 0.999,
    epsilon: ArrayTree = 1e-7,
    out: ArrayTree | None = None,
) -> tuple[ArrayTree, ArrayTree, ArrayTree]:
    """Adam's step before the learning rate, and the new moments.

        mw    <- beta1 mw + (1 - beta1) dcdw
        vw    <- beta2 vw + (1 - beta2) dcdw^2
        alpha  = sqrt(1 - beta2^step) / (1 - beta1^step + epsilon)
        delta  = alpha mw / (sqrt(max(vw, 0)) + epsilon)

    Args:
        dcdw: the gradient of the cost by the weights.
        mw: the mean gradient so far; 0 at the start.
        vw: the mean squared gradient so far; 0 at the start.
        step: the number of this step, from 1 on; any positive number will do.
        beta1: decay of the mean gradient, in [0, 1].
        beta2: decay of the mean squared gradient, in [0, 1].
        epsilon: added to the uncorrected root and in the bias correction, not negative.
        out: arrays whose shapes and dtypes delta takes; not written to.

    Returns:
        `(delta, mw, vw)`. Each has the structure that the arguments it is computed from
        join to, and their joint shape; the moments keep their dtypes and delta has what
        these promote to.

    Raises:
        ValueError: two arguments differ in structure or do not broadcast, or a number
            is outside its range.
        TypeError: a leaf is no real number or array of them.

    Example:
        >>> delta, mw, vw = jopt.adam_step(jnp.array([2.0]), 0.0, 0.0, 1)
        >>> mw
        Array([0.2], dtype=float32)

    Reference:
        Kingma & Ba, Adam: A Method for Stochastic Optimization, ICLR 2015,
        arXiv:1412.6980; epsilon is that of the end of its section 2.
    """
    arrays = {
        "dcdw": read_floats("dcdw", dcdw),
        "mw": read_floats("mw", mw),
        "vw": read_floats("vw", vw),
    }
    settings = _adam_settings(step, beta1, beta2, epsilon)
    delta, dtypes, mw, vw = _adam(arrays, settings)
    return fit(delta, dtypes, out), mw, vw


@strict_call
def adam_update(
    w: ArrayTree,
    dcdw: ArrayTree,
    lr: ArrayTree,
    mw_tm1: ArrayTree,
    vw_tm1: ArrayTree,
    step: ArrayTree,
    /,
    *,
    beta1: ArrayTree = 0.9,
    beta2: ArrayTree = 0.999,
    epsilon: ArrayTree = 1e-7,
    stop_gradients: bool | ArrayTree = True,
    out: ArrayTree | None = None,
    inplace: bool | None = None,
    f: object = None,
) -> tuple[ArrayTree, ArrayTree, ArrayTree]:
    """Steps by the mean gradient over the root of its mean square.

        delta, mw, vw = adam_step(dcdw, mw_tm1, vw_tm1, step)
        w - lr delta

    Args:
        w: the weights.
        dcdw: the gradient of the cost by the weights.
        lr: the learning rate.
        mw_tm1: the mean gradient of the step before; 0 at the start.
        vw_tm1: the mean squared gradient of the step before; 0 at the start.
        step, beta1, beta2, epsilon: as in `adam_step`.
        stop_gradients, out, inplace: as in `optimizer_update`; the moments stay
            attached to an outer differentiation.
        f: the framework, `None`, `"jax"` or the module `jax`.

    Returns:
        `(w, mw, vw)`. The weights keep structure, shapes and dtypes. Each new moment
        has the structure and shape that the old one and the gradient join to: with
        bare arrays for both it is a bare array.

    Raises:
        ValueError, TypeError: as in `optimizer_update` and `adam_step`.

    Example:
        >>> w, g = jnp.array([1.0, 2.0]), jnp.array([0.3, -4.0])
        >>> w, mw, vw = jopt.adam_update(w, g, 0.5, 0.0, 0.0, 1)
        >>> w.round(4)
        Array([0.5, 2.5], dtype=float32)

    Reference:
        Kingma & Ba, Adam: A Method for Stochastic Optimization, ICLR 2015,
        arXiv:1412.6980.
    """
    check_framework(f)
    w, lr, arrays = _read(w, dcdw, lr, mw_tm1, vw_tm1)
    settings = _adam_settings(step, beta1, beta2, epsilon)
    _align(w, arrays, {"lr": lr, **settings})
    delta, _, mw, vw = _adam(arrays, settings, w)
    return _descend(w, {"delta": delta}, lr, stop_gradients, out), mw, vw


@strict_call
def lamb_update(
    w: ArrayTree,
    dcdw: ArrayTree,
    lr: ArrayTree,
    mw_tm1: ArrayTree,
    vw_tm1: ArrayTree,
    step: ArrayTree,
    /,
    *,
    beta1: ArrayTree = 0.9,
    beta2: ArrayTree = 0.999,
    epsilon: ArrayTree = 1e-7,
    max_trust_ratio: ArrayTree = 10,
    decay_lambda: ArrayTree = 0,
    stop_gradients: bool | ArrayTree = True,
    out: ArrayTree | None = None,
    inplace: bool | None = None,
) -> tuple[ArrayTree, ArrayTree, ArrayTree]:
    """Steps by Adam's direction, in proportion to each leaf's own norm.

        delta, mw, vw = adam_step(dcdw, mw_tm1, vw_tm1, step)
        u     = delta + decay_lambda w
        ratio = min(|w| / (|u| + 1e-12), max_trust_ratio), with 1 for the quotient
                where |w| = 0
        w - lr ratio u

    with 2-norms over all elements of a leaf.

    Args:
        w, dcdw, lr, mw_tm1, vw_tm1, step: as in `adam_update`.
        beta1, beta2, epsilon: as in `adam_step`.
        max_trust_ratio: the largest ratio, positive.
        decay_lambda: the weight decay, not negative.
        stop_gradients, out, inplace: as in `adam_update`.

    Returns:
        `(w, mw, vw)`, as `adam_update`.

    Raises:
        ValueError, TypeError: as in `adam_update`; `max_trust_ratio` is not positive
            or `decay_lambda` negative.

    Example:
        >>> w, g = jnp.array([3.0, 4.0]), jnp.array([0.3, -4.0])
        >>> w, mw, vw = jopt.lamb_update(w, g, 0.1, 0.0, 0.0, 1)
        >>> w.round(4)
        Array([2.6464, 4.3536], dtype=float32)

    Reference:
        You et al., Large Batch Optimization for Deep Learning: Training BERT in 76
        minutes, ICLR 2020, arXiv:1904.00962.
    """

    def step_(w, delta, most, decay):
        u = jnp.broadcast_to(delta, w.shape) + decay * w
        size = norm(w)
        ratio = jnp.where(size > 0, _over(size, norm(u)), 1)
        # Capped at what is finite, for a zero u.
        most = jnp.minimum(most, jnp.finfo(w.dtype).max)
        return jnp.minimum(ratio, most) * u

    w, lr, arrays = _read(w, dcdw, lr, mw_tm1, vw_tm1)
    settings = _adam_settings(step, beta1, beta2, epsilon)
    more = {
        "max_trust_ratio": read_scalars("max_trust_ratio", max_trust_ratio),
        "decay_lambda": read_scalars("decay_lambda", decay_lambda),
    }
    _align(w, arrays, {"lr": lr, **settings})
    delta, _, mw, vw = _adam(arrays, settings, w)
    w = _descend(w, {"delta": delta}, lr, stop_gradients, out, step_, more)
    return w, mw, vw


# -------------------------------------------------------------------------- the weights


def _read(w, dcdw, lr, mw_tm1, vw_tm1):
    arrays = {
        "dcdw": read_floats("dcdw", dcdw),
        "mw_tm1": read_floats("mw_tm1", mw_tm1),
        "vw_tm1": read_floats("vw_tm1", vw_tm1),
    }
    return read_floats("w", w), read_rates("lr", lr), arrays


def _align(w: ArrayTree, arrays: dict, settings: dict) -> ArrayTree:
    """A row for each weight, of arguments that are prefixes and broadcast to it."""
    rows = join({"w": w, **arrays}, settings, fullest="w")
    for row in jax.tree.leaves(rows):
        for name in (*arrays, "lr"):
            check_fits(row.path, name, row[name], "w", row["w"])
    return rows


def _descend(
    w: ArrayTree,
    arrays: dict[str, ArrayTree],
    lr: ArrayTree,
    stop_gradients: bool | ArrayTree,
    out: ArrayTree | None,
    direction: Callable[..., jax.Array] = lambda w, *u: u[0],
    settings: dict[str, ArrayTree] | None = None,
) -> ArrayTree:
    """`w - lr direction(w, *arrays, *settings)` for each weight."""
    settings = settings or {}
    flags = read_flags("stop_gradients", stop_gradients)
    rows = _align(w, arrays, {"lr": lr, **settings, "stop_gradients": flags})

    def new_weight(row):
        operands = [row[name] for name in ("w", *arrays)]
        dtype, rank = _compute_dtype(*operands), np.ndim(row["w"])
        w, *operands = (with_rank(x, rank, dtype) for x in operands)
        lr, *scalars = (
            x if isinstance(x, float) else with_rank(x, rank, dtype)
            for x in (row[name] for name in ("lr", *settings))
        )
        new = w - lr * direction(w, *operands, *scalars)
        new = jax.lax.stop_gradient(new) if row["stop_gradients"] else new
        return new, _first_dtype(row["w"], *(row[name] for name in arrays))

    new, dtypes = split(jax.tree.map(new_weight, rows), rows, 2)
    return fit(new, dtypes, out)


def _over(x: jax.Array, size: jax.Array) -> jax.Array:
    """`x / (size + 1e-12)`, whose derivatives of every order at zero are finite."""
    positive = size > 0
    return jnp.where(positive, x / (jnp.where(positive, size, 1) + 1e-12), x * 1e12)


# -------------------------------------------------------------------------- the moments


def _adam_settings(step, beta1, beta2, epsilon) -> dict[str, ArrayTree]:
    return {
        "step": read_scalars("step", step),
        "beta1": read_scalars("beta1", beta1),
        "beta2": read_scalars("beta2", beta2),
        "epsilon": read_scalars("epsilon", epsilon),
    }


def _adam(
    arrays: dict[str, ArrayTree],
    settings: dict[str, ArrayTree],
    w: ArrayTree | None = None,
) -> tuple[ArrayTree, ArrayTree, ArrayTree, ArrayTree]:
    """Adam's step, not rounded yet, its dtypes, and the new moments.

    The step has the precision of the weights `w` as well.
    """
    alpha = jax.tree.map(_bias_correction, join({}, settings))
    rows = join(arrays, {**settings, "alpha": alpha})
    results = jax.tree.map(
        lambda row, x: _adam_leaf(row, *arrays, others=jax.tree.leaves(x)),
        rows,
        jax.tree.map(lambda _: (), rows) if w is None else w,
    )
    delta, dtypes, m, v = split(results, rows, 4)

    def narrowed(moment, name, beta):
        gradient, g = next(iter(arrays.items()))
        made_of = {gradient: g, name: arrays[name]}
        return _narrow(moment, join(made_of, {beta: settings[beta]}), made_of)

    _, mean, square = arrays
    return delta, dtypes, narrowed(m, mean, "beta1"), narrowed(v, square, "beta2")


def _adam_leaf(
    row: LeafArguments, gradient: str, mean: str, square: str, others: list
) -> tuple:
    g, m, v = row[gradient], row[mean], row[square]
    # One element in more dimensions than the leaf has counts as a scalar.
    most = max((np.ndim(x) for x in others), default=np.ndim(g))
    g, m, v = (
        x.reshape(()) if np.ndim(x) > most and x.size == 1 else x for x in (g, m, v)
    )
    m_shape = joint_shape(row.path, mean, m, gradient, g)
    v_shape = joint_shape(row.path, square, v, gradient, g)
    # The moments have these shapes and dtypes, whatever they are made of.
    m_new = jax.ShapeDtypeStruct(m_shape, _first_dtype(m, g))
    v_new = jax.ShapeDtypeStruct(v_shape, _first_dtype(v, g))
    shape = joint_shape(row.path, mean, m_new, square, v_new)
    dtype, rank = _compute_dtype(g, m, v, *others), len(shape)
    scalars = (row[name] for name in ("alpha", "beta1", "beta2", "epsilon"))
    alpha, b1, b2, eps = (
        x if isinstance(x, float) else cast(x, dtype) for x in scalars
    )
    g, m, v = (with_rank(x, rank, dtype) for x in (g, m, v))
    delta, m, v = adam_rule(g, m, v, alpha, 1, b1=b1, b2=b2, eps=eps)
    m = cast(m.reshape(m_new.shape), m_new.dtype)
    v = cast(v.reshape(v_new.shape), v_new.dtype)
    same = m.dtype == v.dtype
    delta_dtype = m.dtype if same else compute_dtype(m.dtype, v.dtype)
    return delta, delta_dtype, m, v


def _narrow(moment: ArrayTree, rows: ArrayTree, made_of: dict) -> ArrayTree:
    """The moment in the structure of `rows`, of what it is made of."""
    structure = jax.tree.structure(rows)
    equal = [jax.tree.leaves(x) for x in structure.flatten_up_to(moment)]
    if not all(equal):
        raise ValueError(
            f"{' and '.join(made_of)} have an array where another argument of the step "
            "is an empty node: make both empty, or none"
        )
    return structure.unflatten(leaves[0] for leaves in equal)


def _bias_correction(row: LeafArguments) -> jax.Array:
    """Of the step, once for all leaves that share its arguments."""
    t = jnp.asarray(row["step"], jnp.result_type(float))
    root = safe_sqrt(one_minus_power(row["beta2"], t))
    epsilon = jnp.asarray(row["epsilon"], t.dtype)
    return root / (one_minus_power(row["beta1"], t) + epsilon)


# --------------------------------------------------------------------------- the dtypes


def _compute_dtype(*leaves: ArrayLike) -> np.dtype:
    """What the arrays among them promote to, float32 at least; numbers never widen."""
    dtypes = [x.dtype for x in leaves if isinstance(x, jax.Array)]
    return compute_dtype(*(dtypes or [jnp.result_type(float)]))


def _first_dtype(*leaves: ArrayLike) -> np.dtype:
    """Of the first array; the default one if all are numbers."""
    dtypes = (x.dtype for x in leaves if isinstance(x, jax.Array))
    return next(dtypes, jnp.result_type(float))

"""Arithmetic on arrays that every method shares."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from .compat import Tracer
from .platforms import platform_of

__all__ = [
    "abs_sq",
    "one_minus_power",
    "safe_increment",
    "safe_norm",
    "safe_root_mean_squares",
]

SMALL = 4096  # elements up to which an array costs its kernels and not its traffic


@functools.cache
def compute_dtype(*dtypes: DTypeLike) -> np.dtype:
    """The dtype to compute in: what the operands promote to, float32 at least."""
    return np.result_type(*(_at_least_float32(d) for d in dtypes))


def _at_least_float32(dtype: DTypeLike) -> np.dtype:
    dtype = jnp.dtype(dtype)
    narrow = jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize < 4
    return jnp.dtype(jnp.float32) if narrow else dtype


def cast(x: jax.Array, dtype: DTypeLike) -> jax.Array:
    """`x.astype(dtype)`, at no cost where that is its dtype."""
    return x if x.dtype == dtype else x.astype(dtype)


def width_of(x: jax.Array, dtype: DTypeLike) -> np.dtype:
    """The dtype for an array like `x`, of real parts of the width of `dtype`.

    A complex array has complex parts however real the dtype: one of 32 bits at least.
    """
    complex_dtype = np.result_type(jnp.finfo(_at_least_float32(dtype)).dtype, "c8")
    return complex_dtype if jnp.iscomplexobj(x) else jnp.dtype(dtype)


def zeros_in(x: jax.Array, dtype: DTypeLike | None) -> jax.Array:
    """Zeros like `x`, in parts of the width of `dtype`; in those of `x` if `None`."""
    return jnp.zeros_like(x, dtype=None if dtype is None else width_of(x, dtype))


def is_traced(tree: Any) -> bool:
    """Whether there is a tracer among the leaves."""
    for kind in set(map(type, jax.tree.leaves(tree))):
        if issubclass(kind, Tracer):
            return True
    return False


def cond(predicate: jax.Array, then: Callable, otherwise: Callable) -> Any:
    """`jax.lax.cond` in a trace, else Python's `if`.

    Outside of `jit` XLA would compile the two branches at each call, for one device.
    """
    if isinstance(predicate, Tracer):
        return jax.lax.cond(predicate, then, otherwise)
    return then() if predicate else otherwise()


def ema(x: jax.Array, mean: jax.Array, decay: ArrayLike) -> jax.Array:
    """Exponential moving average, `decay * mean + (1 - decay) * x`.

    Written as a step of size `1 - decay` towards `x`: for a decay near one that
    difference is exact in float32 where the decay itself is not (0.999 is off by
    1.3e-8, which moves the mean by 1.3e-5). Below one half it is a step of size `decay`
    from `x`: one from a mean that is much larger than `x` would cancel. Of an array
    that holds the decay the difference is exact from one half on, and rounded below.
    """
    if isinstance(decay, (int, float)):
        if decay < 0.5:
            return x + decay * (mean - x)
        return mean + (1 - decay) * (x - mean)
    return mean * decay + x * (1 - decay)


def one_minus_power(decay: ArrayLike, t: ArrayLike) -> jax.Array:
    """`1 - decay**t`, without the cancellation; one for `decay = 0`.

    A moving average that began at zero has this weight after `t` steps: what a bias
    correction divides by.

    Args:
        decay: the decay of the average, in [0, 1).
        t: the number of steps, positive.

    Returns:
        `f32[]`, or the dtype of `t` if that is floating and wider.

    Example:
        >>> jopt.one_minus_power(0.5, 2)
        Array(0.75, dtype=float32)
    """
    t = jnp.asarray(t)
    default = jnp.result_type(float)  # float32, or float64 where that is enabled
    dtype = compute_dtype(t.dtype if jnp.issubdtype(t.dtype, jnp.inexact) else default)
    t = t.astype(dtype)
    if isinstance(decay, (int, float)):  # in float64, however near to one
        return _minus_expm1(t, math.log(decay)) if decay > 0 else jnp.ones_like(t)
    decay = jnp.asarray(decay, dtype)
    log = jnp.log(jnp.where(decay > 0, decay, jnp.ones_like(decay)))
    return jnp.where(decay > 0, -jnp.expm1(t * log), jnp.ones_like(t * log))


@functools.partial(jax.jit, inline=True)  # one call to trace, not two
def _minus_expm1(t: jax.Array, log: float) -> jax.Array:
    return -jnp.expm1(t * log)


def debias(mean: jax.Array, decay: ArrayLike, t: ArrayLike) -> jax.Array:
    """The mean without the weight of its zero start, `mean / (1 - decay**t)`."""
    return mean / one_minus_power(decay, t).astype(mean.real.dtype)


def abs_sq(x: jax.Array) -> jax.Array:
    """The squared absolute value, real also where `x` is complex.

    Example:
        >>> float(jopt.abs_sq(jnp.array(3 + 4j)))
        25.0
    """
    x = jnp.asarray(x)
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        return x.real**2 + x.imag**2
    return jax.lax.mul(x, x)  # several times as quick to trace as `x * x`


# Just below the root of the largest number: what stays of it in the square is for
# rounding, in bias corrections and in bfloat16.
_ROOT_SHARE = 1 - 2.0**-7


def _largest_root(dtype: DTypeLike) -> float:
    """The size from which on a number's square is out of reach."""
    return 2.0 ** (jnp.finfo(dtype).maxexp // 2) * _ROOT_SHARE


def bounded(g: jax.Array) -> jax.Array:
    """The gradient, as large as one may be whose square is to be finite.

    That is 1.8e19 in float32. The direction of a method that divides by a root mean
    square depends on the size of the gradient only against that of other steps: so a
    larger one moves what one of this size would, where an infinite square moves nothing
    at all, in this step and, as NaN, all later ones. What is not finite stays as it is.
    """
    most = _largest_root(compute_dtype(g.dtype))
    if most > jnp.finfo(g.dtype).max:  # float16, which is squared in float32
        return g
    if not jnp.iscomplexobj(g):
        most = np.asarray(most, g.dtype)
        return jax.lax.select(jax.lax.is_finite(g), jax.lax.clamp(-most, g, most), g)
    part = jnp.maximum(jnp.abs(g.real), jnp.abs(g.imag))
    most = math.sqrt(0.5) * most
    large = (part > most) & jnp.isfinite(part)
    scale = jnp.where(large, most / jnp.where(large, part, 1), 1)
    return jax.lax.complex(g.real * scale, g.imag * scale)


def finite(square: jax.Array) -> jax.Array:
    """A square, or a sum of them, at most that of the largest `bounded` gradient."""
    most = _largest_root(square.dtype) ** 2
    return jax.lax.min(square, jnp.full_like(square, most))


def bounded_norm(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The squared norm, finite, and the factor that bounds the array to it."""
    return square_and_share(*_sum_of_squares(x))


def square_and_share(total: jax.Array, scale: ArrayLike) -> tuple:
    """`bounded_norm` of the sum of the squares of `scale * x`."""
    most = _largest_root(total.dtype)
    size = safe_sqrt(total) / scale
    return finite(total / scale / scale), most / jnp.maximum(size, most)


@jax.custom_jvp
def safe_sqrt(x: jax.Array) -> jax.Array:
    """`sqrt(max(x, 0))` whose derivative at and below zero is 0, not infinite."""
    return jnp.sqrt(jnp.maximum(x, 0))


@safe_sqrt.defjvp
def _safe_sqrt_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    root = safe_sqrt(x)
    positive = x > 0
    slope = jnp.where(positive, 0.5 / jnp.where(positive, root, 1), 0)
    return root, slope * dx


def safe_increment(count: jax.Array) -> jax.Array:
    """The count plus one, staying at the largest value that its dtype holds.

    Example:
        >>> jopt.safe_increment(jnp.int32(2))
        Array(3, dtype=int32)
    """
    count = jnp.asarray(count)
    if jnp.issubdtype(count.dtype, jnp.integer):
        top = jnp.iinfo(count.dtype).max
    elif jnp.issubdtype(count.dtype, jnp.floating):
        top = jnp.finfo(count.dtype).max
    else:
        raise ValueError(
            f"count must be an integer or a floating array, got dtype {count.dtype}"
        )
    below = count < np.asarray(top, count.dtype)  # no `int`: uint32 holds more
    return count + below.astype(count.dtype)


def norm(x: jax.Array) -> jax.Array:
    """The 2-norm over all elements, for any magnitude that the dtype holds.

    Computed in float32 at least, and scaled where the sum of squares overflows or
    nearly underflows; its derivative at zero is zero.
    """
    root, scale = _scaled_root(x)
    return root * scale


def rms(x: jax.Array) -> jax.Array:
    """The root of the mean square of all elements, computed as `norm` is."""
    root, scale = _scaled_root(x)
    return root / math.sqrt(max(x.size, 1)) * scale


def _scaled_root(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The norm as a product of two numbers."""
    x = x.astype(compute_dtype(x.dtype))
    real = jnp.finfo(x.dtype)
    if not x.size:
        return jnp.zeros((), real.dtype), jnp.ones((), real.dtype)
    total, scale = _sum_of_squares(x)
    return safe_sqrt(total), 1 / scale


# For sums of squares out of range: the scale for small ones, whose inverse is that for
# large ones, and the sum below which squares that matter may underflow.
SCALES = {4: (2.0**80, 2.0**-66), 8: (2.0**600, 2.0**-600)}


@jax.custom_jvp
def _sum_of_squares(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The sum of the squares of `scale * x`, and that scale, a power of two.

    Three sums are one kernel and one pass, but for CPU, where each is a pass: there
    the second is made only if it must.
    """

    def again(scale):
        return jnp.sum(_scaled_sq(x, scale))

    up, small = SCALES[jnp.finfo(x.dtype).dtype.itemsize]
    total = plain = jnp.sum(abs_sq(x))
    one = jnp.ones_like(total)
    scale = jnp.where(total < small, one * up, one)
    scale = jnp.where(jnp.isinf(total), one / up, scale)
    if platform_of(x) != "cpu":
        total = jnp.where(scale > 1, again(up), total)
        total = jnp.where(scale < 1, again(1 / up), total)
    elif x.size <= SMALL:
        total = again(scale)
    else:
        total = cond(scale == 1, lambda: total, lambda: again(scale))
    # Constants that XLA folds as it compiles may turn 0 * 2**80 * 2**80 into NaN.
    total = jnp.where((plain == 0) & jnp.isnan(total), plain, total)
    return total, jnp.where(total == 0, one, scale)  # for derivatives at zero


@_sum_of_squares.defjvp
def _sum_of_squares_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    total, scale = _sum_of_squares(x)
    pairs = zip(_reals(x), _reals(dx))
    along = functools.reduce(jnp.add, [a * scale * (b * scale) for a, b in pairs])
    return (total, scale), (2 * jnp.sum(along), jnp.zeros_like(scale))


def _scaled_sq(x: jax.Array, scale: ArrayLike) -> jax.Array:
    return functools.reduce(jnp.add, [(part * scale) ** 2 for part in _reals(x)])


def _reals(x: jax.Array) -> tuple[jax.Array, ...]:
    """The real and the imaginary part of what is complex."""
    return (x.real, x.imag) if jnp.iscomplexobj(x) else (x,)


def safe_norm(
    x: ArrayLike,
    min_norm: ArrayLike,
    ord: int | float | str | None = None,
    axis: int | tuple[int, ...] | None = None,
    keepdims: bool = False,
) -> jax.Array:
    """`max(norm(x), min_norm)` with a derivative of zero where the norm is smaller.

    Args:
        x: the array.
        min_norm: the smallest value returned, not negative.
        ord: the order of the norm, as `jnp.linalg.norm` takes it.
        axis: the axes to reduce; all of them if `None`.
        keepdims: whether reduced axes stay, with length one.

    Example:
        >>> jax.grad(lambda x: jopt.safe_norm(x, 0.0))(jnp.zeros(2))
        Array([0., 0.], dtype=float32)
    """
    _check_bound("safe_norm", "min_norm", min_norm)
    x = jnp.asarray(x)
    fixed = jax.lax.stop_gradient(x)
    live = jnp.linalg.norm(fixed, ord=ord, axis=axis, keepdims=True) > min_norm
    x = jnp.where(live, x, jnp.ones_like(x))
    live = live if keepdims else jnp.squeeze(live, axis)
    size = jnp.linalg.norm(x, ord=ord, axis=axis, keepdims=keepdims)
    return jnp.where(live, size, jnp.asarray(min_norm, size.dtype))


def safe_root_mean_squares(x: ArrayLike, min_rms: ArrayLike) -> jax.Array:
    """`max(rms(x), min_rms)` with a derivative of zero where the RMS is smaller.

    Example:
        >>> jopt.safe_root_mean_squares(jnp.array([3.0, -3.0]), 1e-3)
        Array(3., dtype=float32)
    """
    _check_bound("safe_root_mean_squares", "min_rms", min_rms)
    x = jnp.asarray(x)
    rms = safe_sqrt(jnp.mean(abs_sq(x)))
    return jnp.where(rms > min_rms, rms, jnp.asarray(min_rms, rms.dtype))


def _check_bound(where: str, name: str, value: ArrayLike) -> None:
    """Refuse a number that no size is below."""
    if isinstance(value, (int, float, np.integer, np.floating)) and not value >= 0:
        raise ValueError(f"{where}: {name} must be at least 0, got {value}")

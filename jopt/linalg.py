"""Matrices: orthogonal factors, largest eigenvalues, inverse roots, by iteration."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import tree
from .numerics import norm
from .settings import NOT_NEGATIVE, check_integer, check_number, check_real
from .sharding import gathered, split_as

__all__ = ["matrix_inverse_pth_root", "orthogonalize", "power_iteration"]

# Coefficients (a, b, c) of x <- a x + (b s + c s s) x with s = x x^H, by name.
COEFFICIENTS = {
    "standard": ((3.4445, -4.7750, 2.0315),),  # Jordan 2024, tuned for five steps
    "dion": (  # one set a step, without the noise of the standard one at its end
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    ),
}
PRECONDITIONINGS = ("frobenius", "spectral", "aol", "schatten")


def orthogonalize(
    x: jax.Array,
    coefficients: Sequence[Sequence[float]] = COEFFICIENTS["standard"] * 5,
    *,
    preconditioning: str = "frobenius",
    eps: float = 1e-8,
) -> jax.Array:
    """The orthogonal factor of each matrix, nearly: its singular values become about 1.

        x <- x / (|x| + eps)
        x <- a x + (b s + c s s) x,    s = x x^H,    for (a, b, c) of each step

    Args:
        x: matrices, `[..., m, n]`; they are transposed for the work if m > n.
        coefficients: one `(a, b, c)` a step.
        preconditioning: how the singular values are brought below one first: by the
            `"frobenius"` or the `"spectral"` norm, or in the first step by the rows of
            `s` (`"aol"`) or its norm (`"schatten"`).
        eps: added to the norm, or its lower bound; not negative.

    Returns:
        The matrices, in the shape and dtype of `x`.

    Raises:
        ValueError: `preconditioning` is another word.

    Example:
        >>> x = jopt.orthogonalize(jnp.diag(jnp.array([3.0, 1.0])))
        >>> bool(jnp.all(jnp.abs(jnp.diagonal(x) - 1) < 0.35))
        True

    Reference:
        Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024.
        Bernstein & Newhouse, Old Optimizer, New Norm, 2024, arXiv:2409.20325.
    """
    if preconditioning not in PRECONDITIONINGS:
        raise ValueError(
            f"orthogonalize: preconditioning must be one of {PRECONDITIONINGS}, "
            f"got {preconditioning!r}"
        )
    x = _matrix("orthogonalize", "x", x)
    check_number("orthogonalize", "eps", eps, NOT_NEGATIVE)
    for row in coefficients:
        if np.shape(row) != (3,):
            raise ValueError(
                "orthogonalize: coefficients must be triples (a, b, c), one for each "
                f"step, got {row!r}"
            )
    if not x.size:
        return x
    whole = gathered(x, keep=x.ndim - 2)
    if jnp.iscomplexobj(x):  # real factors of complex arrays are right, strict or not
        with jax.numpy_dtype_promotion("standard"):
            return split_as(
                _orthogonalize(whole, coefficients, preconditioning, eps), x
            )
    return split_as(_orthogonalize(whole, coefficients, preconditioning, eps), x)


def _matrix(where: str, name: str, x: Any, square: bool = False) -> jax.Array:
    """The argument as matrices of floats, or as one that is square."""
    check_real(where, name, x, complexes=True)
    x = jnp.asarray(x)
    if square and (x.ndim != 2 or x.shape[0] != x.shape[1]):
        raise ValueError(f"{where}: {name} must be square, got shape {x.shape}")
    if x.ndim < 2:
        raise ValueError(f"{where}: {name} must be [..., m, n], got shape {x.shape}")
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        raise TypeError(f"{where}: {name} must be of floats, got {x.dtype}")
    return x


def _orthogonalize(x, coefficients, preconditioning: str, eps: float) -> jax.Array:
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    if preconditioning == "frobenius":
        size = functools.reduce(lambda f, _: jax.vmap(f), x.shape[:-2], norm)(x)
        x = x / (size[..., None, None].astype(x.real.dtype) + eps)
    elif preconditioning == "spectral":
        x = x / (jnp.linalg.norm(x, ord=2, axis=(-2, -1), keepdims=True) + eps)
    for step, (a, b, c) in enumerate(coefficients):
        s = x @ x.mT.conj()
        if step == 0 and preconditioning in ("aol", "schatten"):
            scale = _first_scale(s, preconditioning, eps)
            x, s = x * scale, s * scale * scale.mT
        x = a * x + (b * s + c * (s @ s)) @ x
    return x.mT if tall else x


def _first_scale(s: jax.Array, preconditioning: str, eps: float) -> jax.Array:
    """Factors of the rows of x, from s = x x^H, that bring its norm below one."""
    if preconditioning == "aol":
        size = jnp.sum(jnp.abs(s), axis=-1, keepdims=True)
    else:
        size = jnp.linalg.norm(s, axis=(-2, -1), keepdims=True)
    return jax.lax.rsqrt(jnp.maximum(size, eps))


_HIGHEST = jax.lax.Precision.HIGHEST


def power_iteration(
    matrix: jax.Array | Callable[[Any], Any],
    *,
    v0: Any = None,
    num_iters: int | jax.Array = 100,
    error_tolerance: float | jax.Array = 1e-6,
    precision: jax.lax.Precision = _HIGHEST,
    key: jax.Array | None = None,
) -> tuple[jax.Array, Any]:
    """The eigenvalue of the largest size, and its eigenvector.

        v <- A v / |A v|,  value = v . A v,    until |A v - value v| is at most
                                               error_tolerance |value|

    Args:
        matrix: a square matrix with one largest eigenvalue, or the function v -> A v.
        v0: where to start, a vector or what the function takes; random if `None`.
        num_iters: how many steps at most.
        error_tolerance: the relative residual that ends the iteration.
        precision: that of the products with a `matrix`.
        key: for the random start, `jax.random.key(0)` if `None`.

    Returns:
        The eigenvalue, a scalar, and the eigenvector of norm one, like `v0`. Zero and
        the start where A v vanishes.

    Raises:
        ValueError: `v0` is missing for a function, or the matrix is not square.

    Example:
        >>> value, vector = jopt.power_iteration(jnp.diag(jnp.array([1.0, 3.0])))
        >>> round(float(value), 4)
        3.0

    Reference:
        Golub & Van Loan, Matrix Computations, 4th ed., 2013, section 7.3.1.
    """
    check_number("power_iteration", "num_iters", num_iters, NOT_NEGATIVE)
    check_number("power_iteration", "error_tolerance", error_tolerance, NOT_NEGATIVE)
    apply: Any = matrix
    if callable(matrix):
        if v0 is None:
            raise ValueError(
                "power_iteration: v0 is missing, which a function needs to start from"
            )
    else:
        matrix = gathered(_matrix("power_iteration", "matrix", matrix, square=True))
        if v0 is None:
            key = jax.random.key(0) if key is None else key
            n, real = len(matrix), matrix.real.dtype
            v0 = jax.random.uniform(key, (n,), real, -1, 1).astype(matrix.dtype)
        if np.shape(v0) != matrix.shape[:1]:
            raise ValueError(
                f"power_iteration: v0 must be a vector of {len(matrix)}, as matrix is "
                f"{matrix.shape}, got shape {np.shape(v0)}"
            )

        v0 = gathered(jnp.asarray(v0))
        apply = functools.partial(jnp.matmul, matrix, precision=precision)

    def normalized(v, otherwise):
        size = tree.norm(v)
        some = size > 0
        over = jnp.where(some, size, 1)
        return jax.tree.map(
            lambda x, y: jnp.where(some, x / over.astype(x.real.dtype), y), v, otherwise
        )

    def at(v):
        Av = jax.tree.map(split_as, apply(v), v)
        value = jnp.asarray(tree.vdot(v, Av))
        rest = jax.tree.map(lambda x, y: x - value.astype(y.dtype) * y, Av, v)
        return v, Av, value, tree.norm(rest)

    def step(carry):
        i, (v, Av, _, _) = carry
        return i + 1, at(normalized(Av, v))

    def goes_on(carry):
        i, (_, _, value, rest) = carry
        short = i < jnp.asarray(num_iters, i.dtype)
        return short & (rest > error_tolerance * jnp.abs(value))

    v0 = jax.tree.map(jnp.asarray, v0)
    begin = jnp.zeros((), jnp.int32), at(normalized(v0, v0))
    _, (v, _, value, _) = jax.lax.while_loop(goes_on, step, begin)
    return value, v


def matrix_inverse_pth_root(
    matrix: jax.Array,
    p: int,
    num_iters: int | jax.Array = 100,
    ridge_epsilon: float | jax.Array = 1e-6,
    error_tolerance: float | jax.Array = 1e-6,
    precision: jax.lax.Precision = _HIGHEST,
) -> tuple[jax.Array, jax.Array]:
    """The inverse p-th root of a symmetric matrix, by the coupled Newton iteration.

        A <- A + ridge_epsilon max(largest eigenvalue, 1e-6) I
        z  = (1 + p) / (2 |A|),  X = z^(1/p) I,  M = z A
        T  = ((p + 1) I - M) / p
        X <- X T,  M <- T^p M    until |M - I| is small in every element, or grows

    Args:
        matrix: symmetric and positive semi-definite, `[n, n]`.
        p: a positive integer.
        num_iters: how many steps at most.
        ridge_epsilon: by which part of the largest eigenvalue all of them are raised,
            not negative.
        error_tolerance: the largest element of |M - I| that ends the iteration.
        precision: that of the products.

    Returns:
        `A^(-1/p)`, `[n, n]`, and the error |M - I|, a scalar.

    Raises:
        ValueError: the matrix is not square, or `p` is less than 1.
        TypeError: `p` is no integer.

    Example:
        >>> matrix = jnp.diag(jnp.array([4.0, 16.0]))
        >>> root, error = jopt.matrix_inverse_pth_root(matrix, 2)
        >>> root.round(3)
        Array([[0.5 , 0.  ],
               [0.  , 0.25]], dtype=float32)

    Reference:
        Higham, Functions of Matrices, 2008, eq. 7.18. Anil et al., Scalable Second
        Order Optimization for Deep Learning, 2020, arXiv:2002.09018, for the ridge.
    """
    check_integer("matrix_inverse_pth_root", "p", p)
    name = "matrix_inverse_pth_root"
    matrix = gathered(_matrix(name, "matrix", matrix, square=True))
    check_number(name, "num_iters", num_iters, NOT_NEGATIVE)
    check_number(name, "ridge_epsilon", ridge_epsilon, NOT_NEGATIVE)
    check_number(name, "error_tolerance", error_tolerance, NOT_NEGATIVE)
    eye = jnp.eye(len(matrix), dtype=matrix.dtype)
    largest, _ = power_iteration(matrix, precision=precision)
    matrix = matrix + ridge_epsilon * jnp.maximum(largest, 1e-6) * eye
    z = (1 + p) / (2 * jnp.linalg.norm(matrix))

    def product(x, y):
        return jnp.matmul(x, y, precision=precision)

    def power(x, n):
        if n == 1:
            return x
        half = power(x, n // 2)
        square = product(half, half)
        return product(square, x) if n % 2 else square

    def step(carry):
        i, X, M, error, _ = carry
        T = ((p + 1) * eye - M) / p
        M = product(power(T, p), M)
        new_error = jnp.max(jnp.abs(M - eye))
        # It may grow a little at first; when rounding feeds it, it grows for good.
        shrinks = new_error < 1.2 * error
        X = jnp.where(shrinks, product(X, T), X)
        return i + 1, X, M, jnp.where(shrinks, new_error, error), shrinks

    def goes_on(carry):
        i, _, _, error, shrinks = carry
        short = i < jnp.asarray(num_iters, i.dtype)
        return shrinks & short & (error > error_tolerance)

    M = z * matrix
    error = jnp.max(jnp.abs(M - eye))
    begin = jnp.zeros((), jnp.int32), z ** (1 / p) * eye, M, error, jnp.ones((), bool)
    _, X, _, error, _ = jax.lax.while_loop(goes_on, step, begin)
    return X, error

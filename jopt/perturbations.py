"""Derivatives of functions that have none: averages over random perturbations."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jax.tree_util import keystr
from jax.typing import ArrayLike, DTypeLike

from .base import ArrayTree
from .numerics import cast, compute_dtype
from .operands import check_bool
from .settings import POSITIVE, check_function, check_integer, check_number, check_real

__all__ = ["Gumbel", "Normal", "make_perturbed_fun"]


class Noise(Protocol):
    """A distribution of independent numbers with a differentiable density."""

    def sample(
        self, key: jax.Array, sample_shape: Sequence[int] = (), dtype: DTypeLike = float
    ) -> jax.Array: ...

    def log_prob(self, inputs: jax.Array) -> jax.Array: ...


@dataclass(frozen=True)
class Gumbel:
    """The distribution of the largest of many numbers; mean 0.577, variance 1.64.

    The largest entry of `x + Gumbel` is entry i with probability `softmax(x)[i]`.

    Example:
        >>> jopt.perturbations.Gumbel().log_prob(jnp.zeros(2))
        Array([-1., -1.], dtype=float32)
    """

    def sample(
        self, key: jax.Array, sample_shape: Sequence[int] = (), dtype: DTypeLike = float
    ) -> jax.Array:
        """Random numbers of that shape."""
        return jax.random.gumbel(key, tuple(sample_shape), dtype)

    def log_prob(self, inputs: jax.Array) -> jax.Array:
        """The logarithm of the density at each element."""
        return -inputs - jnp.exp(-inputs)


@dataclass(frozen=True)
class Normal:
    """The normal distribution of mean 0 and variance 1.

    Example:
        >>> jopt.perturbations.Normal().log_prob(jnp.array([1.0, 2.0]))
        Array([-0.5, -2. ], dtype=float32)
    """

    def sample(
        self, key: jax.Array, sample_shape: Sequence[int] = (), dtype: DTypeLike = float
    ) -> jax.Array:
        """Random numbers of that shape."""
        return jax.random.normal(key, tuple(sample_shape), dtype)

    def log_prob(self, inputs: jax.Array) -> jax.Array:
        """The logarithm of the density at each element, but for a constant."""
        return -inputs * inputs / 2


_GUMBEL = Gumbel()


def make_perturbed_fun(
    fun: Callable[[ArrayTree], ArrayTree],
    num_samples: int = 1000,
    sigma: ArrayLike = 0.1,
    noise: Noise = _GUMBEL,
    use_baseline: bool = True,
) -> Callable[[jax.Array, ArrayTree], ArrayTree]:
    """Smooths a function with noise, so that it can be differentiated.

        f(x) = E fun(x + sigma z)                     z from noise
        f'(x) = -E (fun(x + sigma z) - fun(x)) grad log p(z) / sigma

    Both are estimated by averages over random samples, without bias, and so are
    derivatives of any order and those with respect to `sigma`. `fun` itself is never
    differentiated with respect to `x`: it may be a ranking, a shortest path or an
    argmax.

    Args:
        fun: a function of a tree of floating arrays that returns a tree of arrays. It
            is called on all the samples at once, by `jax.vmap`.
        num_samples: how many samples to average over, at least 1.
        sigma: the scale of the noise, positive. The bias grows with it, and the
            variance of the derivatives with one over it.
        noise: `Gumbel()`, `Normal()` or another object with their methods.
        use_baseline: whether to subtract `fun(x)`, which leaves the mean of the
            derivatives and lessens their variance.

    Returns:
        A function `(key, x)` of a random key and the tree. Its results are floating.

    Raises:
        ValueError: `num_samples` or `sigma` is outside its range.
        TypeError: a number is of a wrong type, `noise` has not the methods, or a leaf
            of `x` is not floating.

    Example:
        >>> fun = jopt.perturbations.make_perturbed_fun(
        ...     lambda x: jax.nn.one_hot(jnp.argmax(x), 2), sigma=1.0)
        >>> fun(jax.random.key(0), jnp.zeros(2)).round(1)
        Array([0.5, 0.5], dtype=float32)

    Reference:
        Berthet et al., Learning with Differentiable Perturbed Optimizers, NeurIPS 2020,
        arXiv:2002.08676; derivatives of any order: Foerster et al., DiCE, ICML 2018,
        arXiv:1802.05098.
    """
    check_function("make_perturbed_fun", "fun", fun)
    check_bool("make_perturbed_fun: use_baseline", use_baseline)
    check_integer("make_perturbed_fun", "num_samples", num_samples)
    check_number("make_perturbed_fun", "sigma", sigma, POSITIVE)
    has_methods = all(hasattr(noise, method) for method in ("sample", "log_prob"))
    if isinstance(noise, type) or not has_methods:
        raise TypeError(
            "make_perturbed_fun: noise must have the methods sample and log_prob, such "
            f"as Gumbel(), got {noise!r}"
        )

    def perturbed(key: jax.Array, x: ArrayTree) -> ArrayTree:
        x = jax.tree_util.tree_map_with_path(_floating, x)
        leaves, structure = jax.tree.flatten(x)
        here = fun(stop_gradient(x)) if use_baseline else None

        def of_sample(key):
            log_weight, moved = jnp.zeros(()), []
            for leaf, k in zip(leaves, jax.random.split(key, len(leaves))):
                dtype = compute_dtype(leaf.dtype)
                z = cast(noise.sample(k, leaf.shape, leaf.dtype), dtype)
                wide, scale = cast(leaf, dtype), jnp.asarray(sigma, dtype)
                moved.append(cast(stop_gradient(wide + scale * z), leaf.dtype))
                # z again, as the place of that sample seen from x on the scale of sigma
                z = (stop_gradient(scale) * z + (stop_gradient(wide) - wide)) / scale
                log_density = noise.log_prob(z) - jnp.log(scale)
                log_weight += cast(jnp.sum(log_density), log_weight.dtype)
            # one, with the derivatives of the sample's probability
            weight = jnp.exp(log_weight - stop_gradient(log_weight))
            there = fun(structure.unflatten(moved))
            base = here if use_baseline else jax.tree.map(jnp.zeros_like, there)
            return jax.tree.map(lambda f, b: _weighted(weight, f, b), there, base)

        samples = jax.vmap(of_sample)(jax.random.split(key, num_samples))
        return jax.tree.map(lambda f: jnp.mean(f, axis=0), samples)

    return perturbed


def _weighted(weight: jax.Array, f: ArrayLike, base: ArrayLike) -> jax.Array:
    """`f`, floating, with the derivatives of `(f - base) weight`."""
    f = jnp.asarray(f)
    out = f.dtype if jnp.issubdtype(f.dtype, jnp.inexact) else jnp.result_type(float)
    dtype = compute_dtype(out)
    f, base = cast(f, dtype), cast(jnp.asarray(base), dtype)
    return cast(base + (f - base) * cast(weight, dtype), out)


def _floating(path: tuple, leaf: Any) -> jax.Array:
    check_real("make_perturbed_fun", f"x{keystr(path)}", leaf)
    leaf = jnp.asarray(leaf)
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        raise TypeError(
            f"make_perturbed_fun: x{keystr(path)} must be floating, to be moved by "
            f"noise, got {leaf.dtype}"
        )
    return leaf

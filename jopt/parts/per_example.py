"""Clipping the gradient of every example by itself, for differential privacy."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from .. import tree
from ..base import Updates
from ..numerics import cast, compute_dtype
from ..tree.norms import as_inexact
from ..words import keystr, spell
from .clip import shrink

__all__ = ["per_example_global_norm_clip", "per_example_layer_norm_clip"]


def per_example_global_norm_clip(
    grads: Updates, l2_norm_clip: ArrayLike
) -> tuple[Updates, jax.Array]:
    """Sums the gradients of a batch, each clipped by its norm over the whole tree.

        u = sum_i g_i / max(1, |g_i| / l2_norm_clip)

    Args:
        grads: a pytree of gradients `[batch, ...]`, one for each example.
        l2_norm_clip: the largest norm of an example's gradient, positive.

    Returns:
        The sum, in the dtypes of the gradients, in floats of integers; and how many
        examples were clipped (`i32[]`).

    Raises:
        ValueError: a leaf has no batch axis, or one of another length.

    Example:
        >>> g = jnp.array([[3.0, 4.0], [0.0, 0.0]])
        >>> jopt.per_example_global_norm_clip(g, 1.0)
        (Array([0.6, 0.8], dtype=float32), Array(1, dtype=int32))

    Reference:
        Abadi et al., Deep Learning with Differential Privacy, CCS 2016,
        arXiv:1607.00133.
    """
    _check_batch("per_example_global_norm_clip", grads)
    norms = jax.vmap(tree.norm)(grads)
    total = jax.tree.map(lambda g: _sum_clipped(g, norms, l2_norm_clip), grads)
    return total, _count_clipped(norms, l2_norm_clip)


def per_example_layer_norm_clip(
    grads: Updates, global_l2_norm_clip: ArrayLike, uniform: bool = True
) -> tuple[Updates, Any]:
    """Sums the gradients of a batch, each clipped leaf by leaf.

        u = sum_i g_i / max(1, |g_i| / bound)

    The squares of the leaves' bounds add up to that of the global one.

    Args:
        grads: a pytree of gradients `[batch, ...]`, one for each example.
        global_l2_norm_clip: the largest norm of an example's gradient over the tree,
            positive.
        uniform: whether all leaves have the same bound, the global one over the root
            of their number; by the root of each leaf's size if not.

    Returns:
        The sum, in floats of integers, and a tree of how many examples were clipped in
        each leaf (`i32[]`).

    Raises:
        ValueError: a leaf has no batch axis, or one of another length.

    Example:
        >>> g = jnp.array([[3.0, 4.0], [0.3, 0.4]])
        >>> jopt.per_example_layer_norm_clip([g, g], 2**0.5)[1]
        [Array(1, dtype=int32), Array(1, dtype=int32)]

    Reference:
        McMahan, Ramage, Talwar & Zhang, Learning Differentially Private Recurrent
        Language Models, ICLR 2018, arXiv:1710.06963.
    """
    _check_batch("per_example_layer_norm_clip", grads)
    leaves, structure = jax.tree.flatten(grads)
    sizes = [1 if uniform else x.size for x in leaves]
    bounds = [(n / max(sum(sizes), 1)) ** 0.5 * global_l2_norm_clip for n in sizes]
    norms = [jax.vmap(tree.norm)(x) for x in leaves]
    totals = map(_sum_clipped, leaves, norms, bounds)
    counts = map(_count_clipped, norms, bounds)
    return structure.unflatten(totals), structure.unflatten(counts)


def _sum_clipped(g: jax.Array, norms: jax.Array, most: ArrayLike) -> jax.Array:
    g = as_inexact(g)  # a share of an integer is none
    wide = cast(g, compute_dtype(g.dtype))
    norms = norms.reshape(-1, *[1] * (g.ndim - 1))
    with jax.numpy_dtype_promotion("standard"):  # real factors of complex arrays
        return cast(jnp.sum(shrink(wide, norms, most), axis=0), g.dtype)


def _count_clipped(norms: jax.Array, most: ArrayLike) -> jax.Array:
    return jnp.sum(norms > jnp.asarray(most, norms.dtype), dtype=jnp.int32)


def _check_batch(where: str, grads: Updates) -> None:
    paths = jax.tree_util.tree_flatten_with_path(grads)[0]
    lengths = {jnp.shape(x)[:1] for _, x in paths}
    if len(lengths) > 1 or () in lengths:
        shown = ", ".join(f"{spell(x)} at {keystr(path)}" for path, x in paths[:5])
        raise ValueError(
            f"{where}: every leaf of grads must have the batch as its first axis, "
            f"got {shown}"
        )

"""All leaves as one vector, for methods that see a vector only."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ..base import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    with_extra_args_support,
)
from ..engine import transformation
from ..engine.leaves import Leaves
from ..kinds import is_complex
from ..numerics import cast, compute_dtype
from ..parts.combine import check_transformation
from ..tree.devices import check_together

__all__ = ["flatten"]


@transformation
def flatten(inner: GradientTransformation) -> GradientTransformationExtraArgs:
    """Runs a transformation on one vector of all leaves, laid end to end.

    The vector has the leaves' dtype, or the one that holds them all (float32 at least)
    where they differ; each update leaves in the dtype of its gradient. Leaves that
    cannot be optimized, such as integers, stay outside, and so do numbers of Python
    beside arrays: they are settings of a module. Whatever `inner` computes per leaf (a
    trust ratio, a factored moment) it now computes over everything.

    Args:
        inner: the transformation of the vector.

    Returns:
        A transformation whose state is that of `inner` for a vector `[n]` of all
        parameters. Memory: what `inner` needs, and two vectors while it runs.

    Raises:
        TypeError: `inner` is no transformation.
        ValueError: gradients and parameters differ in structure or shapes, or the
            state has another number of elements.

    Example:
        >>> tx = jopt.flatten(jopt.scale_by_adam())
        >>> tx.init({"w": jnp.zeros((2, 3)), "b": jnp.zeros(3)}).mu.shape
        (9,)
    """
    check_transformation("flatten", "inner", inner)
    inner = with_extra_args_support(inner)

    def init(params):
        check_together("flatten", params=params)
        leaves = Leaves(params, params)
        given = jax.tree.leaves(params)
        every = [i for i, foreign in enumerate(leaves.foreign) if not foreign]
        arrays = [i for i in every if hasattr(given[i], "shape")]
        return inner.init(_join([leaves.p[i] for i in arrays or every]))

    def update(updates, state, params=None, **extra_args):
        leaves = Leaves(updates, params)
        check_together("flatten", updates=updates)
        kept = _in_vector(leaves, params, inner, state)
        # A parameter without a gradient keeps its place in the vector.
        gs = [
            leaves.g[i] if leaves.live[i] else jnp.zeros_like(leaves.p[i]) for i in kept
        ]
        p = None if params is None else _join([leaves.p[i] for i in kept])
        flat, state = inner.update(_join(gs), state, p, **extra_args)
        for i, g, piece in zip(kept, gs, jax.lax.split(flat, [g.size for g in gs])):
            if leaves.live[i]:
                piece = piece.reshape(g.shape)
                piece = piece if is_complex(g.dtype) else piece.real
                leaves.g[i] = _scatter(cast(piece, g.dtype), g)
        return leaves.tree(leaves.g), state

    return GradientTransformationExtraArgs(init, update)


def _in_vector(
    leaves: Leaves, params: Any, inner: GradientTransformation, state: Any
) -> list[int]:
    """The leaves that the state was made for.

    Those with a gradient, if it keeps nothing of the others; or all but the numbers
    without one, or all.
    """
    live = [i for i, is_live in enumerate(leaves.live) if is_live]
    if not leaves.has_params:
        return live
    given = jax.tree.leaves(params)
    every = [i for i, foreign in enumerate(leaves.foreign) if not foreign]
    numbers = {i for i in every if _was_number(given[i])}
    if live == every and not numbers:
        return every
    shapes = _shapes(state)

    def fits(some):
        like = jax.eval_shape(_join, [given[i] for i in some])
        try:
            return _shapes(jax.eval_shape(inner.init, like)) == shapes
        except jax.errors.ConcretizationTypeError:
            return some is every  # an `init` that looks at values

    arrays = [i for i in every if i not in numbers]
    for some in live, sorted({*live, *arrays}), every:
        if fits(some):
            return some
    lost = numbers.intersection(live)
    if lost and fits(arrays):
        raise ValueError(
            f"flatten: updates at {leaves.path(min(lost))} is a gradient of what was "
            "a number of Python at init, where it stayed outside of the vector; make "
            "it an array"
        )
    return every


def _was_number(x: Any) -> bool:
    """Whether it is a number of Python, or was one before it was traced."""
    return not hasattr(x, "shape") or (x.shape == () and jax.typeof(x).weak_type)


def _shapes(tree: Any) -> list:
    return [x.shape for x in jax.tree.leaves(tree) if hasattr(x, "shape")]


def _join(leaves: Sequence[ArrayLike]) -> jax.Array:
    """The leaves end to end, in the dtype that holds them all."""
    arrays = [jnp.asarray(x) for x in leaves]
    dtypes = {x.dtype for x in arrays}
    dtype = dtypes.pop() if len(dtypes) == 1 else compute_dtype(*dtypes, jnp.float32)
    if not arrays:
        return jnp.zeros(0, dtype)
    return jnp.concatenate([_gather(cast(x, dtype)).reshape(-1) for x in arrays])


def _gather(x: jax.Array) -> jax.Array:
    """The array whole on every device, where a mesh with explicit axes splits it."""
    if not any(_axes(x)):
        return x
    return jax.sharding.reshard(x, jax.sharding.PartitionSpec(*[None] * x.ndim))


def _scatter(x: jax.Array, like: jax.Array) -> jax.Array:
    """The array split as another is."""
    return jax.sharding.reshard(x, jax.typeof(like).sharding) if any(_axes(like)) else x


def _axes(x: jax.Array) -> tuple:
    return tuple(jax.typeof(x).sharding.spec)

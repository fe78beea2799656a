"""Complex parameters as pairs of real ones, for methods that know only these."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..base import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    OptState,
    with_extra_args_support,
)
from ..engine import transformation
from ..engine.leaves import Leaves
from ..kinds import is_complex, is_numeric
from ..parts.combine import check_transformation
from .branch import check_state

__all__ = ["SplitRealAndImaginaryState", "split_real_and_imaginary"]


class SplitRealAndImaginaryArrays(NamedTuple):
    """The parts of a complex array, each a leaf of its own."""

    real: jax.Array | None
    imaginary: jax.Array | None


class SplitRealAndImaginaryState(NamedTuple):
    """The state of the inner transformation."""

    inner_state: OptState


@transformation
def split_real_and_imaginary(
    inner: GradientTransformation,
) -> GradientTransformationExtraArgs:
    """Runs a transformation on the real and the imaginary parts as separate leaves.

    Adam inside has a mean square for each part, where Adam of a complex leaf has that
    of its absolute value. Real leaves stay as they are. Pass the conjugate of JAX's
    gradient of a real loss: that is the direction of ascent.

    Args:
        inner: the transformation of the real leaves.

    Returns:
        A transformation whose state is `SplitRealAndImaginaryState(inner_state)`, with
        a pair `(real, imaginary)` for every complex leaf in its trees.

    Raises:
        TypeError: `inner` is no transformation, or a real parameter has a complex
            gradient.

    Example:
        >>> tx = jopt.split_real_and_imaginary(jopt.scale_by_sign())
        >>> g = jnp.array([3.0 - 4.0j])
        >>> tx.update(g, tx.init(g))[0]
        Array([1.-1.j], dtype=complex64)

    Reference:
        Kreutz-Delgado, The Complex Gradient Operator and the CR-Calculus, 2009,
        arXiv:0906.4835.
    """
    check_transformation("split_real_and_imaginary", "inner", inner)
    inner = with_extra_args_support(inner)

    def init(params):
        leaves = Leaves(params, params)
        split = [_split(p, is_split) for p, is_split in zip(leaves.p, _pairs(leaves))]
        return SplitRealAndImaginaryState(inner.init(leaves.tree(split)))

    def update(updates, state, params=None, **extra_args):
        check_state("split_real_and_imaginary", state, SplitRealAndImaginaryState)
        leaves = Leaves(updates, params)
        pairs = _pairs(leaves)
        g = leaves.tree([_split(x, pair) for x, pair in zip(leaves.g, pairs)])
        p = None
        if params is not None:
            p = leaves.tree([_split(x, pair) for x, pair in zip(leaves.p, pairs)])
        inner_state = _with_our_pairs(state.inner_state)
        u, inner_state = inner.update(g, inner_state, p, **extra_args)
        us = leaves.treedef.flatten_up_to(u)
        joined = [_join(x, pair) for x, pair in zip(us, pairs)]
        return leaves.tree(joined), state._replace(inner_state=inner_state)

    return GradientTransformationExtraArgs(init, update)


def _pairs(leaves: Leaves) -> list[bool]:
    """Which leaves to split: of a complex parameter or, without these, gradient."""
    kept = leaves.p if leaves.has_params else leaves.g
    return [is_numeric(x) and is_complex(jax.dtypes.result_type(x)) for x in kept]


def _split(x: Any, pair: bool) -> Any:
    if not pair:
        return x
    if x is None:  # a parameter without a gradient
        return SplitRealAndImaginaryArrays(None, None)
    return SplitRealAndImaginaryArrays(jnp.real(x), jnp.imag(x))


def _join(x: Any, pair: bool) -> Any:
    if not pair or x[0] is None:
        return None if pair else x
    return jax.lax.complex(*x)


def _with_our_pairs(tree: Any) -> Any:
    """The tree with jopt's pairs for another library's."""

    def is_pair(x):
        return type(x).__name__ == SplitRealAndImaginaryArrays.__name__

    return jax.tree.map(
        lambda x: SplitRealAndImaginaryArrays(*x) if is_pair(x) else x,
        tree,
        is_leaf=is_pair,
    )

"""GaLore: the state of an optimizer in the gradient's leading singular directions."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..base import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    MaskedNode,
    MaskOrFn,
    OptState,
    Params,
    PerLeaf,
    Updates,
)
from ..engine import Leaves, transformation, wrap
from ..kinds import is_nothing
from ..numerics import cast, compute_dtype, cond, safe_increment
from ..parts.combine import check_transformation
from ..parts.scale import descend
from ..settings import FINITE, check_integer
from ..sharding import gathered, resplit, split_as, split_of, zeros_of
from ..tree.matching import beside
from ..words import explain, spell
from .adam import scale_by_adam
from .muon import MuonDimensionNumbers, dimension_numbers

__all__ = ["GaLoreDimensionNumbers", "GaLoreState", "galore", "scale_by_galore"]


class GaLoreDimensionNumbers(MuonDimensionNumbers):
    """Which axes of a parameter are a matrix's rows and columns: all, each once."""

    __slots__ = ()


class GaLoreState(NamedTuple):
    """The step count, the state in the small space, and the bases of that space."""

    count: jax.Array
    base_optimizer_state: OptState
    projector: Updates


WeightDimNumOrFn = GaLoreDimensionNumbers | Params | Callable[[Params], Params] | None


@transformation(scale=FINITE)
def scale_by_galore(
    rank: int = 128,
    update_proj_gap: int = 200,
    scale: float = 1.0,
    base_optimizer: GradientTransformation | None = None,
    weight_dimension_numbers: WeightDimNumOrFn = None,
    *,
    side: str = "longer",
) -> GradientTransformationExtraArgs:
    """GaLore's direction: that of an optimizer for the projected gradient.

        P  = leading `rank` left singular vectors of g    every `update_proj_gap` steps
        u  = scale P base_optimizer(P^T g)

    for a tall or square matrix; of a wide one P are right singular vectors, and
    `u = scale base_optimizer(g P) P^T`. The longer side is projected: for `[m, n]` with
    `m < n`, P and Adam's two moments then take `rank (n + 2 m)` numbers. With
    `side="shorter"`, as in the paper, P are the right singular vectors of a tall matrix
    and the left ones of others, which takes `rank (m + 2 n)`. Leaves that are no
    matrices go through `base_optimizer` as they are.

    Args:
        rank: how many singular directions, at least 1; all, where there are less.
        update_proj_gap: steps from one singular value decomposition to the next, at
            least 1. The state stays as it is when P changes.
        scale: factor of the matrices' updates.
        base_optimizer: a transformation that needs no parameters, as those of the small
            space are not known; `scale_by_adam()` if `None`.
        weight_dimension_numbers: `GaLoreDimensionNumbers` for all leaves of two axes or
            more, a tree of them, `None` where a leaf is not projected, or a function
            that makes one; all leaves of two axes are matrices if `None`.
        side: which side of a matrix is projected, `"longer"` or `"shorter"`.

    Returns:
        A transformation whose state is `GaLoreState(count: i32[],
        base_optimizer_state, projector)`; for a matrix `[m, n]` the trees in
        `base_optimizer_state` have `[rank, n]`, or `[m, rank]` if it is wide, and
        `projector` has `[max(m, n), rank]`, for other leaves `[0, 0]`; the other way
        round with the shorter side.

    Raises:
        ValueError: a number is outside its range, or the dimension numbers of a leaf do
            not name each of its axes once.
        TypeError: `base_optimizer` is no transformation.

    Example:
        >>> tx = jopt.scale_by_galore(rank=2)
        >>> state = tx.init(jnp.zeros((8, 5)))
        >>> state.projector.shape, state.base_optimizer_state.mu.shape
        ((8, 2), (2, 5))

    Reference:
        Zhao et al., GaLore: Memory-Efficient LLM Training by Gradient Low-Rank
        Projection, ICML 2024, arXiv:2403.03507, which has `side="shorter"` and
        `scale=0.25`. The longer side and 1 are those of optax.
    """
    check_integer("scale_by_galore", "rank", rank)
    check_integer("scale_by_galore", "update_proj_gap", update_proj_gap)
    if side not in ("longer", "shorter"):
        raise ValueError(
            f"scale_by_galore: side must be 'longer' or 'shorter', got {side!r}"
        )
    if base_optimizer is None:
        base_optimizer = scale_by_adam()
    check_transformation("scale_by_galore", "base_optimizer", base_optimizer)

    def build(base):
        def init(params):
            leaves = Leaves(params, params)
            small = list(leaves.p)
            bases: list[Any] = [MaskedNode()] * len(leaves.p)
            for i, matrix in enumerate(
                _matrices(weight_dimension_numbers, leaves, rank, side)
            ):
                if leaves.optimized[i]:
                    p: Any = leaves.p[i]
                    dtype = compute_dtype(p.dtype)
                    if matrix is None:
                        bases[i] = jnp.zeros((0, 0), dtype)
                    else:
                        bases[i], small[i] = matrix.zeros(p, dtype)
            return GaLoreState(
                count=jnp.zeros((), jnp.int32),
                base_optimizer_state=base.init(leaves.tree(small)),
                projector=leaves.tree(bases),
            )

        def update(updates, state, params=None, **extra_args):
            leaves = Leaves(updates, params)
            bases, form = _bases(state.projector, leaves)
            every = _matrices(weight_dimension_numbers, leaves, rank, side)
            matrices = {i: m for i, m in enumerate(every) if m and leaves.optimized[i]}
            for i, matrix in matrices.items():
                if bases[i].shape != matrix.basis:
                    raise ValueError(
                        f"scale_by_galore: the state's 'projector' at {leaves.path(i)} "
                        f"is {spell(bases[i])}, the gradient is {spell(leaves.g[i])}: "
                        "was the state made for other parameters, or a rank other than "
                        f"{rank}?"
                    )
            # Whole on every device, so that bits do not depend on how they are split:
            # where a gradient has fewer directions than the rank, `base_optimizer`
            # makes large what rounding leaves in the others.
            gs = {
                i: cast(m.of(gathered(leaves.g[i])), bases[i].dtype)
                for i, m in matrices.items()
            }
            found = cond(
                state.count % update_proj_gap == 0,
                lambda: {i: m.leading(gs[i]) for i, m in matrices.items()},
                lambda: {i: gathered(bases[i]) for i in matrices},
            )
            small = [g if live else None for g, live in zip(leaves.g, leaves.optimized)]
            for i, matrix in matrices.items():
                bases[i] = split_as(found[i], bases[i])
                low = matrix.project(gs[i], found[i])
                small[i] = resplit(low, matrix.split_of_small(leaves.g[i]))
            u, base_state = base.update(
                leaves.tree(small), state.base_optimizer_state, None, **extra_args
            )
            for i, x in enumerate(leaves.treedef.flatten_up_to(u)):
                if leaves.optimized[i]:
                    g = leaves.g[i]
                    if i in matrices:
                        low = scale * cast(gathered(x), found[i].dtype)
                        x = split_as(matrices[i].restore(low, found[i], g.shape), g)
                    leaves.g[i] = cast(x, g.dtype)
            return leaves.tree(leaves.g), state._replace(
                count=safe_increment(state.count),
                base_optimizer_state=base_state,
                projector=form.unflatten(bases),
            )

        return init, update

    return wrap(build, leaf_by_leaf=True, base_optimizer_state=base_optimizer)


def _bases(projector: Any, leaves: Leaves) -> tuple[list, Any]:
    """The basis of every leaf; one that has none takes no part."""
    try:
        bases, form = beside(leaves.treedef, projector)
    except ValueError:
        words = explain(
            "the state's 'projector'", projector, "params", leaves.reference
        )
        raise ValueError(f"scale_by_galore: {words}") from None
    for i, basis in enumerate(bases):
        if leaves.optimized[i] and is_nothing(basis):
            leaves.optimized[i], leaves.g[i] = False, None
    return bases, form


class _Matrix(NamedTuple):
    """How a leaf is a matrix `[m, n]`, and what is kept of it."""

    order: tuple[int, ...]  # the axes of the rows, then those of the columns
    shape: tuple[int, int]
    rank: int
    side: str

    @property
    def right(self) -> bool:
        """Whether the columns are projected, by right singular vectors."""
        m, n = self.shape
        return m < n if self.side == "longer" else m > n

    @property
    def basis(self) -> tuple[int, int]:
        return self.shape[self.right], self.rank

    @property
    def small(self) -> tuple[int, int]:
        m, n = self.shape
        return (m, self.rank) if self.right else (self.rank, n)

    def of(self, g: jax.Array) -> jax.Array:
        turned = g.transpose(self.order)
        return turned if g.ndim == 2 else gathered(turned).reshape(self.shape)

    def zeros(self, p: jax.Array, dtype: Any) -> tuple[jax.Array, jax.Array]:
        """A basis and what is small, each split as the side that it has in common."""
        rows, columns = (zeros_of(self.of(p), (i,)).astype(dtype) for i in (1, 0))
        basis = columns if self.right else rows
        small = rows[:, None] if self.right else columns[None]
        return (
            jnp.broadcast_to(basis[:, None], self.basis),
            jnp.broadcast_to(small, self.small),
        )

    def split_of_small(self, g: jax.Array) -> tuple:
        turned = [split_of(g)[i] for i in self.order]
        rows, columns = turned if g.ndim == 2 else (None, None)
        return (rows, None) if self.right else (None, columns)

    def leading(self, g: jax.Array) -> jax.Array:
        u, _, vh = jnp.linalg.svd(g, full_matrices=False)
        return vh[: self.rank].mT.conj() if self.right else u[:, : self.rank]

    def project(self, g: jax.Array, basis: jax.Array) -> jax.Array:
        return g @ basis if self.right else basis.mT.conj() @ g

    def restore(self, low: jax.Array, basis: jax.Array, shape: tuple) -> jax.Array:
        u = low @ basis.mT.conj() if self.right else basis @ low
        turned = u.reshape([shape[i] for i in self.order])
        return turned.transpose(np.argsort(self.order))


def _matrices(spec: WeightDimNumOrFn, leaves: Leaves, rank: int, side: str) -> list:
    """The `_Matrix` of every leaf, `None` for one that is not projected."""
    if spec is None:
        every = [(0, 1) if np.ndim(x) == 2 else None for x in _arrays(leaves)]
    else:
        every = leaves.treedef.flatten_up_to(dimension_numbers(spec, leaves.reference))
    return [
        _matrix(x, axes, rank, side, leaves, i) if axes and np.size(x) else None
        for i, (x, axes) in enumerate(zip(_arrays(leaves), every))
    ]


def _arrays(leaves: Leaves) -> list:
    return [x if live else None for x, live in zip(leaves.g, leaves.optimized)]


def _matrix(
    x: jax.Array, numbers: Any, rank: int, side: str, leaves: Leaves, i: int
) -> _Matrix:
    rows, columns = (
        [axis + x.ndim if axis < 0 else axis for axis in np.atleast_1d(axes).tolist()]
        for axes in numbers
    )
    if sorted(rows + columns) != list(range(x.ndim)) or not rows or not columns:
        raise ValueError(
            f"scale_by_galore: the leaf at {leaves.path(i)} has the shape {x.shape}; "
            f"{numbers} must name each of its axes once"
        )
    m, n = (math.prod(x.shape[axis] for axis in axes) for axes in (rows, columns))
    return _Matrix((*rows, *columns), (m, n), min(rank, m, n), side)


@transformation(scale=FINITE)
def galore(
    learning_rate: PerLeaf,
    rank: int = 128,
    update_proj_gap: int = 200,
    scale: float = 1.0,
    base_optimizer: GradientTransformation | None = None,
    weight_decay: PerLeaf = 0.0,
    mask: MaskOrFn = None,
    weight_dimension_numbers: WeightDimNumOrFn = None,
    *,
    side: str = "longer",
) -> GradientTransformationExtraArgs:
    """GaLore: Adam with moments in the gradient's leading singular directions.

        p <- p - learning_rate (u + weight_decay p)        with u of `scale_by_galore`

    Args:
        learning_rate: as `descend` takes it.
        rank, update_proj_gap, scale, base_optimizer, weight_dimension_numbers, side: as
            `scale_by_galore` takes them; the paper has `scale=0.25, side="shorter"`.
        weight_decay, mask: as `descend` takes them; of the whole parameters, which
            `base_optimizer` does not see.

    Returns:
        A transformation whose state is `(GaLoreState, EmptyState, EmptyState)` (memory:
        `rank (n + 2 m)` for a matrix `[m, n]` with `m < n`, two copies of other
        parameters). The update needs the parameters.

    Raises:
        ValueError: a number is outside its range, or the dimension numbers of a leaf do
            not name each of its axes once.
        TypeError: `base_optimizer` is no transformation.

    Example:
        >>> tx = jopt.galore(0.01, rank=128, scale=0.25)

    Reference:
        Zhao et al., GaLore: Memory-Efficient LLM Training by Gradient Low-Rank
        Projection, ICML 2024, arXiv:2403.03507.
    """
    direction = scale_by_galore(
        rank,
        update_proj_gap,
        scale,
        base_optimizer,
        weight_dimension_numbers,
        side=side,
    )
    return descend(direction, learning_rate, weight_decay, mask)

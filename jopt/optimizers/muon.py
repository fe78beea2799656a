"""Muon: momentum whose matrices are orthogonalized."""

import collections
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from ..base import (
    EmptyState,
    GradientTransformationExtraArgs,
    MaskOrFn,
    Params,
    PerLeaf,
    Updates,
)
from ..boxes import flatten_with_path
from ..engine import from_plan, per_leaf, transformation
from ..engine.batches import stack, unstack
from ..engine.leaves import Leaves
from ..engine.stages import in_sequence, plan_of
from ..kinds import is_function
from ..linalg import COEFFICIENTS, PRECONDITIONINGS, orthogonalize
from ..numerics import (
    cast,
    compute_dtype,
    ema,
    one_minus_power,
    safe_increment,
    zeros_in,
)
from ..parts.combine import chain, partition
from ..parts.decay import decay_parts
from ..parts.scale import scale_by_learning_rate
from ..settings import NOT_NEGATIVE, check_integer
from ..sharding import gathered, split_as
from ..words import keystr, spell
from .adam import adamw

__all__ = ["MuonDimensionNumbers", "MuonState", "muon", "scale_by_muon"]

STANDARD = COEFFICIENTS["standard"][0]


class MuonDimensionNumbers(NamedTuple):
    """Which axes of a parameter are a matrix's rows and columns; others are a batch."""

    reduction_axis: Sequence[int] | int = 0
    output_axis: Sequence[int] | int = 1


class MuonState(NamedTuple):
    """The step count, the mean gradient and the coefficients of the iteration."""

    count: jax.Array
    mu: Updates
    ns_coeffs: jax.Array


WeightDimNumOrFn = MuonDimensionNumbers | Params | Callable[[Params], Params] | None


@transformation
def scale_by_muon(
    ns_coeffs: Any = STANDARD,
    ns_steps: int = 5,
    beta: float = 0.95,
    eps: float = 1e-8,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: str = "frobenius",
    weight_dimension_numbers: WeightDimNumOrFn = None,
    bias_correction: bool = True,
) -> GradientTransformationExtraArgs:
    """Muon's direction: the mean gradient with its singular values set to about one.

        mu <- beta mu + (1 - beta) g
        m   = beta mu / (1 - beta^(t+1)) + (1 - beta) g / (1 - beta^t)
        u   = orthogonalize(m)

    with `m = mu / (1 - beta^t)` unless `nesterov`. All matrices of one size are
    orthogonalized as one batch.

    Args:
        ns_coeffs: `(a, b, c)` of every step, or a tuple of them for each; `"standard"`
            or `"dion"` by name.
        ns_steps: how many steps, not negative; with one set a step, the last of them.
        beta: decay of the mean gradient, in [0, 1).
        eps: added to the norm in the first division, not negative.
        mu_dtype: dtype `mu` is stored in. The parameter's, or float32 if that has 16
            bits, if `None`.
        nesterov: whether to look ahead.
        adaptive: whether to multiply by the inner product of `m` and `u`.
        preconditioning: as `orthogonalize` takes it.
        weight_dimension_numbers: `MuonDimensionNumbers` for all leaves, a tree of them,
            or a function that makes one; matrices `[in, out]` if `None`.
        bias_correction: whether the means have Adam's corrections, as in optax;
            otherwise `m = beta mu + (1 - beta) g`, as in the authors' code.

    Returns:
        A transformation whose state is `MuonState(count: i32[], mu, ns_coeffs)`, `mu`
        in the shapes of the parameters (memory: one copy).

    Raises:
        ValueError: the coefficients or dimension numbers do not fit.

    Example:
        >>> tx = jopt.chain(jopt.scale_by_muon(), jopt.scale(-0.02))

    Reference:
        Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024.
        Liu et al., Muon is Scalable for LLM Training, 2025, arXiv:2502.16982.
    """
    table, steps = _coefficients(ns_coeffs, ns_steps)
    if preconditioning not in PRECONDITIONINGS:
        raise ValueError(
            f"scale_by_muon: preconditioning must be one of {PRECONDITIONINGS}, "
            f"got {preconditioning!r}"
        )

    def init(p):
        return dict(mu=zeros_in(p, mu_dtype))

    def each(t):
        if not bias_correction:
            return (beta, 1 - beta) if nesterov else (1, None)
        if not nesterov:
            return 1 / one_minus_power(beta, t), None
        scale_g = (1 - beta) / one_minus_power(beta, t)
        return beta / one_minus_power(beta, safe_increment(t)), scale_g

    def scale_by_muon(g, s, p, scales):
        scale_mu, scale_g = scales
        mu = ema(g, s.mu, beta)
        m = scale_mu * mu if scale_g is None else scale_mu * mu + scale_g * g
        return m, s._replace(mu=mu)

    def matrices(x):
        u = orthogonalize(x, steps, preconditioning=preconditioning, eps=eps)
        if adaptive:
            u = u * jnp.sum(x.conj() * u, axis=(-2, -1), keepdims=True)
        return u

    def update(updates, state, params=None, **extra_args):
        leaves = Leaves(updates, params)
        numbers = dimension_numbers(weight_dimension_numbers, leaves.reference)
        _in_batches(matrices, leaves, leaves.treedef.flatten_up_to(numbers))
        return leaves.tree(leaves.g), state

    shared = dict(ns_coeffs=lambda: jnp.asarray(table, jnp.result_type(float)))
    momentum = per_leaf(MuonState, init, scale_by_muon, each=each, shared=shared)
    whole = GradientTransformationExtraArgs(lambda params: EmptyState(), update)
    return from_plan(
        in_sequence(
            [plan_of(momentum), plan_of(whole)],
            wrap=lambda parts: parts[0],
            unwrap=lambda state: (state, EmptyState()),
        )
    )


def _coefficients(ns_coeffs: Any, ns_steps: int) -> tuple[Any, list]:
    """The coefficients as given, and those of each step."""
    check_integer("scale_by_muon", "ns_steps", ns_steps, low=0)
    if isinstance(ns_coeffs, str):
        if ns_coeffs not in COEFFICIENTS:
            raise ValueError(
                f"scale_by_muon: ns_coeffs must be one of {sorted(COEFFICIENTS)} or "
                f"numbers, got {ns_coeffs!r}"
            )
        named = COEFFICIENTS[ns_coeffs]
        ns_coeffs = named[0] if len(named) == 1 else named
    shape = np.shape(ns_coeffs)
    if len(shape) not in (1, 2) or shape[-1] != 3:
        raise ValueError(
            f"scale_by_muon: ns_coeffs must have the shape (3,) or (n, 3), got {shape}"
        )
    if len(shape) == 1:
        return ns_coeffs, [ns_coeffs] * ns_steps
    if shape[0] < ns_steps:
        raise ValueError(
            f"scale_by_muon: ns_coeffs has {shape[0]} sets for {ns_steps} ns_steps"
        )
    last = list(ns_coeffs)[shape[0] - ns_steps :]
    return last, last


def dimension_numbers(spec: WeightDimNumOrFn, tree: Any) -> Any:
    """The tree of `MuonDimensionNumbers`, `None` for a leaf that has none.

    One for all is for those that have two axes at least: a bias is no matrix. A tree is
    matched by path, so that it may name leaves that a mask hides.
    """
    make: Any = spec
    if is_function(make):
        spec = make(tree)
    if spec is None or isinstance(spec, MuonDimensionNumbers):
        numbers = spec or MuonDimensionNumbers()
        return jax.tree.map(lambda x: numbers if np.ndim(x) >= 2 else None, tree)

    def is_spec(x):
        return x is None or isinstance(x, MuonDimensionNumbers)

    named = dict(flatten_with_path(spec, is_leaf=is_spec))
    for path, x in named.items():
        if not is_spec(x):
            raise TypeError(
                f"weight_dimension_numbers at {keystr(path)} must be "
                f"MuonDimensionNumbers or None, got {spell(x)}"
            )

    def find(path, x):
        places = (path[:n] for n in range(len(path), -1, -1))
        return next((named[place] for place in places if place in named), None)

    found = [find(path, x) for path, x in flatten_with_path(tree)]
    return jax.tree.structure(tree).unflatten(found)


_LARGE = 2**20  # elements of a batch that to copy once more would not pay for


def _in_batches(function: Callable, leaves: Leaves, numbers: list) -> None:
    """Applies a function of matrices to all leaves, those of one size together."""
    stacks = collections.defaultdict(list)
    for i, live in enumerate(leaves.live):
        if live:
            x = gathered(leaves.g[i])
            order, sizes = _matrix_axes(x, numbers[i], lambda i=i: leaves.path(i))
            flat = _reshape(_transpose(x, order), sizes[1:] if sizes[0] == 1 else sizes)
            stacks[sizes, x.dtype].append((i, order, flat))
    batches = collections.defaultdict(list)
    for (sizes, dtype), members in stacks.items():
        x = stack([flat for *_, flat in members])
        x = x.reshape(len(members) * sizes[0], *sizes[1:])
        x = x.mT if sizes[1] > sizes[2] else x
        alone = sizes if x.size > _LARGE else None
        batches[x.shape[1:], dtype, alone].append((sizes, members, x))
    for (_, dtype, _), stacked in batches.items():
        xs = [x for *_, x in stacked]
        x = xs[0] if len(xs) == 1 else jnp.concatenate(xs)
        out = cast(function(cast(x, compute_dtype(dtype))), dtype)
        parts = jax.lax.split(out, [len(x) for x in xs])
        for part, (sizes, members, _) in zip(parts, stacked):
            part = part.mT if sizes[1] > sizes[2] else part
            *_, flat = members[0]
            flats = unstack(part.reshape(len(members), *flat.shape))
            for flat, (i, order, _) in zip(flats, members):
                shape = tuple(leaves.g[i].shape[axis] for axis in order)
                back = tuple(sorted(range(len(order)), key=order.__getitem__))
                u = _transpose(_reshape(flat, shape), back)
                leaves.g[i] = split_as(u, leaves.g[i])


def _reshape(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return x if x.shape == shape else x.reshape(shape)


def _transpose(x: jax.Array, order: tuple[int, ...]) -> jax.Array:
    return x if order == tuple(range(x.ndim)) else x.transpose(order)


def _matrix_axes(
    x: jax.Array, numbers: Any, path: Callable[[], str]
) -> tuple[tuple, tuple]:
    """The axes in the order batch, rows, columns, and the product of each kind."""
    rows, columns = fan_axes(x, numbers, path)
    batch = tuple(i for i in range(x.ndim) if i not in rows + columns)
    sizes = tuple(
        math.prod(x.shape[i] for i in axes) for axes in (batch, rows, columns)
    )
    return batch + rows + columns, sizes


def fan_axes(
    x: jax.Array, numbers: Any, path: Callable[[], str]
) -> tuple[tuple, tuple]:
    """The axes of a parameter's rows and columns."""
    numbers = numbers or MuonDimensionNumbers()
    rows, columns = (
        tuple(i % x.ndim for i in ((axes,) if isinstance(axes, int) else axes))
        if x.ndim
        else ()
        for axes in numbers
    )
    if x.ndim < 2 or set(rows) & set(columns):
        raise ValueError(
            f"scale_by_muon: the leaf at {path()} has the shape {x.shape}; "
            f"{numbers} do not make a matrix of it"
        )
    return rows, columns


def _scale_by_shape(
    spec: WeightDimNumOrFn, consistent_rms: float | None
) -> GradientTransformationExtraArgs:
    def scale_by_shape(g, s, p, numbers):
        rows, columns = fan_axes(g, numbers, lambda: "of that shape")
        fan_in, fan_out = (math.prod(g.shape[i] for i in a) for a in (rows, columns))
        if consistent_rms is None:
            return g * math.sqrt(max(1, fan_out / max(fan_in, 1))), s
        return g * (math.sqrt(max(fan_in, fan_out)) * consistent_rms), s

    def hint(tree):
        return dimension_numbers(spec, tree)

    return per_leaf(EmptyState, lambda p: {}, scale_by_shape, hint=hint)


@transformation(consistent_rms=NOT_NEGATIVE)
def muon(
    learning_rate: PerLeaf,
    ns_coeffs: Any = STANDARD,
    ns_steps: int = 5,
    beta: float = 0.95,
    eps: float = 1e-8,
    weight_decay: PerLeaf = 0.0,
    weight_decay_mask: MaskOrFn = None,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: str = "frobenius",
    adam_b1: float = 0.9,
    adam_b2: float = 0.999,
    adam_eps_root: float = 0.0,
    adam_weight_decay: PerLeaf = 0.0,
    adam_learning_rate: PerLeaf | None = None,
    muon_weight_dimension_numbers: WeightDimNumOrFn = None,
    consistent_rms: float | None = None,
    bias_correction: bool = True,
) -> GradientTransformationExtraArgs:
    """Muon for matrices, AdamW for all other parameters.

        p <- p - learning_rate (s u + weight_decay p)        with u of `scale_by_muon`
        s  = sqrt(max(1, out / in)),  or consistent_rms sqrt(max(in, out))

    Args:
        learning_rate: as `descend` takes it.
        ns_coeffs, ns_steps, beta, eps, mu_dtype: as `scale_by_muon` takes them.
        nesterov, adaptive, preconditioning: likewise.
        weight_decay, weight_decay_mask: of the matrices, as `descend` takes them.
        adam_b1, adam_b2, adam_eps_root, adam_weight_decay: of AdamW.
        adam_learning_rate: of AdamW; the same if `None`.
        muon_weight_dimension_numbers: `MuonDimensionNumbers` for all leaves of two axes
            or more, a tree of them, `None` where AdamW is to be used, or a function
            that makes one; all leaves of two axes are matrices `[in, out]` if `None`.
        consistent_rms: the root mean square of a step of a square matrix, times the
            learning rate; 0.2 is AdamW's.
        bias_correction: of the matrices, as `scale_by_muon` takes it.

    Returns:
        A transformation whose state is `PartitionState` with the labels `"muon"` and
        `"adam"` (memory: one copy of the matrices, two of the other parameters). The
        update needs the parameters.

    Example:
        >>> tx = jopt.contrib.muon(0.02)

    Reference:
        Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024.
        Liu et al., Muon is Scalable for LLM Training, 2025, arXiv:2502.16982.
    """
    spec = muon_weight_dimension_numbers

    def labels(params):
        if spec is None:
            return jax.tree.map(lambda x: "muon" if np.ndim(x) == 2 else "adam", params)
        numbers = dimension_numbers(spec, params)
        return jax.tree.map(lambda x, n: "muon" if n else "adam", params, numbers)

    before, beside, after = decay_parts(weight_decay, weight_decay_mask)
    return partition(
        {
            "muon": chain(
                *before,
                scale_by_muon(
                    ns_coeffs,
                    ns_steps,
                    beta,
                    eps,
                    mu_dtype,
                    nesterov=nesterov,
                    adaptive=adaptive,
                    preconditioning=preconditioning,
                    weight_dimension_numbers=spec,
                    bias_correction=bias_correction,
                ),
                _scale_by_shape(spec, consistent_rms),
                *beside,
                scale_by_learning_rate(learning_rate),
                *after,
            ),
            "adam": adamw(
                learning_rate if adam_learning_rate is None else adam_learning_rate,
                adam_b1,
                adam_b2,
                eps,
                adam_eps_root,
                weight_decay=adam_weight_decay,
                nesterov=nesterov,
            ),
        },
        labels,
    )

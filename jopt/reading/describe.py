"""What an optimizer will do to each parameter, before anything is allocated."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..base import GradientTransformation, Params, WeightDecay
from ..boxes import unboxed
from ..engine import run
from ..engine.leaves import hide, resolve
from ..engine.stages import LeafStage, Mask, plan_of
from ..kinds import is_inexact, is_optimizable, is_schedule
from ..parts.combine import check_transformation, set_to_zero
from ..parts.decay import add_decayed_weights
from ..parts.scale import scale, scale_by_learning_rate, scale_by_schedule
from ..settings import show
from ..tree import paths, values_of
from ..tree.states import by_param
from ..wrappers.groups import lr_mult
from .parts import Part
from .table import Description, ParamRow, text_of

__all__ = ["describe"]


def describe(tx: GradientTransformation, params: Params) -> Description:
    """A table of all parameters: group, optimizer, learning rate, decay, state's bytes.

    Nothing is allocated or computed. What stands in the columns is what the calls that
    made `tx` say: a learning rate is that of the optimizer, times `scale` after it;
    decay holds where its mask chooses the parameter. Another library's transformation
    is named by where it comes from. A schedule stands as itself.

    Args:
        tx: the transformation.
        params: the parameters, or `jax.ShapeDtypeStruct`s in their place, as
            `jax.eval_shape` makes them.

    Returns:
        A `Description`: `rows` for each parameter, and totals. It prints as a table of
        plain text, and as one of `rich` by `rich.print`.

    Raises:
        TypeError: `tx` is no transformation.
        ValueError: a pattern or a mask within `tx` does not fit the parameters.

    Example:
        >>> params = {"bias": jnp.zeros(2), "w": jnp.zeros((3, 2))}
        >>> tx = jopt.groups({"bias": dict(weight_decay=0.0)}, jopt.adamw(0.1))
        >>> jopt.describe(tx, params)
        path  shape   dtype    group    optimizer  lr   decay   state bytes
        -------------------------------------------------------------------
        bias  [2]     float32  bias     adamw      0.1  0       16
        w     [3, 2]  float32  default  adamw      0.1  0.0001  48
        8 parameters, 0 frozen; 72 bytes of state, 8 shared
        bias: 2 parameters, 16 bytes
        default: 6 parameters, 48 bytes
    """
    check_transformation("describe", "tx", tx)
    params = jax.tree.map(_abstract, unboxed(params))
    mine, shared = by_param(tx, run.init(plan_of(tx), params), params)
    acting = {path: [] for path in paths(params)}
    for part, is_last in Part(tx, None, params).walk():
        if is_last:
            action = _action(part)
            for path in paths(part.params):
                acting[path].append(action)
    rows = [
        _row(path, x, acting[path] if is_optimizable(x) else [], slots)
        for path, x, slots in zip(paths(params), jax.tree.leaves(params), mine)
    ]
    return Description(tuple(rows), sum(map(_bytes, shared)))


# ------------------------------------------------------------------- what a part does


class _Action(NamedTuple):
    """What a part does to the parameters that it sees, as its call says."""

    name: str
    factory: Any  # None if jopt did not make it
    maker: str | None  # the optimizer that it is a piece of
    group: Any  # of a path
    rates: dict[str, Any]  # by path, where it has such
    decays: dict[str, Any]
    factors: dict[str, Any]  # of a scale or a multiplier, by path


def _action(part: Part) -> _Action:
    given = {name: value for name, (_, value) in part.arguments.items()}
    decayed = part.params
    for mask in (given.get("mask"), given.get("weight_decay_mask")):
        if mask is not None:
            decayed = hide(resolve(Mask(mask), decayed), decayed)
    decay = given.get("weight_decay", given.get("weight_decay_rate"))
    return _Action(
        name=_name(part),
        factory=part.call and part.call.factory,
        maker=part.maker and part.maker.name,
        group=part.group_of,
        rates=_by_path(given.get("learning_rate"), part.params),
        decays=_by_path(None if decay is None else 0.0, part.params)
        | _by_path(decay, decayed),
        factors=_by_path(_factor_of(part), part.params, 1.0),
    )


def _factor_of(part: Part) -> Any:
    if part.call is None or part.call.factory not in (scale, lr_mult):
        return None
    return next(value for _, value in part.arguments.values())


def _by_path(value: Any, params: Params, default: Any = 0.0) -> dict[str, Any]:
    """The value of every path: one for all, or as `values_of` finds it."""
    if value is None:
        return {}
    if isinstance(value, WeightDecay):
        found = _by_path(value.value, params)
        return {path: type(value)(x, value.kind) for path, x in found.items()}
    return dict(zip(paths(params), values_of(value, params, default=default)))


def _name(part: Part) -> str:
    """The factory's name, a rule's, or where another library's comes from."""
    if part.call is not None:
        return part.call.name
    first = next(iter(plan_of(part.tx).stages), None)
    if isinstance(first, LeafStage):
        return first.name
    update = part.tx.update
    home = getattr(update, "__module__", type(update).__module__).partition(".")[0]
    name = getattr(update, "__qualname__", type(update).__name__).partition(".")[0]
    return f"{home}: {name}"


# --------------------------------------------------------------------------- one row


def _row(path: str, x: Any, actions: list[_Action], slots: list) -> ParamRow:
    group = actions[-1].group(path) if actions else ""
    frozen = bool(actions) and actions[-1].factory is set_to_zero
    if frozen:
        actions = []
    rates = []
    for action in actions:
        if path in action.rates:
            rates.append(action.rates[path])
        elif action.factors and rates:
            rates[-1] = _times(rates[-1], action.factors[path])
    return ParamRow(
        path=path,
        shape=tuple(getattr(x, "shape", ())),
        dtype=x.dtype.name if hasattr(x, "dtype") else type(x).__name__,
        group=group,
        optimizer="frozen" if frozen else " + ".join(_optimizers(actions)),
        learning_rate=_joined(rates),
        weight_decay=_joined([a.decays[path] for a in actions if path in a.decays]),
        state_bytes=sum(map(_bytes, slots)),
    )


# They say how far, not where to.
_LENGTHS = (
    scale,
    lr_mult,
    scale_by_learning_rate,
    scale_by_schedule,
    add_decayed_weights,
)


def _optimizers(actions: list[_Action]) -> list[str]:
    """The names of whole optimizers; where there are none, of the parts of one."""
    parts = [a for a in actions if a.factory not in _LENGTHS]
    whole = [a for a in parts if a.rates]
    if whole:
        return [a.name for a in parts if a.rates or a.factory is None]
    makers = dict.fromkeys(a.maker for a in parts if a.maker)
    return [*makers] or [a.name for a in parts or actions]


def _times(rate: Any, factor: Any) -> Any:
    if is_schedule(rate):
        return f"{show(factor)} * {show(rate)}"
    return rate * factor


def _joined(values: list) -> Any:
    return values[0] if len(values) == 1 else " + ".join(map(text_of, values))


def _abstract(x: Any) -> Any:
    """The type of an array or a floating number; anything else as it is."""
    if isinstance(x, (float, complex)):
        x = jnp.asarray(x)
    if hasattr(x, "shape") and hasattr(x, "dtype"):
        kept = not is_inexact(x.dtype)  # float64 of NumPy is float32 to JAX
        dtype = x.dtype if kept else jax.dtypes.canonicalize_dtype(x.dtype)
        return jax.ShapeDtypeStruct(x.shape, dtype)
    return x


def _bytes(x: Any) -> int:
    return math.prod(x.shape) * x.dtype.itemsize

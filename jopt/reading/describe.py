"""What an optimizer will do to each parameter, as a table."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..base import GradientTransformation, Params
from ..engine import run
from ..engine.leaves import hide, is_inexact, resolve
from ..engine.stages import LeafStage, Mask, plan_of
from ..parts.combine import check_transformation, set_to_zero
from ..parts.decay import add_decayed_weights
from ..parts.scale import scale, scale_by_learning_rate, scale_by_schedule
from ..settings import show
from ..tree import paths
from ..tree.states import by_param
from .parts import Part

__all__ = ["Description", "ParamRow", "describe"]


class ParamRow(NamedTuple):
    """A parameter, and what the optimizer does to it."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    group: str  # labels of the partitions it is in, "" if there are none
    optimizer: str  # "frozen" if it never moves, "" if it is no floating array
    learning_rate: Any  # a number, a schedule, or "" if there is none by this name
    weight_decay: Any  # the same
    state_bytes: int  # of the state that is for this parameter alone

    @property
    def size(self) -> int:
        """The number of its elements."""
        return math.prod(self.shape)


class Description(NamedTuple):
    """What `describe` found: prints as a table, with `rich` as one of its tables."""

    rows: tuple[ParamRow, ...]
    shared_bytes: int  # of the state that is for no parameter alone, counts above all

    @property
    def parameters(self) -> int:
        """The number of elements that there are to optimize."""
        return sum(row.size for row in self.rows if row.optimizer)

    @property
    def frozen(self) -> int:
        """The number of those that never move."""
        return sum(row.size for row in self.rows if row.optimizer == "frozen")

    @property
    def state_bytes(self) -> int:
        """The bytes of the whole state."""
        return sum(row.state_bytes for row in self.rows) + self.shared_bytes

    @property
    def groups(self) -> dict[str, tuple[int, int]]:
        """The parameters and the bytes of state of each group."""
        found = {}
        for row in filter(lambda row: row.optimizer, self.rows):
            size, state = found.get(row.group, (0, 0))
            found[row.group] = size + row.size, state + row.state_bytes
        return found

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        """Columns of plain text."""
        lines = [_TITLES, *map(_cells, self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines)]
        text = ["  ".join(x.ljust(w) for x, w in zip(l, widths)) for l in lines]
        text.insert(1, "-" * len(text[0]))
        return "\n".join(line.rstrip() for line in [*text, *self._totals()])

    def __rich__(self) -> Any:
        """The same for `rich.print`."""
        from rich.table import Table

        table = Table(*_TITLES, caption="\n".join(self._totals()))
        for row in self.rows:
            table.add_row(*_cells(row))
        return table

    def _totals(self) -> Iterator[str]:
        yield (
            f"{self.parameters:,} parameters, {self.frozen:,} frozen; "
            f"{self.state_bytes:,} bytes of state, {self.shared_bytes:,} shared"
        )
        if len(self.groups) > 1:
            for name, (size, state) in self.groups.items():
                yield f"{name or 'no group'}: {size:,} parameters, {state:,} bytes"


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
    params = jax.tree.map(_abstract, params)
    mine, shared = by_param(tx, run.init(plan_of(tx), params), params)
    parts = {path: [] for path in paths(params)}
    for part, is_last in Part(tx, None, params).walk():
        if is_last:
            facts = _facts(part)
            for path in paths(part.params):
                parts[path].append(facts)
    rows = [
        _row(path, x, parts[path] if _is_optimizable(x) else [], slots)
        for path, x, slots in zip(paths(params), jax.tree.leaves(params), mine)
    ]
    return Description(tuple(rows), sum(map(_bytes, shared)))


# ------------------------------------------------------------------- what a part says


class _Facts(NamedTuple):
    """What the call of one part says of the parameters that it sees."""

    name: str
    factory: Any  # None of another library's
    maker: str  # the optimizer that it is a piece of, if it is one
    group: str
    rate: Any  # None if it has none
    decay: Any
    decayed: frozenset[str]
    factor: Any  # if it is a scale
    is_foreign: bool


# They say how far, not where to.
_LENGTHS = scale, scale_by_learning_rate, scale_by_schedule, add_decayed_weights


def _facts(part: Part) -> _Facts:
    given = {name: value for name, (_, value) in part.arguments.items()}
    masks = [given[name] for name in ("mask", "weight_decay_mask") if name in given]
    decayed = part.params
    for mask in masks:
        if mask is not None:
            decayed = hide(resolve(Mask(mask), decayed), decayed)
    factory = None if part.call is None else part.call.factory
    return _Facts(
        name=_name(part),
        factory=factory,
        maker="" if part.maker is None else part.maker.name,
        group="/".join(map(str, part.groups)),
        rate=given.get("learning_rate"),
        decay=given.get("weight_decay", given.get("weight_decay_rate")),
        decayed=frozenset(paths(decayed)),
        factor=given["step_size"] if factory is scale else None,
        is_foreign=part.call is None and not isinstance(_first(part), LeafStage),
    )


def _first(part: Part) -> Any:
    return next(iter(plan_of(part.tx).stages), None)


def _name(part: Part) -> str:
    if part.call is not None:
        return part.call.name
    first = _first(part)
    if isinstance(first, LeafStage):
        return first.name
    update = part.tx.update
    home = getattr(update, "__module__", type(update).__module__).partition(".")[0]
    name = getattr(update, "__qualname__", type(update).__name__).partition(".")[0]
    return f"{home}: {name}"


def _row(path: str, x: Any, parts: list[_Facts], slots: list) -> ParamRow:
    frozen = bool(parts) and parts[-1].factory is set_to_zero
    rates, decays = [], []
    for part in () if frozen else parts:
        if part.rate is not None:
            rates.append(part.rate)
        elif part.factor is not None and rates:
            rates[-1] = _times(rates[-1], part.factor)
        if part.decay is not None:
            decays.append(part.decay if path in part.decayed else 0.0)
    return ParamRow(
        path=path,
        shape=tuple(getattr(x, "shape", ())),
        dtype=x.dtype.name if hasattr(x, "dtype") else type(x).__name__,
        group=parts[-1].group if parts else "",
        optimizer="frozen" if frozen else " + ".join(_names(parts)),
        learning_rate=_joined(rates),
        weight_decay=_joined(decays),
        state_bytes=sum(map(_bytes, slots)),
    )


def _names(parts: list[_Facts]) -> list[str]:
    """The optimizers, or if there is none the parts that say where to go."""
    whole = [f for f in parts if f.rate is not None and f.factory not in _LENGTHS]
    if not whole and any(f.maker for f in parts):
        return list(dict.fromkeys(f.maker for f in parts if f.maker))
    if whole:
        return [f.name for f in parts if f in whole or f.is_foreign]
    return [f.name for f in parts if f.factory not in _LENGTHS or len(parts) == 1]


def _times(rate: Any, factor: Any) -> Any:
    if callable(rate) or callable(factor):
        return f"{show(factor)} * {show(rate)}"
    return rate * factor


def _joined(values: list) -> Any:
    return values[0] if len(values) == 1 else " + ".join(map(_text, values))


# ------------------------------------------------------------------------- the table

_TITLES = "path", "shape", "dtype", "group", "optimizer", "lr", "decay", "state bytes"


def _cells(row: ParamRow) -> tuple[str, ...]:
    """A row as text, in the order of the titles."""
    return (
        row.path or "(the root)",
        str(list(row.shape)),
        row.dtype,
        row.group,
        row.optimizer,
        _text(row.learning_rate),
        _text(row.weight_decay),
        f"{row.state_bytes:,}",
    )


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return show(value) if callable(value) else f"{value:g}"


# ------------------------------------------------------------------------- one leaf


def _abstract(x: Any) -> Any:
    """The type of an array or a floating number; anything else as it is."""
    if isinstance(x, (float, complex)):
        x = jnp.asarray(x)
    if hasattr(x, "shape") and hasattr(x, "dtype"):
        return jax.ShapeDtypeStruct(x.shape, x.dtype)
    return x


def _is_optimizable(x: Any) -> bool:
    return hasattr(x, "dtype") and is_inexact(x.dtype)


def _bytes(x: Any) -> int:
    return math.prod(x.shape) * x.dtype.itemsize

"""The table of `describe`, as data, as plain text and for rich."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ..settings import show

__all__ = ["Description", "ParamRow"]


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


_TITLES = "path", "shape", "dtype", "group", "optimizer", "lr", "decay", "state bytes"


def _cells(row: ParamRow) -> tuple[str, ...]:
    """A row as text, in the order of the titles."""
    return (
        row.path or "(the root)",
        str(list(row.shape)),
        row.dtype,
        row.group,
        row.optimizer,
        text_of(row.learning_rate),
        text_of(row.weight_decay),
        f"{row.state_bytes:,}",
    )


def text_of(value: Any) -> str:
    """A number in short, anything else as it was given."""
    if isinstance(value, str):
        return value
    return f"{value:g}" if isinstance(value, (int, float, np.number)) else show(value)


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
        from rich.markup import escape
        from rich.table import Table

        table = Table(*_TITLES, caption=escape("\n".join(self._totals())))
        for row in self.rows:
            table.add_row(*map(escape, _cells(row)))
        return table

    def _totals(self) -> Iterator[str]:
        yield (
            f"{self.parameters:,} parameters, {self.frozen:,} frozen; "
            f"{self.state_bytes:,} bytes of state, {self.shared_bytes:,} shared"
        )
        if len(self.groups) > 1:
            for name, (size, state) in self.groups.items():
                yield f"{name or 'no group'}: {size:,} parameters, {state:,} bytes"

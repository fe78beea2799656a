"""Names that optax has deprecated: found when asked for, with a warning."""

import sys
import warnings
from collections.abc import Callable
from typing import Any

__all__: list[str] = []


def renamed(module: str, names: dict[str, tuple[str, Any]]) -> Callable[[str], Any]:
    """A module's `__getattr__`: each older name, with what replaces it and its value.

    Programs still use them. They are in no `__all__` and no `dir`.
    """

    def find(name: str) -> Any:
        if name not in names:
            message = f"module {module!r} has no attribute {name!r}"
            raise AttributeError(message, name=name, obj=sys.modules[module])
        now, value = names[name]
        message = f"{module}.{name} is deprecated: use {now}"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return value

    return find

"""Names that optax has deprecated: found when asked for, with a warning."""

import functools
import sys
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

__all__: list[str] = []

P = ParamSpec("P")
R = TypeVar("R")
_OURS = __name__.partition(".")[0]


def warn(message: str) -> None:
    """A warning at the line of the program that led here, whatever is between."""
    level, frame = 1, sys._getframe()
    while frame and frame.f_globals.get("__name__", "").partition(".")[0] == _OURS:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, DeprecationWarning, stacklevel=level)


def deprecated(name: str, now: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """The decorator of a function that warns at each call of what replaces it."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def warning(*args: P.args, **kwargs: P.kwargs) -> R:
            warn(f"{name} is deprecated: use {now}")
            return function(*args, **kwargs)

        return warning

    return decorate


def seed_as_key(arguments: dict[str, Any]) -> dict[str, Any]:
    """The older argument `seed` of a factory as its `key`."""
    if arguments.get("seed") is None or arguments.get("key") is not None:
        return {}
    warn("seed is deprecated: use key, which takes an integer too")
    return dict(key=arguments["seed"], seed=None)


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

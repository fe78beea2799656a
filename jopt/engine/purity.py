"""What may be compiled in eager use: what jopt made, and what is declared pure.

All else is the user's Python. It may read a variable, print, draw from NumPy's
generator or append to a list, so it is called anew at every step, as it is written.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from .. import settings
from ..kinds import is_transformation

__all__ = []


def is_pure(x: Any) -> bool:
    """Whether a setting holds no function but jopt's, JAX's and jitted ones."""
    return all(map(_is_pure_leaf, jax.tree.leaves(x, is_leaf=is_transformation)))


def _is_pure_leaf(x: Any) -> bool:
    if is_transformation(x):
        return getattr(x.update, "is_pure", False)
    if isinstance(x, settings.Recorded):
        return x.call is not None and is_pure_call(x.call)
    if isinstance(x, functools.partial):
        return is_pure([x.func, x.args, x.keywords])
    if isinstance(x, type | jax.Array | np.ndarray | np.generic) or not callable(x):
        return True
    return isinstance(x, _JITTED) or _is_of_a_library(x)


def is_pure_call(call: settings.Call) -> bool:
    """Whether all that a factory was given is pure; it itself is, by its decorator."""
    made = isinstance(call.factory, settings.Recorded)
    return is_pure(call.arguments) and (not made or is_pure(call.factory))


_JITTED = type(jax.jit(lambda: None))


def _is_of_a_library(function: Callable) -> bool:
    """Whether it is a public or private function of one of the modules of jopt or JAX.

    Not one that is made in another: that may hold what the user gave.
    """
    module = str(getattr(function, "__module__", ""))
    if module.split(".")[0] not in ("jopt", "jax"):
        return False
    found: Any = sys.modules.get(module)
    for name in getattr(function, "__qualname__", "").split("."):
        found = getattr(found, name, None)
    return found is function

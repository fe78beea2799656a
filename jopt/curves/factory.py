"""What a schedule may be given: numbers and counts of steps, checked by their names."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np

from .. import settings
from ..numerics import compute_dtype
from ..settings import FINITE, FRACTION, NOT_NEGATIVE, POSITIVE, Range
from ..settings.call import signature_of

__all__ = []

F = TypeVar("F", bound=Callable[..., Any])

_NUMBERS = dict(
    **dict.fromkeys(("value", "init_value", "peak_value", "end_value"), FINITE),
    **dict.fromkeys(("power", "exponent", "decay_rate"), NOT_NEGATIVE),
    **dict.fromkeys(("pct_start", "pct_final"), FRACTION),
    **dict.fromkeys(("div_factor", "final_div_factor"), POSITIVE),
    alpha=FINITE,
)
# the smallest that each may be; a transition of no steps is none
_COUNTS = dict(transition_steps=0, transition_begin=0, decay_steps=1, warmup_steps=0)


def schedule(function: F) -> F:
    """The decorator of schedule factories: `settings.schedule`, arguments read."""

    @settings.schedule
    @functools.wraps(function)
    def factory(*args, **kwargs):
        signature = signature_of(function)
        try:
            given = signature.bind(*args, **kwargs)
        except TypeError:
            return function(*args, **kwargs)  # Python's own words name it
        for name, value in given.arguments.items():
            if value is not signature.parameters[name].default:
                given.arguments[name] = _read(function.__name__, name, value)
        return function(*given.args, **given.kwargs)

    return cast(F, factory)


def _read(where: str, name: str, value: Any) -> Any:
    if name in _NUMBERS:
        return number(where, name, value, _NUMBERS[name])
    if name in _COUNTS:
        return whole(where, name, value, _COUNTS[name])
    return value


def number(where: str, name: str, value: Any, allowed: Range) -> float | jax.Array:
    """The value as a Python number or as a floating array, if it is in the range."""
    settings.check_number(where, name, value, allowed)
    if isinstance(value, (np.generic, np.ndarray)):
        return value.item()
    if not isinstance(value, jax.Array):
        return value
    floating = jnp.issubdtype(value.dtype, jnp.floating)
    return value.astype(compute_dtype(value.dtype) if floating else float)


def whole(where: str, name: str, value: Any, low: int | None) -> int:
    """The value as an integer of at least `low`; `1e4` is one, a traced value not."""
    if isinstance(value, (float, np.floating)) and value.is_integer():
        value = int(value)
    settings.check_integer(where, name, value, low)
    return int(value)

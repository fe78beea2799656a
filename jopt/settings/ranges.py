"""The numbers that an argument may be, by its name, and what refuses others.

`b1` means the same in every method.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..base import Rules, WeightDecay
from ..kinds import is_known, is_schedule
from ..words import misfit_of_one, type_in_words

__all__ = []


class Range(NamedTuple):
    """The numbers that an argument may be: `low <= x <= high`, strict where open.

    NaN is in none, infinity only in one that is not `finite`.

    With `per_leaf` a tree of such numbers and of schedules, or a mapping from path
    patterns to them; with `decay_kinds` weight decay of another kind too.
    """

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    per_leaf: bool = False
    decay_kinds: bool = False
    finite: bool = True

    def __contains__(self, x: float) -> bool:
        above = x > self.low if self.open_low else x >= self.low
        below = x < self.high if self.open_high else x <= self.high
        return above and below and (math.isfinite(x) or not self.finite)

    def __str__(self) -> str:
        if self.low == -math.inf and self.high == math.inf:
            return "a finite number" if self.finite else "a number"
        if self.high == math.inf:
            above = f"more than {self.low:g}" if self.low else "positive"
            return above if self.open_low else f"at least {self.low:g}"
        left, right = "(["[not self.open_low], ")]"[not self.open_high]
        return f"in {left}{self.low:g}, {self.high:g}{right}"


FINITE = Range()
ANY = Range(finite=False)
NOT_NEGATIVE = Range(0)
POSITIVE = Range(0, open_low=True)
DECAY = Range(0, 1, open_high=True)  # a weight on the past; at one nothing is learned
FRACTION = Range(0, 1)
COUNT = Range(1)
RATE = Range(per_leaf=True)
PLAIN_DECAY = Range(0, per_leaf=True)  # where a method has its own place for it
WEIGHT_DECAY = Range(0, per_leaf=True, decay_kinds=True)

RANGES = dict(
    learning_rate=RATE,
    step_size=FINITE,
    **dict.fromkeys(("b1", "b2", "b3", "beta", "rho"), DECAY),
    **dict.fromkeys(("decay", "momentum"), FRACTION),
    **dict.fromkeys(("eps", "eps_root", "epsilon"), NOT_NEGATIVE),
    **dict.fromkeys(("min_norm", "min_scale"), NOT_NEGATIVE),
    **dict.fromkeys(("max_norm", "max_delta", "threshold", "clipping"), NOT_NEGATIVE),
    **dict.fromkeys(("clip_threshold", "clipping_threshold"), NOT_NEGATIVE),
    **dict.fromkeys(("eta", "trust_coefficient", "adam_eps_root"), NOT_NEGATIVE),
    **dict.fromkeys(("initial_accumulator_value", "initial_scale"), NOT_NEGATIVE),
    **dict.fromkeys(("adam_b1", "adam_b2"), DECAY),
    **dict.fromkeys(("weight_decay", "adam_weight_decay"), WEIGHT_DECAY),
    weight_decay_rate=PLAIN_DECAY,
    adam_learning_rate=RATE,
)


def range_of(name: str) -> Range:
    """The numbers that an argument of this name may usually be."""
    return RANGES.get(name, FINITE)


def check_number(where: str, name: str, value: Any, allowed: Range) -> None:
    """Refuse what is not one number in the range. Traced values are not looked at."""
    if isinstance(value, (bool, np.bool_, str, bytes, complex)) or value is None:
        got = "None" if value is None else f"{type_in_words(value)} {value!r}"
        raise TypeError(f"{where}: {name} must be a number, got {got}")
    if not isinstance(value, (int, float, np.number, np.ndarray, jax.Array)):
        raise TypeError(f"{where}: {name} must be a number, got {type_in_words(value)}")
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{where}: {name} must be a number, got {type_in_words(value)}")
    shape, dtype = np.shape(value), jax.dtypes.result_type(value)
    if shape != ():
        raise ValueError(
            f"{where}: {name} must be a scalar, got an array of shape {shape}"
        )
    real = jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)
    if not real:
        raise TypeError(f"{where}: {name} must be a real number, got dtype {dtype}")
    if not is_known(value):
        return
    if float(value) not in allowed:
        raise ValueError(f"{where}: {name} must be {allowed}, got {value}")


def check_real(where: str, name: str, value: Any, complexes: bool = False) -> None:
    """Refuse what is neither an array of real numbers, or complex ones, nor one."""
    scalars = (int, float, complex) if complexes else (int, float)
    if not isinstance(value, (*scalars, np.generic, np.ndarray, jax.Array)):
        raise TypeError(
            f"{where}: {name} must be an array or a number, got {type(value).__name__}"
        )
    dtype = getattr(value, "dtype", np.dtype(type(value)))
    kinds = (jnp.inexact if complexes else jnp.floating, jnp.integer, jnp.bool_)
    if not any(jnp.issubdtype(dtype, kind) for kind in kinds):
        wanted = "numbers" if complexes else "real"
        raise TypeError(
            f"{where}: {name} must be {wanted}, got {dtype}{[*np.shape(value)]}"
        )


def check_function(where: str, name: str, value: Any) -> None:
    """Refuse what cannot be called."""
    if not callable(value):
        raise TypeError(f"{where}: {name} must be a function, got {value!r:.40}")


def check_array(where: str, name: str, value: Any, allowed: Range) -> None:
    """Refuse an array with a number outside the range, if its values are known."""
    if not is_known(value) or not np.size(value):
        return
    value = np.asarray(value)  # so that the least is found, and not traced
    for x in (value.min(), value.max()):
        if float(x) not in allowed:
            raise ValueError(f"{where}: {name} must be {allowed}, got {x}")


def check_numbers(where: str, name: str, value: Any, allowed: Range) -> None:
    """Refuse what is not a number in the range, or a tree or mapping if these may be.

    Of a schedule it is looked at how it is called; its value is checked at the step.
    """
    if isinstance(value, WeightDecay):
        if not allowed.decay_kinds:
            raise TypeError(
                f"{where}: {name} must be a number and no {value!r}: "
                f"{where} has a place of its own for it"
            )
        value = value.value
    flat = [((), value)]
    if allowed.per_leaf:
        flat = jax.tree_util.tree_flatten_with_path(value)[0] or flat
        if isinstance(value, Rules) and None in value.values():
            flat = [((jax.tree_util.DictKey(k),), v) for k, v in value.items()]
    for path, x in flat:
        at = f"{name} at {jax.tree_util.keystr(path)}" if path else name
        if is_schedule(x):
            check_schedule(where, at, x)
        else:
            check_number(where, at, x, allowed)


def check_schedule(where: str, name: str, value: Any) -> None:
    """Refuse what cannot be called with the number of a step."""
    if isinstance(value, type):
        raise TypeError(
            f"{where}: {name} must be a number or a schedule, got the class "
            f"{value.__name__}"
        )
    misfit = misfit_of_one(value)
    if misfit is not None:
        called = getattr(value, "__name__", type_in_words(value))
        hint = "; did you forget to call it?" if "missing" in misfit else ""
        raise TypeError(
            f"{where}: {name} must be a schedule, a function of the step alone, got "
            f"{called}: {misfit}{hint}"
        )


def rules_as_tree(name: str, value: Any, ranges: Mapping[str, Range] = RANGES) -> Any:
    """A mapping with its order, where a number of each leaf may be given."""
    allowed = ranges.get(name)
    if allowed is None or not allowed.per_leaf or not isinstance(value, Mapping):
        return value
    return value if isinstance(value, Rules) else Rules(value)


def check_floating_dtype(where: str, name: str, dtype: Any) -> None:
    """Refuse what is not the dtype of a float: a moment in integers never moves."""
    is_array = isinstance(dtype, (jax.Array, np.ndarray, np.generic))
    try:
        floating = not is_array and jnp.issubdtype(jnp.dtype(dtype), jnp.inexact)
    except TypeError:
        floating = False
    if not floating:
        got = type_in_words(dtype) if is_array else repr(dtype)
        raise TypeError(f"{where}: {name} must be a floating dtype, got {got}")


def check_integer(where: str, name: str, value: Any, low: int | None = 1) -> None:
    """Refuse what is not a Python or NumPy integer, of at least `low`."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(
            f"{where}: {name} must be an integer, got {type_in_words(value)} {value!r}"
        )
    if low is not None and value < low:
        raise ValueError(f"{where}: {name} must be at least {low}, got {value}")


def check_bool(where: str, name: str, value: Any) -> None:
    """Refuse what is neither True nor False, as "False" is not."""
    is_bool = isinstance(value, (bool, np.bool_)) or (
        isinstance(value, int) and value in (0, 1)
    )
    if not is_bool:
        raise TypeError(
            f"{where}: {name} must be True or False, got {type_in_words(value)}"
            + (f" {value!r}" if isinstance(value, (str, int, float)) else "")
        )

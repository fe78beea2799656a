"""Settings: what a factory is given, checked, remembered, and read at a step."""

from .call import Call, same, show
from .factory import Recorded, Static, recorded, schedule
from .ranges import (
    ANY,
    COUNT,
    DECAY,
    FINITE,
    FRACTION,
    NOT_NEGATIVE,
    PLAIN_DECAY,
    POSITIVE,
    RATE,
    Range,
    check_array,
    check_bool,
    check_floating_dtype,
    check_function,
    check_integer,
    check_number,
    check_numbers,
    check_real,
    range_of,
    rules_as_tree,
)
from .resolve import (
    at_step,
    called,
    is_scheduled,
    once_each,
    product,
    products,
    scalar,
    scheduled,
    setting_at,
)

__all__ = []

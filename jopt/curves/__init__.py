"""Curves from the step count to a value; `jopt.schedules` is the door to them."""

from ..base import only_public_names as _only_public_names
from .cooldown import *
from .cycle import *
from .decay import *
from .piecewise import *
from .plot import *
from .restarts import *
from .warmup import *

_only_public_names(globals())

"""Every transformation by name."""

from .base import *
from .base import only_public_names as _only_public_names
from .engine import *
from .optimizers import *
from .parts import *
from .wrappers import *

_only_public_names(globals())

"""Every transformation by name."""

from .base import *
from .base import publish as _publish
from .engine import *
from .optimizers import *
from .parts import *
from .wrappers import *

_publish(globals())

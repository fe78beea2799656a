"""What an optimizer is made of and where it stands: tables, numbers, measurements."""

from ..base import publish as _publish
from .describe import *
from .hyperparameters import *
from .metrics import *
from .table import *

_publish(globals())

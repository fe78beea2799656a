"""What an optimizer is made of and where it stands: tables, numbers, measurements."""

from ..base import only_public_names as _only_public_names
from .describe import *
from .hyperparameters import *
from .metrics import *
from .table import *

_only_public_names(globals())

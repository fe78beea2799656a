"""What an optimizer is made of and where it stands: tables, numbers, measurements."""

from ..base import only_public_names as _only_public_names
from .checkpoint import *
from .describe import *
from .eval_params import *
from .hyperparameters import *
from .metrics import *
from .table import *

_only_public_names(globals())

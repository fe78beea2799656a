"""What an optimizer is made of and where it stands: tables, numbers, measurements."""

from .describe import *
from .hyperparameters import *
from .metrics import *
from .table import *

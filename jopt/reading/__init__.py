"""What an optimizer is made of and where it stands: tables, numbers, measurements."""

from .describe import describe
from .hyperparameters import hyperparams, set_hyperparams
from .metrics import metrics
from .table import Description, ParamRow

__all__ = [
    "Description",
    "ParamRow",
    "describe",
    "hyperparams",
    "metrics",
    "set_hyperparams",
]

"""Losses: functions of predictions and targets, with optax's names.

A loss is computed in float32 at least, and returned in the dtype of its floating
arguments: 16-bit predictions give a 16-bit loss. Integers and booleans count as exact
numbers and take no part in that. Shapes broadcast, but an array of fewer dimensions
never stretches one of more. What `where` masks has no part in value or gradient,
whatever stands there; a loss of nothing is zero.

Every loss of many examples takes `reduction="mean"` or `"sum"`, by keyword: a mean is
that of the losses which count. Dice losses have optax's own `reduction`, over classes,
and `ranking_softmax_loss` its `reduce_fn`.
"""

from ..base import only_public_names as _only_public_names
from .binary import *
from .classification import *
from .ctc import *
from .divergence import *
from .fenchel_young import *
from .margin import *
from .ranking import *
from .regression import *
from .segmentation import *
from .self_supervised import *

_only_public_names(globals())

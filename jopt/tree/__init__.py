"""Pytrees: arithmetic, norms, moments, and what is found in states.

The functions have optax's names (`optax.tree`) and take any pytree; `None` is an empty
node. Trees that are combined must have one structure, and an error names the leaves
where they differ.
"""

from ..base import only_public_names as _only_public_names
from .arithmetic import *
from .like import *
from .moments import *
from .norms import *
from .reductions import *
from .selection import *
from .states import *

_only_public_names(globals())

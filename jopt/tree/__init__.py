"""Pytrees: arithmetic, norms, moments, and what is found in states.

The functions have optax's names (`optax.tree`) and take any pytree; `None` is an empty
node. Trees that are combined must have one structure, and an error names the leaves
where they differ.
"""

from ..base import publish as _publish
from .arithmetic import *
from .like import *
from .moments import *
from .norms import *
from .reductions import *
from .selection import *
from .states import *

_publish(globals())

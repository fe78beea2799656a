"""The nearest point of a set, for trees: what a constrained step ends with.

A tree is one long vector. Its leaves keep shape and dtype, integers become floats where
the nearest point is none of integers. Numbers over the tree are float32 at least.
"""

from ..base import only_public_names as _only_public_names
from .balls import *
from .boxes import *
from .planes import *

_only_public_names(globals())

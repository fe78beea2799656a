"""How far to go along a direction: line searches, and the gradients they leave."""

from ...base import only_public_names as _only_public_names
from .backtracking import *
from .from_state import *
from .zoom import *

_only_public_names(globals())

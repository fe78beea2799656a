"""How far to go along a direction: line searches, and the gradients they leave."""

from ...base import publish as _publish
from .backtracking import *
from .from_state import *
from .zoom import *

_publish(globals())

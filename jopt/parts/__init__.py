from ..base import only_public_names as _only_public_names
from .accumulate import *
from .apply import *
from .average import *
from .clip import *
from .combine import *
from .decay import *
from .differentially_private import *
from .function import *
from .guard import *
from .linesearch import *
from .monitor import *
from .noise import *
from .normalize import *
from .per_example import *
from .reduce_on_plateau import *
from .scale import *

_only_public_names(globals())

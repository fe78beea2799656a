from ..base import only_public_names as _only_public_names
from .apply_if_finite import *
from .conditionally import *
from .flatten import *
from .groups import *
from .inject import *
from .lookahead import *
from .mechanize import *
from .multi_steps import *
from .sam import *
from .schedule_free import *
from .split_real_and_imaginary import *
from .with_metrics import *

_only_public_names(globals())

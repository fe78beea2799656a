"""What may still change: optax's `experimental` address."""

from ..base import only_public_names as _only_public_names
from . import aggregating as aggregating

_only_public_names(globals(), "aggregating")

"""What may still change: optax's `experimental` address."""

from ..base import publish as _publish
from . import aggregating as aggregating

_publish(globals(), "aggregating")

"""What may still change: optax's `experimental` address."""

from ..base import publish as _publish
from . import aggregating

_publish(globals(), "aggregating")

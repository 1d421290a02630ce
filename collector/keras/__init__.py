"""The adapter for Keras 3: a callback, and the gates of an unmodified model."""

from gatewatch.collector.keras.monitor import GateMonitor
from gatewatch.collector.keras.trace import gates

__all__ = ["GateMonitor", "gates"]

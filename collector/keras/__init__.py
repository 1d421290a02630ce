"""The adapter for Keras 3: a callback, and the gates of an unmodified model."""

from collector.keras.gates import gates
from collector.keras.monitor import GateMonitor

__all__ = ["GateMonitor", "gates"]

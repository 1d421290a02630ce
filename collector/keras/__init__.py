"""The adapter for Keras 3: a callback, and the gates of an unmodified model."""

from gatewatch.collector.keras.gates import gates
from gatewatch.collector.keras.monitor import GateMonitor

__all__ = ["GateMonitor", "gates"]

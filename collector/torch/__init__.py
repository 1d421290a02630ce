"""The adapter for PyTorch: the gates of an unmodified module."""

from gatewatch.collector.torch.gates import gates
from gatewatch.collector.torch.monitor import GateMonitor

__all__ = ["GateMonitor", "gates"]

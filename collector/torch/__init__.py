"""The adapter for PyTorch: the gates of an unmodified module."""

from collector.torch.gates import gates
from collector.torch.monitor import GateMonitor

__all__ = ["GateMonitor", "gates"]

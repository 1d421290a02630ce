"""The adapter for PyTorch: the gates of an unmodified module."""

from gatewatch.collector.torch.monitor import GateMonitor
from gatewatch.collector.torch.trace import gates

__all__ = ["GateMonitor", "gates"]

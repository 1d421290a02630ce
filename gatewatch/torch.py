"""The names for users of PyTorch."""

from gatewatch.collector.torch import GateMonitor, gates

__all__ = ["GateMonitor", "gates"]

"""The adapter for Lightning: the callback that watches the module of a Trainer."""

from gatewatch.collector.lightning.callback import GateMonitorCallback

__all__ = ["GateMonitorCallback"]

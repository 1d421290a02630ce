"""The adapter for Stable-Baselines3: the callback that watches recurrent policies."""

from gatewatch.collector.sb3.callback import GateMonitorCallback

__all__ = ["GateMonitorCallback"]

"""The names for users of Stable-Baselines3."""

from gatewatch.collector.sb3 import GateMonitorCallback

__all__ = ["GateMonitorCallback"]

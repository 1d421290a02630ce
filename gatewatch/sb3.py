"""What users of Stable-Baselines3 import.

Example:
    >>> from gatewatch.sb3 import GateMonitorCallback
    >>> model.learn(100_000, callback=GateMonitorCallback())  # doctest: +SKIP
"""

from gatewatch.collector.sb3 import GateMonitorCallback

__all__ = ["GateMonitorCallback"]

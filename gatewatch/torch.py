"""What users of PyTorch import.

Example:
    >>> from gatewatch.torch import GateMonitor
    >>> with GateMonitor(module, probe=x[:32]) as monitor:  # doctest: +SKIP
    ...     for x, y in batches:
    ...         train(x, y)
    ...         monitor.step()
"""

from gatewatch.collector.torch import GateMonitor, gates

__all__ = ["GateMonitor", "gates"]

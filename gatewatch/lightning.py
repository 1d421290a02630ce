"""What users of Lightning import.

Example:
    >>> from gatewatch.lightning import GateMonitorCallback
    >>> Trainer(max_epochs=10, callbacks=[GateMonitorCallback(probe=x[:32])]).fit(module, batches)  # doctest: +SKIP
"""

from gatewatch.collector.lightning import GateMonitorCallback

__all__ = ["GateMonitorCallback"]

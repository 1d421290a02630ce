"""Gatewatch: watch the inside of recurrent networks while they train, are backtested or trade.

The names below are what users import. Each is loaded, with what it needs, when it is first used.

Example:
    >>> from gatewatch import GateMonitor
    >>> model.fit(x, y, callbacks=[GateMonitor(probe=x[:32], every=10)])  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gatewatch.collector.analyzer import StateAnalyzer as StateAnalyzer
    from gatewatch.collector.keras import GateMonitor as GateMonitor
    from gatewatch.collector.keras import gates as gates
    from gatewatch.collector.store import open_store as open_store
    from gatewatch.jobs.alerts import AlertManager as AlertManager
    from gatewatch.jobs.anomaly_detector import AnomalyDetector as AnomalyDetector
    from gatewatch.jobs.findings.verdict import verdict as verdict
    from gatewatch.jobs.report.heatmap import render_gate_heatmap as render_gate_heatmap
    from gatewatch.jobs.report.notebook import show as show
    from gatewatch.jobs.report.temporal_graph import TemporalGraph as TemporalGraph

_MODULE_OF = {
    "AlertManager": "gatewatch.jobs.alerts",
    "AnomalyDetector": "gatewatch.jobs.anomaly_detector",
    "GateMonitor": "gatewatch.collector.keras",
    "StateAnalyzer": "gatewatch.collector.analyzer",
    "TemporalGraph": "gatewatch.jobs.report.temporal_graph",
    "gates": "gatewatch.collector.keras",
    "open_store": "gatewatch.collector.store",
    "render_gate_heatmap": "gatewatch.jobs.report.heatmap",
    "show": "gatewatch.jobs.report.notebook",
    "verdict": "gatewatch.jobs.findings.verdict",
}
__all__ = list(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return __all__

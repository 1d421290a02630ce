"""Gatewatch's jobs: read points, write points, draw pictures. No deep-learning framework is imported here.

Nothing heavy is imported until it is used: the names below load what they need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobs.detector import AnomalyDetector
    from jobs.notify import AlertManager
    from jobs.report.heatmap import render_gate_heatmap
    from jobs.report.temporal_graph import TemporalGraph

__all__ = ["AlertManager", "AnomalyDetector", "TemporalGraph", "render_gate_heatmap"]

_HOMES = {
    "AlertManager": "jobs.notify",
    "AnomalyDetector": "jobs.detector",
    "TemporalGraph": "jobs.report.temporal_graph",
    "render_gate_heatmap": "jobs.report.heatmap",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - keeps the package's own namespace to its public names

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__

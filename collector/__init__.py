"""Gatewatch's collector: looks inside a recurrent network while it trains, and writes points.

Nothing heavy is imported until it is used: the names below load what they need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collector.analyzer import StateAnalyzer
    from collector.keras import GateMonitor, gates
    from collector.store import open_store

__all__ = ["GateMonitor", "StateAnalyzer", "gates", "open_store"]

_HOMES = {
    "GateMonitor": "collector.keras",
    "StateAnalyzer": "collector.analyzer",
    "gates": "collector.keras",
    "open_store": "collector.store",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - keeps the package's own namespace to its public names

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__

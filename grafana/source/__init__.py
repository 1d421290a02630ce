"""Grafana's dashboards and alert rules in Python: `python -m grafana.source` writes the files beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from grafana.source import anomalies, backtest, compare, gates, health, learning, runbook, runs
from grafana.source.alerting import alerting_files
from grafana.source.board import panel_id

DASHBOARDS: Final = {
    "runs": runs.dashboard,
    "gates": gates.dashboard,
    "learning": learning.dashboard,
    "anomalies": anomalies.dashboard,
    "compare": compare.dashboard,
    "backtest": backtest.dashboard,
    "health": health.dashboard,
    "runbook": runbook.dashboard,
}
"""Name of the file → the function that builds the dashboard."""


def dashboards() -> dict[str, dict[str, Any]]:
    """Return the dashboards by uid."""
    return {board["uid"]: board for board in (make() for make in DASHBOARDS.values())}


def files() -> dict[str, Mapping[str, Any]]:
    """Return everything that is generated: path below `grafana/` → content."""
    boards = dashboards()
    pictures = {f"dashboards/{name}.json": board for name, board in zip(DASHBOARDS, boards.values(), strict=True)}
    alerting = {f"provisioning/alerting/{name}": content for name, content in alerting_files(boards).items()}
    return pictures | alerting


def build(folder: Path) -> list[Path]:
    """Write all files into a folder, the same bytes each time.

    Args:
        folder: `grafana/` of a checkout, or any other.

    Returns:
        Their paths, sorted.
    """
    rendered = _rendered()
    for name, text in rendered.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text)
    return [folder / name for name in rendered]


def differing(folder: Path) -> list[str]:
    """Return the names of the files in a folder that are missing or are not what `build` would write."""
    return [
        name
        for name, text in _rendered().items()
        if not (folder / name).exists() or (folder / name).read_bytes() != text
    ]


def _rendered() -> dict[str, bytes]:
    return {
        name: (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
        for name, content in sorted(files().items())
    }


__all__ = ["DASHBOARDS", "build", "dashboards", "differing", "files", "panel_id"]

"""What Grafana shows and watches, as Python: `python -m grafana.source` writes the files that lie beside it."""

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
"""File → what builds it."""


def dashboards() -> dict[str, dict[str, Any]]:
    """The dashboards, by uid."""
    return {found["uid"]: found for found in (make() for make in DASHBOARDS.values())}


def files() -> dict[str, Mapping[str, Any]]:
    """Everything that is generated: path below `grafana/` → content."""
    boards = dashboards()
    pictures = {f"dashboards/{name}.json": board for name, board in zip(DASHBOARDS, boards.values(), strict=True)}
    alerting = {f"provisioning/alerting/{name}": content for name, content in alerting_files(boards).items()}
    return pictures | alerting


def build(folder: Path) -> list[Path]:
    """Write everything into a folder, the same bytes each time.

    Args:
        folder: `grafana/` of a checkout, or any other.

    Returns:
        The files, in the order of their names.
    """
    written = []
    for name, content in sorted(files().items()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
        written.append(path)
    return written


__all__ = ["DASHBOARDS", "build", "dashboards", "files", "panel_id"]

"""Grafana's dashboards and alert rules in Python: `python -m grafana.source` writes the files beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from grafana.source import anomalies, backtest, compare, feed, gates, health, learning, runbook, runs
from grafana.source.board import panel_id
from grafana.source.mail import contact_points_file, policies_file, templates_file
from grafana.source.rules import rules_file

_MODULES: Final = (runs, gates, learning, feed, anomalies, compare, backtest, health, runbook)
DASHBOARDS: Final = {module.__name__.rpartition(".")[2]: module.dashboard for module in _MODULES}
"""Name of the file → the function that builds the dashboard."""


def dashboards() -> dict[str, dict[str, Any]]:
    """Return the dashboards by uid."""
    return {board["uid"]: board for board in (make() for make in DASHBOARDS.values())}


def alerting_files(boards: Mapping[str, dict[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return the provisioning files of Grafana's alerting: name of the file → content.

    Args:
        boards: uid → dashboard; the rules link to their panels.
    """
    return {
        "rules.json": rules_file(lambda uid, title: panel_id(boards[uid], title)),
        "contact-points.json": contact_points_file(),
        "policies.json": policies_file(),
        "templates.json": templates_file(),
    }


def files() -> dict[str, Mapping[str, Any]]:
    """Return everything that is generated: path below `grafana/` → content."""
    boards = dashboards()
    pictures = {f"dashboards/{name}.json": board for name, board in zip(DASHBOARDS, boards.values(), strict=True)}
    return pictures | {f"provisioning/alerting/{name}": content for name, content in alerting_files(boards).items()}


def build(folder: Path) -> list[Path]:
    """Write all files into a folder, the same bytes each time.

    Args:
        folder: `grafana/` of a checkout, or any other.

    Returns:
        Their paths, sorted.
    """
    rendered = _rendered(folder)
    for path, content in rendered.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return [*rendered]


def differing(folder: Path) -> list[str]:
    """Return the names of the files in a folder that are missing or are not what `build` would write."""
    return [
        path.relative_to(folder).as_posix()
        for path, content in _rendered(folder).items()
        if not path.exists() or path.read_bytes() != content
    ]


def _rendered(folder: Path) -> dict[Path, bytes]:
    return {
        folder / name: (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
        for name, content in sorted(files().items())
    }


__all__ = ["DASHBOARDS", "alerting_files", "build", "dashboards", "differing", "files", "panel_id"]

"""Writes the dashboards and the alerting files into this checkout."""

from __future__ import annotations

from pathlib import Path

from grafana.source import build

if __name__ == "__main__":
    for path in build(Path(__file__).parent.parent):
        print(path)

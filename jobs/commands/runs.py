"""`gatewatch runs`."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Final

from gatewatch.collector.schema import GATE_STATS, TRAIN_METRICS
from gatewatch.jobs.commands.common import NO_RUNS, existing_store
from gatewatch.jobs.console import write_data
from gatewatch.jobs.findings.not_finite import broken_now
from gatewatch.jobs.findings.run_state import current_state
from gatewatch.jobs.text import table

_COLUMNS: Final = [
    "run",
    "state",
    "phases",
    "started",
    "last_seen",
    "step",
    "not_finite",
    "framework",
    "model",
    "error",
]
_HEADERS: Final = {
    "started": "started (UTC)",
    "last_seen": "last seen (UTC)",
    "not_finite": "not finite",
    "error": "ended by",
}


def run(arguments: argparse.Namespace) -> None:
    """Print the runs and their states."""
    store = existing_store(arguments)
    store.ping()  # which answers soon, where reading may take long
    frame = store.runs()
    now = datetime.now(UTC)
    frame["state"] = [
        current_state(state, (now - seen).total_seconds())
        for state, seen in zip(frame["state"], frame["last_seen"], strict=True)
    ]
    captures = store.newest(GATE_STATS, tags={"gate": "hidden"})  # which is not finite where anything in a layer is
    not_finite = broken_now(captures, store.newest(TRAIN_METRICS))
    frame["not_finite"] = [not_finite.get(run) for run in frame["run"]]
    if arguments.json:
        write_data([frame.drop(columns="config").to_json(orient="records", date_format="iso", indent=2), "\n"])
    elif frame.empty:
        print(NO_RUNS.format(store.url))
    else:
        for moment in ("started", "last_seen"):
            frame[moment] = frame[moment].dt.strftime("%Y-%m-%d %H:%M:%S")
        shown = frame[_COLUMNS].astype(object)
        rows = shown.where(shown.notna(), "").to_numpy().tolist()
        print(table([_HEADERS.get(column, column) for column in _COLUMNS], rows))

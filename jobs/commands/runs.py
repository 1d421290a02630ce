"""`gatewatch runs`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

from gatewatch.jobs.commands.common import NO_RUNS, Commands, existing_store
from gatewatch.jobs.text import table

_COLUMNS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "run": "run",
        "state": "state",
        "phases": "phases",
        "started": "started (UTC)",
        "last_seen": "last seen (UTC)",
        "step": "step",
        "framework": "framework",
        "model": "model",
        "error": "ended by",
    }
)


def add(commands: Commands[argparse.ArgumentParser], with_store: argparse.ArgumentParser) -> None:
    """Add the command."""
    runs = commands.add_parser(
        "runs",
        parents=[with_store],
        help="list the runs and their states",
        description="List the runs, newest first: live, completed, failed, interrupted or died.",
    )
    runs.add_argument("--json", action="store_true", help="print JSON")
    runs.set_defaults(run_command=_run)


def _run(arguments: argparse.Namespace) -> int:
    from gatewatch.jobs.findings.run_state import current_state  # noqa: PLC0415 - `--help` needs none of it

    store = existing_store(arguments)
    store.ping()  # which answers soon, where reading may take long
    frame = store.runs()
    now = datetime.now(UTC)
    frame["state"] = [
        current_state(state, (now - seen).total_seconds())
        for state, seen in zip(frame["state"], frame["last_seen"], strict=True)
    ]
    if arguments.json:
        print(frame.drop(columns="config").to_json(orient="records", date_format="iso", indent=2))
    elif frame.empty:
        print(NO_RUNS.format(store.url))
    else:
        for moment in ("started", "last_seen"):
            frame[moment] = frame[moment].dt.strftime("%Y-%m-%d %H:%M:%S")
        shown = frame[list(_COLUMNS)].astype(object)
        rows = shown.where(shown.notna(), "").to_numpy().tolist()
        print(table(list(_COLUMNS.values()), rows))
    return 0

"""`gatewatch report`, once or for as long as a run goes on."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import suppress
from pathlib import Path

from gatewatch.collector.errors import WriteUnavailable
from gatewatch.collector.store import Store
from gatewatch.jobs.commands.common import existing_store
from gatewatch.jobs.loop import RunWatch, is_scored
from gatewatch.jobs.report.page import write_report
from gatewatch.jobs.text import printable


def run(arguments: argparse.Namespace) -> None:
    """Write the report, once or until the run has ended."""
    store = existing_store(arguments)
    if arguments.watch is None:
        print(write_report(store, arguments.run, arguments.output))
    else:
        with suppress(KeyboardInterrupt):
            _watch(store, arguments.run, arguments.output, arguments.watch)


def _watch(store: Store, run: str | None, output: Path | None, seconds: int) -> None:
    """Write the report again and again, until the run has ended and is scored; wait for a store that is away."""
    page, away, done = None, False, False
    looks = RunWatch(store)
    while not done:
        try:
            names = store.runs()["run"]
            run = names.iloc[0] if run is None and len(names) else run
            done = run is not None and looks.state(run) != "live" and is_scored(store, run)
            written = write_report(store, run, output, refresh=None if done else seconds)
        except WriteUnavailable as error:
            if page is None:
                raise
            if not away:
                print(f"gatewatch: {printable(error)}; trying on", file=sys.stderr)
            away, done = True, False
        else:
            if page is None:
                print(written, flush=True)
            page, away = written, False
        if not done:
            time.sleep(seconds)

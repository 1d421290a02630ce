"""`gatewatch report`, once or for as long as a run goes on."""

from __future__ import annotations

import argparse
import time
from contextlib import suppress
from pathlib import Path

from gatewatch.collector.errors import ConfigError, WriteUnavailable
from gatewatch.collector.store import Store, open_store
from gatewatch.collector.store.runs import find_run
from gatewatch.jobs.commands.common import NO_RUNS, existing_store
from gatewatch.jobs.console import fail
from gatewatch.jobs.loop import RunWatch, is_scored
from gatewatch.jobs.report.page import write_comparison, write_report


def run(arguments: argparse.Namespace) -> None:
    """Write the report, once or until the run has ended."""
    run = arguments.runs[0] if arguments.runs else None
    if len(arguments.runs) > 1:
        if arguments.watch is not None:
            raise ConfigError("--watch writes the report of one run; `gatewatch view` shows a comparison that goes on")
        print(write_comparison(existing_store(arguments), arguments.runs, arguments.output))
    elif arguments.watch is None:
        print(write_report(existing_store(arguments), run, arguments.output))
    else:
        store = open_store(arguments.store)
        with suppress(KeyboardInterrupt):
            _watch(store, run, arguments.output, arguments.watch)


def _watch(store: Store, run: str | None, output: Path | None, seconds: int) -> None:
    """Write the report again and again, until the run has ended and is scored.

    Wait for a run that has not begun, and for a store that is away.
    """
    page, said, done = None, "", False
    looks = RunWatch(store)
    while not done:
        try:
            run, problem = _watched(store, run)
            topic = problem
            if run is not None and not problem:
                done = looks.state(run) != "live" and is_scored(store, run)
                written = write_report(store, run, output, refresh=None if done else seconds)
                if page is None:
                    print(written, flush=True)
                page = written
        except WriteUnavailable as error:
            if page is None:
                raise
            problem, topic, done = str(error), "away", False
        if topic not in ("", said):
            fail(f"{problem}; trying on, Ctrl-C ends it")
        said = topic
        if not done:
            time.sleep(seconds)


def _watched(store: Store, run: str | None) -> tuple[str | None, str]:
    """Return the run, by default the newest, and why it is not there yet; an empty text where it is."""
    names = list(store.runs()["run"])
    if not names:
        return run, NO_RUNS.format(store.url)
    try:
        return names[0] if run is None else find_run(run, names, store.url), ""
    except ConfigError as error:
        return run, str(error)

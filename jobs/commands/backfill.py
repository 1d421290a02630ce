"""`gatewatch backfill`."""

from __future__ import annotations

import argparse
from pathlib import Path

from gatewatch.collector.config import load_settings
from gatewatch.collector.store import Store
from gatewatch.jobs.commands.common import existing_store
from gatewatch.jobs.commands.jobs import failures, print_passes, show_run
from gatewatch.jobs.scoring.scoring_pass import run_pass
from gatewatch.jobs.service.state_folder import state_folder


def run(arguments: argparse.Namespace) -> int:
    """Score a past run, and return the exit status."""
    store, scratch, settings = existing_store(arguments), arguments.from_scratch, load_settings().jobs
    state = _checkpoints(store, settings.state) if scratch else None
    rate = settings.false_alarm_rate
    passes = run_pass(store, arguments.run, show_run, state=state, again=scratch, false_alarm_rate=rate)
    print_passes(arguments, passes)
    return failures(passes)


def _checkpoints(store: Store, named: str | None) -> Path | None:
    """Return the folder of the service's checkpoints, which are to be made anew; None where there are none."""
    folder = state_folder(named, store.resolve_destination())
    return folder if folder.exists() else None

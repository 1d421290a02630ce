"""`gatewatch backfill`."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from gatewatch.jobs.commands.common import Commands, existing_store, need, print_json
from gatewatch.jobs.commands.jobs import as_json, failures, print_passes, say_run

if TYPE_CHECKING:
    from pathlib import Path

    from gatewatch.collector.store import Store


def add(commands: Commands[argparse.ArgumentParser], with_store: argparse.ArgumentParser) -> None:
    """Add the command."""
    backfill = commands.add_parser(
        "backfill",
        parents=[with_store],
        help="score a past run as if it were live",
        description="Score the captures of a past run as if it were live. A run that is scored already is left alone,"
        " unless --from-scratch is given.",
    )
    backfill.add_argument("run", metavar="RUN", help="name of the run")
    backfill.add_argument(
        "--from-scratch",
        action="store_true",
        help="score all captures again, for example after the baselines have changed",
    )
    backfill.add_argument("--json", action="store_true", help="print JSON")
    backfill.set_defaults(run_command=_run)


def _run(arguments: argparse.Namespace) -> int:
    need("jobs", "sklearn")
    from gatewatch.jobs.scoring.scoring_pass import run_pass  # noqa: PLC0415 - scikit-learn is imported only where it is used

    store, scratch = existing_store(arguments), arguments.from_scratch
    progress = say_run if sys.stderr.isatty() else None
    passes = run_pass(store, arguments.run, progress, state=_kept(store) if scratch else None, again=scratch)
    if arguments.json:
        print_json(as_json(passes))
    else:
        print_passes(passes)
    return failures(passes)


def _kept(store: Store) -> Path | None:
    """The folder of the service's checkpoints, which are to be made anew; None where there are none."""
    from gatewatch.collector.config import load_settings  # noqa: PLC0415 - pydantic loads slowly, and `--help` needs none
    from gatewatch.jobs.service.state_folder import state_folder  # noqa: PLC0415 - as above

    folder = state_folder(load_settings().jobs.state, store.destination)
    return folder if folder.exists() else None

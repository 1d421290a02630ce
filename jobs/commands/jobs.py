"""`gatewatch jobs`: the service, or one pass with `--once`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from gatewatch.collector.errors import ConfigError
from gatewatch.jobs.commands.common import NO_RUNS, Commands, existing_store, need, print_json
from gatewatch.jobs.commands.service import OVERRIDES, serve
from gatewatch.jobs.console import fail
from gatewatch.jobs.text import first_few, printable, table

if TYPE_CHECKING:
    from gatewatch.jobs.scoring.scoring_pass import PassResult


def add(commands: Commands[argparse.ArgumentParser], with_store: argparse.ArgumentParser) -> None:
    """Add the command."""
    jobs = commands.add_parser(
        "jobs",
        parents=[with_store],
        help="run the service that computes metrics and anomaly scores and sends alerts",
        description="Score the new captures of all runs and send alerts, every 15 seconds until it is stopped. With"
        " --once, make one pass.",
    )
    jobs.add_argument("--once", action="store_true", help="score all new captures once, then stop")
    jobs.add_argument("--run", help="score only this run (with --once)")
    jobs.add_argument("--json", action="store_true", help="print JSON (with --once)")
    jobs.add_argument("--interval", type=float, metavar="SECONDS", help="time between two passes (default: 15)")
    jobs.add_argument("--executor", help="local, dask (a cluster of this machine) or dask://host:port (default: local)")
    jobs.add_argument("--workers", type=int, help="number of workers that share the runs (default: 1)")
    jobs.add_argument("--verbose", action="store_true", help="log each pass even if the output is not a terminal")
    jobs.set_defaults(run_command=_run)


def _run(arguments: argparse.Namespace) -> int:
    need("jobs", "sklearn", "apscheduler")
    wrong = [*OVERRIDES, "verbose"] if arguments.once else ["run", "json"]
    for name in wrong:
        if getattr(arguments, name) not in (None, False):
            raise ConfigError(
                f"--{name} is for the service: leave --once out" if arguments.once else f"--{name} needs --once"
            )
    return _once(arguments) if arguments.once else serve(arguments)


def _once(arguments: argparse.Namespace) -> int:
    from gatewatch.jobs.scoring.residuals import WARM_UP  # noqa: PLC0415 - scikit-learn is imported only where it is used
    from gatewatch.jobs.scoring.scoring_pass import run_pass  # noqa: PLC0415 - scikit-learn is imported only where it is used

    store = existing_store(arguments)
    passes = run_pass(store, arguments.run, say_run if sys.stderr.isatty() else None)
    if arguments.json:
        print_json(as_json(passes))
    elif not passes:
        print(NO_RUNS.format(store.url))
    else:
        print_passes(passes)
        if short := list(_too_short(passes, WARM_UP)):
            print(f"\nScores begin after {WARM_UP} captures of a phase: {first_few(short)}.", end=" ")
            print("For more of them give GateMonitor a smaller every=.")
    return failures(passes)


def as_json(passes: Sequence[PassResult]) -> list[dict[str, object]]:
    """What was done, as JSON can hold it."""
    return [{name: getattr(done, name) for name in done.__slots__} for done in passes]


def print_passes(passes: Sequence[PassResult]) -> None:
    """What was done, a row for each run."""
    rows = [[done.run, done.captures, *_told(done)] for done in passes]
    print(table(["run", "captures", "derived", "scored", "above 1"], rows))


def failures(passes: Sequence[PassResult]) -> int:
    """Say which runs failed; the exit status."""
    failed = [done for done in passes if done.failed is not None]
    for done in failed:
        fail(f"run {printable(done.run)}: {done.failed}")
    return 1 if failed else 0


def say_run(run: str, number: int, total: int) -> None:
    """Say on a terminal which run is next."""
    print(f"  scoring {printable(run)} ({number + 1} of {total})", file=sys.stderr)


def _too_short(passes: Sequence[PassResult], warm_up: int) -> Iterator[str]:
    """Each phase of which there are too few captures for a score."""
    for done in passes:
        for phase, captures in (done.phases or {"": 0}).items():
            learnt = done.phases.get("backtest", 0) if phase == "live" else 0  # live goes on from the backtest
            if max(captures, learnt) <= warm_up and done.failed is None:
                yield f"{printable(' '.join(filter(None, (done.run, phase))))} has {captures}"


def _told(done: PassResult) -> list[object]:
    if done.failed is not None:
        return ["failed", "", ""]
    return ["no new captures", "", ""] if done.unchanged else [done.derived, done.scored, done.anomalous]

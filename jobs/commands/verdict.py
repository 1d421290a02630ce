"""`gatewatch verdict`."""

from __future__ import annotations

import argparse
import json
from typing import Final

from gatewatch.collector.config import load_settings
from gatewatch.collector.errors import ReadRefused, WriteRejected, WriteUnavailable
from gatewatch.collector.store import Store
from gatewatch.collector.verdict import Answer, Verdict, VerdictFinding, undecided
from gatewatch.jobs.commands.common import existing_store
from gatewatch.jobs.commands.jobs import failures, show_run
from gatewatch.jobs.console import fail, write_data
from gatewatch.jobs.findings.verdict import read_verdict
from gatewatch.jobs.loop import RunWatch
from gatewatch.jobs.scoring.scoring_pass import run_pass
from gatewatch.jobs.text import number, printable, table

UNDECIDED: Final = 3
"""The exit status where too little was captured to say, or the store is away."""
_COLUMNS: Final = ("since step", "layer", "gate", "what", "source", "evidence")


def run(arguments: argparse.Namespace) -> int:
    """Print the verdict on a run, and return the exit status."""
    store, name = existing_store(arguments), arguments.run
    try:
        store.ping()  # which answers soon, where reading may take long
        if arguments.score:
            _score(store, name)
        verdict = read_verdict(store, name)
    except (WriteUnavailable, ReadRefused) as error:
        verdict = undecided(name, str(error))
        fail(verdict.sentence)
        if not arguments.json:
            return UNDECIDED
    _print(arguments, verdict)
    return exit_status(verdict.verdict, arguments.fail_on)


def exit_status(answer: Answer, fail_on: str) -> int:
    """Return 0 for healthy, 1 for an alarm, and for a notice where `fail_on` is that, 3 for undecided."""
    if answer == "undecided":
        return UNDECIDED
    return int(answer in ("alarm", fail_on))


def _score(store: Store, run: str) -> None:
    """Score the captures that are not scored yet; where that fails, what is scored already is judged.

    Raises:
        ConfigError: there is no such run.
    """
    live = RunWatch(store).state(run) == "live"
    rate = load_settings().jobs.false_alarm_rate
    try:
        failures(run_pass(store, run, show_run, finish=not live, false_alarm_rate=rate))
    except (WriteUnavailable, WriteRejected) as error:
        fail(f"new captures were not scored: {error}")


def _print(arguments: argparse.Namespace, verdict: Verdict) -> None:
    if arguments.json:
        write_data([json.dumps(verdict.as_dict(), indent=2, allow_nan=False), "\n"])
        return
    print(f"{verdict.verdict}: {printable(verdict.sentence)}")
    if verdict.findings:
        print()
        print(table(_COLUMNS, [_row(finding) for finding in verdict.findings]))


def _row(finding: VerdictFinding) -> list[object]:
    evidence = ", ".join(
        f"{name.replace('_', ' ')} {number(value) if isinstance(value, int | float) else value}"
        for name, value in finding.evidence.items()
        if value != ""
    )
    step = "" if finding.since_step is None else finding.since_step
    return [step, finding.layer or "", finding.gate or "", finding.what, finding.source or "", evidence]

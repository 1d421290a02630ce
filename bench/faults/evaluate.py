"""Every detector over every recorded run."""

from __future__ import annotations

import functools
import multiprocessing
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from bench.faults.judge import CONFIRMED, Outcome, judge
from bench.faults.peers import PEERS, Verdicts
from bench.faults.readings import open_copy, read
from bench.faults.recorder import Record
from gatewatch.collector.schema import GATE_SCORES

CHECKS: Final = "checks"
CONSENSUS: Final = "consensus"
NOTICES: Final = "data"
"""The detector whose scores are notices that the data changed, and no alarms."""
OURS: Final = ("isolation_forest", "robust", "rules", CHECKS, CONSENSUS, NOTICES)
"""By the tag `detector` of their scores; the column of one that writes none is empty."""
DETECTORS: Final = (*PEERS, *OURS)

Scorer = Callable[[Path, str], Mapping[str, Verdicts]]
"""A run's sqlite store, which it may write into, and its name → detector → its verdicts."""


def gatewatch(path: Path, run: str) -> dict[str, Verdicts]:
    """What `gatewatch jobs --once` writes of the run: a capture alarms where any layer or gate does.

    Raises:
        RuntimeError: the pass failed.
    """
    from gatewatch.jobs.scoring.scoring_pass import run_pass  # noqa: PLC0415 - what records does without the jobs

    with open_copy(path) as store:
        failed = [done.failed for done in run_pass(store) if done.failed]
        scores = store.read(GATE_SCORES, run=run)
    if failed:
        raise RuntimeError(f"{run}: {failed[0]}")
    found = {}
    for name, rows in scores.groupby("detector") if len(scores) else ():
        alarms = (rows["anomalous"] == 1).groupby(rows["time"]).any().sort_index()
        found[str(name)] = alarms.index.to_numpy("datetime64[ns]"), alarms.to_numpy(bool)
    return found


def peers(path: Path, run: str) -> dict[str, Verdicts]:
    """What people use otherwise."""
    readings = read(path, run)
    return {name: detector(readings) for name, detector in PEERS.items()}


def everything(path: Path, run: str) -> dict[str, Verdicts]:
    """Both."""
    return peers(path, run) | gatewatch(path, run)


def evaluate(
    records: Sequence[Record], scorer: Scorer = everything, processes: int = 1
) -> dict[str, list[tuple[Record, Outcome]]]:
    """What each detector made of each run, in the order of the records; one without a verdict on a run found nothing.

    Args:
        records: the runs; they are left as they are, the scorer has a copy of each.
        scorer: gives the verdicts; a function that can be sent to another process where there are several.
        processes: to work in.
    """
    found = {}
    one = functools.partial(_evaluate_one, scorer=scorer)
    if processes > 1:
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            outcomes = list(_told(pool.imap(one, records), len(records)))
    else:
        outcomes = list(_told(map(one, records), len(records)))
    for detector in dict.fromkeys(name for of_run in outcomes for name in of_run):
        found[detector] = [
            (record, of_run.get(detector, Outcome(record.fault is not None, None, 0, 0)))
            for record, of_run in zip(records, outcomes, strict=True)
        ]
    return found


def _evaluate_one(record: Record, scorer: Scorer) -> dict[str, Outcome]:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copy(record.path, folder))
        readings = read(copy, record.case.name)
        strike = readings.capture_of(record.strike_step)
        found = {
            detector: judge(
                readings.times,
                strike,
                times,
                np.asarray(alarms, bool),
                faulty=record.fault is not None,
                least=1 if detector == CHECKS else CONFIRMED,
            )
            for detector, (times, alarms) in scorer(copy, record.case.name).items()
        }
    if CHECKS in found and CONSENSUS in found:
        found[CONSENSUS] = _sooner(found[CONSENSUS], found[CHECKS])
    return found


def _sooner(consensus: Outcome, checks: Outcome) -> Outcome:
    """Let the consensus have found what a check has: checks raise it, and one failed check is told at once."""
    delays = [outcome.delay for outcome in (consensus, checks) if outcome.delay is not None]
    return replace(consensus, delay=min(delays, default=None))


def _told(outcomes: Iterable[dict[str, Outcome]], of: int) -> Iterator[dict[str, Outcome]]:
    for done, outcome in enumerate(outcomes, 1):
        if sys.stderr.isatty():
            print(f"\r\033[K  judging: {done} of {of}", end="\n" if done == of else "", file=sys.stderr, flush=True)
        yield outcome

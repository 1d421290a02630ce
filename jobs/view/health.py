"""How the recording of the runs goes, and the jobs, from their newest points. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gatewatch.jobs.frames import times
from gatewatch.jobs.service.health import REPORT_SECONDS
from gatewatch.jobs.text import duration, number, shorten

if TYPE_CHECKING:
    import pandas as pd

_PROBLEMS: Final = {
    "dropped": "Points lost: {}. The spool of its machine was full or damaged; [spool] max_mb gives it room",
    "rejected": "Points refused by the store: {}. gatewatch spool status on its machine shows them, and why",
    "failures": "Failures: {}. The log of the training names each reason once",
    "moved_times": "Steps moved off their market time: {}. Other points of theirs were there already",
}
"""Field → what is wrong where it is above 0."""
_COUNTED: Final = (*_PROBLEMS, "unreplayed_layers", "spooled_bytes", "captured", "shipped")
_LONGEST: Final = 400
"""Characters of the text about layers that are not recorded."""


@dataclass(frozen=True, slots=True)
class Recording:
    """How the recording of a phase of a run goes, since it was started or resumed last.

    Attributes:
        run, phase: which.
        problems: what is lost, refused or missing, a sentence each, without its end.
        captured: number of captures.
        shipped: number of points that the store has taken.
        waiting: bytes that waited for the store at the newest capture.
        overhead: time that recording takes, as a share of the training's; None where it is not known.
    """

    run: str
    phase: str
    problems: tuple[str, ...]
    captured: int
    shipped: int
    waiting: int
    overhead: float | None


@dataclass(frozen=True, slots=True)
class Job:
    """How a job of `gatewatch jobs` goes.

    Attributes:
        name: of the job.
        reported: time of its newest report, nanoseconds.
        is_silent: whether it should have reported since.
        duration: of its last turn, in words.
        lag: how far it is behind the runs, in words.
        failures, missed: number of failures, and of turns that did not begin, since the service began.
    """

    name: str
    reported: int
    is_silent: bool
    duration: str
    lag: str
    failures: int
    missed: int


def recordings(newest: pd.DataFrame, runs: Sequence[str]) -> list[Recording]:
    """Return how the recording of each run goes: those with problems first, then in the order of `runs`.

    Args:
        newest: the newest point of `collector_health` of each series, read with `prefix_tags`.
        runs: their names; others are left out.
    """
    places = {run: place for place, run in enumerate(runs)}
    found = [_recording(row) for row in newest.to_dict("records") if str(row.get("run")) in places]
    return sorted(found, key=lambda one: (not one.problems, places[one.run], one.phase))


def _recording(row: Mapping[Any, Any]) -> Recording:
    count = {name: _whole(row.get(name)) for name in _COUNTED}
    problems = [text.format(number(count[name])) for name, text in _PROBLEMS.items() if count[name]]
    if count["unreplayed_layers"]:
        why = row.get("unreplayed")
        reason = f" ({shorten(why, _LONGEST)})" if isinstance(why, str) else ""
        problems.append(f"Layers that are not recorded: {number(count['unreplayed_layers'])}{reason}")
    overhead = row.get("overhead_ratio")
    return Recording(
        str(row["run"]),
        row["phase"] if isinstance(row.get("phase"), str) else "",
        tuple(problems),
        count["captured"],
        count["shipped"],
        count["spooled_bytes"],
        float(overhead) if isinstance(overhead, float) and math.isfinite(overhead) else None,
    )


def jobs(newest: pd.DataFrame, now: int) -> list[Job]:
    """Return how each job goes, by name.

    Args:
        newest: the newest point of `jobs_health` of each job.
        now: nanoseconds.
    """
    if newest.empty or "job" not in newest:
        return []
    rows = zip(newest.to_dict("records"), times(newest).tolist(), strict=True)
    found = [
        Job(
            str(row["job"]),
            time,
            now - time > 2 * REPORT_SECONDS * 1e9,
            duration(float(row.get("duration_s", "nan"))),
            duration(float(row.get("lag_s", "nan"))),
            _whole(row.get("failures")),
            _whole(row.get("missed")),
        )
        for row, time in rows
    ]
    return sorted(found, key=lambda job: job.name)


def _whole(value: Any) -> int:
    """Return a count; 0 where a point has none."""
    return int(value) if isinstance(value, int | float) and math.isfinite(value) else 0

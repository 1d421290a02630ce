"""What checks and the detector `data` say of a run: a sentence a cause, with when it was seen first, and where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np

from gatewatch.jobs.findings.axis import Axis, moments
from gatewatch.jobs.findings.explanations import BROKEN
from gatewatch.jobs.findings.finding import Finding, cause_before_effect
from gatewatch.jobs.findings.series import Key, by_series, name_of, step_at
from gatewatch.jobs.frames import numbers
from gatewatch.jobs.scoring.checks import CHECKS
from gatewatch.jobs.scoring.checks.base import DATA, FEED
from gatewatch.jobs.scoring.detectors.data import Data
from gatewatch.jobs.scoring.sources import Source
from gatewatch.jobs.text import join_words

if TYPE_CHECKING:
    import pandas as pd

_NAMED: Final = 3
"""How many series a sentence names."""
_CAUSES: Final[Mapping[str, Mapping[str, Source]]] = MappingProxyType(
    {"checks": {check.name: check.source for check in CHECKS}, Data.name: dict.fromkeys(Data.phrases, "data")}
)
"""Detector → its causes → their source."""


def statements(
    scores: pd.DataFrame, axes: Mapping[str, Axis] = MappingProxyType({}), layers: Sequence[str] = ()
) -> list[Finding]:
    """Return what was said of each phase, in order of time; what lies upstream first where that is the same.

    Args:
        scores: points of `gate_scores`, of all detectors.
        axes: phase → its axis; a phase without one counts steps.
        layers: names of the network's layers, in its order.
    """
    if not {"detector", "layer", "gate", "anomaly_score"} <= set(scores.columns):
        return []
    by_detector = {name: by_series(scores[scores["detector"] == name], layers=layers) for name in _CAUSES}
    found = [
        finding
        for detector, series in by_detector.items()
        for phase in dict.fromkeys(key.phase for key in series)
        for finding in _of_phase(detector, phase, series, axes.get(phase) or Axis((phase,)))
    ]
    return cause_before_effect(found)


def _of_phase(detector: str, phase: str, series: Mapping[Key, pd.DataFrame], axis: Axis) -> Iterator[Finding]:
    """Yield a finding for each cause of a detector in one phase."""
    own = {key: frame for key, frame in series.items() if key.phase == phase}
    phases = {key.phase for key in series}
    for cause, source in _CAUSES[detector].items():
        at = {key: i for key, frame in own.items() if (i := _first(frame, f"why_{cause}")) is not None}
        if not at:
            continue
        when = {key: moments(own[key])[i] for key, i in at.items()}
        first = min(when.values())
        where = [key for key in at if when[key] == first]
        named = [key for key in where if key.layer == DATA and key.gate != FEED] or where
        names = [name_of(key, phases) for key in named]
        if len(names) > _NAMED:
            names[_NAMED:] = [f"{len(names) - _NAMED} more"]
        frame, i = own[named[0]], at[named[0]]
        is_alarm = detector != Data.name and bool(numbers(frame, "anomaly_score")[i] > 1)
        kind = "" if is_alarm else "a notice, no alarm: "
        yield Finding(
            sentence=f"First at {axis.describe(frame, i)}, {kind}{BROKEN[cause]} ({join_words(names)}).",
            level="alarm" if is_alarm else "notice",
            what=BROKEN[cause],
            source=source,
            key=named[0],
            step=step_at(frame, i),
            time=first,
            series=frozenset(at),
            rule="data_changed" if detector == Data.name else "check_failed",
            evidence={
                "phase": phase,
                "cause": cause,
                "score": float(numbers(frame, f"why_{cause}")[i]),
                "series": len(at),
            },
        )


def _first(frame: pd.DataFrame, column: str) -> int | None:
    """Return the index of the first point that has a cause; None where none has."""
    if column not in frame:
        return None
    has = np.nan_to_num(numbers(frame, column)) > 0
    return int(np.argmax(has)) if has.any() else None

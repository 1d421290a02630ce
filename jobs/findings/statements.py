"""What checks and the detector `data` say of a run: a sentence a cause, with when it was seen first, and where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from gatewatch.jobs.findings.axis import Axis, moments
from gatewatch.jobs.findings.explanations import BROKEN
from gatewatch.jobs.findings.series import Key, by_series, name_of
from gatewatch.jobs.frames import numbers, rank
from gatewatch.jobs.scoring.checks import CHECKS
from gatewatch.jobs.scoring.checks.base import DATA, FEED
from gatewatch.jobs.scoring.detectors.data import Data
from gatewatch.jobs.scoring.sources import Source
from gatewatch.jobs.text import join_words

if TYPE_CHECKING:
    import pandas as pd

_NAMED: Final = 3
"""How many series a sentence names."""
UPSTREAM: Final[tuple[Source, ...]] = ("data", "state", "optimizer", "network", "policy")
"""Sources, what comes first in a step before what follows from it."""
_CAUSES: Final[Mapping[str, Mapping[str, Source]]] = MappingProxyType(
    {"checks": {check.name: check.source for check in CHECKS}, Data.name: dict.fromkeys(Data.phrases, "data")}
)
"""Detector → its causes → their source."""


class Statement(NamedTuple):
    """One cause, as it was seen first.

    Attributes:
        time: of the capture.
        sentence: about it, for people.
        is_alarm: whether it is more than a notice.
        series: all that it was ever seen in.
    """

    time: np.datetime64
    sentence: str
    is_alarm: bool
    series: frozenset[Key] = frozenset()


def statements(
    scores: pd.DataFrame, axes: Mapping[str, Axis] = MappingProxyType({}), layers: Sequence[str] = ()
) -> list[Statement]:
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
        (statement, source)
        for detector, series in by_detector.items()
        for phase in dict.fromkeys(key.phase for key in series)
        for statement, source in _of_phase(detector, phase, series, axes.get(phase) or Axis((phase,)))
    ]
    return [each for each, _ in sorted(found, key=lambda pair: (pair[0].time, rank(pair[1], UPSTREAM)))]


def _of_phase(
    detector: str, phase: str, series: Mapping[Key, pd.DataFrame], axis: Axis
) -> Iterator[tuple[Statement, Source]]:
    """Yield a statement for each cause of a detector in one phase, and its source."""
    own = {key: frame for key, frame in series.items() if key.phase == phase}
    phases = {key.phase for key in series}
    for cause, source in _CAUSES[detector].items():
        at = {key: i for key, frame in own.items() if (i := _first(frame, f"why_{cause}")) is not None}
        if not at:
            continue
        when = {key: moments(own[key])[i] for key, i in at.items()}
        first = min(when.values())
        where = [key for key in at if when[key] == first]
        inputs = [key for key in where if key.layer == DATA and key.gate != FEED]
        names = [name_of(key, phases) for key in inputs or where]
        if len(names) > _NAMED:
            names[_NAMED:] = [f"{len(names) - _NAMED} more"]
        frame, i = own[where[0]], at[where[0]]
        is_alarm = detector != Data.name and bool(numbers(frame, "anomaly_score")[i] > 1)
        kind = "" if is_alarm else "a notice, no alarm: "
        sentence = f"First at {axis.describe(frame, i)}, {kind}{BROKEN[cause]} ({join_words(names)})."
        yield Statement(first, sentence, is_alarm, frozenset(at)), source


def _first(frame: pd.DataFrame, column: str) -> int | None:
    """Return the index of the first point that has a cause; None where none has."""
    if column not in frame:
        return None
    has = np.nan_to_num(numbers(frame, column)) > 0
    return int(np.argmax(has)) if has.any() else None

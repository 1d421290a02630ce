"""Scores one run: its new captures get derived metrics and anomaly scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from gatewatch.collector.schema import GATE_SCORES, GATE_STATS, GATE_UNITS, LAYER_UPDATES, TRAIN_METRICS, Point
from gatewatch.collector.store import Store
from gatewatch.jobs import checkpoint as checkpoints
from gatewatch.jobs.baselines import Baselines
from gatewatch.jobs.checkpoint import Checkpoint
from gatewatch.jobs.frames import times
from gatewatch.jobs.scoring.captures import Captures, captures
from gatewatch.jobs.scoring.derived_points import derived_points, gap_points
from gatewatch.jobs.scoring.detectors import DETECTORS, Detector
from gatewatch.jobs.scoring.metrics import METRICS
from gatewatch.jobs.scoring.metrics.base import Metric
from gatewatch.jobs.scoring.scoring_state import ScoringState
from gatewatch.jobs.scoring.series_groups import NEVER, SeriesGroup, series_groups
from gatewatch.jobs.scoring.signals import LOOK_BACK

if TYPE_CHECKING:
    import pandas as pd

CHUNK: Final = 2_000
"""The most captures that are read at once."""
_CAPTURED: Final = (GATE_STATS, GATE_UNITS, LAYER_UPDATES, TRAIN_METRICS)


@dataclass(slots=True)
class Pass:
    """What a pass did with a run.

    Attributes:
        run: its name.
        captures: how many are scored, in this pass or before.
        phases: phase → captures of it; the fewest where the user's own tags divide it.
        derived, scored: points of `gate_derived` and `gate_scores` that were written.
        anomalous: scores of the consensus above 1 among them.
        unscored: reason → how many scores of new captures were not given.
        rows_read: points that were read.
        written: points that were written.
        behind: captures that are left for the next pass.
        unchanged: whether every capture had its points already.
        failed: why nothing was done; None where the pass did not fail.
    """

    run: str
    captures: int = 0
    phases: dict[str, int] = field(default_factory=dict)
    derived: int = 0
    scored: int = 0
    anomalous: int = 0
    unscored: dict[str, int] = field(default_factory=dict)
    rows_read: int = 0
    written: int = 0
    behind: int = 0
    unchanged: bool = False
    failed: str | None = None


class RunScorer:
    """Scores the new captures of one run.

    Args:
        store: holds the captures, and gets the points.
        result: of the pass over this run; it is filled in.
        baselines: of the store.
        state: folder of the checkpoints; None for none.
        gaps_after: time after which generalisation gaps are missing; None where none is.
        detectors: classes of the detectors, in the order in which they score.
        metrics: the derived metrics.
    """

    def __init__(
        self,
        store: Store,
        result: Pass,
        baselines: Baselines,
        *,
        state: Path | None = None,
        gaps_after: int | None = None,
        detectors: Sequence[type[Detector]] = DETECTORS,
        metrics: Sequence[Metric] = METRICS,
    ) -> None:
        self._store, self._result, self._baselines = store, result, baselines
        self._state, self._gaps_after = state, gaps_after
        self._detectors, self._metrics = detectors, metrics
        self._look_back = max(LOOK_BACK, *(each.look_back for each in detectors), *(each.look_back for each in metrics))
        self._groups = series_groups(store, result.run)

    def process_new(self, ended: bool, limit: int | None) -> None:
        """Write derived metrics and scores of the new captures, one phase after the other.

        Args:
            ended: whether the run has ended, so that its newest capture is complete.
            limit: the most captures of each group of series; the others are left for the next pass.
        """
        checkpoint_of = [self._checkpoint(group) for group in self._groups]
        if not all(map(self._fits, self._groups, checkpoint_of)):
            checkpoint_of = [None] * len(checkpoint_of)
        done: dict[str, tuple[Checkpoint, bool]] = {}
        for group, last in zip(self._groups, checkpoint_of, strict=True):
            before = done.get(group.in_phase("backtest")) if group.phase == "live" else None
            if before is not None and not before[1]:
                self._result.behind += 1  # the backtest of the same network comes first
                continue
            # A live phase continues its backtest; where that has more captures than then, scoring begins anew.
            outdated = last is not None and before is not None and last.after != _after(before[0], last.first)
            taken = self._take(group, None if outdated else last, before[0] if before else None, ended, limit)
            if taken is not None:
                done[group.in_phase(group.phase)] = taken, taken.newest >= group.newest
                captured = self._result.phases.get(group.phase, taken.captures)
                self._result.phases[group.phase] = min(captured, taken.captures)
                self._result.captures += taken.captures
            if self._gaps_after is not None:
                self._write_gaps(group, self._gaps_after)

    def _checkpoint(self, group: SeriesGroup) -> Checkpoint | None:
        if self._state is None:
            return None
        return checkpoints.load(self._state, self._result.run, group.tags, self._detectors)

    def _fits(self, group: SeriesGroup, last: Checkpoint | None) -> bool:
        """Return whether a checkpoint's captures are those that the store has of the same time.

        A store has more points where some came late, and fewer where it drops old ones. Of a run that was deleted and
        recorded again it has none of those captures.
        """
        if last is None or not last.captures or (group.points, group.newest) == (last.points, last.newest):
            return True
        after = self._count(group, last.newest + 1)
        stored = group.points - after
        return stored == last.points or (stored < last.points and self._count(group, last.newest) > after)

    def _count(self, group: SeriesGroup, start: int) -> int:
        return self._store.count(GATE_STATS, "step", run=self._result.run, start=start, tags=group.only)

    def _take(
        self,
        group: SeriesGroup,
        last: Checkpoint | None,
        before: Checkpoint | None,
        ended: bool,
        limit: int | None,
    ) -> Checkpoint | None:
        """Score the new captures of a group; return its new checkpoint.

        Args:
            group: the series.
            last: its checkpoint; None to begin with its first capture.
            before: the checkpoint of the backtest that it continues.
            ended, limit: as for `process_new`.
        """
        if last is not None and group.newest <= last.newest:
            return last
        now = last or Checkpoint(scoring=ScoringState(self._detectors))
        seen = now.seen
        if last is None and self._store.count(GATE_SCORES, "anomaly_score", run=self._result.run, tags=group.only):
            now.redo = group.newest
        stops, left = self._stops(group, now, limit)
        self._result.behind += left
        for stop in stops:
            read = self._read(group, now, stop)
            if read is None:
                raise ValueError(f"the points of {group.tags} make no captures")
            new = int(np.count_nonzero(read.time > now.newest))
            whole = ended or stop is not None or read.time[-1] < group.newest
            if not whole and seen != (group.points, group.newest):
                read, new = read.part(0, -1), new - 1
                self._result.behind += 1
            if new > 0:
                if not now.captures:
                    now.first = int(read.time[0])
                    now.after = _after(before, now.first)
                    if before is not None and now.after:
                        now.scoring = deepcopy(before.scoring)
                self._score(group, now, read, new)
            now.seen = group.points, group.newest
            if self._state is not None:
                checkpoints.save(self._state, self._result.run, group.tags, now)
        return now

    def _stops(self, group: SeriesGroup, now: Checkpoint, limit: int | None) -> tuple[list[int | None], int]:
        """Return the times before which to stop reading, in order, and how many captures are left after the last."""
        most = min(limit or CHUNK, CHUNK)
        if (group.points - now.points) / len(group.series) <= most / 2:
            return [None], 0
        fullest = max(group.series, key=lambda series: series[1])[0]
        frame = self._read_frame(GATE_STATS, fullest, now.newest + 1, None, ["step"])
        moments = np.unique(times(frame))
        taken = len(moments) if limit is None else min(limit, len(moments))
        stops: list[int | None] = [int(moments[at]) for at in range(most, taken, most)]
        return [*stops, None if taken == len(moments) else int(moments[taken])], len(moments) - taken

    def _read(self, group: SeriesGroup, now: Checkpoint, stop: int | None) -> Captures | None:
        frames = [self._read_frame(name, group.only, now.back, stop) for name in _CAPTURED]
        return next((each for each in captures(*frames) if each.tags == group.tags), None)

    def _read_frame(
        self,
        measurement: str,
        tags: Mapping[str, str],
        start: int,
        stop: int | None,
        fields: Sequence[str] | None = None,
    ) -> pd.DataFrame:
        begin = None if start == NEVER else start
        frame = self._store.read(
            measurement, run=self._result.run, start=begin, stop=stop, tags=tags, fields=fields, prefix_tags=True
        )
        self._result.rows_read += len(frame)
        return frame

    def _score(self, group: SeriesGroup, now: Checkpoint, read: Captures, new: int) -> None:
        """Write the points of the newest captures, and move the checkpoint on."""
        normal = self._baselines.normal(self._result.run, group.phase, group.gates)
        scores = now.scoring.advance(read, new, lambda: None if normal is None else normal.rows)
        first = len(read.time) - new
        if read.time[first] <= now.redo:
            scores = self._without_old_causes(group, scores, read.part(first))
        derived = list(derived_points(read, new, normal, self._metrics))
        # The derived points come last: they mark the captures as done, also for the pass after one that was killed.
        self._store.write(scores)
        self._store.write(derived)
        now.points += sum(int(np.count_nonzero(read.captured(series)[first:])) for series in read.gates)
        now.newest, now.captures = int(read.time[-1]), now.captures + new
        now.back = int(read.time[max(0, len(read.time) - self._look_back)])
        self._result.scored += len(scores)
        self._result.derived += len(derived)
        self._result.written += len(scores) + len(derived)
        for reason, count in now.scoring.unscored.items():
            self._result.unscored[reason] = self._result.unscored.get(reason, 0) + count
        self._result.anomalous += sum(
            int(point.fields["anomalous"]) for point in scores if point.tags["detector"] == "consensus"
        )

    def _without_old_causes(self, group: SeriesGroup, scores: list[Point], new: Captures) -> list[Point]:
        """Return the points with 0 for each stored cause that no longer applies: rewriting a point unites fields."""
        old = self._read_frame(GATE_SCORES, group.only, int(new.time[0]), int(new.time[-1]) + 1)
        causes = [name for name in map(str, old.columns) if name.startswith("why_")]
        if not causes:
            return scores
        given = old[causes].notna().to_numpy()
        of = zip(times(old).tolist(), old["layer"], old["gate"], old["detector"], strict=True)
        stale: dict[tuple[object, ...], dict[str, float]] = {
            key: dict.fromkeys(np.array(causes)[row].tolist(), 0.0)
            for key, row in zip(of, given, strict=True)
            if row.any()
        }

        def united(point: Point) -> Point:
            key = point.time, *(point.tags[name] for name in ("layer", "gate", "detector"))
            return Point(point.measurement, point.tags, {**stale.get(key, {}), **point.fields}, point.time)

        return [united(point) for point in scores]

    def _write_gaps(self, group: SeriesGroup, after: int) -> None:
        frame = self._read_frame(TRAIN_METRICS, group.only, NEVER, None, ["loss", "val_loss"])
        points = [point for point in gap_points(frame, group.tags) if point.time > after]
        if points:
            self._store.write(points)
        self._result.derived += len(points)
        self._result.written += len(points)


def _after(before: Checkpoint | None, first: int) -> int:
    """Return how many captures of a backtest come before the first capture of a live phase, at this time."""
    return before.captures if before is not None and before.newest < first else 0

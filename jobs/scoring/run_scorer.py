"""Scores one run: its new captures get derived metrics and anomaly scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from gatewatch.collector.schema import GATE_SCORES, GATE_STATS, TRAIN_METRICS, FieldValue, Point
from gatewatch.collector.store import Store
from gatewatch.jobs import checkpoint as checkpoints
from gatewatch.jobs.baselines import Baselines
from gatewatch.jobs.checkpoint import Checkpoint
from gatewatch.jobs.frames import times
from gatewatch.jobs.scoring.captures import MEASUREMENTS, NEVER, Captures, SeriesGroup, captures, series_groups
from gatewatch.jobs.scoring.derived_points import derived_points, gap_points
from gatewatch.jobs.scoring.detectors import Detector
from gatewatch.jobs.scoring.metrics.base import Metric
from gatewatch.jobs.scoring.references import References, fingerprint
from gatewatch.jobs.scoring.scoring_state import ScoringState
from gatewatch.jobs.scoring.signals import LOOK_BACK

if TYPE_CHECKING:
    import pandas as pd

CHUNK: Final = 2_000
"""Maximum number of captures that are read at once."""
_OUTDATED: Final[Mapping[str, FieldValue]] = {"baselines": 0, "limit_rate": 0.0}
"""Fact of a score → what stands for none."""


@dataclass(slots=True)
class PassResult:
    """What a pass did with a run.

    Attributes:
        run: its name.
        captures: number of captures that are scored, in this pass or an earlier one.
        phases: phase → number of its captures that are scored. Where the user's own tags divide a phase into several
            groups of series, it is the number of the group that has the fewest.
        derived, scored: points of `gate_derived` and `gate_scores` that were written.
        anomalous: of the scores that were written, those of the consensus above 1.
        unscored: reason → number of scores that new captures did not get.
        rows_read: points that were read.
        written: points that were written.
        behind: captures that are left for the next pass.
        unchanged: whether every capture had its points already.
        failed: why the pass over this run stopped; None where it did not. What it had written by then stays written.
    """

    run: str
    captures: int = 0
    phases: dict[str, int] = field(default_factory=dict)
    derived: int = 0
    scored: int = 0
    anomalous: int = 0
    unscored: Counter[str] = field(default_factory=Counter)
    rows_read: int = 0
    written: int = 0
    behind: int = 0
    unchanged: bool = False
    failed: str | None = None

    def count_captures(self, phase: str, captures: int) -> None:
        """Add the captures of a group of series."""
        self.captures += captures
        self.phases[phase] = min(self.phases.get(phase, captures), captures)


@dataclass(slots=True)
class RunScorer:
    """Scores the new captures of one run.

    Attributes:
        store: holds the captures, and gets the points.
        baselines: of the store.
        references: of the store.
        state: folder of the checkpoints; None: no checkpoints are kept.
        limit: maximum number of captures of each group of series; the next pass scores the others. None: no maximum.
        detectors: classes of the detectors, in the order in which they score.
        metrics: the derived metrics.
        result: result of the pass over this run; `process_new` fills it in.
        ended: whether the run has ended, so that its newest capture is complete.
        gaps_after: time after which generalisation gaps are missing; None where none are missing.
        feature_names: of the columns of the run's feed.
    """

    store: Store
    baselines: Baselines
    references: References
    state: Path | None
    limit: int | None
    detectors: Sequence[type[Detector]]
    metrics: Sequence[Metric]
    result: PassResult
    ended: bool
    gaps_after: int | None
    feature_names: Sequence[str] = ()

    def process_new(self) -> None:
        """Write derived metrics and scores of the new captures, one phase after the other."""
        groups = series_groups(self.store, self.result.run)
        loaded = [self._load(group) for group in groups]
        if not all(map(self._fits, groups, loaded)):
            loaded = [None] * len(groups)
        done: dict[str, tuple[Checkpoint | None, bool]] = {}
        for group, last in zip(groups, loaded, strict=True):
            backtest, is_complete = None, True
            if group.phase == "live":
                backtest, is_complete = done.get(group.in_phase("backtest"), (None, True))
            if not is_complete:
                self.result.behind += 1  # the backtest of the same network comes first
                continue
            # A live phase continues the scoring state of its backtest. If captures were added to the backtest since,
            # the live phase is scored again from its beginning.
            outdated = last is not None and backtest is not None and last.after != _after(backtest, last.first)
            now = self._take(group, None if outdated else last, backtest)
            done[group.in_phase(group.phase)] = now, now.newest >= group.newest
            self.result.count_captures(group.phase, now.captures)
            if self.gaps_after is not None:
                frame = self._read(TRAIN_METRICS, group.only, NEVER, None, "loss", "val_loss")
                gaps = [point for point in gap_points(frame, group.tags) if point.time > self.gaps_after]
                self.result.derived += self._write(gaps)

    def _load(self, group: SeriesGroup) -> Checkpoint | None:
        if self.state is None:
            return None
        return checkpoints.load(self.state, self.result.run, group.tags, self.detectors)

    def _fits(self, group: SeriesGroup, last: Checkpoint | None) -> bool:
        """Return whether the store still has the captures that a checkpoint was made from, and no others of that time.

        A store has more points where some arrived late, and fewer where its retention drops old ones. It has none of
        these captures where the run was deleted and recorded again.
        """
        if last is None or not last.captures or (group.points, group.newest) == (last.points, last.newest):
            return True
        after = self._count(group, GATE_STATS, "step", last.newest + 1)
        stored = group.points - after
        if stored < last.points:
            return self._count(group, GATE_STATS, "step", last.newest) > after
        return stored == last.points

    def _count(self, group: SeriesGroup, measurement: str, field: str, start: int | None = None) -> int:
        return self.store.count(measurement, field, run=self.result.run, start=start, tags=group.only)

    def _take(self, group: SeriesGroup, last: Checkpoint | None, backtest: Checkpoint | None) -> Checkpoint:
        """Score the new captures of a group; return its new checkpoint.

        Args:
            group: the group of series.
            last: its checkpoint; None: begin with its first capture.
            backtest: the checkpoint of the backtest that it continues.
        """
        if last is not None and group.newest <= last.newest:
            return last
        sizes = self.references.sizes(group.tags, self.feature_names)
        if last is not None and last.reference != fingerprint(sizes):
            last = None  # the training has gone on, or another is named
        now = last or Checkpoint(scoring=ScoringState(self.detectors), reference=fingerprint(sizes))
        seen = now.seen
        if last is None and self._count(group, GATE_SCORES, "anomaly_score"):
            now.redo = group.newest
        for stop in self._stops(group, now):
            frames = [self._read(name, group.only, now.back, stop) for name in MEASUREMENTS]
            look = [self._read(name, tags, now.back, stop) for name, tags in group.looks]
            read = captures(group.tags, *frames, feature_names=self.feature_names, reference=sizes, look=look)
            if read is None:
                raise ValueError(f"the points of {group.tags} make no captures")
            new = int(np.count_nonzero(read.time > now.newest))
            whole = self.ended or stop is not None or read.time[-1] < group.newest
            if not whole and seen != (group.points, group.newest):
                read, new = read.part(0, -1), new - 1
                self.result.behind += 1
            if new > 0:
                if not now.captures:
                    now.first = int(read.time[0])
                    now.after = _after(backtest, now.first)
                    if backtest is not None and now.after:
                        now.scoring = deepcopy(backtest.scoring)
                self._score(group, now, read, new)
            now.seen = group.points, group.newest
            if self.state is not None:
                checkpoints.save(self.state, self.result.run, group.tags, now)
        return now

    def _stops(self, group: SeriesGroup, now: Checkpoint) -> list[int | None]:
        """Return the end times of the pieces to read, in order; add the captures after the last one to `behind`."""
        most = min(self.limit or CHUNK, CHUNK)
        if (group.points - now.points) / len(group.series) <= most / 2:
            return [None]
        fullest = max(group.series, key=lambda series: series[1])[0]
        moments = np.unique(times(self._read(GATE_STATS, fullest, now.newest + 1, None, "step"))).tolist()
        taken = len(moments) if self.limit is None else min(self.limit, len(moments))
        self.result.behind += len(moments) - taken
        return [*moments[most:taken:most], None if taken == len(moments) else moments[taken]]

    def _read(self, name: str, tags: Mapping[str, str], start: int, stop: int | None, *fields: str) -> pd.DataFrame:
        """Read the points of a measurement that have these tags, from `start` on; of all fields, or only of these."""
        begin = None if start == NEVER else start
        frame = self.store.find(
            name, run=self.result.run, start=begin, stop=stop, tags=tags, fields=fields or None, prefix_tags=True
        )
        self.result.rows_read += len(frame)
        return frame

    def _write(self, points: Sequence[Point]) -> int:
        """Write points; return how many."""
        self.store.write(points)
        self.result.written += len(points)
        return len(points)

    def _score(self, group: SeriesGroup, now: Checkpoint, read: Captures, new: int) -> None:
        """Write the points of the newest captures, and update the checkpoint."""
        normal = self.baselines.normal(self.result.run, group.phase, group.gates)
        limit = partial(self.baselines.run_limit, self.result.run, group.phase, group.gates)
        scores = now.scoring.advance(read, new, None if normal is None else normal.rows, limit)
        first = len(read.time) - new
        if read.time[first] <= now.redo:
            scores = self._without_old_causes(group, scores, read.part(first))
        derived = list(derived_points(read, new, normal, self.metrics))
        # The derived points come last: they mark the captures as done, also for the pass after one that was killed.
        self.result.scored += self._write(scores)
        self.result.derived += self._write(derived)
        now.points += sum(int(np.count_nonzero(read.captured(series)[first:])) for series in read.gates)
        now.newest, now.captures = int(read.time[-1]), now.captures + new
        needed = *(each.look_back for each in self.detectors), *(each.look_back for each in self.metrics)
        now.back = int(read.time[max(0, len(read.time) - max(LOOK_BACK, *needed))])
        self.result.unscored.update(now.scoring.unscored)
        of_consensus = (point for point in scores if point.tags["detector"] == "consensus")
        self.result.anomalous += sum(int(point.fields["anomalous"]) for point in of_consensus)

    def _without_old_causes(self, group: SeriesGroup, scores: list[Point], new: Captures) -> list[Point]:
        """Return the points with 0 for each stored cause that no longer applies: rewriting a point unites fields.

        A stored number of baselines that no longer applies is 0 too, and says that `reached_by` is of no meaning.
        """
        old = self._read(GATE_SCORES, group.only, int(new.time[0]), int(new.time[-1]) + 1)
        causes = [name for name in map(str, old.columns) if name.startswith("why_") or name in _OUTDATED]
        if not causes:
            return scores
        old_keys = zip(times(old).tolist(), old["layer"], old["gate"], old["detector"], strict=True)
        is_stored = old[causes].notna().to_numpy()
        zero = [(name, _OUTDATED.get(name, 0.0)) for name in causes]
        zeros = {key: dict(compress(zero, row)) for key, row in zip(old_keys, is_stored, strict=True)}
        keys = [(point.time, point.tags["layer"], point.tags["gate"], point.tags["detector"]) for point in scores]
        return [
            replace(point, fields={**zeros.get(key, {}), **point.fields})
            for key, point in zip(keys, scores, strict=True)
        ]


def _after(backtest: Checkpoint | None, first: int) -> int:
    """Return how many captures of a backtest come before the first capture of a live phase, at this time."""
    return backtest.captures if backtest is not None and backtest.newest < first else 0

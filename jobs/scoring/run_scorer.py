"""A look at one run: what is new of it is derived and scored."""

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
from gatewatch.jobs.scoring.captures import Captures, captures
from gatewatch.jobs.scoring.derived_points import LOOK_BACK, derived_points, gap_points
from gatewatch.jobs.scoring.series_groups import NEVER, Group, groups_of

if TYPE_CHECKING:
    import pandas as pd

CHUNK: Final = 2_000
"""Captures that are read at once."""
_CAPTURED: Final = (GATE_STATS, GATE_UNITS, LAYER_UPDATES, TRAIN_METRICS)


@dataclass(slots=True)
class Pass:
    """What a pass did with a run.

    Attributes:
        run: its name.
        captures: moments at which its gates were captured and that were looked at, this time or before.
        phases: phase → moments of it; the fewest where the user's own tags part it.
        derived, scored: points written.
        anomalous: scores of the consensus above 1 among them.
        rows_read: points read.
        written: points written.
        behind: captures that are left for the next pass.
        unchanged: whether every capture had its points already.
        failed: why nothing was done.
    """

    run: str
    captures: int = 0
    phases: dict[str, int] = field(default_factory=dict)
    derived: int = 0
    scored: int = 0
    anomalous: int = 0
    rows_read: int = 0
    written: int = 0
    behind: int = 0
    unchanged: bool = False
    failed: str | None = None


class Look:
    """A pass over one run, of which gaps were told until a time, and there may be more of them."""

    def __init__(
        self, store: Store, result: Pass, baselines: Baselines, state: Path | None, told: int, gaps: bool
    ) -> None:
        self._store, self._result, self._baselines = store, result, baselines
        self._state, self._told, self._gaps = state, told, gaps
        self._groups = groups_of(store, result.run)

    def at_what_is_new(self, ended: bool, limit: int | None) -> None:
        """Derive and score what is new, a phase after the other."""
        known = [self._known(group) for group in self._groups]
        if not all(map(self._fits, self._groups, known)):
            known = [None] * len(known)
        watched: dict[str, tuple[Checkpoint, bool]] = {}
        for group, last in zip(self._groups, known, strict=True):
            before = watched.get(group.in_phase("backtest")) if group.phase == "live" else None
            if before is not None and not before[1]:
                self._result.behind += 1  # the backtest of the same network comes first
                continue
            more = last is not None and before is not None and last.after != _after(before[0], last.first)
            found = None if more else last  # more is known of the backtest than when it went on from there
            taken = self._take(group, found, before[0] if before else None, ended, limit)
            if taken is not None:
                watched[group.in_phase(group.phase)] = taken, taken.newest >= group.newest
                captured = self._result.phases.get(group.phase, taken.captures)
                self._result.phases[group.phase] = min(captured, taken.captures)
                self._result.captures += taken.captures
            if self._gaps:
                self._write_gaps(group)

    def _known(self, group: Group) -> Checkpoint | None:
        return checkpoints.load(self._state, self._result.run, group.tags) if self._state else None

    def _fits(self, group: Group, known: Checkpoint | None) -> bool:
        """Whether the points of the captures that were taken are those that the store has of their time.

        More have come late. Fewer are left where the store drops what is old; a run that was deleted and made again
        has none of those captures.
        """
        if known is None or not known.captures or (group.points, group.newest) == (known.points, known.newest):
            return True
        there = group.points - self._count(group, known.newest + 1)
        return there == known.points or (
            there < known.points and self._count(group, known.newest) > self._count(group, known.newest + 1)
        )

    def _count(self, group: Group, start: int) -> int:
        return self._store.count(GATE_STATS, "step", run=self._result.run, start=start, tags=group.only)

    def _take(
        self, group: Group, known: Checkpoint | None, before: Checkpoint | None, ended: bool, limit: int | None
    ) -> Checkpoint | None:
        """Take the captures of a group that are new, and say how far that came; None where there is nothing yet."""
        if known is not None and group.newest <= known.newest:
            return known
        now = known or Checkpoint()
        seen = now.seen
        if known is None and self._store.count(GATE_SCORES, "anomaly_score", run=self._result.run, tags=group.only):
            now.redo = group.newest
        stops, left = self._stops(group, now, limit)
        self._result.behind += left
        for stop in stops:
            found = self._read(group, now, stop)
            if found is None:
                raise ValueError(f"the points of {group.tags} make no captures")
            new = int(np.count_nonzero(found.time > now.newest))
            whole = ended or stop is not None or found.time[-1] < group.newest
            if not whole and seen != (group.points, group.newest):
                found, new = found.part(0, -1), new - 1
                self._result.behind += 1
            if new > 0:
                if not now.captures:
                    now.first = int(found.time[0])
                    now.after = _after(before, now.first)
                    if before is not None and now.after:
                        now.scoring = deepcopy(before.scoring)
                self._score(group, now, found, new)
            now.seen = group.points, group.newest
            if self._state is not None:
                checkpoints.save(self._state, self._result.run, group.tags, now)
        return now

    def _stops(self, group: Group, now: Checkpoint, limit: int | None) -> tuple[list[int | None], int]:
        """Times before which to stop reading, one after the other, and how many captures are left after the last."""
        most = min(limit or CHUNK, CHUNK)
        if (group.points - now.points) / len(group.series) <= most / 2:
            return [None], 0
        fullest = max(group.series, key=lambda series: series[1])[0]
        frame = self._read_frame(GATE_STATS, fullest, now.newest + 1, None, ["step"])
        times = np.unique(frame["time"].to_numpy(dtype="datetime64[ns]").astype(np.int64))
        taken = len(times) if limit is None else min(limit, len(times))
        stops: list[int | None] = [int(times[at]) for at in range(most, taken, most)]
        return [*stops, None if taken == len(times) else int(times[taken])], len(times) - taken

    def _read(self, group: Group, now: Checkpoint, stop: int | None) -> Captures | None:
        frames = [self._read_frame(name, group.only, now.back, stop) for name in _CAPTURED]
        return next((found for found in captures(*frames) if found.tags == group.tags), None)

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

    def _score(self, group: Group, now: Checkpoint, found: Captures, new: int) -> None:
        """Write the points of the newest captures, and move on."""
        normal = self._baselines.normal(self._result.run, group.phase, group.gates)
        scores = now.scoring.advance(found, new, lambda: None if normal is None else normal.rows)
        first = len(found.time) - new
        if found.time[first] <= now.redo:
            scores = self._without_old_causes(group, scores, found.part(first))
        derived = list(derived_points(found, new, normal))
        # The derived points come last: they say that the captures are done with, also to the pass after one that was
        # killed.
        self._store.write(scores)
        self._store.write(derived)
        now.points += sum(int(np.count_nonzero(found.captured(series)[first:])) for series in found.gates)
        now.newest, now.captures = int(found.time[-1]), now.captures + new
        now.back = int(found.time[max(0, len(found.time) - LOOK_BACK)])
        self._result.scored += len(scores)
        self._result.derived += len(derived)
        self._result.written += len(scores) + len(derived)
        self._result.anomalous += sum(
            int(point.fields["anomalous"]) for point in scores if point.tags["detector"] == "consensus"
        )

    def _without_old_causes(self, group: Group, scores: list[Point], found: Captures) -> list[Point]:
        """The same, with 0 for each cause that was written before and is none: a point written again unites fields."""
        old = self._read_frame(GATE_SCORES, group.only, int(found.time[0]), int(found.time[-1]) + 1)
        causes = [name for name in map(str, old.columns) if name.startswith("why_")]
        if not causes:
            return scores
        given = old[causes].notna().to_numpy()
        times = old["time"].to_numpy(dtype="datetime64[ns]").astype(np.int64).tolist()
        of = zip(times, old["layer"], old["gate"], old["detector"], strict=True)
        stale: dict[tuple[object, ...], dict[str, float]] = {
            key: dict.fromkeys(np.array(causes)[row].tolist(), 0.0)
            for key, row in zip(of, given, strict=True)
            if row.any()
        }

        def united(point: Point) -> Point:
            key = point.time, *(point.tags[name] for name in ("layer", "gate", "detector"))
            return Point(point.measurement, point.tags, {**stale.get(key, {}), **point.fields}, point.time)

        return [united(point) for point in scores]

    def _write_gaps(self, group: Group) -> None:
        frame = self._read_frame(TRAIN_METRICS, group.only, NEVER, None, ["loss", "val_loss"])
        points = [point for point in gap_points(frame, group.tags) if point.time > self._told]
        if points:
            self._store.write(points)
        self._result.derived += len(points)
        self._result.written += len(points)


def _after(before: Checkpoint | None, first: int) -> int:
    """How many captures of a backtest those go on from of which the first has this time."""
    return before.captures if before is not None and before.newest < first else 0

"""Baselines: past runs that the user declared healthy, with which others of the same network are compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from itertools import islice
from typing import TYPE_CHECKING, Final

import numpy as np

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.schema import BASELINES, GATE_STATS, Point
from gatewatch.collector.store.runs import find_run
from gatewatch.collector.text import nearest, safe_repr
from gatewatch.jobs.scoring.captures import MEASUREMENTS, Array, Captures, Pair, SeriesGroup, captures, series_groups
from gatewatch.jobs.scoring.detectors.isolation_forest import forest_rows
from gatewatch.jobs.scoring.residuals import WARM_UP, z_scores
from gatewatch.jobs.scoring.rolling_state import RollingState
from gatewatch.jobs.scoring.run_limit import FALSE_ALARM_RATE, RunLimit
from gatewatch.jobs.scoring.run_maximum import run_maximum
from gatewatch.jobs.scoring.signals import extract_signals

if TYPE_CHECKING:
    from gatewatch.collector.store import Store


MOST: Final = 8
"""The most baselines whose residuals and histograms a run is compared with: the newest."""
MOST_MAXIMA: Final = 99
"""The most baselines that the limit of a run comes from: the newest. They hold a rate of 1 %."""


@dataclass(frozen=True, slots=True)
class Normal:
    """The normal behaviour of a network in one phase.

    Attributes:
        rows: (rows, F), residuals of the baselines, as `isolation_forest.forest_rows` arranges them.
        profiles: (layer, gate) → of each baseline its steps, (n,), and its histograms, (n, bins).
    """

    rows: Array
    profiles: Mapping[Pair, Sequence[tuple[Array, Array]]]

    def histograms(self, series: Pair, step: Array) -> Array | None:
        """Return (n, bins), the mean histogram of the baselines at the same steps; None where none has such a gate.

        Of each baseline, the newest capture until a step counts, and before its first capture the first.
        """
        histograms_of = [
            histograms[np.maximum(np.searchsorted(steps, step, side="right") - 1, 0)]
            for steps, histograms in self.profiles.get(series, ())
        ]
        return np.mean(histograms_of, axis=0) if histograms_of else None


def add(store: Store, run: str, clock: Callable[[], int] = time.time_ns) -> None:
    """Declare a run healthy: make it a baseline. Whether it is healthy is not looked at.

    Raises:
        ConfigError: the store holds no captures of such a run.
        WriteUnavailable: the store does not answer.
    """
    store.write([Point(BASELINES, {"run": find(store, run)}, {"state": "added"}, clock())])


def find(store: Store, run: str) -> str:
    """Return the name, as the store has it, of a run that may become a baseline.

    Raises:
        ConfigError: the store holds no captures of such a run.
        WriteUnavailable: the store does not answer.
    """
    if not run or not store.count(GATE_STATS, "step", run=run):  # an empty name stands for points without a run
        run = find_run(run, list(store.runs()["run"]), store.url)
        if not store.count(GATE_STATS, "step", run=run):
            raise ConfigError(f"run {safe_repr(run)} has no captures in {store.url}; name one that has")
    return run


def remove(store: Store, run: str, clock: Callable[[], int] = time.time_ns) -> None:
    """Make a run a baseline no longer.

    Raises:
        ConfigError: the run is no baseline.
        WriteUnavailable: the store does not answer.
    """
    if run not in (names := listed(store)):
        remedy = f"`gatewatch baseline list` lists those there are{nearest(run, names)}"
        raise ConfigError(f"run {safe_repr(run)} is no baseline in {store.url}; {remedy}")
    store.write([Point(BASELINES, {"run": run}, {"state": "removed"}, clock())])


def listed(store: Store) -> list[str]:
    """Return the names of the baselines, the one that was added last first."""
    frame = store.find(BASELINES, prefix_tags=True)
    if "run" not in frame:
        return []
    last = frame.dropna(subset=["run"]).drop_duplicates("run", keep="last")
    return [str(run) for run in last[last["state"] == "added"]["run"]][::-1]


class Baselines:
    """The baselines of a store, read on first use.

    Args:
        store: where they are.
        false_alarm_rate: the share of healthy runs that may alarm.
    """

    def __init__(self, store: Store, false_alarm_rate: float = FALSE_ALARM_RATE) -> None:
        self._store = store
        self._rate = false_alarm_rate
        self._captured = cache(self._read_captures)
        self._normal = cache(self._compute_normal)
        self._maximum = cache(self._compute_maximum)

    def normal(self, run: str, phase: str, series: tuple[Pair, ...]) -> Normal | None:
        """Return the normal behaviour of a network in a phase; None where no baseline has the same layers and gates.

        Args:
            run: which is not its own baseline.
            phase: of the run.
            series: layers and gates of the network.
        """
        return self._normal(phase, series, run if run in self._runs else "")

    def run_limit(self, run: str, phase: str, series: tuple[Pair, ...]) -> RunLimit:
        """Return the limit of a run, from the baselines that have scores; the arguments are those of `normal`.

        A run with several combinations of the user's tags in this phase is one run: its largest maximum counts.
        """
        reached = (self._maximum(name, phase, series) for name in self._runs if name != run)
        newest = list(islice((each for each in reached if each is not None), MOST_MAXIMA))
        maxima = np.sort(np.array([maximum for maximum, _ in newest], dtype=np.float64))
        return RunLimit(maxima, self._rate, min((length for _, length in newest), default=0))

    @cached_property
    def _runs(self) -> list[str]:
        return listed(self._store)

    def _read_captures(self, run: str, phase: str) -> list[Captures]:
        groups = [group for group in series_groups(self._store, run) if group.phase == phase]
        return [each for group in groups if (each := self._read_group(run, group)) is not None]

    def _read_group(self, run: str, group: SeriesGroup) -> Captures | None:
        read = partial(self._store.find, run=run, prefix_tags=True)
        look = [read(name, tags=tags) for name, tags in group.looks]
        return captures(group.tags, *(read(name, tags=group.only) for name in MEASUREMENTS), look=look)

    def _compute_maximum(self, run: str, phase: str, series: tuple[Pair, ...]) -> tuple[float, int] | None:
        """Return the largest score of a baseline, and of how many captures; None where it has no such layers and gates,
        or no score."""
        found = []
        for group in series_groups(self._store, run):
            if group.phase == phase and group.gates == series:  # 99 runs are not kept in memory, nor others read
                whole = self._read_group(run, group)
                if whole is not None and (maximum := run_maximum(whole)) is not None:
                    found.append((maximum, len(whole.time)))
        return (max(maximum for maximum, _ in found), min(length for _, length in found)) if found else None

    def _compute_normal(self, phase: str, series: tuple[Pair, ...], excepted: str) -> Normal | None:
        alike = (
            each
            for run in self._runs
            if run != excepted
            for each in self._captured(run, phase)
            if tuple(sorted(each.gates)) == series and len(each.time) > WARM_UP
        )
        rows: list[Array] = []
        profiles: dict[Pair, list[tuple[Array, Array]]] = {}
        for each in islice(alike, MOST):
            rolling = RollingState()
            z = z_scores(extract_signals(each), rolling).z
            rows += forest_rows(z, rolling.keys, each.gates).values()
            for pair in each.gates:
                histograms = each.histograms(pair)
                complete = np.isfinite(histograms).all(axis=1)
                if complete.any():
                    profiles.setdefault(pair, []).append((each.step[complete], histograms[complete]))
        return Normal(np.concatenate(rows), profiles) if rows else None

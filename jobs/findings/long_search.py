"""Let a store look for what matters in the points of a long run: extremes, what broke first, what was stated first."""

from __future__ import annotations

from contextlib import closing
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import pandas as pd

from gatewatch.collector.schema import GATE_DERIVED, GATE_SCORES, GATE_STATS
from gatewatch.collector.store import reopen_store
from gatewatch.jobs.findings.series import Key, by_series
from gatewatch.jobs.findings.unjudged import Counts
from gatewatch.jobs.frames import not_finite, numbers, times
from gatewatch.jobs.scoring.detectors.data import Data

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gatewatch.collector.store import Store
    from gatewatch.collector.store.selection import Reduction

_STATISTICS: Final[Mapping[str, Reduction]] = {
    "step": "min",
    "epoch": "min",
    "mean": "mean",
    "p05": "min",
    "p95": "max",
    "nan_count": "max",
    "inf_count": "max",
}
"""Field → which number of it stands for the captures of a span."""
_NEWEST: Final = (*_STATISTICS, "saturated_low", "saturated_high", "dead_units")
"""What is read of the newest capture."""
TAGS: Final = ("phase", "layer", "gate")
_STATING: Final = ("checks", Data.name)
"""The detectors whose causes are findings of their own."""


class Searched(NamedTuple):
    """What a store has looked for.

    Attributes:
        captures: points that stand for the captures of each gate; see `_captures`.
        counts: series → how many captures.
        stated: points of `gate_scores`, the first with each cause of the detectors whose causes are findings.
    """

    captures: pd.DataFrame
    counts: Mapping[Key, Counts]
    stated: Sequence[pd.DataFrame]


def search_apart(store: Store, run: str, edges: Mapping[str, Sequence[int]]) -> Searched:
    """Let a store look for what matters, over a connection of its own where it has one for all.

    Args:
        store: where the points are.
        run: its name.
        edges: phase → where spans of captures begin, and the end of the last, in nanoseconds.

    Raises:
        WriteUnavailable: the store does not answer.
    """
    if store.path is None:
        return _search(store, run, edges)
    with closing(reopen_store(store.destination)) as own:
        return _search(own, run, edges)


def _search(store: Store, run: str, edges: Mapping[str, Sequence[int]]) -> Searched:
    captures, captured = _captures(store, run, edges)
    scored = _count(store, run, edges)
    counts = {key: Counts(count, scored.get(key, 0)) for key, count in captured.items()}
    return Searched(captures, counts, _stated(store, run))


def _count(store: Store, run: str, edges: Mapping[str, Sequence[int]]) -> dict[Key, int]:
    """Return how many captures of each gate scoring has seen: it writes a point of `gate_derived` for each."""
    counts = dict[Key, int]()
    for phase, own in edges.items():
        whole = [own[0], own[-1]]
        points = store.summaries(GATE_DERIVED, {"window_s": "min"}, whole, run=run, tags={"phase": phase})
        counts |= {key: int(rows["points"].sum()) for key, rows in by_series(points).items()}
    return counts


def _stated(store: Store, run: str) -> list[pd.DataFrame]:
    """Return the first scores with each cause of the detectors whose causes are findings of their own."""
    found = []
    newest = store.newest(GATE_SCORES, run=run, prefix_tags=True)
    for detector in _STATING if "detector" in newest else ():
        for key in by_series(newest[newest["detector"] == detector]):
            tags = {**key._asdict(), "detector": detector}
            above = store.find(GATE_SCORES, run=run, tags=tags, prefix_tags=True, at_least=("anomaly_score", 1.0))
            found += [] if above.empty else [above.iloc[_firsts(above)]]
    return found


def _captures(store: Store, run: str, edges: Mapping[str, Sequence[int]]) -> tuple[pd.DataFrame, dict[Key, int]]:
    """Return points that stand for the captures of each gate, and how many captures that are.

    A point stands for a span: the mean of its means, the smallest 5th and the largest 95th percentile. The first
    capture with values that are not finite, and the newest of all, are there as they are.
    """
    frames, counts = [], dict[Key, int]()
    newest = store.newest(GATE_STATS, run=run, prefix_tags=True)
    for phase, own in edges.items():
        spans = store.summaries(GATE_STATS, _STATISTICS, own, run=run, tags={"phase": phase})
        for key, rows in by_series(spans).items():
            counts[key] = int(rows["points"].sum())
        frames.append(_with_first_broken(store, run, phase, spans.drop(columns="points", errors="ignore"), own))
    tags = [name for name in newest.columns if name in (*TAGS, "run") or str(name).startswith("tag:")]
    frames.append(newest[["time", *tags, *present(newest, _NEWEST)]])
    united = pd.concat([frame for frame in frames if not frame.empty], ignore_index=True)
    united = united.sort_values("time", kind="stable").drop_duplicates(["time", *tags], keep="last")
    return united.reset_index(drop=True), counts


def _with_first_broken(store: Store, run: str, phase: str, spans: pd.DataFrame, edges: Sequence[int]) -> pd.DataFrame:
    """Put the first capture of each gate that is not finite in its place in the span that holds it."""
    broken = spans[not_finite(spans) > 0]
    if broken.empty:
        return spans
    first = {key: times(rows)[0] for key, rows in by_series(broken).items()}
    ends = dict(pairwise(edges))
    found = []
    for begin in sorted(set(first.values())):
        rows = [
            store.find(
                GATE_STATS,
                run=run,
                tags={"phase": phase},
                start=int(begin),
                stop=ends[int(begin)],
                fields=_NEWEST,
                prefix_tags=True,
                at_least=(field, 1),
            )
            for field in ("nan_count", "inf_count")
        ]
        united = pd.concat(rows, ignore_index=True).sort_values("time", kind="stable")
        found += [frame.iloc[:1] for key, frame in by_series(united).items() if first.get(key) == begin]
    calm = spans.copy()
    for key, begin in first.items():
        own = (times(spans) == begin) & (spans["layer"] == key.layer) & (spans["gate"] == key.gate)
        calm.loc[own, present(spans, ("nan_count", "inf_count"))] = 0.0
    return pd.concat([calm, *found], ignore_index=True)


def _firsts(frame: pd.DataFrame) -> list[int]:
    """Return the places of the first points with each cause, in order of time."""
    found = set()
    for name in causes_of(frame):
        has = np.nan_to_num(numbers(frame, name)) > 0
        if has.any():
            found.add(int(np.argmax(has)))
    return sorted(found)


def causes_of(frame: pd.DataFrame) -> list[str]:
    """Return the columns of scores that are causes."""
    return [name for name in map(str, frame.columns) if name.startswith("why_")]


def present(frame: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Return those of the names that are columns."""
    return [name for name in names if name in frame]

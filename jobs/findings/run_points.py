"""Read the points of a run in the order, and on the axes, in which they are judged and drawn."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from gatewatch.collector import schema
from gatewatch.collector.store.base import Store
from gatewatch.jobs.findings.axis import (
    Axis,
    axes_of,
    in_market_time,
    in_step_order,
    market_phases,
    spans_of,
    walked_again,
)
from gatewatch.jobs.findings.long_run import LONG, Points, long_phases, read_long, some_units
from gatewatch.jobs.findings.series import (
    MAX_POINTS,
    Key,
    Row,
    by_series,
    config_of,
    layer_order,
    one_detector,
    table,
)
from gatewatch.jobs.findings.unjudged import Counts, count_captures

if TYPE_CHECKING:
    from gatewatch.collector.times import Time

Tables = Mapping[Key, pd.DataFrame]
"""Series → its points, in order of time."""


@dataclass(frozen=True, slots=True)
class RunPoints:
    """The points of one run.

    Attributes:
        events, metrics, captures: points of `runs`, of `train_metrics`, of `gate_stats`.
        all_scores: points of `gate_scores`, of all detectors.
        detector: the one whose scores are shown; empty where there are none.
        stats, derived, scores, updates, units: of `gate_stats`, of `gate_derived`, of the detector's scores, of
            `layer_updates` (the parameter is in the gate's place) and of `gate_units`; the last is empty where it was
            not asked for.
        groups: points of `feed_groups`; empty of a run that is too long to be read whole.
        rows: the table of gates.
        axes: the axes of the run.
        spans: phase → its first and last moment.
        market: the phases in market time; `again`: those of them in which market time went back.
        configs: the configuration of each phase, the run's own first.
        layers: names of the network's layers, in its order.
        is_going: whether the run has not ended, as far as its events say.
        counts: series of gates → how many captures.
        drawn: of a run that was too long to be read whole, phase → how many points stand for its captures in `stats`,
            and how many captures that are.
    """

    events: pd.DataFrame
    metrics: pd.DataFrame
    captures: pd.DataFrame
    all_scores: pd.DataFrame
    detector: str
    stats: Tables
    derived: Tables
    scores: Tables
    updates: Tables
    units: Tables
    groups: pd.DataFrame
    rows: Sequence[Row]
    axes: Sequence[Axis]
    spans: Mapping[str, tuple[Any, Any]]
    market: frozenset[str]
    again: frozenset[str]
    configs: Sequence[Mapping[str, Any]]
    layers: Sequence[str]
    is_going: bool
    counts: Mapping[Key, Counts]
    drawn: Mapping[str, tuple[int, int]]

    @property
    def axis_of(self) -> dict[str, Axis]:
        """Phase → its axis."""
        return {phase: axis for axis in self.axes for phase in axis.phases}

    @property
    def shown_scores(self) -> pd.DataFrame:
        """The scores of the detector that is shown, in order of time."""
        return one_detector(self.all_scores)[1]


def read_points(
    store: Store,
    about: Mapping[str, Any],
    *,
    units: bool = False,
    start: Time | None = None,
    longest: int = LONG,
    spans: int = MAX_POINTS,
) -> RunPoints:
    """Read the points of a run; of a long one as `read_long` does.

    Args:
        store: where they are.
        about: the run's row of `store.runs()`.
        units: whether those of `gate_units` are read too.
        start: only points at this time or later, beside the run's events, and all of these; None: from the beginning.
        longest: captures of a phase, above which a run is long.
        spans: of captures that are drawn of a phase of a long run.

    Raises:
        WriteUnavailable: the store does not answer.
    """
    run = str(about["run"])
    events = store.find(schema.RUNS, run=run, prefix_tags=True)
    configs = configs_of(about, events)
    layers = layer_order(configs)
    captured = long_phases(store, run, longest) if start is None and isinstance(store, Store) else {}
    read = read_long(store, run, captured, layers, spans) if captured else _read_whole(store, run, layers, start)
    market = market_phases(events, read.captures, read.metrics)
    placed = partial(in_market_time, market=market, events=events)
    again = walked_again(market, placed(read.captures), placed(read.metrics))

    def ordered(frame: pd.DataFrame) -> pd.DataFrame:
        return in_step_order(placed(frame), again)

    metrics, captures, scored = map(ordered, (read.metrics, read.captures, read.all_scores))
    scores, updates = ({key: ordered(frame) for key, frame in each.items()} for each in (read.scores, read.updates))
    fed = pd.DataFrame() if captured else store.find(schema.FEED_GROUPS, run=run, start=start, prefix_tags=True)
    groups = ordered(fed)
    spanned = spans_of(captures, metrics, *updates.values(), *scores.values())
    stats = by_series(captures, layers=layers)
    points = RunPoints(
        events,
        metrics,
        captures,
        all_scores=scored,
        detector=read.detector,
        stats=stats,
        derived=read.derived,
        scores=scores,
        updates=updates,
        units={},
        groups=groups,
        rows=table(stats, read.derived, scores),
        axes=axes_of(spanned, market - again),
        spans=spanned,
        market=market,
        again=again,
        configs=configs,
        layers=layers,
        is_going=about.get("state") in schema.GOING_EVENTS,
        counts=read.counts,
        drawn=read.drawn,
    )
    return with_units(store, run, points, start) if units else points


def with_units(store: Store, run: str, points: RunPoints, start: Time | None = None) -> RunPoints:
    """Return the points of a run with those of `gate_units`; of a long one with some of them.

    Args:
        store: where they are.
        run: its name.
        points: from `read_points`.
        start: only points at this time or later; None: all.

    Raises:
        WriteUnavailable: the store does not answer.
    """
    if points.drawn:
        read = some_units(store, run, points.captures)
    else:
        read = store.find(schema.GATE_UNITS, run=run, start=start, prefix_tags=True)
    read = in_step_order(in_market_time(read, points.market, points.events), points.again)
    return replace(points, units=by_series(read, layers=points.layers))


def _read_whole(store: Store, run: str, layers: Sequence[str], start: Time | None) -> Points:
    read = partial(store.find, run=run, start=start, prefix_tags=True)
    metrics, captures = map(read, (schema.TRAIN_METRICS, schema.GATE_STATS))
    derived, scored, updates = map(read, (schema.GATE_DERIVED, schema.GATE_SCORES, schema.LAYER_UPDATES))
    detector, shown = one_detector(scored)
    stats, by_gate, scores = (by_series(frame, layers=layers) for frame in (captures, derived, shown))
    return Points(
        metrics,
        captures,
        scored,
        detector,
        scores,
        by_gate,
        by_series(updates, "param", layers),
        count_captures(stats, by_gate),
        {},
    )


def configs_of(about: Mapping[str, Any], events: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the configuration of each phase, the run's own first."""
    texts = [about.get("config"), *events.get("config", ())]
    return [config for text in dict.fromkeys(map(as_text, texts)) if (config := config_of(text))]


def as_text(value: object) -> str:
    """Return a text as it is, and anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)

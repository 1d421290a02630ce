"""Read the points of a run in the order, and on the axes, in which they are judged and drawn."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from gatewatch.collector import schema
from gatewatch.jobs.findings.axis import (
    Axis,
    axes_of,
    in_market_time,
    in_step_order,
    market_phases,
    spans_of,
    walked_again,
)
from gatewatch.jobs.findings.series import Key, Row, by_series, config_of, layer_order, one_detector, table

if TYPE_CHECKING:
    from gatewatch.collector.store.base import Store
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
        rows: the table of gates.
        axes: the axes of the run.
        spans: phase → its first and last moment.
        market: the phases in market time; `again`: those of them in which market time went back.
        configs: the configuration of each phase, the run's own first.
        layers: names of the network's layers, in its order.
        is_going: whether the run has not ended, as far as its events say.
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
    rows: Sequence[Row]
    axes: Sequence[Axis]
    spans: Mapping[str, tuple[Any, Any]]
    market: frozenset[str]
    again: frozenset[str]
    configs: Sequence[Mapping[str, Any]]
    layers: Sequence[str]
    is_going: bool

    @property
    def axis_of(self) -> dict[str, Axis]:
        """Phase → its axis."""
        return {phase: axis for axis in self.axes for phase in axis.phases}

    @property
    def shown_scores(self) -> pd.DataFrame:
        """The scores of the detector that is shown, in order of time."""
        return one_detector(self.all_scores)[1]


def read_points(store: Store, about: Mapping[str, Any], *, units: bool = False, start: Time | None = None) -> RunPoints:
    """Read the points of a run.

    Args:
        store: where they are.
        about: the run's row of `store.runs()`.
        units: whether those of `gate_units` are read too.
        start: only points at this time or later, beside the run's events; None: all.

    Raises:
        WriteUnavailable: the store does not answer.
    """
    run = str(about["run"])
    events = store.find(schema.RUNS, run=run, prefix_tags=True)
    read = partial(store.find, run=run, start=start, prefix_tags=True)
    metrics, captures = map(read, (schema.TRAIN_METRICS, schema.GATE_STATS))
    derived, scored, updates = map(read, (schema.GATE_DERIVED, schema.GATE_SCORES, schema.LAYER_UPDATES))
    by_unit = read(schema.GATE_UNITS) if units else pd.DataFrame()
    market = market_phases(events, captures, metrics)
    metrics, captures, scored, updates, by_unit = (
        in_market_time(frame, market, events) for frame in (metrics, captures, scored, updates, by_unit)
    )
    again = walked_again(market, captures, metrics)
    metrics, captures, scored, updates, by_unit = (
        in_step_order(frame, again) for frame in (metrics, captures, scored, updates, by_unit)
    )
    spans = spans_of(captures, metrics, updates, one_detector(scored)[1], by_unit)
    configs = configs_of(about, events)
    layers = layer_order(configs)
    detector, shown = one_detector(scored)
    stats, by_gate, scores = (by_series(frame, layers=layers) for frame in (captures, derived, shown))
    return RunPoints(
        events,
        metrics,
        captures,
        all_scores=scored,
        detector=detector,
        stats=stats,
        derived=by_gate,
        scores=scores,
        updates=by_series(updates, "param", layers),
        units=by_series(by_unit, layers=layers),
        rows=table(stats, by_gate, scores),
        axes=axes_of(spans, market - again),
        spans=spans,
        market=market,
        again=again,
        configs=configs,
        layers=layers,
        is_going=about.get("state") in schema.GOING_EVENTS,
    )


def configs_of(about: Mapping[str, Any], events: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the configuration of each phase, the run's own first."""
    texts = [about.get("config"), *events.get("config", ())]
    return [config for text in dict.fromkeys(map(as_text, texts)) if (config := config_of(text))]


def as_text(value: object) -> str:
    """Return a text as it is, and anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)

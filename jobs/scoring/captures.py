"""The captures of a run: which series it has, in groups that are scored together, and their points as arrays."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from gatewatch.collector.names import MARKET_PHASES, PHASES, clean_name
from gatewatch.collector.schema import (
    FEED_FEATURES,
    FEED_STATS,
    FEED_STATS_FIELDS,
    GATE_STATS,
    GATE_STATS_FIELDS,
    GATE_UNITS,
    HISTOGRAM_FIELDS,
    LAYER_UPDATES,
    LAYER_UPDATES_FIELDS,
    RECURRENT_STATE,
    RECURRENT_STATE_FIELDS,
    REFERENCE_LOOK,
    TRAIN_METRICS,
)
from gatewatch.collector.store import Store
from gatewatch.jobs.frames import rank, times
from gatewatch.jobs.scoring.capture_tables import (
    Array,
    Pair,
    Times,
    by_field,
    by_pair,
    by_tag,
    logged_metrics,
    numbered,
    reference_look,
)

__all__ = ["Array", "Captures", "Pair", "SeriesGroup", "Times", "captures", "feature_names", "series_groups"]

if TYPE_CHECKING:
    import pandas as pd

Key = TypeVar("Key")

NEVER: Final = -(2**63)
"""Before any time."""
MEASUREMENTS: Final = (
    GATE_STATS,
    GATE_UNITS,
    LAYER_UPDATES,
    TRAIN_METRICS,
    FEED_STATS,
    FEED_FEATURES,
    RECURRENT_STATE,
)
"""The measurements that captures are made of, in the order in which `captures` takes them."""
_BINS: Final = [GATE_STATS_FIELDS.index(name) for name in HISTOGRAM_FIELDS]
_OF_SERIES: Final = ("layer", "gate")


@dataclass(frozen=True, slots=True)
class Captures:
    """The n captures of one run, phase and combination of the user's tags; NaN where a capture has no value.

    Attributes:
        tags: run, phase and the user's own, without layer and gate.
        time: (n,), nanoseconds, ascending.
        step: (n,), of the training.
        gates: (layer, gate) → (n, fields), in the order of `GATE_STATS_FIELDS`.
        units: (layer, gate) → (n, units), mean activations; units without any value are left out.
        updates: (layer, param) → (n, fields), in the order of `LAYER_UPDATES_FIELDS`.
        metrics: name → (n,), the first value that was logged at the capture's step, at the capture's time or later;
            where there is none, the last value that was logged at that step before.
        feed: field of `feed_stats` → (n,); empty where the feed is not recorded.
        features: statistic of `feed_features` → (n, features).
        state: layer → (n, fields), in the order of `RECURRENT_STATE_FIELDS`.
        feature_names: of the columns of the feed, as far as the user gave them.
        reference_look: (layer, gate) → (n, F), what its gates did with a fixed probe: mean, std, percentiles, whether
            any was not finite (0 or 1), and the mean activations of its units; empty where there was no such look.
        reference: `feature_sizes` and `feature_looks` of the training that this phase is compared with, in the order
            of these features; empty where it is compared with none.
    """

    tags: Mapping[str, str]
    time: Times
    step: Array
    gates: Mapping[Pair, Array]
    units: Mapping[Pair, Array]
    updates: Mapping[Pair, Array]
    metrics: Mapping[str, Array]
    feed: Mapping[str, Array] = field(default_factory=dict)
    features: Mapping[str, Array] = field(default_factory=dict)
    state: Mapping[str, Array] = field(default_factory=dict)
    feature_names: Sequence[str] = ()
    reference: Mapping[str, Array] = field(default_factory=dict)
    reference_look: Mapping[Pair, Array] = field(default_factory=dict)

    def statistic(self, series: Pair, name: str) -> Array:
        """Return (n,), a field of `gate_stats` of a layer's gate."""
        return np.asarray(self.gates[series][:, GATE_STATS_FIELDS.index(name)])

    def update(self, series: Pair, name: str) -> Array:
        """Return (n,), a field of `layer_updates` of a layer's parameter."""
        return np.asarray(self.updates[series][:, LAYER_UPDATES_FIELDS.index(name)])

    def recurrent_state(self, layer: str, name: str) -> Array:
        """Return (n,), a field of `recurrent_state` of a layer."""
        return np.asarray(self.state[layer][:, RECURRENT_STATE_FIELDS.index(name)])

    def feature_name(self, index: int) -> str:
        """Return the name of a column of the feed: the user's own, or that of its field, such as `f003`."""
        return self.feature_names[index] if index < len(self.feature_names) else f"f{index:03d}"

    def histograms(self, series: Pair) -> Array:
        """Return (n, bins), the histograms of a layer's gate: shares of its activations."""
        return self.gates[series][:, _BINS]

    def part(self, first: int, stop: int | None = None) -> Captures:
        """Return the captures from index `first` up to, not including, `stop`."""
        chosen = slice(first, stop)
        gates, units, updates = (_rows(table, chosen) for table in (self.gates, self.units, self.updates))
        metrics, feed, features, state = (
            _rows(table, chosen) for table in (self.metrics, self.feed, self.features, self.state)
        )
        return Captures(
            tags=self.tags,
            time=self.time[chosen],
            step=self.step[chosen],
            gates=gates,
            units=units,
            updates=updates,
            metrics=metrics,
            feed=feed,
            features=features,
            state=state,
            feature_names=self.feature_names,
            reference=self.reference,
            reference_look=_rows(self.reference_look, chosen),
        )

    def captured(self, series: Pair) -> NDArray[np.bool_]:
        """Return (n,), whether a capture has a point of this layer's gate."""
        return np.isfinite(self.statistic(series, "step"))


def captures(
    tags: Mapping[str, str],
    *frames: pd.DataFrame,
    feature_names: Sequence[str] = (),
    reference: Mapping[str, Array] | None = None,
    look: Sequence[pd.DataFrame] = (),
) -> Captures | None:
    """Return the captures of a group of series; None where its points make none.

    Args:
        tags: the tags that the group shares.
        frames: its points of `MEASUREMENTS`, in that order, read with `prefix_tags`; the last ones may be missing.
        feature_names: of the columns of the feed.
        reference: the sizes of these features in the training that they are compared with.
        look: the points of the reference look, of `gate_stats` and `gate_units`; empty: there was none.
    """
    points = dict(zip(MEASUREMENTS, frames, strict=False))
    stats = points[GATE_STATS]
    if not {"layer", "gate", "step"} <= set(stats.columns) or (stats := stats[stats["step"].notna()]).empty:
        return None
    time = np.unique(times(stats))
    gates = by_pair(stats, time, "gate", GATE_STATS_FIELDS)
    steps = np.stack([values[:, GATE_STATS_FIELDS.index("step")] for values in gates.values()])
    step = np.max(np.where(np.isfinite(steps), steps, -np.inf), axis=0)
    units, features = points.get(GATE_UNITS), points.get(FEED_FEATURES)
    return Captures(
        tags=tags,
        time=time,
        step=step,
        gates=gates,
        units={
            series: values[:, present]
            for series, values in by_pair(units, time, "gate", numbered(units, "u")).items()
            if (present := np.isfinite(values).any(axis=0)).any()
        },
        updates=by_pair(points.get(LAYER_UPDATES), time, "param", LAYER_UPDATES_FIELDS),
        metrics=logged_metrics(points.get(TRAIN_METRICS), time, step),
        feed=by_field(points.get(FEED_STATS), time, FEED_STATS_FIELDS),
        features=by_tag(features, time, "statistic", numbered(features, "f")),
        state=by_tag(points.get(RECURRENT_STATE), time, "layer", RECURRENT_STATE_FIELDS),
        feature_names=tuple(feature_names),
        reference=reference or {},
        reference_look=reference_look(time, *look) if look else {},
    )


def _rows(table: Mapping[Key, Array], chosen: slice) -> dict[Key, Array]:
    return {key: values[chosen] for key, values in table.items()}


def feature_names(config: object) -> tuple[str, ...]:
    """Return the names of the feed's columns, from the configuration of a run as it is stored: JSON, or nothing."""
    try:
        names = json.loads(config)["feature_names"] if isinstance(config, str) else []
    except (ValueError, RecursionError, TypeError, KeyError):
        return ()
    return tuple(clean_name(str(name)) for name in names) if isinstance(names, list) else ()


@dataclass(slots=True)
class SeriesGroup:
    """The series of a run that share phase and the user's tags.

    Attributes:
        tags: the tags that they share.
        only: these tags, and an empty value for each tag that only other series of the run have.
        series: tags and number of points of each series.
        points: number of points of all series together.
        newest: time of the newest point.
    """

    tags: Mapping[str, str]
    only: dict[str, str]
    series: list[tuple[Mapping[str, str], int]] = field(default_factory=list)
    points: int = 0
    newest: int = NEVER

    @property
    def phase(self) -> str:
        """The phase, empty for none."""
        return self.tags.get("phase", "")

    @property
    def looks(self) -> list[tuple[str, dict[str, str]]]:
        """Measurement and tags of the points of the reference look, where such a phase may have one: see `captures`."""
        if self.phase not in MARKET_PHASES:
            return []
        return [(name, {**self.only, **REFERENCE_LOOK}) for name in (GATE_STATS, GATE_UNITS)]

    @property
    def gates(self) -> tuple[Pair, ...]:
        """The layers and gates of the network."""
        return tuple(sorted({(tags.get("layer", ""), tags.get("gate", "")) for tags, _ in self.series}))

    def in_phase(self, phase: str) -> str:
        """Return the name of the group that differs from this one only in its phase."""
        return repr(sorted((self.only | {"phase": phase}).items()))


def series_groups(store: Store, run: str) -> list[SeriesGroup]:
    """Return the groups of a run, in the order of their phases."""
    tallies = store.series(GATE_STATS, "step", run)
    names = sorted({name for tally in tallies for name in tally.tags if name not in _OF_SERIES})
    groups: dict[tuple[str, ...], SeriesGroup] = {}
    for tally in tallies:
        shared = {name: value for name, value in tally.tags.items() if name not in _OF_SERIES}
        only = {name: shared.get(name, "") for name in names}
        group = groups.setdefault(tuple(only.values()), SeriesGroup(shared, only))
        group.series.append((tally.tags, tally.points))
        group.points += tally.points
        group.newest = max(group.newest, tally.newest)
    return sorted(groups.values(), key=lambda group: (rank(group.phase, PHASES), sorted(group.only.items())))

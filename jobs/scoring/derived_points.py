"""The `gate_derived` points of captures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from gatewatch.collector.cells import MEMORY_GATES, gate_scale
from gatewatch.collector.schema import GATE_DERIVED, GATE_STATS_FIELDS, HISTOGRAM_FIELDS, FieldValue, Point
from gatewatch.jobs.scoring import metrics as derive
from gatewatch.jobs.scoring.captures import Captures, Pair
from gatewatch.jobs.scoring.signals import MODEL

if TYPE_CHECKING:
    import pandas as pd

    from gatewatch.jobs.baselines import Normal

Array = NDArray[np.floating[Any]]

LOOK_BACK: Final = derive.LOOK_BACK + derive.VOLATILITY_STEPS
"""How many captures before the one that is spoken of are needed."""
ALL_UNITS: Final = 64
"""A layer of fewer units tells each; past that a share of dead ones is not known."""
_PRICE: Final = "price"


def derived_points(captures: Captures, new: int, normal: Normal | None = None) -> Iterator[Point]:
    """The points of the newest captures: of each layer and gate, and of each layer and parameter.

    Args:
        captures: those that are asked for, and before them `LOOK_BACK` where there are as many.
        new: how many are asked for.
        normal: the baselines.
    """
    first = len(captures.time) - new
    starts = captures.time[np.maximum(np.arange(first, first + new) - derive.RANK_CAPTURES + 1, 0)]
    window = (captures.time[first:] - starts) / 1e9
    newest = captures.part(first)
    for series in captures.gates:
        fields = _of_gate(captures, newest, series, normal)
        dead = newest.statistic(series, "dead_units")
        yield from _points(newest, series, fields | {"window_s": window}, {"dead_units": dead}, newest.captured(series))
    for series in captures.updates:
        norm = captures.update(series, "gradient_norm")
        fields = {
            "gradient_ratio": derive.gradient_ratio(norm, newest=new),
            "update_band": derive.update_band(newest.update(series, "update_ratio")),
            "gradient_state": derive.gradient_state(norm, newest=new),
        }
        yield from _points(newest, series, fields, {}, np.ones(new, dtype=bool))


def gap_points(metrics: pd.DataFrame, tags: Mapping[str, str]) -> Iterator[Point]:
    """The generalisation gap of the whole model, wherever a loss and a validation loss were logged.

    Args:
        metrics: points of `train_metrics` of one run, phase and combination of the user's tags, oldest first,
            read with `prefix_tags`.
        tags: theirs.
    """
    if not {"loss", "val_loss"} <= set(metrics.columns):
        return
    loss, val_loss = (metrics[name].to_numpy(dtype=float, na_value=np.nan) for name in ("loss", "val_loss"))
    gaps = derive.generalisation_gap(loss, val_loss)
    times = metrics["time"].to_numpy(dtype="datetime64[ns]").astype(np.int64)
    for k in np.flatnonzero(np.isfinite(gaps)):
        yield Point(
            GATE_DERIVED,
            {**tags, "layer": MODEL, "gate": "loss"},
            {"generalisation_gap": float(gaps[k])},
            int(times[k]),
        )


def _of_gate(captures: Captures, newest: Captures, series: Pair, normal: Normal | None) -> dict[str, Array]:
    layer, gate = series
    new = len(newest.time)
    bins = [GATE_STATS_FIELDS.index(name) for name in HISTOGRAM_FIELDS]
    low, high = (captures.statistic(series, name) for name in ("saturated_low", "saturated_high"))
    found = {
        "saturation": derive.saturation(low, high)[-new:],
        "saturation_change": derive.saturation_change(low, high, newest=new),
        "drift": derive.drift(captures.gates[series][:, bins], newest=new),
        "entropy_trend": derive.entropy_trend(captures.statistic(series, "entropy"), newest=new),
    }
    if normal is not None and (usual := normal.histograms(series, newest.step)) is not None:
        found["drift_baseline"] = derive.drift_from(newest.gates[series][:, bins], usual)
    if gate in MEMORY_GATES:
        found["memory_timescale"] = derive.memory_timescale(newest.statistic(series, "mean"))
    if (units := captures.units.get(series)) is not None:
        scale = gate_scale(gate)
        found["effective_rank"] = derive.effective_ranks(units, newest=new)
        found["frozen_units"] = derive.frozen_share(units, scale.high - scale.low, newest=new)
        known = np.isfinite(newest.units[series]).sum(axis=1)
        every = np.where(known < ALL_UNITS, known, 0)
        found["dead_share"] = derive.dead_share(newest.statistic(series, "dead_units"), every)
        if gate == "forget" and (given := newest.units.get((layer, "input"))) is not None:
            found["input_forget_coupling"] = derive.input_forget_coupling(given, newest.units[series])
    if _PRICE in captures.metrics:
        volatility = derive.volatility(captures.metrics[_PRICE])
        mean = captures.statistic(series, "mean")
        found["regime_sensitivity"] = derive.regime_sensitivity(mean, volatility, newest=new)
    return found


def _points(
    newest: Captures,
    series: Pair,
    fields: Mapping[str, Array],
    counts: Mapping[str, Array],
    there: NDArray[np.bool_],
) -> Iterator[Point]:
    tags = {**newest.tags, "layer": series[0], "gate": series[1]}
    columns = {name: (np.isfinite(values), values.tolist()) for name, values in fields.items()}
    whole = {name: (np.isfinite(values), values) for name, values in counts.items()}
    for k in np.flatnonzero(there):
        values: dict[str, FieldValue] = {name: column[k] for name, (known, column) in columns.items() if known[k]}
        values |= {name: int(column[k]) for name, (known, column) in whole.items() if known[k]}
        if values:
            yield Point(GATE_DERIVED, tags, values, int(newest.time[k]))

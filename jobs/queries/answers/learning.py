"""Questions about how a run learns: its losses, gradients and updates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from gatewatch.collector.schema import GATE_DERIVED, LAYER_UPDATES, TRAIN_METRICS
from gatewatch.jobs.queries.answers.points import Points, summary

_PARAM = ("layer", "param")
_PHASE = ("run", "phase")


def gradients(points: Points, values: Mapping[str, Any]) -> pd.DataFrame:
    """Answer `gradients`."""
    norm, state = "gradient_norm", "gradient_state"
    norms = points.read(LAYER_UPDATES, [norm], runs=[values["run"]])
    states = points.read(GATE_DERIVED, [state], runs=[values["run"]])
    states = states[states[state].notna()].assign(param=states["gate"])
    states = states.assign(down=(states[state] == -1).astype(int), up=(states[state] == 1).astype(int))
    sizes = {"captures": (norm, "count"), "smallest": (norm, "min"), "largest": (norm, "max")}
    counts = summary(states, _PARAM, vanished=("down", "sum"), exploded=("up", "sum"))
    found = summary(norms, _PARAM, **sizes).merge(counts, on=list(_PARAM), how="outer")
    whole = dict.fromkeys(("captures", "vanished", "exploded"), "Int64")
    return found.astype(whole).sort_values(list(_PARAM))


def updates(points: Points, values: Mapping[str, Any]) -> pd.DataFrame:
    """Answer `updates`."""
    ratio = "update_ratio"
    frame = points.read(LAYER_UPDATES, [ratio], runs=[values["run"]])
    frame = frame[frame[ratio].notna()]
    frame = frame.assign(
        slow=(frame[ratio] < values["slow"]).astype(int), fast=(frame[ratio] > values["fast"]).astype(int)
    )
    counts = {"captures": (ratio, "count"), "too_slow": ("slow", "sum"), "too_fast": ("fast", "sum")}
    return summary(frame, _PARAM, **counts, median=(ratio, "median"), last=(ratio, "last"))


def generalisation(points: Points, values: Mapping[str, Any]) -> pd.DataFrame:
    """Answer `generalisation`."""
    metrics = points.read(TRAIN_METRICS, ["val_loss", "epoch", "step"], runs=values["runs"])
    metrics = metrics[metrics["val_loss"].notna()].reset_index(drop=True)
    best = metrics.loc[metrics.groupby(list(_PHASE))["val_loss"].idxmin()].assign(best=lambda rows: rows["val_loss"])
    gaps = points.read(GATE_DERIVED, ["generalisation_gap"], runs=values["runs"])
    newest = summary(metrics, _PHASE, last=("val_loss", "last"))
    newest = newest.merge(summary(gaps, _PHASE, gap=("generalisation_gap", "last")), on=list(_PHASE), how="left")
    return best.merge(newest, on=list(_PHASE)).sort_values(list(_PHASE))

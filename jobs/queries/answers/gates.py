"""Questions about the gates of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from gatewatch.collector.schema import GATE_DERIVED, GATE_STATS
from gatewatch.collector.store.columns import TAG
from gatewatch.jobs.queries.answers.points import Points, as_moments, nanoseconds_of, summary, time_of

_GATE = ("phase", "layer", "gate")


def gates(points: Points, values: Mapping[str, Any]) -> pd.DataFrame:
    """Answer `gates`."""
    frame = points.read(GATE_STATS, [values["statistic"]], runs=[values["run"]])
    for name, tag in (("layers", "layer"), ("gates", "gate")):
        frame = frame[frame[tag].isin(values[name])] if values[name] else frame
    every = nanoseconds_of(values["every"])
    window = (time_of(frame) // every * every).clip(lower=points.start)
    averaged = summary(frame.assign(window=window), [*_GATE, "window"], value=(values["statistic"], "mean"))
    averaged["time"] = as_moments(averaged["window"])
    return averaged


def layer_at_step(points: Points, values: Mapping[str, Any]) -> pd.DataFrame:
    """Answer `layer-at-step`."""
    tags = {"layer": values["layer"], "phase": values["phase"]}
    frame = points.read(GATE_STATS, None, runs=[values["run"]], tags=tags)
    if "step" not in frame:
        return frame.iloc[:0]
    before = frame[frame["step"] <= values["step"]]
    at_step: pd.DataFrame = before[before["time"] == before["time"].max()]
    return at_step.sort_values("gate")


def memory(points: Points, values: Mapping[str, Any]) -> pd.DataFrame:
    """Answer `memory`."""
    field = "memory_timescale"
    frame = points.read(GATE_DERIVED, [field], runs=[values["run"]])
    ends = {"first": (field, "first"), "last": (field, "last"), "lowest": (field, "min"), "highest": (field, "max")}
    return summary(frame, ("phase", "layer"), **ends, captures=(field, "count"))


def dead_units(points: Points, values: Mapping[str, Any]) -> pd.DataFrame:
    """Answer `dead-units`."""
    fields = ["dead_units", "dead_share", "frozen_units"]
    frame = points.read(GATE_DERIVED, fields, runs=[values["run"]])
    return summary(frame, _GATE, **{name: (name, "last") for name in fields})


def saturation_by(points: Points, values: Mapping[str, Any]) -> pd.DataFrame:
    """Answer `saturation-by`."""
    field, tag = "saturation", values["tag"]
    frame = points.read(GATE_DERIVED, [field], runs=values["runs"])
    column = tag if tag in frame and not tag.startswith(TAG) and tag != field else f"{TAG}{tag}"
    if column not in frame:
        return frame.iloc[:0]
    frame = frame.assign(value=frame[column].fillna(""))
    frame = frame[frame["value"] != ""]
    return summary(frame, ("value", "gate"), mean=(field, "mean"), highest=(field, "max"), captures=(field, "count"))

"""Questions about runs, and about what records and scores them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from gatewatch.collector.schema import (
    ALERT_EVENTS,
    COLLECTOR_HEALTH,
    DIED_SECONDS,
    GATE_SCORES,
    GOING_EVENTS,
    JOBS_HEALTH,
    RUNS,
    SCHEMA,
    TRAIN_METRICS,
)
from gatewatch.jobs.frames import not_finite
from gatewatch.jobs.queries.answers.points import NAN, Points, as_moments, summary, time_of

_PHASE: Final = ["run", "phase"]
_SECOND: Final = 1_000_000_000


def runs(points: Points, values: Mapping[str, Any]) -> pd.DataFrame:
    """Answer `runs`."""
    events = points.read(RUNS, ["event", "step"])
    told = events[events["event"].notna()].assign(at=time_of)
    begun = events[events["step"].notna()].assign(at=time_of)
    last = summary(told, _PHASE, event=("event", "last"), last_seen=("at", "last"))
    found = last.merge(summary(begun, _PHASE, started=("at", "first"), step=("step", "last")), on=_PHASE)
    scores = points.read(GATE_SCORES, ["anomaly_score"], tags={"detector": "consensus"})
    newest = summary(scores, [*_PHASE, "layer", "gate"], score=("anomaly_score", "last"))
    found = found.merge(_losses(points), on=_PHASE, how="left")
    found = found.merge(summary(newest, _PHASE, score=("score", "max")), on=_PHASE, how="left")
    silent = points.stop // _SECOND - found["last_seen"] // _SECOND > DIED_SECONDS
    found["state"] = found["event"].where(~found["event"].isin(GOING_EVENTS), np.where(silent, "died", "live"))
    for name in ("started", "last_seen"):
        found[name] = as_moments(found[name] // _SECOND * _SECOND)
    return found.sort_values(_PHASE)


def _losses(points: Points) -> pd.DataFrame:
    """Return the newest losses of each run and phase."""
    metrics = points.read(TRAIN_METRICS, ["loss", "val_loss", "nan_count", "inf_count"])
    at, finite = time_of(metrics).astype("Int64"), metrics["loss"].notna()
    metrics = metrics.assign(finite=at.where(finite), broken=at.where(not_finite(metrics) > 0))
    losses = {"loss": ("loss", "last"), "val_loss": ("val_loss", "last")}
    found = summary(metrics, _PHASE, **losses, finite=("finite", "last"), broken=("broken", "last"))
    found[f"{NAN}loss"] = found["broken"].notna() & (found["broken"] > found["finite"]).fillna(True)
    return found


def collector(points: Points, values: Mapping[str, Any]) -> pd.DataFrame:
    """Answer `collector`."""
    fields = [field.name for field in SCHEMA[COLLECTOR_HEALTH]]
    frame = points.read(COLLECTOR_HEALTH, fields)
    frame = frame.assign(at=time_of(frame).astype("Int64").where(frame["captured"].notna()))
    found = summary(frame, _PHASE, **{name: (name, "last") for name in fields}, at=("at", "last"))
    found = found[found["at"].notna()]
    return found.assign(time=as_moments(found["at"].astype("int64")))


def jobs(points: Points, values: Mapping[str, Any]) -> pd.DataFrame:
    """Answer `jobs`."""
    fields = [field.name for field in SCHEMA[JOBS_HEALTH]]
    frame = points.read(JOBS_HEALTH, fields)
    newest = frame.groupby("job", as_index=False).tail(1)
    return newest.sort_values("job")


def alerts(points: Points, values: Mapping[str, Any]) -> pd.DataFrame:
    """Answer `alerts`."""
    frame = points.read(ALERT_EVENTS, None)
    frame = frame[frame["rule"].isin(values["rules"])] if values["rules"] else frame
    return frame.sort_values("time", ascending=False, kind="stable")

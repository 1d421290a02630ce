"""Questions about the market that a policy walks through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from gatewatch.collector.schema import GATE_DERIVED, TRAIN_METRICS
from gatewatch.jobs.frames import numbers
from gatewatch.jobs.queries.answers.points import Points, after, as_moments, summary, time_of


def regimes(points: Points, values: Mapping[str, Any]) -> pd.DataFrame:
    """Answer `regimes`."""
    field = "regime_sensitivity"
    frame = points.read(GATE_DERIVED, [field], runs=[values["run"]])
    by = ("phase", "layer", "gate")
    return summary(frame, by, mean=(field, "mean"), last=(field, "last"), captures=(field, "count"))


def drawdown(points: Points, values: Mapping[str, Any]) -> pd.DataFrame:
    """Answer `drawdown`."""
    tags = {"phase": values["phase"]}
    curve = points.read(TRAIN_METRICS, [values["curve"]], runs=[values["run"]], tags=tags)
    level = numbers(curve, values["curve"])
    at, level = time_of(curve).to_numpy()[np.isfinite(level)], level[np.isfinite(level)]
    highest = np.maximum.accumulate(level)
    falls = highest - level
    if not (falls > 0).any():
        return pd.DataFrame()
    trough = int(np.argmax(falls))
    peak = int(np.argmax(level == highest[trough]))
    drift = points.read(GATE_DERIVED, ["drift"], runs=[values["run"]], tags=tags)
    time = time_of(drift)
    ahead = (time >= after(int(at[peak]), values["before"], -1)) & (time < at[peak])
    by = ("layer", "gate")
    found = summary(drift[ahead], by, before=("drift", "mean")).merge(
        summary(drift[~ahead], by, usual=("drift", "mean")), on=list(by)
    )
    ends = as_moments(pd.Series([at[peak], at[trough]]))
    found = found.assign(
        peak=ends[0], trough=ends[1], fall=float(falls[trough]), times=found["before"] / found["usual"]
    )
    return found.sort_values(["times", *by], ascending=False)

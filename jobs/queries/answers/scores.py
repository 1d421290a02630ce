"""Questions about the scores of runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from gatewatch.collector.schema import GATE_SCORES, GATE_STATS
from gatewatch.jobs.queries.answers.points import Points, summary, time_of

_SERIES = ["run", "phase", "layer", "gate"]
_PHASE = ["run", "phase"]
_CONSENSUS: Mapping[str, str] = {"detector": "consensus"}
_UNITS = (("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000))
_SMALL = (("ms", 1_000_000), ("us", 1_000), ("ns", 1))


def anomalies(points: Points, values: Mapping[str, Any]) -> pd.DataFrame:
    """Answer `anomalies`."""
    frame = points.read(GATE_SCORES, None, runs=values["runs"], tags=_CONSENSUS)
    if "anomaly_score" not in frame:
        return frame.iloc[:0]
    frame = frame[frame["anomaly_score"] > 1]
    return frame.assign(score=frame["anomaly_score"]).sort_values(["time", *_SERIES])


def first_anomaly(points: Points, values: Mapping[str, Any]) -> pd.DataFrame:
    """Answer `first-anomaly`: of several at one time what is no layer of the network, then the highest score."""
    frame = points.read(GATE_SCORES, ["anomaly_score", "step", "source"], runs=values["runs"], tags=_CONSENSUS)
    frame = frame[frame["anomaly_score"] > 1].assign(score=lambda rows: rows["anomaly_score"])
    frame = frame.assign(inside=~frame["layer"].fillna("").str.startswith("_"))
    order = {"time": True, "inside": True, "score": False, "layer": True, "gate": True}
    frame = frame.sort_values([*order], ascending=[*order.values()])
    first = frame.groupby(_PHASE, as_index=False).head(1)
    captures = points.read(GATE_STATS, ["step"], runs=values["runs"])
    began = summary(captures[captures["step"].notna()], _PHASE, began=("time", "min"))
    found = first.merge(began, on=_PHASE)
    found["after"] = [_span(span) for span in (time_of(found) - time_of(found, "began"))]
    return found.sort_values(_PHASE)


def worst_layers(points: Points, values: Mapping[str, Any]) -> pd.DataFrame:
    """Answer `worst-layers`."""
    frame = points.read(GATE_SCORES, ["anomaly_score", "anomalous"], tags=_CONSENSUS).reset_index(drop=True)
    frame = frame[frame["anomaly_score"].notna()]
    ends = {"worst": ("anomaly_score", "max"), "anomalous": ("anomalous", "sum"), "scored": ("anomalous", "count")}
    found = summary(frame, _SERIES, **ends)
    worst = frame.loc[frame.groupby(_SERIES)["anomaly_score"].idxmax()][[*_SERIES, "time"]]
    found = found.merge(worst.rename(columns={"time": "when"}), on=_SERIES)
    return found.sort_values("worst", ascending=False, kind="stable").head(values["top"])


def _span(nanoseconds: int) -> str:
    """Return a length of time as Flux writes it, such as `1h20m` or `3w2d`."""
    units = (("w", 604_800_000_000_000), ("d", 86_400_000_000_000), *_UNITS, *_SMALL)
    left, parts = abs(int(nanoseconds)), []
    for unit, length in units:
        amount, left = divmod(left, length)
        parts += [f"{amount}{unit}"] if amount else []
    return "-" * (nanoseconds < 0) + ("".join(parts) or "0ns")

"""What a point may be: every measurement and every field, once, with its type, its unit and its hourly aggregate.

A point that any part of Gatewatch makes has only fields that a row here declares: the tests hold every writer to it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from gatewatch.collector.names import RESERVED_NAMES, backslash_problem, name_problem
from gatewatch.collector.text import safe_repr

GATE_STATS: Final = "gate_stats"
GATE_UNITS: Final = "gate_units"
GATE_TIME: Final = "gate_time"
LAYER_UPDATES: Final = "layer_updates"
FEED_STATS: Final = "feed_stats"
FEED_FEATURES: Final = "feed_features"
FEED_GROUPS: Final = "feed_groups"
RECURRENT_STATE: Final = "recurrent_state"
TRAIN_METRICS: Final = "train_metrics"
RUNS: Final = "runs"
COLLECTOR_HEALTH: Final = "collector_health"
GATE_DERIVED: Final = "gate_derived"
GATE_SCORES: Final = "gate_scores"
JOBS_HEALTH: Final = "jobs_health"
ALERT_EVENTS: Final = "alert_events"
BASELINES: Final = "baselines"

LOOK: Final = "look"
"""The tag of what was looked at besides a window; the points of windows, and of a probe alone, have none."""
REFERENCE_LOOK: Final[Mapping[str, str]] = MappingProxyType({LOOK: "reference"})
"""The tag of the points of the fixed probe, where a backtest or a live phase looks at its windows too."""
LOOKED_AT: Final = (GATE_STATS, GATE_UNITS, GATE_TIME)
"""The measurements of a look, which alone have that tag."""

HEARTBEAT_SECONDS: Final = 30.0
"""How often a run says that it lives."""
DIED_SECONDS: Final = 4 * HEARTBEAT_SECONDS
"""A run without an event for longer, and without a final one, has died or cannot reach the store."""
GOING_EVENTS: Final = ("started", "resumed", "heartbeat")
"""The events of a run that has not ended."""
HISTOGRAM_BINS: Final = 20
HISTOGRAM_FIELDS: Final = tuple(f"hist_{i:02d}" for i in range(HISTOGRAM_BINS))
MAX_PROFILE: Final = 64
"""The most fields of `gate_units` (units or groups of units), of `gate_time` (positions or bins of them) and of
`feed_features` (features)."""

MAX_TEXT_BYTES: Final = 2**20
"""The longest text that InfluxDB takes as a field."""

FieldValue = float | int | bool | str


@dataclass(frozen=True, slots=True)
class Point:
    """One row of the store. Measurement, tags and time identify it.

    Attributes:
        measurement: one of the names above.
        tags: tag name → value. An empty value is no tag.
        fields: field name → value, at least one. Python's own types only: a numpy scalar is converted first.
        time: nanoseconds since the Unix epoch.
    """

    measurement: str
    tags: Mapping[str, str]
    fields: Mapping[str, FieldValue]
    time: int


Hourly = Literal["mean", "max", "last"]


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a measurement, or a family of fields.

    Attributes:
        name: as it is stored; of a family a pattern of `fnmatch`, such as `u[0-9][0-9][0-9]` or `why_*`.
        type: of its values: float, int, bool or str.
        unit: of its values, for people; empty for a plain number.
        hourly: what the hourly aggregates keep of an hour: the mean, the largest or the last value; None where the
            measurement or the field is not aggregated.
    """

    name: str
    type: type
    unit: str = ""
    hourly: Hourly | None = None


def _floats(unit: str, *names: str) -> list[Field]:
    return [Field(name, float, unit, "mean") for name in names]


def _worst(*names: str) -> list[Field]:
    return [Field(name, int, "values", "max") for name in names]


_STEP: Final = Field("step", int, "steps", "last")
_EPOCH: Final = Field("epoch", int, "epochs", "last")
_NOT_FINITE: Final = _worst("nan_count", "inf_count")

SCHEMA: Final[Mapping[str, tuple[Field, ...]]] = MappingProxyType(
    {
        GATE_STATS: (
            *_floats("", "mean", "std", "p05", "p50", "p95"),
            *_floats("share", "saturated_low", "saturated_high"),
            *_floats("bits", "entropy"),
            *_floats("share", "zero_crossing_rate"),
            Field("dead_units", int, "units", "max"),
            *_NOT_FINITE,
            *_floats("share", *HISTOGRAM_FIELDS),
            _STEP,
            _EPOCH,
        ),
        GATE_UNITS: (*_floats("", "u[0-9][0-9][0-9]"), _STEP),
        GATE_TIME: (*_floats("", "t[0-9][0-9][0-9]"), _STEP),
        LAYER_UPDATES: (
            *_floats("", "gradient_norm", "gradient_norm_clipped", "weight_norm", "update_norm"),
            *_floats("share", "update_ratio", "update_frequency"),
            Field("rounded_share", float, "share", "max"),
            *_floats("", "travel", "travel_limit", "rate_sum", "moment_sum"),
            *_floats("share a step", "moment_decay"),
            Field("travel_steps", int, "steps", "mean"),
            Field("optimizer_steps", int, "steps", "mean"),
            Field("step_count", int, "steps", "last"),
            Field("zero_count", int, "values", "mean"),
            *_NOT_FINITE,
            _STEP,
        ),
        FEED_STATS: (
            *_floats("share", "nan_share", "inf_share", "targets_not_finite", "clipped_share", "distinct_share"),
            Field("constant_features", int, "features", "max"),
            *_floats("correlation", "lag1", "target_correlation"),
            *_floats("distance", "distance"),
            Field("features", int, "features", "mean"),
            Field("sequences", int, "sequences", "mean"),
            Field("positions", int, "positions", "mean"),
            _STEP,
        ),
        FEED_FEATURES: (*_floats("", "f[0-9][0-9][0-9]"), _STEP),
        FEED_GROUPS: (*_floats("distance", "distance"), Field("sequences", int, "sequences", "mean"), _STEP),
        RECURRENT_STATE: (
            *_floats("", "initial_norm"),
            *(Field(name, int, "sequences", "max") for name in ("starts", "starts_not_reset")),
            *(Field(name, int, "sequences", "max") for name in ("resets", "sequences_begun")),
            Field("logprob_difference", float, "nats", "max"),
            _STEP,
        ),
        TRAIN_METRICS: (*_NOT_FINITE, _STEP, _EPOCH, Field("*", float, "", "mean")),
        GATE_DERIVED: (
            *_floats("steps", "memory_timescale"),
            *_floats("share", "saturation", "saturation_change"),
            *_floats("distance, 0 to 1", "drift", "drift_baseline"),
            *_floats("bits per capture", "entropy_trend"),
            *_floats("directions", "effective_rank"),
            *_floats("share", "frozen_units", "dead_share"),
            Field("dead_units", int, "units", "max"),
            *_floats("correlation", "input_forget_coupling", "regime_sensitivity"),
            *_floats("s", "window_s"),
            *_floats("times the median", "gradient_ratio"),
            *_floats("-1, 0 or 1", "update_band", "gradient_state"),
            *_floats("losses", "generalisation_gap"),
        ),
        GATE_SCORES: (
            Field("anomaly_score", float, "1 is the limit", "max"),
            Field("anomalous", int, "0 or 1", "max"),
            _STEP,
            Field("model_id", str),
            Field("source", str),
            *(Field(name, int, "runs") for name in ("baselines", "reached_by")),
            Field("limit_rate", float, "share of runs"),
            *_floats("1 is the limit", "why_*"),
        ),
        RUNS: (
            *(Field(name, str) for name in ("event", "session", "framework", "model", "config", "error")),
            Field("step", int),
        ),
        COLLECTOR_HEALTH: (
            *(Field(name, int, "points") for name in ("shipped", "rejected", "dropped")),
            *(Field(name, int) for name in ("captured", "failures", "unreplayed_layers")),
            Field("spooled_bytes", int, "bytes"),
            Field("capture_ms", float, "ms"),
            Field("overhead_ratio", float, "share"),
            Field("replay_error", float, "share"),
            *(Field(name, int, "steps") for name in ("every", "moved_times")),
            Field("unreplayed", str),
        ),
        JOBS_HEALTH: (
            *(Field(name, float, "s") for name in ("duration_s", "lag_s")),
            *(Field(name, int) for name in ("windows", "rows_read", "points_written", "failures", "missed")),
        ),
        ALERT_EVENTS: (
            *(Field(name, float) for name in ("value", "threshold")),
            Field("state", str),
            Field("delivered", bool),
        ),
        BASELINES: (Field("state", str),),
    }
)
"""Measurement → its fields. Where several rows match a field's name, the first one applies."""

GATE_STATS_FIELDS: Final = tuple(field.name for field in SCHEMA[GATE_STATS])
LAYER_UPDATES_FIELDS: Final = tuple(field.name for field in SCHEMA[LAYER_UPDATES])
FEED_STATS_FIELDS: Final = tuple(field.name for field in SCHEMA[FEED_STATS])
RECURRENT_STATE_FIELDS: Final = tuple(field.name for field in SCHEMA[RECURRENT_STATE])


def hourly_fields(how: Hourly) -> list[str]:
    """Return the names of the fields of which the hourly aggregates keep the mean, the largest or the last value."""
    return list(dict.fromkeys(row.name for rows in SCHEMA.values() for row in rows if row.hourly == how))


def point_problem(point: Point) -> str | None:
    """Why no store can hold a point as it is; None where every store can."""
    if problem := name_problem(point.measurement) or backslash_problem(point.measurement):
        return f"measurement {safe_repr(point.measurement)} {problem}"
    if point.measurement.startswith("#"):
        return f"measurement {safe_repr(point.measurement)} must not start with #, which InfluxDB takes for a comment"
    for key, text in point.tags.items():
        if text != "" and (problem := _key_problem(key) or name_problem(text)):
            return f"{point.measurement}: tag {safe_repr(key)}={safe_repr(text)} {problem}"
    if not point.fields:
        return f"{point.measurement}: a point needs at least one field"
    for key, value in point.fields.items():
        if problem := _key_problem(key) or backslash_problem(key) or _value_problem(value):
            return f"{point.measurement}: field {safe_repr(key)} {problem}"
    if not -(2**63) + 2 <= point.time < 2**63 - 1:
        return f"{point.measurement}: time {point.time} is beyond nanoseconds in 64 bits"
    return None


def _key_problem(key: str) -> str | None:
    return "is a name that InfluxDB keeps for itself" if key in RESERVED_NAMES else name_problem(key)


def _value_problem(value: object) -> str | None:
    if isinstance(value, float):
        finite = math.isfinite(value)
        return None if finite else f"is {value}; count it in nan_count or inf_count instead"
    if isinstance(value, int):
        return None if -(2**63) <= value < 2**63 else f"is {value}, beyond 64 bits"
    if not isinstance(value, str):
        return f"is of type {type(value).__name__}; use float, int, bool or str"
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return "has a lone surrogate, which is no text"
    return None if size <= MAX_TEXT_BYTES else f"is text of {size} bytes, at most {MAX_TEXT_BYTES} can be stored"

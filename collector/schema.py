"""Every measurement, tag and field name, once; the point itself; and what a name may contain."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gatewatch.collector.errors import ConfigError

GATE_STATS: Final = "gate_stats"
GATE_UNITS: Final = "gate_units"
GATE_TIME: Final = "gate_time"
LAYER_UPDATES: Final = "layer_updates"
TRAIN_METRICS: Final = "train_metrics"
RUNS: Final = "runs"
COLLECTOR_HEALTH: Final = "collector_health"
GATE_DERIVED: Final = "gate_derived"
GATE_SCORES: Final = "gate_scores"
JOBS_HEALTH: Final = "jobs_health"
ALERT_EVENTS: Final = "alert_events"
BASELINES: Final = "baselines"

HEARTBEAT_SECONDS: Final = 30.0
"""How often a run says that it lives."""
PHASES: Final = ("train", "validation", "backtest", "live")

HISTOGRAM_BINS: Final = 20
HISTOGRAM_FIELDS: Final = tuple(f"hist_{i:02d}" for i in range(HISTOGRAM_BINS))
GATE_STATS_FIELDS: Final = (
    "mean",
    "std",
    "p05",
    "p50",
    "p95",
    "saturated_low",
    "saturated_high",
    "entropy",
    "zero_crossing_rate",
    "dead_units",
    "nan_count",
    "inf_count",
    *HISTOGRAM_FIELDS,
    "step",
    "epoch",
)
LAYER_UPDATES_FIELDS: Final = (
    "gradient_norm",
    "gradient_norm_clipped",
    "weight_norm",
    "update_norm",
    "update_ratio",
    "update_frequency",
    "optimizer_steps",
    "zero_count",
    "nan_count",
    "inf_count",
    "step",
)
MAX_PROFILE: Final = 64
"""The most fields of `gate_units` (units or groups of units) and of `gate_time` (positions or bins of them)."""
MAX_NAME_BYTES: Final = 512
MAX_TEXT_BYTES: Final = 2**20
"""The longest text that InfluxDB takes as a field."""
MAX_USER_TAGS: Final = 8
"""A user's own tags multiply the series of a run: a few describe it, many are data."""

# Names that the points carry themselves, and names that InfluxDB keeps for itself.
OWN_TAGS: Final = frozenset({"run", "phase", "layer", "gate", "param", "detector", "job", "rule"})
RESERVED_NAMES: Final = frozenset({"time", "_time", "_field", "_measurement", "_value", "_start", "_stop"})

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


_LOST_BACKSLASH = re.compile(r'\\(?=[,= "])')
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def clean_name(name: str) -> str:
    """A name that every store can hold, for names that Gatewatch is given and cannot refuse (layers, metrics).

    Control characters are written as escapes. A backslash that line protocol cannot hold, at the end or before a
    character that it escapes, becomes a slash; an empty name becomes `_`, one that is too long ends in a hash, and a
    name that InfluxDB keeps for itself gets a final underscore.
    """
    name = _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), str(name))
    if len(name.encode()) > MAX_NAME_BYTES:
        short = name.encode()[: MAX_NAME_BYTES - 9].decode(errors="ignore")
        name = f"{short}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    if name.endswith("\\"):
        name = name.rstrip("\\") + "/"
    name = _LOST_BACKSLASH.sub("/", name)
    if not name.strip():
        return "_"
    return f"{name}_" if name in RESERVED_NAMES else name


def name_problem(name: object) -> str | None:
    """Why a name cannot be a tag value, a tag key or a field key; None where it can."""
    if not isinstance(name, str):
        return f"must be text, not {type(name).__name__}"
    if not name.strip():
        return "must not be empty"
    if match := _CONTROL.search(name):
        return f"must not contain the control character {match[0]!r}"
    if name.endswith("\\"):
        return "must not end with a backslash, which line protocol cannot hold"
    if len(name.encode()) > MAX_NAME_BYTES:
        return f"must be at most {MAX_NAME_BYTES} bytes long"
    return None


def check_run(run: object) -> str:
    """The run's id, where it can be one.

    Raises:
        ConfigError: it is empty, not text, too long, or has a control character.
    """
    problem = name_problem(run)
    if problem or not isinstance(run, str):
        raise ConfigError(f"run={run!r}: a run's name {problem}; choose another, such as 'goog-lstm-1'")
    return run


def check_tags(tags: Mapping[str, str] | None) -> dict[str, str]:
    """A user's own tags, where they can be ones: few, text, and no name that the points carry themselves.

    A tag may be named like any field: whoever reads points keeps the two apart, see `Store.read`. Fields that are
    added later make no tag illegal.

    Raises:
        ConfigError: names the first tag that cannot be one, and why.
    """
    if tags is not None and not isinstance(tags, Mapping):
        raise ConfigError(f"tags={tags!r}: must be a mapping, such as {{'symbol': 'GOOG'}}")
    tags = dict(tags or {})
    if len(tags) > MAX_USER_TAGS:
        raise ConfigError(f"tags: {len(tags)} given, at most {MAX_USER_TAGS} are allowed; log numbers as metrics")
    for key, value in tags.items():
        if problem := name_problem(key):
            raise ConfigError(f"tags: the name {key!r} {problem}")
        if key in OWN_TAGS or key in RESERVED_NAMES or key.startswith("_"):
            raise ConfigError(f"tags: the name {key!r} is taken by Gatewatch or InfluxDB; choose another")
        if problem := name_problem(value):
            raise ConfigError(f"tags: the value of {key!r}, {value!r}, {problem}")
    return tags


def check_phase(phase: str) -> str:
    """The phase, where it is one of `PHASES`.

    Raises:
        ConfigError: it is not.
    """
    if phase not in PHASES:
        raise ConfigError(f"phase={phase!r}: must be one of {', '.join(PHASES)}")
    return phase


def path_name(name: str) -> str:
    """A name as one component of a path on any file system: readable, never empty, never leading elsewhere.

    What a path cannot hold becomes `_`; a name that was changed gets a short hash, so two names stay two paths.
    """
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:80].strip("._").removesuffix(".npz")  # which is a file of gates
    return safe if safe and safe == name else f"{safe or 'run'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def point_problem(point: Point) -> str | None:
    """Why no store can hold a point as it is; None where every store can."""
    if problem := name_problem(point.measurement) or _backslash_problem(point.measurement):
        return f"measurement {point.measurement!r} {problem}"
    if point.measurement.startswith("#"):
        return f"measurement {point.measurement!r} must not start with #, which InfluxDB takes for a comment"
    for key, text in point.tags.items():
        if text != "" and (problem := _key_problem(key) or name_problem(text)):
            return f"{point.measurement}: tag {key!r}={text!r} {problem}"
    if not point.fields:
        return f"{point.measurement}: a point needs at least one field"
    for key, value in point.fields.items():
        if problem := _key_problem(key) or _backslash_problem(key) or _value_problem(value):
            return f"{point.measurement}: field {key!r} {problem}"
    if not -(2**63) + 2 <= point.time < 2**63 - 1:
        return f"{point.measurement}: time {point.time} is beyond nanoseconds in 64 bits"
    return None


def _key_problem(key: str) -> str | None:
    return "is a name that InfluxDB keeps for itself" if key in RESERVED_NAMES else name_problem(key)


def _backslash_problem(name: str) -> str | None:
    lost = _LOST_BACKSLASH.search(name)
    return "must not have a backslash before a comma, an equals sign, a space or a quote" if lost else None


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

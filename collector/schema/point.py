"""The point, and why a store could not hold one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gatewatch.collector.schema.names import RESERVED_NAMES, backslash_problem, name_problem

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


def point_problem(point: Point) -> str | None:
    """Why no store can hold a point as it is; None where every store can."""
    if problem := name_problem(point.measurement) or backslash_problem(point.measurement):
        return f"measurement {point.measurement!r} {problem}"
    if point.measurement.startswith("#"):
        return f"measurement {point.measurement!r} must not start with #, which InfluxDB takes for a comment"
    for key, text in point.tags.items():
        if text != "" and (problem := _key_problem(key) or name_problem(text)):
            return f"{point.measurement}: tag {key!r}={text!r} {problem}"
    if not point.fields:
        return f"{point.measurement}: a point needs at least one field"
    for key, value in point.fields.items():
        if problem := _key_problem(key) or backslash_problem(key) or _value_problem(value):
            return f"{point.measurement}: field {key!r} {problem}"
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

"""Points for a question within its span of time, and rows for its answer."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.names import OWN_TAGS
from gatewatch.jobs.frames import times
from gatewatch.jobs.queries.flux_values import Duration, Instant, Value, literal

if TYPE_CHECKING:
    from gatewatch.collector.store import Store
    from gatewatch.jobs.queries.client import Row

NAN: Final = "nan:"
"""Begins the name of a column that says where another one is NaN rather than nothing."""
_PART: Final = re.compile(r"(\d+)(y|mo|w|d|h|ms|m|s|us|ns)")
_NANOSECONDS: Final[Mapping[str, int]] = {
    "w": 604_800_000_000_000,
    "d": 86_400_000_000_000,
    "h": 3_600_000_000_000,
    "m": 60_000_000_000,
    "s": 1_000_000_000,
    "ms": 1_000_000,
    "us": 1_000,
    "ns": 1,
}


@dataclass(frozen=True, slots=True)
class Points:
    """Reads points of a store.

    Attributes:
        store: is read.
        start, stop: only points in this span, nanoseconds since the Unix epoch; `stop` is no longer in it.
    """

    store: Store
    start: int
    stop: int

    @classmethod
    def between(cls, store: Store, values: Mapping[str, Value], now: int) -> Points:
        """Return those in the span of the parameters `start` and `stop`.

        Raises:
            ConfigError: the span is empty.
        """
        start, stop = (moment_of(values[name], now) for name in ("start", "stop"))
        if start >= stop:
            raise ConfigError("`start` must be before `stop`")
        return cls(store, start, stop)

    def read(
        self,
        measurement: str,
        fields: Sequence[str] | None,
        *,
        runs: Sequence[str] = (),
        tags: Mapping[str, str] | None = None,
    ) -> pd.DataFrame:
        """Return points in order of time, with all of Gatewatch's own tags, empty where a point has none.

        Args:
            measurement: which points.
            fields: each becomes a column, NaN where a point has none; None: all, as they are in the store.
            runs: only of these; empty: of any.
            tags: only those whose tags have these values.
        """
        bounds: dict[str, Any] = {"start": self.start, "stop": self.stop, "tags": tags}
        run = runs[0] if len(runs) == 1 else None
        frame = self.store.find(measurement, run=run, fields=fields, prefix_tags=True, **bounds)
        for name in OWN_TAGS:
            frame[name] = frame[name].fillna("") if name in frame else ""
        for name in fields or ():
            if name not in frame:
                frame[name] = np.nan
        return frame[frame["run"].isin(runs)] if len(runs) > 1 else frame


def nanoseconds_of(span: Duration) -> int:
    """Return the length of a span.

    Raises:
        ConfigError: it has months or years, which are not of one length.
    """
    parts = _PART.findall(span.text)
    if any(unit in ("y", "mo") for _, unit in parts):
        raise ConfigError(f"{span.text}: months and years are counted by InfluxDB alone; give weeks or days")
    length = sum(int(amount) * _NANOSECONDS[unit] for amount, unit in parts)
    return -length if span.text.startswith("-") else length


def moment_of(value: Value, now: int) -> int:
    """Return a time, which may count from now, in nanoseconds since the Unix epoch."""
    if isinstance(value, Instant):
        return now if value.time is None else value.time
    if not isinstance(value, Duration):
        raise TypeError(f"{value!r} is no time")
    return after(now, value)


def after(time: int, span: Duration, sign: int = 1) -> int:
    """Return the time a span after another, in nanoseconds; a month ends on the same day of another month.

    Args:
        time: nanoseconds since the Unix epoch.
        span: may be negative.
        sign: -1 for the time before.
    """
    sign = -sign if span.text.startswith("-") else sign
    parts = _PART.findall(span.text)
    months = sum(int(amount) * (12 if unit == "y" else 1) for amount, unit in parts if unit in ("y", "mo"))
    rest = sum(int(amount) * _NANOSECONDS[unit] for amount, unit in parts if unit not in ("y", "mo"))
    moved = pd.Timestamp(time, unit="ns") + pd.DateOffset(months=sign * months) if months else pd.Timestamp(time)
    return int(moved.as_unit("ns").value) + sign * rest


def summary(frame: pd.DataFrame, by: Sequence[str], **columns: tuple[str, str]) -> pd.DataFrame:
    """Return one row for each value of some tags, in their order.

    Args:
        frame: points in order of time.
        by: names of the tags.
        columns: column of the result → field, and `first`, `last`, `min`, `max`, `mean`, `median`, `sum` or `count` of
            it, without the points that lack it. Rows of which no point has any are left out.
    """
    grouped = frame.groupby(list(by), sort=True)
    found = pd.DataFrame({name: grouped[field].agg(how) for name, (field, how) in columns.items()})
    fields = sorted({field for field, _ in columns.values()})
    return found[grouped[fields].count().sum(axis=1) > 0].reset_index()


def time_of(frame: pd.DataFrame, name: str = "time") -> pd.Series:
    """Return a column of times as nanoseconds."""
    return pd.Series(times(frame.rename(columns={"time": "_", name: "time"}) if name != "time" else frame), frame.index)


def as_moments(nanoseconds: pd.Series) -> pd.Series:
    """Return nanoseconds as a column of times."""
    return pd.to_datetime(nanoseconds, unit="ns", utc=True).astype("datetime64[ns, UTC]")


def rows_of(frame: pd.DataFrame) -> list[Row]:
    """Return the rows of an answer as InfluxDB gives them: times as text in RFC 3339, None or "" for nothing.

    Args:
        frame: NaN is nothing, but in a column `x` where the column `nan:x` is true.
    """
    columns = {str(name): _cells(frame[name]) for name in frame.columns}
    for name in [name for name in columns if name.startswith(NAN)]:
        shown = name.removeprefix(NAN)
        columns[shown] = [
            math.nan if nan else cell for cell, nan in zip(columns[shown], columns.pop(name), strict=True)
        ]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _cells(values: pd.Series) -> list[Any]:
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        return [None if time is pd.NaT else literal(Instant(time.value)) for time in values]
    nothing = None if pd.api.types.is_numeric_dtype(values) else ""
    return [nothing if pd.isna(cell) else cell for cell in values.astype(object).tolist()]

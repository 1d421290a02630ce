"""What Grafana makes of InfluxDB's answer to a Flux query: a frame for each table."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from time import perf_counter
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from gatewatch.collector.errors import ConfigError, GatewatchError
from gatewatch.collector.store.influxdb.annotated_csv import Column, QueryFailed, annotated_rows
from gatewatch.collector.store.influxdb.client import Client
from gatewatch.collector.store.influxdb.http_errors import Refused
from gatewatch.collector.text import one_line

MAX_SERIES: Final = 1000
"""Tables that Grafana takes of one answer; it cuts off what is more, and says so."""
MAX_POINTS_FACTOR: Final = 10
"""Rows of a table that it takes, as a multiple of those that the panel has room for."""


class FluxError(GatewatchError):
    """A Flux query that InfluxDB does not carry out, or whose answer Grafana does not take."""


@dataclass(slots=True)
class Field:
    """A column of a frame.

    Attributes:
        name: as Grafana shows it.
        kind: time, number, string or boolean.
        labels: the group key, without what is the same everywhere.
        values: None where a row has none. A time is in nanoseconds since the Unix epoch.
    """

    name: str
    kind: str
    labels: Mapping[str, str] = field(default_factory=dict)
    values: list[Any] = field(default_factory=list)


@dataclass(slots=True)
class Frame:
    """One table of an answer."""

    name: str
    fields: list[Field]

    def __len__(self) -> int:
        return len(self.fields[0].values) if self.fields else 0

    def field(self, name: str) -> Field:
        """The field of this name; KeyError where there is none."""
        for one in self.fields:
            if one.name == name:
                return one
        raise KeyError(f"{name}; the frame has {', '.join(one.name for one in self.fields)}")

    @property
    def numbers(self) -> list[Field]:
        """The fields that are numbers."""
        return [one for one in self.fields if one.kind == "number"]

    @property
    def labels(self) -> Mapping[str, str]:
        """Of its numbers, or else of its last field."""
        return (self.numbers or self.fields)[-1].labels if self.fields else {}


@dataclass(frozen=True, slots=True)
class Answer:
    """What was asked of InfluxDB, and what came.

    Attributes:
        frames: that Grafana would have.
        milliseconds: until the answer had arrived whole.
    """

    frames: Sequence[Frame]
    milliseconds: float

    @property
    def rows(self) -> int:
        """Of all frames."""
        return sum(map(len, self.frames))


class FluxSource:
    """A bucket of an InfluxDB as Grafana's datasource reads it.

    Args:
        url: `http://host:port` or `https://…`.
        org: the organisation's name.
        bucket: what `v.defaultBucket` stands for.
        token: may read the bucket.
        timeout: seconds that an answer may take.
    """

    def __init__(self, url: str, *, org: str, bucket: str, token: str, timeout: float = 60.0) -> None:
        self.url, self.org, self.bucket = url, org, bucket
        self._client = Client(url, org=org, bucket=bucket, token=token, timeout=timeout)

    def ask(self, flux: str, max_points: int | None = None) -> Answer:
        """The answer to a query in which nothing is left to be filled in.

        Args:
            flux: the query.
            max_points: rows that Grafana takes of a table; None: any number.

        Raises:
            FluxError: the query is wrong, or its answer is more than Grafana takes.
            ConfigError: reading is not allowed.
            WriteUnavailable: the store does not answer.
        """
        began = perf_counter()
        text = self._raw(flux)
        milliseconds = (perf_counter() - began) * 1e3
        return Answer(frames_of(text, max_points), milliseconds)

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()

    def _raw(self, flux: str) -> str:
        try:
            return b"".join(self._client.flux(flux)).decode()
        except Refused as refused:
            if refused.status in (401, 403, 404):
                raise ConfigError(
                    f"{self.url}: bucket {self.bucket!r} cannot be read: {refused.reason};"
                    " see INFLUXDB_V2_BUCKET and INFLUXDB_V2_TOKEN"
                ) from None
            if refused.status in (400, 422) or "compilation failed" in refused.reason:
                raise FluxError(refused.reason) from None
            raise refused.unavailable() from None


def frames_of(text: str, max_points: int | None = None, max_series: int = MAX_SERIES) -> list[Frame]:
    """The frames of an answer in annotated CSV.

    A table of one time `_time` and one value `_value` becomes a series: `Time`, and a field that is called as `_field`
    says, or `Value`. Any other keeps its columns, times first. Columns of the group key become labels.

    Raises:
        FluxError: InfluxDB told of an error, or there are more tables or rows than Grafana takes.
    """
    frames: list[Frame] = []
    try:
        for _, table in groupby(annotated_rows([text.encode()]), lambda row: (row[0], row[1][2])):
            rows = list(table)
            if len(frames) >= max_series:
                raise FluxError(f"results are truncated, max series reached ({max_series})")
            if max_points is not None and len(rows) > max_points:
                raise FluxError(f"max data points limit exceeded: {len(rows)} rows of a table, at most {max_points}")
            frames.append(_frame(rows[0][0].columns, [cells for _, cells in rows]))
    except QueryFailed as failed:
        raise FluxError(one_line(failed, 300)) from None
    return frames


def _frame(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> Frame:
    own = [(i, column) for i, column in enumerate(columns) if i > 2 or (i == 2 and column.name != "table")]
    labels = {column.name: rows[0][i] or column.default for i, column in own if column.grouped}
    shown = {name: text for name, text in labels.items() if text}
    name = shown.pop("_measurement", "")
    data = [(i, column) for i, column in own if not column.grouped]
    times = [(i, column) for i, column in data if _kind(column) == "time"]
    others = [(i, column) for i, column in data if _kind(column) != "time"]
    timed = len(times) == 1 and times[0][1].name == "_time"
    simple = timed and len(others) == 1 and others[0][1].name == "_value"
    titles = {column.name: column.name for _, column in data}
    if simple:
        titles = {"_time": "Time", "_value": shown.pop("_field", "") or "Value"}
        shown.pop("_start", None)
        shown.pop("_stop", None)
    fields = [
        Field(
            titles[column.name],
            _kind(column),
            {} if timed and _kind(column) == "time" else dict(shown),
            [_value(column, row[i]) for row in rows],
        )
        for i, column in (*times, *others)
    ]
    return Frame(name, fields)


def _kind(column: Column) -> str:
    return _TYPES.get(column.kind, _TYPES["string"])[0]


def _value(column: Column, text: str) -> Any:
    text = text or column.default
    kind, convert = _TYPES.get(column.kind, _TYPES["string"])
    return None if text == "" and kind != "string" else convert(text)


def _nanoseconds(text: str) -> int:
    return int(np.datetime64(text.removesuffix("Z"), "ns").astype(np.int64))


_TYPES: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = MappingProxyType(
    {
        "string": ("string", str),
        "double": ("number", float),
        "long": ("number", int),
        "unsignedLong": ("number", int),
        "duration": ("number", int),
        "boolean": ("boolean", lambda text: text == "true"),
        "dateTime:RFC3339": ("time", _nanoseconds),
        "dateTime:RFC3339Nano": ("time", _nanoseconds),
        "base64Binary": ("string", lambda text: base64.b64decode(text).decode(errors="replace")),
    }
)

"""Points in InfluxDB 2: written as line protocol, read through its InfluxQL endpoint."""

from __future__ import annotations

import gzip
import json
import os
from typing import TYPE_CHECKING, Any, Final

import orjson
import urllib3
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.rest import ApiException

from collector.errors import ConfigError, WriteRejected, WriteUnavailable
from collector.line_parser import split_lines
from collector.line_protocol import encode
from collector.schema import RUNS, FieldValue, Point, point_problem
from collector.store.frame import RunEvent, Series, frame, runs_frame
from collector.store.refusals import Refused, connection_problem, one_line, refusal, stranger
from collector.times import nanoseconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pandas as pd

    from collector.times import Time

BATCH: Final = 5_000
"""Lines a request: what InfluxDB's own documentation calls best."""
CONNECT_TIMEOUT_S: Final = 5.0
WRITE_TIMEOUT_S: Final = 20.0
READ_TIMEOUT_S: Final = 60.0

# InfluxDB keeps a field's type by shard. Where shards differ it reads the first of these that occurs.
_TYPES: Final[Mapping[str, type]] = {"float": float, "integer": int, "string": str, "boolean": bool}
_RUN_FIELDS: Final = '"event", "step", "error", "framework", "model", "config"'


class InfluxStore:
    """A store in a bucket of InfluxDB 2, for any number of threads and processes.

    Args:
        url: `http://host:port` or `https://…`, without secrets.
        org: the organisation's name.
        bucket: the bucket's name.
        token: may write the bucket; reading asks that it may read it too.
        timeout: seconds that a write may take and a read may wait; None for the defaults.
    """

    def __init__(self, url: str, *, org: str, bucket: str, token: str, timeout: float | None = None) -> None:
        self._url = url
        self._org = org
        self._bucket = bucket
        self._token = token
        self._write_timeout = timeout or WRITE_TIMEOUT_S
        self._read_timeout = timeout or READ_TIMEOUT_S
        self._client: InfluxDBClient | None = None
        self._pid = 0

    def __repr__(self) -> str:
        return f"InfluxStore({self._url!r}, org={self._org!r}, bucket={self._bucket!r})"

    @property
    def url(self) -> str:
        """The address, without secrets."""
        return self._url

    @property
    def destination(self) -> Mapping[str, str]:
        """See `Store.destination`."""
        return {"url": self._url, "org": self._org, "bucket": self._bucket}

    def check(self) -> None:
        """See `Store.check`. It writes no points, which is all that a token for writing alone may do."""
        try:
            self._post_lines(b"")
        except Refused as refused:
            if refused.passing:
                raise refused.unavailable() from None
            raise ConfigError(str(refused)) from None

    def write(self, points: Iterable[Point]) -> None:
        """See `Store.write`."""
        problems: list[str] = []
        good: list[Point] = []
        for point in points:
            if problem := point_problem(point):
                problems.append(problem)
            else:
                good.append(point)
        self._write((encode(good[i : i + BATCH]) for i in range(0, len(good), BATCH)), problems)

    def write_lines(self, lines: bytes) -> None:
        """See `Store.write_lines`. The bytes are sent as they are."""
        if lines.count(b"\n") <= BATCH:
            self._write([lines] if lines else [])
        else:
            each = split_lines(lines)
            self._write(_joined(each[i : i + BATCH]) for i in range(0, len(each), BATCH))

    def read(
        self,
        measurement: str,
        *,
        run: str | None = None,
        start: Time | None = None,
        stop: Time | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> pd.DataFrame:
        """See `Store.read`."""
        source = _identifier(measurement)
        types: dict[str, str] = {}
        for part in self._query(f"SHOW FIELD KEYS FROM {source}"):
            for name, kind in part["values"]:
                types[name] = min(types.get(name, kind), kind, key=list(_TYPES).index)
        if not types:
            return frame([], {})
        names = list(types)
        wanted = dict(tags or {}) | ({} if run is None else {"run": run})
        conditions = [f"{_identifier(name)}::tag = $v{i}" for i, name in enumerate(wanted)]
        if start is not None:
            conditions.append(f"time >= {nanoseconds(start)}")
        if stop is not None:
            conditions.append(f"time < {nanoseconds(stop)}")
        columns = ", ".join(f"{_identifier(name)}::{types[name]}" for name in names)
        where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        query = f"SELECT {columns} FROM {source} {where} GROUP BY *"  # noqa: S608 - names are quoted, values bound
        values = {f"v{i}": value for i, value in enumerate(wanted.values())}
        pieces = [_piece(part, names) for part in self._query(query, values)]
        return frame(pieces, {name: _TYPES[kind] for name, kind in types.items()})

    def runs(self) -> pd.DataFrame:
        """See `Store.runs`."""
        select = f"SELECT {_RUN_FIELDS} FROM {_identifier(RUNS)}"  # noqa: S608 - constants
        started = f'{select} WHERE "event" = \'started\' GROUP BY "run", "phase" ORDER BY time LIMIT 1'
        last = f'{select} GROUP BY "run", "phase" ORDER BY time DESC LIMIT 1'
        return runs_frame(map(_run_event, self._query(started)), map(_run_event, self._query(last)))

    def close(self) -> None:
        """See `Store.close`."""
        client, self._client = self._client, None
        if client is not None and self._pid == os.getpid():
            client.close()  # type: ignore[no-untyped-call]  # influxdb-client is typed in part

    def _write(self, batches: Iterable[bytes], problems: Sequence[str] = ()) -> None:
        """Write the batches.

        Raises:
            WriteRejected: lines were refused, or there were problems before.
            WriteUnavailable: see `Store.write`.
        """
        refused: list[tuple[bytes, str]] = []
        try:
            for batch in batches:
                refused += self._send(batch)
        except Refused as refusal:
            raise refusal.unavailable() from None
        if problems or refused:
            reasons = [*problems, *dict.fromkeys(reason for _, reason in refused)]
            raise WriteRejected(reasons, len(problems) + len(refused), refused)

    def _send(self, lines: bytes) -> list[tuple[bytes, str]]:
        """Write the lines; those that were refused, each with the reason."""
        try:
            self._post_lines(lines)
        except Refused as refused:
            if not refused.points:
                raise
            # What is of one measurement, or of one time, is often wrong alike: so it lies together and few requests
            # find it. The lines of one point keep their order, since the last wins.
            return self._isolate(sorted(split_lines(lines), key=_measurement_and_time), refused)
        return []

    def _isolate(self, lines: list[bytes], refused: Refused) -> list[tuple[bytes, str]]:
        """Of lines that were refused together, those that are wrong: InfluxDB says how many at least, never which.

        Writing the others again does no harm.
        """
        if len(lines) in (1, refused.dropped):
            return [(line, refused.reason) for line in lines]
        half = len(lines) // 2
        found = self._send(_joined(lines[:half]))
        if refused.dropped and not found:  # then they are all in the other half
            return self._isolate(lines[half:], refused)
        return found + self._send(_joined(lines[half:]))

    def _post_lines(self, lines: bytes) -> None:
        response = self._call(
            "/api/v2/write",
            self._write_timeout,
            query_params=[("org", self._org), ("bucket", self._bucket), ("precision", "ns")],
            header_params={"Content-Type": "text/plain; charset=utf-8", "Content-Encoding": "gzip"},
            # Level 1 takes an eighth of the time of the default and leaves a tenth more to send.
            body=gzip.compress(lines, 1),
        )
        if response.status != 204:
            raise stranger(self._url, response.status)

    def _query(self, statement: str, values: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """The series of InfluxQL's answer: each a mapping with `tags` (where grouped), `columns` and `values`."""
        database, _, policy = self._bucket.partition("/")
        parameters = [("db", database), ("q", statement), ("epoch", "ns"), ("chunked", "true")]
        parameters += [("rp", policy)] if policy else []
        parameters += [("params", json.dumps(values))] if values else []
        try:
            response = self._call(
                "/query",
                self._read_timeout,
                query_params=[("org", self._org)],
                header_params={"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"},
                post_params=parameters,
            )
            answers = [orjson.loads(line) for line in response.data.splitlines() if line]
            results = [result for answer in answers for result in answer["results"]]
        except Refused as refused:
            if refused.status in (401, 403, 404):
                raise ConfigError(str(refused)) from None
            raise refused.unavailable() from None
        except (ValueError, KeyError, TypeError):
            raise stranger(self._url, response.status).unavailable() from None
        except urllib3.exceptions.HTTPError as error:
            raise WriteUnavailable(f"{self._url}: the answer broke off ({type(error).__name__}); try again") from None
        for problem in [result["error"] for result in results if "error" in result]:
            if "not found" in problem:
                raise ConfigError(
                    f"{self._url}: bucket {self._bucket!r} cannot be read: it is missing, or the token may only write;"
                    " see INFLUXDB_V2_BUCKET and INFLUXDB_V2_TOKEN"
                )
            raise WriteUnavailable(f"{self._url}: the query failed: {one_line(problem)}")
        return [series for result in results for series in result.get("series", ())]

    def _call(self, path: str, timeout: float, **request: Any) -> urllib3.BaseHTTPResponse:
        milliseconds = (int(min(CONNECT_TIMEOUT_S, timeout) * 1000), int(timeout * 1000))
        try:
            response: urllib3.BaseHTTPResponse = self._connected().api_client.call_api(  # type: ignore[no-untyped-call]  # influxdb-client is typed in part
                path,
                "POST",
                _preload_content=False,
                _return_http_data_only=True,
                _request_timeout=milliseconds,
                **request,
            )
            _ = response.data  # read it all here, so that the connection can be used again
        except ApiException as error:
            raise refusal(self._url, error) from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise WriteUnavailable(f"{self._url}: {connection_problem(error)}; see that InfluxDB runs there") from None
        return response

    def _connected(self) -> InfluxDBClient:
        if self._client is None or self._pid != os.getpid():  # connections must not cross a fork
            self._client = InfluxDBClient(self._url, self._token, org=self._org)
            self._pid = os.getpid()
        return self._client


def _measurement_and_time(line: bytes) -> tuple[bytes, bytes]:
    return line.partition(b",")[0].partition(b" ")[0], line.rpartition(b" ")[2]


def _joined(lines: list[bytes]) -> bytes:
    return b"\n".join(lines) + b"\n"


def _piece(part: Mapping[str, Any], names: Sequence[str]) -> Series:
    times, *columns = zip(*part["values"], strict=True)
    return Series(part.get("tags") or {}, times, dict(zip(names, columns, strict=True)))


def _run_event(part: Mapping[str, Any]) -> RunEvent:
    moment, *values = part["values"][0]
    fields: dict[str, FieldValue | None] = dict(zip(part["columns"][1:], values, strict=True))
    return RunEvent(part["tags"]["run"], part["tags"]["phase"], moment, fields)


def _identifier(name: str) -> str:
    """A name as InfluxQL reads it, whatever it holds."""
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'

"""Points in InfluxDB 2: written as line protocol, read through its InfluxQL endpoint."""

from __future__ import annotations

import gzip
import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import msgpack  # type: ignore[import-untyped]  # it ships without types
import urllib3
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.rest import ApiException

from gatewatch.collector.errors import ConfigError, WriteRejected, WriteUnavailable
from gatewatch.collector.line_parser import split_lines
from gatewatch.collector.line_protocol import encode
from gatewatch.collector.schema import RUNS, FieldValue, Point, point_problem
from gatewatch.collector.store.frame import frame
from gatewatch.collector.store.influxdb.history import InfluxHistory
from gatewatch.collector.store.influxdb.http_errors import Refused, connection_problem, one_line, refusal, stranger
from gatewatch.collector.store.influxdb.influxql import Part, blocks, field_types, identifier, select, where
from gatewatch.collector.store.protocol import Tally
from gatewatch.collector.store.runs import RunEvent, runs_frame
from gatewatch.collector.store.series_shapes import Shapes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import pandas as pd

    from gatewatch.collector.times import Time

BATCH: Final = 5_000
"""Lines a request: what InfluxDB's own documentation calls best."""
CONNECT_TIMEOUT_S: Final = 5.0
WRITE_TIMEOUT_S: Final = 20.0
READ_TIMEOUT_S: Final = 60.0
CHUNK: Final = 1_000
"""Points a message of an answer: the next is on its way while one is made columns."""
_READ_BYTES: Final = 2**16
_RUN_FIELDS: Final[Mapping[str, str]] = {
    "event": "string",
    "step": "integer",
    "error": "string",
    "framework": "string",
    "model": "string",
    "config": "string",
}


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
        self._shapes = Shapes()
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
            if self._shapes.find(point) is None:
                if problem := point_problem(point):
                    problems.append(problem)
                    continue
                self._shapes.keep(point)
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
        fields: Sequence[str] | None = None,
        prefix_tags: bool = False,
    ) -> pd.DataFrame:
        """See `Store.read`."""
        types = field_types(self._query(f"SHOW FIELD KEYS FROM {identifier(measurement)}"))
        if fields is not None:
            types = {name: types[name] for name in dict.fromkeys(fields) if name in types}
        if not types:
            return frame([], {})
        clause, values = where(run, start, stop, tags)
        parts = self._query(select(measurement, types.items(), clause), values)
        return frame(blocks(parts, types), types, prefix_tags)

    def count(
        self,
        measurement: str,
        field: str,
        *,
        run: str | None = None,
        start: Time | None = None,
        stop: Time | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> int:
        """See `Store.count`."""
        clause, values = where(run, start, stop, tags)
        query = f"SELECT COUNT({identifier(field)}::field) FROM {identifier(measurement)} {clause}"  # noqa: S608 - names are quoted, values bound
        return sum(part["values"][0][1] for part in self._query(query, values))

    def tallies(self, measurement: str, field: str) -> dict[str, tuple[int, int]]:
        """See `Store.tallies`."""
        counts = self._tallied(measurement, field, 'GROUP BY "run"::tag')
        return {tally.tags["run"]: (tally.points, tally.newest) for tally in counts if tally.tags["run"]}

    def series(self, measurement: str, field: str, run: str) -> list[Tally]:
        """See `Store.series`."""
        clause, values = where(run, None, None, None)
        return self._tallied(measurement, field, f"{clause} GROUP BY *", values)

    def runs(self) -> pd.DataFrame:
        """See `Store.runs`."""
        # Without their types InfluxDB would give the tags of these names where no point has such a field.
        fields = ", ".join(f'"{name}"::{kind}' for name, kind in _RUN_FIELDS.items())
        select = f"SELECT {fields} FROM {identifier(RUNS)}"  # noqa: S608 - constants
        by_phase = 'GROUP BY "run"::tag, "phase"::tag ORDER BY time'
        started = f"{select} WHERE \"event\"::string = 'started' {by_phase} LIMIT 1"
        last = f"{select} {by_phase} DESC LIMIT 1"
        return runs_frame(map(_run_event, self._query(started)), map(_run_event, self._query(last)))

    def flux(self, query: str, extern: Mapping[str, Any], *, timeout: float | None = None) -> Iterator[bytes]:
        """What a Flux query answers, as annotated CSV, in pieces as they arrive. Only InfluxDB 2 knows Flux.

        Args:
            query: its text.
            extern: the syntax tree of a file that is put before it: how values are given to it.
            timeout: seconds to wait for the next piece; None for the default.

        Raises:
            Refused: the server did not carry it out, such as one that is wrong.
            WriteUnavailable: the server does not answer, or stops in the middle.
        """
        dialect = {"header": True, "delimiter": ",", "annotations": ["datatype", "default"]}
        response = self._call(
            "/api/v2/query",
            timeout or self._read_timeout,
            query_params=[("org", self._org)],
            header_params={"Content-Type": "application/json", "Accept": "application/csv"},
            body={"query": query, "extern": extern, "type": "flux", "dialect": dialect},
        )
        try:
            with self._connection_errors():
                yield from response.stream(_READ_BYTES)
        finally:
            response.close()

    def history(self) -> InfluxHistory:
        """See `Store.history`."""
        return InfluxHistory(self._query)

    def close(self) -> None:
        """See `Store.close`."""
        client, self._client = self._client, None
        if client is not None and self._pid == os.getpid():
            client.close()  # type: ignore[no-untyped-call]  # influxdb-client is typed in part

    def _tallied(
        self, measurement: str, field: str, clause: str, values: Mapping[str, str] | None = None
    ) -> list[Tally]:
        about = f"({identifier(field)}::field) FROM {identifier(measurement)} {clause}"
        found: dict[str, dict[tuple[tuple[str, str], ...], tuple[int, int]]] = {"count": {}, "last": {}}
        for part in self._query(f"SELECT COUNT{about}; SELECT LAST{about}", values):
            key = tuple(sorted((name, value) for name, value in part["tags"].items() if value or name == "run"))
            found[part["columns"][1]][key] = part["values"][0]
        newest = found["last"]
        return [
            Tally(dict(key), points, newest[key][0]) for key, (_, points) in found["count"].items() if key in newest
        ]

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
        with self._connection_errors():
            _ = response.data  # read it all, so that the connection can be used again
        if response.status != 204:
            raise stranger(self._url, response.status)

    def _query(self, statement: str, values: Mapping[str, str] | None = None) -> Iterator[Part]:
        """The series of InfluxQL's answer, as they arrive; one that is long comes in pieces."""
        database, _, policy = self._bucket.partition("/")
        parameters = [("db", database), ("q", statement), ("epoch", "ns"), ("chunked", "true")]
        parameters += [("chunk_size", str(CHUNK))]
        parameters += [("rp", policy)] if policy else []
        parameters += [("params", json.dumps(values))] if values else []
        try:
            response = self._call(
                "/query",
                self._read_timeout,
                query_params=[("org", self._org)],
                header_params={"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/x-msgpack"},
                post_params=parameters,
            )
        except Refused as refused:
            if refused.status in (401, 403, 404):
                raise ConfigError(str(refused)) from None
            raise refused.unavailable() from None
        try:
            for result in self._results(response):
                if "error" in result:
                    raise self._failure(result["error"])
                yield from result.get("series", ())
        finally:
            response.close()

    def _results(self, response: urllib3.BaseHTTPResponse) -> Iterator[dict[str, Any]]:
        unpacker = msgpack.Unpacker(max_buffer_size=0, use_list=False)
        received = understood = 0
        try:
            with self._connection_errors():
                for piece in response.stream(_READ_BYTES):
                    unpacker.feed(piece)
                    received += len(piece)
                    for answer in unpacker:
                        yield from map(dict, answer["results"])
                        understood = unpacker.tell()
            whole = understood == received
        except (ValueError, KeyError, TypeError, msgpack.UnpackException):
            whole = False
        if not whole:
            raise stranger(self._url, response.status).unavailable()

    def _failure(self, problem: str) -> ConfigError | WriteUnavailable:
        if "not found" in problem:
            return ConfigError(
                f"{self._url}: bucket {self._bucket!r} cannot be read: it is missing, or the token may only write;"
                " see INFLUXDB_V2_BUCKET and INFLUXDB_V2_TOKEN"
            )
        return WriteUnavailable(f"{self._url}: the query failed: {one_line(problem)}")

    def _call(self, path: str, timeout: float, **request: Any) -> urllib3.BaseHTTPResponse:
        """Ask; the answer's content is still to be read."""
        milliseconds = (int(min(CONNECT_TIMEOUT_S, timeout) * 1000), int(timeout * 1000))
        try:
            with self._connection_errors():
                response: urllib3.BaseHTTPResponse = self._connected().api_client.call_api(  # type: ignore[no-untyped-call]  # influxdb-client is typed in part
                    path,
                    "POST",
                    _preload_content=False,
                    _return_http_data_only=True,
                    _request_timeout=milliseconds,
                    **request,
                )
        except ApiException as error:
            raise refusal(self._url, error) from None
        return response

    @contextmanager
    def _connection_errors(self) -> Iterator[None]:
        try:
            yield
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise WriteUnavailable(f"{self._url}: {connection_problem(error)}; see that InfluxDB runs there") from None

    def _connected(self) -> InfluxDBClient:
        if self._client is None or self._pid != os.getpid():  # connections must not cross a fork
            self._client = InfluxDBClient(self._url, self._token, org=self._org)
            self._pid = os.getpid()
        return self._client


def _measurement_and_time(line: bytes) -> tuple[bytes, bytes]:
    return line.partition(b",")[0].partition(b" ")[0], line.rpartition(b" ")[2]


def _joined(lines: list[bytes]) -> bytes:
    return b"\n".join(lines) + b"\n"


def _run_event(part: Mapping[str, Any]) -> RunEvent:
    moment, *values = part["values"][0]
    fields: dict[str, FieldValue | None] = dict(zip(_RUN_FIELDS, values, strict=True))
    return RunEvent(part["tags"]["run"], part["tags"]["phase"], moment, fields)

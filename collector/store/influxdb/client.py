"""The client of InfluxDB 2: sends requests with timeouts, reads JSON, Flux and InfluxQL, raises typed errors."""

from __future__ import annotations

import gzip
import json
import math
import os
import time
from contextlib import contextmanager, suppress
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgpack  # type: ignore[import-untyped]  # it ships without types
import urllib3
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.rest import ApiException

from gatewatch.collector.errors import ConfigError, GatewatchError, ReadRefused, WriteUnavailable
from gatewatch.collector.store.influxdb.bucket import ID, Bucket, Database, find_bucket, find_database
from gatewatch.collector.store.influxdb.connection import Connection, read_connection
from gatewatch.collector.store.influxdb.http_errors import Names, Refused, no_answer, not_influxdb, refusal
from gatewatch.collector.store.influxdb.http_pools import (
    LARGEST_PART,
    READ_BYTES,
    HttpFailure,
    bound_answers,
    read_whole,
    renew,
)
from gatewatch.collector.store.influxdb.influxql import Part, is_part
from gatewatch.collector.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CONNECT_TIMEOUT_S: Final = 5.0
ANSWER_TIMEOUT_S: Final = 10.0
"""For small questions: whether the server runs, which buckets there are."""
WRITE_TIMEOUT_S: Final = 20.0
READ_TIMEOUT_S: Final = 60.0
CHUNK: Final = 1_000
"""Points a message of an answer: the next is on its way while one is made columns."""
_LONGEST_LIST: Final = 2**20
"""Entries of a list in an answer: room for them is taken before they arrive."""
TRUSTED_S: Final = 60.0
"""How long a database is taken to lead to the bucket: somebody may map its name to another one at any time."""
_MISSING: Final = ("not found", "policy not set", "mappings: expected 1")
"""In errors of InfluxQL about a database that is none, or several."""
_JSON: Final[Mapping[str, str]] = {"Content-Type": "application/json", "Accept": "application/json"}


class _DatabaseMissingError(Exception):
    """InfluxQL knows no such database. Its text is why."""


@dataclass(eq=False)
class Client:
    """A connection to an InfluxDB 2, for any number of threads; after a fork the child opens its own.

    Where a method's errors are not named, it raises:
        Refused: the server did not carry out the request.
        WriteUnavailable: the server does not answer, or stops in the middle.

    Attributes:
        url: `http://host:port` or `https://…`, without secrets.
        org: name or id of the organisation.
        bucket: name or id of the bucket that is read and written.
        token: secret of an authorization; empty for none.
        user, password: used to sign in where there is no token.
        timeout: seconds that any request may take; None: as the environment says, else the constants of this module.
        names: what errors call the settings.
        connection: how the server is reached, from the environment.

    Raises:
        ConfigError: the environment says something of the connection that cannot be used.
    """

    url: str
    _: KW_ONLY
    org: str = ""
    bucket: str = ""
    token: str = field(default="", repr=False)
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    timeout: float | None = field(default=None, repr=False)
    names: Names = field(default=Names(), repr=False)
    connection: Connection = field(init=False, repr=False)
    _bucket: Bucket | None = field(default=None, init=False, repr=False)
    _database: Database | None = field(default=None, init=False, repr=False)
    _found_at: float = field(default=-math.inf, init=False, repr=False)
    _client: InfluxDBClient | None = field(default=None, init=False, repr=False)
    _pid: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        self.connection = read_connection(self.url)
        self.timeout = self.timeout or self.connection.timeout

    def ping(self, seconds: float | None = None) -> None:
        """See that the server answers, whatever it says.

        Args:
            seconds: timeout; None: the default.

        Raises:
            WriteUnavailable: it does not, or not in time.
        """
        with suppress(Refused):
            self._read("GET", "/ping", seconds or self.timeout or ANSWER_TIMEOUT_S)

    def probe(self, path: str) -> tuple[int, Mapping[str, str], bytes]:
        """Return the status, the headers and the content of the answer to a GET, whatever it says."""
        seconds = self.timeout or ANSWER_TIMEOUT_S
        try:
            with self._errors(seconds):
                response = self._call("GET", path, seconds)
                return response.status, response.headers, read_whole(response)
        except ApiException as error:
            raise self._refusal(error) from None
        except HttpFailure as error:
            return error.status, error.headers, error.body

    def find_bucket(self) -> Bucket | None:
        """Return the bucket as the server knows it, which is asked now and then.

        Returns:
            None where it is missing, or the token may not read it.
        """
        self._bucket = self._bucket or find_bucket(self)
        return self._bucket

    @property
    def bucket_id(self) -> str | None:
        """The id of the bucket, once the server was asked; None before, or where the token may not read it."""
        return self._bucket and self._bucket.id

    def bucket_name(self) -> str:
        """Return the name of the bucket, also where an id was given and the token may read it; Flux wants a name."""
        if not ID.fullmatch(self.bucket):
            return self.bucket
        try:
            found = self.find_bucket()
        except (Refused, WriteUnavailable, ConfigError):  # who asks finds out
            found = None
        return found.name if found else self.bucket

    def json(self, method: str, path: str, body: object = None, **query: object) -> Any:
        """Return the decoded answer of a request of the management API; None where it is empty.

        Args:
            method: of HTTP.
            path: such as `/api/v2/buckets`.
            body: is sent as JSON.
            query: parameters of the address.
        """
        seconds, parameters = self.timeout or ANSWER_TIMEOUT_S, [*query.items()]
        status, content = self._read(
            method, path, seconds, query_params=parameters, header_params=dict(_JSON), body=body
        )
        try:
            return json.loads(content or b"null")
        except (ValueError, RecursionError):
            raise not_influxdb(self.url, status) from None

    def write(self, lines: bytes, bucket: str | None = None) -> None:
        """Write points in line protocol, with times in nanoseconds. None at all are a test of whether it may write.

        Args:
            lines: of line protocol.
            bucket: that is written; None: the client's own.
        """
        status, _ = self._read(
            "POST",
            "/api/v2/write",
            self.timeout or WRITE_TIMEOUT_S,
            query_params=[("org", self.org), ("bucket", bucket or self.bucket), ("precision", "ns")],
            header_params={"Content-Type": "text/plain; charset=utf-8", "Content-Encoding": "gzip"},
            # Level 1 takes an eighth of the time of the default and leaves a tenth more to send.
            body=gzip.compress(lines, 1),
        )
        if status != 204:
            raise not_influxdb(self.url, status)

    def flux(
        self, query: str, extern: Mapping[str, Any] | None = None, timeout: float | None = None
    ) -> Iterator[bytes]:
        """Yield the answer to a Flux query as annotated CSV, in pieces as they arrive; see `annotated_csv`.

        Args:
            query: text of the query.
            extern: syntax tree of a file that is put before it, which is how values are given to it.
            timeout: seconds to wait for the next lines; None: the default.
        """
        seconds = timeout or self.timeout or READ_TIMEOUT_S
        dialect = {"header": True, "delimiter": ",", "annotations": ["datatype", "group", "default"]}
        response = self._request(
            "POST",
            "/api/v2/query",
            seconds,
            query_params=[("org", self.org)],
            header_params={"Content-Type": "application/json", "Accept": "application/csv"},
            body={"query": query, "type": "flux", "dialect": dialect} | ({"extern": extern} if extern else {}),
        )
        for piece in self._pieces(response, seconds):
            yield piece
            if b"\n" in piece and not piece.isspace():
                renew(response)

    def influxql(self, statement: str, values: Mapping[str, str] | None = None) -> Iterator[Part]:
        """Yield the series of the answer to a statement of InfluxQL, as they arrive; a long one comes in pieces.

        Args:
            statement: one or several of InfluxQL.
            values: that are bound in it, by name.

        Raises:
            ConfigError: the bucket is missing, or the token may not read it.
            WriteUnavailable: the server does not answer, or cannot carry it out.
        """
        began = again = False
        while True:
            try:
                for part in self._series(self._find_database(again=again), statement, values):
                    began = True
                    yield part
                return
            except _DatabaseMissingError as missing:
                if began or again:
                    reason = f"InfluxQL says {missing}, as for a token of another organisation"
                    raise self._unreadable(reason) from None
                again = True

    def _find_database(self, *, again: bool) -> Database:
        """Return what the bucket is called in InfluxQL, which is asked now and then, and where it is so no more."""
        if again or time.monotonic() - self._found_at > TRUSTED_S:
            self._bucket = self._database = None
            self._found_at = time.monotonic()
        try:
            bucket = self.find_bucket()
            if bucket is None:
                raise self._unreadable("it is missing, or the token may only write")
            self._database = self._database or find_database(self, bucket, own=again)
        except Refused as refused:
            raise refused.as_error() from None
        if self._database is None:
            create = f"influx v1 dbrp create --bucket-id {bucket.id} --db {bucket.id} --rp autogen --default"
            raise self._unreadable(f"no database leads to it; `{create}` makes one, as does a token that may write it")
        return self._database

    def _unreadable(self, reason: str) -> ReadRefused:
        return ReadRefused(
            f"{self.url}: bucket {self.bucket!r} of {self.org!r} cannot be read: {reason}; see {self.names.bucket} and"
            f" {self.names.token}"
        )

    def _series(self, database: Database, statement: str, values: Mapping[str, str] | None) -> Iterator[Part]:
        seconds = self.timeout or READ_TIMEOUT_S
        parameters = [("db", database.name), ("rp", database.policy), ("q", statement), ("epoch", "ns")]
        parameters += [("chunked", "true"), ("chunk_size", str(CHUNK))]
        parameters += [("params", json.dumps(values))] if values else []
        try:
            response = self._request(
                "POST",
                "/query",
                seconds,
                query_params=[("org", self.org)],
                header_params={"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/x-msgpack"},
                post_params=parameters,
            )
        except Refused as refused:
            raise refused.as_error() from None
        for result in self._results(response, seconds):
            if error := result.get("error"):
                problem = one_line(error, 300)
                if any(words in problem for words in _MISSING):
                    raise _DatabaseMissingError(problem)
                raise WriteUnavailable(f"{self.url}: the query failed: {problem}")
            with self.understood():
                parts = tuple(result.get("series", ()))
                if not all(map(is_part, parts)):
                    raise ValueError("it is no series of InfluxQL")
            yield from parts

    @contextmanager
    def understood(self) -> Iterator[None]:
        """Read an answer in a block: what cannot be read there has another form than InfluxDB's answers.

        Raises:
            WriteUnavailable: it has.
        """
        try:
            yield
        except GatewatchError:
            raise
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            raise not_influxdb(self.url, 200).unavailable() from None

    def close(self) -> None:
        """Close connections. The next request opens new ones."""
        client, self._client = self._client, None
        if client is not None and self._pid == os.getpid():
            with suppress(
                ApiException, HttpFailure, urllib3.exceptions.HTTPError, OSError
            ):  # a session that ends by itself
                client.close()  # type: ignore[no-untyped-call]  # influxdb-client is typed in part

    def _results(self, response: urllib3.BaseHTTPResponse, seconds: float) -> Iterator[dict[str, Any]]:
        unpacker = msgpack.Unpacker(max_buffer_size=LARGEST_PART, max_array_len=_LONGEST_LIST, use_list=False)
        received = understood = 0
        try:
            for piece in self._pieces(response, seconds):
                unpacker.feed(piece)
                received += len(piece)
                for answer in unpacker:
                    yield from map(dict, answer["results"])
                    understood = unpacker.tell()
                    renew(response)
            whole = understood == received
        except (ValueError, KeyError, TypeError, msgpack.UnpackException):
            whole = False
        if not whole:
            raise not_influxdb(self.url, response.status).unavailable()

    def _pieces(self, response: urllib3.BaseHTTPResponse, seconds: float) -> Iterator[bytes]:
        try:
            with self._errors(seconds):
                yield from response.stream(READ_BYTES)
        finally:
            response.close()

    def _read(self, method: str, path: str, seconds: float, **request: Any) -> tuple[int, bytes]:
        """Send a request as `_request` does, and return the status and the content of the answer."""
        response = self._request(method, path, seconds, **request)
        with self._errors(seconds):
            return response.status, read_whole(response)

    def _request(self, method: str, path: str, seconds: float, **request: Any) -> urllib3.BaseHTTPResponse:
        """Send a request as `_call` does; raise where the answer is no success."""
        try:
            with self._errors(seconds):
                return self._call(method, path, seconds, **request)
        except (ApiException, HttpFailure) as error:
            raise self._refusal(error) from None

    def _call(self, method: str, path: str, seconds: float, **request: Any) -> urllib3.BaseHTTPResponse:
        """Send a request, as influxdb-client's `call_api` takes it; the content of the answer is still to be read."""
        milliseconds = (int(min(CONNECT_TIMEOUT_S, seconds) * 1000), int(seconds * 1000))
        response: urllib3.BaseHTTPResponse = self._connected().api_client.call_api(  # type: ignore[no-untyped-call]  # influxdb-client is typed in part
            path,
            method,
            _preload_content=False,
            _return_http_data_only=True,
            _request_timeout=milliseconds,
            **request,
        )
        return response

    def _refusal(self, error: ApiException | HttpFailure) -> Refused:
        return refusal(self.url, error, self.names if self.token else None, self.connection.proxy)

    @contextmanager
    def _errors(self, seconds: float) -> Iterator[None]:
        try:
            yield
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise no_answer(self.url, error, seconds, self.connection.proxy) from None

    def _connected(self) -> InfluxDBClient:
        if self._client is None or self._pid != os.getpid():  # connections must not cross a fork
            timeout = int((self.timeout or ANSWER_TIMEOUT_S) * 1000)  # of signing in alone
            self._client = InfluxDBClient(
                self.url,
                self.token or None,  # type: ignore[arg-type]  # which is its default
                org=self.org,
                timeout=timeout,
                username=self.user or None,
                password=self.password or None,
                **self.connection.arguments(has_token=bool(self.token)),
            )
            bound_answers(self._client.api_client.rest_client.pool_manager, self.connection.tls)
            self._pid = os.getpid()
        return self._client

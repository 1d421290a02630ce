"""Answers of what should be an InfluxDB: HTML, wrong JSON, MessagePack and CSV, cut off, endless, slow, or a bomb."""

from __future__ import annotations

import gzip
import json
import os
import re
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgpack

from gatewatch import open_store
from gatewatch.collector.schema import GATE_STATS, RUNS, Point
from gatewatch.collector.store.influxdb.permissions import permissions
from tests.fuzz import odd
from tests.fuzz.raw_server import RawServer, Reply
from tests.fuzz.target import Target
from tests.fuzz.two_runs import MINE

_TIMEOUT_MS = 400
_OPERATIONS = (
    "check",
    "write",
    "read",
    "frames",
    "history",
    "permissions",
    "runs",
    "query",
    "flux",
    "copy",
    "jobs",
    "check_command",
    "report",
)
_ORG, _BUCKET = "fedcba9876543210", "0123456789abcdef"
_VALUES = {"float": 0.5, "integer": 3, "string": "started", "boolean": True}
_CSV = (
    b"#datatype,string,long,dateTime:RFC3339,double,string\r\n#group,false,false,false,false,true\r\n"
    b"#default,_result,,,,\r\n,result,table,_time,_value,run\r\n,,0,2026-01-01T00:00:00Z,0.5,mine\r\n,,0,2026-01-01T00:00:01Z,1.5,mine\r\n\r\n"
)
_REASONS = ("OK", "No Content", "", "Bad\x1b[31m Gateway", "x" * 4000, "é", "Not Found")


@dataclass
class Case:
    """What the server answers.

    Attributes:
        replies: kind of request (`_KINDS`) → what it gets in place of a sound answer.
        operations: what is asked, in their order.
    """

    replies: dict[str, Reply] = field(default_factory=dict)
    operations: tuple[str, ...] = _OPERATIONS


class ServerAnswers(Target):
    """A client connects, writes and reads. The server knows one run, and gives everything that is asked of it."""

    name = "answers"
    seconds = 30.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._server = RawServer()
        self._bomb = gzip.compress(bytes(40 * 2**20), 9) * 50  # two gigabytes of nothing
        os.environ |= {
            f"INFLUXDB_V2_{name}": value
            for name, value in (("ORG", "o"), ("BUCKET", "b"), ("TOKEN", "t"), ("TIMEOUT", str(_TIMEOUT_MS)))
        }

    def sound(self) -> Case:
        return Case()

    def make(self, random: Random) -> Case:
        kinds = [*_KINDS] if random.random() < 0.2 else random.sample([*_KINDS], random.choice((1, 1, 2)))
        replies = {kind: self._reply(random, kind) for kind in kinds}
        of_kinds = [operation for operation in _OPERATIONS if random.random() < 0.5 or len(kinds) > 2]
        return Case(replies, tuple(random.sample(of_kinds, min(2, len(of_kinds)))) or ("check",))

    def _reply(self, random: Random, kind: str) -> Reply:
        status, body = _sound(kind, "SHOW FIELD KEYS FROM x" if random.random() < 0.3 else _SELECT)
        what = random.random()
        if what < 0.4:
            return Reply(_http(status, _other_body(random, kind, body)))
        if what < 0.5:
            status = random.choice(
                (
                    100,
                    101,
                    199,
                    200,
                    201,
                    204,
                    206,
                    301,
                    302,
                    304,
                    307,
                    400,
                    401,
                    403,
                    404,
                    407,
                    408,
                    413,
                    422,
                    429,
                    500,
                    502,
                    503,
                    504,
                    599,
                    999,
                )
            )
            content = random.choice((body, b"<html>no</html>", _refusal(random), b""))
            return Reply(_http(status, content, _headers(random), random.choice(_REASONS)))
        if what < 0.6:
            return Reply(_broken_head(random, body), random.choice(("cut", "hold", "whole", "drip")))
        if what < 0.7:
            whole = _http(status, body)
            return Reply(whole[: random.randint(0, len(whole))], random.choice(("cut", "reset", "hold", "drip")))
        if what < 0.75:
            encoded = random.choice(
                (
                    self._bomb,
                    gzip.compress(body),
                    gzip.compress(body)[:-3],
                    zlib.compress(body),
                    body,
                    self._bomb[:5000],
                )
            )
            encoding = random.choice(("gzip", "deflate", "br", "zstd", "gzip, gzip", "x"))
            status = random.choice((status, 400, 500))
            return Reply(_http(status, encoded, [f"Content-Encoding: {encoding}"]))
        if what < 0.85:
            return Reply(odd.damaged(random, _http(status, body)), random.choice(("cut", "whole")))
        if what < 0.97:
            return _endless(random, body)
        return Reply(_http(status, body), random.choice(("drip", "cut", "reset")))

    def run(self, case: Case, folder: Path) -> None:
        self._server.answer = lambda method, path, body: (
            case.replies.get(_kind(method, path)) or Reply(_http(*_sound(_kind(method, path), _statement(path, body))))
        )
        store = open_store(self._server.url)
        try:
            for operation in case.operations:
                getattr(self, f"_{operation}")(store)
        finally:
            self._server.let_go()
            store.close()

    def _check(self, store: Any) -> None:
        for ask in (store.ping, store.check, store.resolve_destination):
            with self.allowed():
                ask()

    def _write(self, store: Any) -> None:
        with self.allowed():
            store.write(
                [
                    Point(GATE_STATS, {"run": MINE, "layer": "l", "gate": "forget"}, {"mean": 0.5, "step": step}, step)
                    for step in range(5)
                ]
            )

    def _read(self, store: Any) -> None:
        with self.allowed():
            store.count(GATE_STATS, "step", run=MINE)
        with self.allowed():
            store.tallies(GATE_STATS, "step")
        with self.allowed():
            store.series(GATE_STATS, "step", MINE)

    def _frames(self, store: Any) -> None:
        with self.allowed():
            store.read(GATE_STATS, run=MINE)
        with self.allowed():
            store.runs()

    def _history(self, store: Any) -> None:
        with self.allowed():
            history = store.history()
            for measurement in history.measurements()[:2]:
                for run in history.runs(measurement)[:2]:
                    list(history.points(measurement, run))
                    history.counts(measurement, run)

    def _permissions(self, store: Any) -> None:
        with self.allowed():
            permissions(store.influxdb)

    def _runs(self, store: Any) -> None:
        self.command("runs", "--store", store.url)

    def _query(self, store: Any) -> None:
        self.command("query", "runs", "--store", store.url, "--timeout", "1")

    def _flux(self, store: Any) -> None:
        Path("q.flux").write_text("from(bucket: bucket) |> range(start: -1h)")
        self.command("query", "--flux", "q.flux", "--store", store.url, "--json", "--timeout", "1")

    def _copy(self, store: Any) -> None:
        self.command("copy", "--from", store.url, "--to", "sqlite:///copy.db", "--timeout", "1")

    def _jobs(self, store: Any) -> None:
        self.command("jobs", "--once", "--store", store.url)

    def _check_command(self, store: Any) -> None:
        self.command("check", "--store", store.url)

    def _report(self, store: Any) -> None:
        self.command("report", "--store", store.url, "-o", "report.html")


_KINDS = ("ping", "health", "write", "buckets", "orgs", "dbrps", "authorizations", "influxql", "flux")


def _kind(method: str, path: str) -> str:
    last = urlsplit(path).path.removeprefix("/api/v2")
    return "flux" if path.startswith("/api/v2/query") else {"/query": "influxql"}.get(last, last.strip("/"))


_SELECT = 'SELECT ("mean"::float), ("step"::integer) FROM "gate_stats" GROUP BY *'


def _statement(path: str, body: bytes) -> str:
    """Return the statements of InfluxQL that are asked, with the values that are bound in them."""
    asked = {**parse_qs(urlsplit(path).query), **parse_qs(body.decode("latin1"))}
    statement = asked.get("q", [""])[0]
    for name, value in json.loads(asked.get("params", ["{}"])[0]).items():
        statement = statement.replace(f"${name}", f"'{value}'")
    return statement


def _sound(kind: str, statement: str = "") -> tuple[int, bytes]:
    """Return status and body of a sound answer."""
    own = {"id": _BUCKET, "name": "b", "orgID": _ORG}
    mapping = {
        "id": "1" * 16,
        "orgID": _ORG,
        "bucketID": _BUCKET,
        "database": "b",
        "retention_policy": "autogen",
        "default": True,
    }
    lists = {
        "buckets": {"buckets": [own]},
        "orgs": {"orgs": [{"id": _ORG, "name": "o"}]},
        "dbrps": {"content": [mapping]},
        "authorizations": {"authorizations": []},
    }
    if kind in lists:
        return 200, json.dumps(lists[kind]).encode()
    if kind == "health":
        return 200, b'{"name": "influxdb", "status": "pass", "version": "v2.7.1"}'
    if kind == "influxql":
        parts = [_series(each) for each in statement.split("; ")]
        return 200, msgpack.packb(
            {"results": [{"statement_id": i, "series": series} for i, series in enumerate(parts)]}
        )
    return (200, _CSV) if kind == "flux" else (204, b"")


def _series(statement: str) -> list[dict[str, Any]]:
    if statement.startswith("SHOW FIELD KEYS"):
        return [
            {
                "name": GATE_STATS,
                "columns": ["fieldKey", "fieldType"],
                "values": [["mean", "float"], ["step", "integer"]],
            }
        ]
    if statement.startswith("SHOW TAG"):
        values = [["run", MINE]] if "VALUES" in statement else [["run"], ["layer"]]
        return [{"name": GATE_STATS, "columns": ["key", "value"][: len(values[0])], "values": values}]
    selected, _, rest = statement.partition(" FROM ")
    if "\"run\"::tag = ''" in rest:
        return []
    tags = {"run": MINE, "phase": "train", "layer": "l", "gate": "forget"}
    if '"phase"' in rest:
        tags = {"run": MINE, "phase": "train"}
    counts = re.findall(r"(COUNT|LAST)\(", selected)
    if counts:
        return [
            {
                "name": RUNS,
                "tags": tags,
                "columns": ["time", *(name.lower() for name in counts)],
                "values": [[10**18, *[3 for _ in counts]]],
            }
        ]
    kinds = re.findall(r"::(float|integer|string|boolean)", selected)
    rows = [[10**18 + i, *(_VALUES[kind] for kind in kinds)] for i in range(1 if "LIMIT 1" in rest else 3)]
    return [{"name": GATE_STATS, "tags": tags, "columns": ["time", *map(str, range(len(kinds)))], "values": rows}]


def _http(status: int, body: bytes, headers: list[str] | None = None, reason: str = "X") -> bytes:
    named = [f"HTTP/1.1 {status} {reason}", *(headers or []), "X-Influxdb-Version: v2.7.1"]
    if status != 204 and not any(header.lower().startswith(("content-length", "transfer")) for header in named):
        named.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*named, "", ""]).encode("utf-8", "replace") + (body if status != 204 else b"")


def _refusal(random: Random) -> bytes:
    """Return an error as InfluxDB gives it, with odd text in it."""
    kind, dropped = odd.text(random), random.choice((1, 2, 5, 10**30, odd.number(random)))
    bound = random.choice(("2026-01-01T00:00:00", "9999-99-99", "0000"))
    conflict = f'input field "mean" on measurement "gate_stats" is type {kind}, already exists as type float'
    message = random.choice(
        (
            odd.text(random),
            f"unable to parse '{odd.text(random)}': {odd.text(random)}",
            f"partial write: field type conflict: {conflict} dropped={dropped}",
            f"partial write: points beyond retention policy dropped={dropped} Retention Policy Lower Bound at {bound}Z",
            "x" * 10**6,
        )
    )
    answer = {"code": "invalid", "message": message}
    return json.dumps(answer if random.random() < 0.7 else odd.other_json(random, answer)).encode("utf-8", "replace")


def _other_body(random: Random, kind: str, body: bytes) -> bytes:
    if random.random() < 0.15:
        return random.choice(
            (
                b"<!doctype html><html>x</html>",
                b"",
                b"{",
                b"null",
                b"[" * 100_000,
                b"\xc1",
                b"\xdd\xff\xff\xff\xff",
                b"\xdb\xff\xff\xff\xff" + bytes(1000),
                b"1" * 5000,
                b'"' + b"x" * 10**6,
            )
        )
    if kind == "influxql" and random.random() < 0.8:
        answer = odd.other_json(random, msgpack.unpackb(body, use_list=True))
        if random.random() < 0.15:
            answer = {"results": [{"error": odd.text(random)}]}
        try:
            return bytes(msgpack.packb(answer, unicode_errors="surrogatepass")) * random.choice((1, 1, 2))
        except (OverflowError, ValueError, TypeError):
            return body[:-1]
    if body.startswith(b"{") and random.random() < 0.8:
        return json.dumps(odd.other_json(random, json.loads(body))).encode("utf-8", "replace")
    if kind == "flux" and random.random() < 0.6:
        cells = body.decode().split(random.choice((",", "\r\n")))
        cells[random.randrange(len(cells))] = random.choice(
            (odd.text(random), "#datatype", "", "error", '"', "\r\n\r\n", "long", "dateTime:RFC3339", "1e999")
        )
        return ",".join(cells).encode("utf-8", "replace")
    return odd.damaged(random, body)


def _headers(random: Random) -> list[str]:
    value = odd.text(random).replace("\r", "").replace("\n", "")
    moments = ("1", "-5", "1e400", "nan", "Wed, 21 Oct 2099 07:28:00 GMT", "Wed, 99 Oct 20 GMT", value, "9" * 400)
    return random.sample(
        (
            f"Retry-After: {random.choice(moments)}",
            f"Location: {random.choice(('/ping', 'http://127.0.0.1:9/', 'http://[', value, 'x' * 5000))}",
            f"X-Influxdb-Build: {value}",
            f"X-Influxdb-Version: {random.choice((value, '1.8.10', '3.0.0', 'x' * 3000))}",
            f"Content-Type: {value}",
            f"Content-Length: {random.choice(('-1', '0', '99999999999999', 'x', '1, 2', '5'))}",
            "Transfer-Encoding: chunked",
            f"Set-Cookie: {value}",
            "Connection: close",
        ),
        random.randint(0, 3),
    )


def _broken_head(random: Random, body: bytes) -> bytes:
    return random.choice(
        (
            b"",
            b"\r\n\r\n",
            b"HTTP/1.1\r\n\r\n",
            b"HTTP/1.1 abc OK\r\n\r\n" + body,
            b"HTTP/9.9 200 OK\r\nContent-Length: 5\r\n\r\nabcde",
            b"ICY 200 OK\r\n\r\n",
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"\x15\x03\x01\x00\x02\x02\x46",
            b"HTTP/1.1 200 OK\r\n"
            + b"".join(b"X-%d: y\r\n" % i for i in range(random.choice((90, 101, 5000))))
            + b"\r\n",
            b"HTTP/1.1 200 OK\r\nX: " + b"y" * random.choice((60_000, 70_000, 10**6)) + b"\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nno colon\r\n folded\r\n\r\n" + body,
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            + random.choice(
                (
                    b"zz\r\n",
                    b"-5\r\nx",
                    b"ffffffffffffffff\r\nx",
                    b"5\r\nab",
                    b"5;" + b"x" * 70_000,
                    b"0\r\n" + b"A: b\r\n" * 1000,
                    b"1\r\nx\r\n" * 1000,
                )
            ),
            b"HTTP/1.1 200 OK\r\nContent-Length: "
            + random.choice((b"-1", b"x", b"99999999999", b"1" * 5000))
            + b"\r\n\r\n"
            + body,
            b"HTTP/1.1 100 Continue\r\n\r\n" * random.choice((1, 1000)),
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n\0\1",
        )
    )


def _endless(random: Random, body: bytes) -> Reply:
    """Return an answer without end, fast or slow: headers, or a body that says nothing sound."""
    status = random.choice((200, 200, 400, 404, 500))
    start = b"HTTP/1.1 %d X\r\n" % status
    pace = random.choice(("endless", "endless", "endless drip"))
    nothing = random.choice(
        (b"x", b" ", b"\n", b"\r\n", b"\0", b",", b'"', b"\x01", b"<p>", b"[", b"#", b"\xff", body[:1] or b"y")
    )
    heads = (
        (start + b"X-Endless: ", b"x"),
        (start, b"X-A: b\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"", b"x"),
        (start + b"\r\n", nothing),
        (start + b"\r\n" + body, nothing),
        (start + b"\r\n" + body[: len(body) // 2], nothing),
        (start + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n" + nothing[:1] + b"\r\n"),
        (start + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
        (start + b"Transfer-Encoding: chunked\r\n\r\n5;", b"x"),
        (start + b"Content-Length: 999999999999\r\n\r\n", nothing),
        (start + b"\r\n\xdb\xff\xff\xff\xff", b"x"),
        (start + b'\r\n{"buckets": "', b"x"),
    )
    content, repeat = random.choice(heads)
    return Reply(content, pace, repeat)  # type: ignore[arg-type]

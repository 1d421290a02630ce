"""What is InfluxDB's own: tokens, buckets, partial writes, servers that are away or are none."""

from __future__ import annotations

import gzip
import itertools
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from email.utils import formatdate
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import msgpack
import pytest

from gatewatch.collector.errors import ConfigError, WriteRejected, WriteUnavailable
from gatewatch.collector.line_protocol import encode
from gatewatch.collector.schema import Point
from gatewatch.collector.store import open_store
from gatewatch.collector.store.influxdb import store as influxdb
from gatewatch.collector.store.influxdb.client import Client
from gatewatch.collector.store.influxdb.store import InfluxStore
from tests.servers import Front

if TYPE_CHECKING:
    from ..conftest import Influxd

NOW = time.time_ns()


def points(count: int = 1) -> list[Point]:
    return [Point("m", {"run": "r"}, {"f": float(i)}, NOW + i) for i in range(count)]


def message(error: pytest.ExceptionInfo[Exception], token: str = "s3cret") -> str:
    text = str(error.value)
    assert "\n" not in text
    assert token not in text
    return text


def test_a_token_for_writing_alone_passes_the_check_and_writes(influxd: Influxd) -> None:
    bucket = influxd.bucket()
    store = influxd.store(bucket, influxd.token_for("write"))
    store.check()
    store.write(points())
    assert len(influxd.store(bucket).read("m")) == 1
    with pytest.raises(ConfigError, match="may only write"):
        store.read("m")


def test_a_token_for_reading_alone_reads_and_cannot_write(influxd: Influxd) -> None:
    bucket = influxd.bucket()
    influxd.store(bucket).write(points())
    store = influxd.store(bucket, influxd.token_for("read"))
    assert len(store.read("m")) == 1
    with pytest.raises(ConfigError, match="the right to write"):
        store.check()
    with pytest.raises(WriteUnavailable, match="the right to write") as caught:
        store.write(points())
    assert caught.value.slow


def test_a_refused_token_is_named_by_its_variable(influxd: Influxd) -> None:
    store = influxd.store(token="s3cret")
    with pytest.raises(ConfigError) as check:
        store.check()
    with pytest.raises(WriteUnavailable) as write:
        store.write(points())
    with pytest.raises(ConfigError) as read:
        store.read("m")
    for error in (check, write, read):
        assert "INFLUXDB_V2_TOKEN" in message(error)
        assert influxd.url in message(error)
    assert write.value.slow


def test_a_missing_bucket_or_organisation_is_named(influxd: Influxd) -> None:
    absent = influxd.store("absent")
    nobody = InfluxStore(Client(influxd.url, org="nobody", bucket="first", token=influxd.token))
    for store, name in ((absent, "absent"), (nobody, "nobody")):
        with pytest.raises(ConfigError) as check:
            store.check()
        assert name in message(check, influxd.token)
        with pytest.raises(WriteUnavailable, match=name) as write:
            store.write_lines(encode(points()))
        assert write.value.slow
    with pytest.raises(ConfigError, match="'absent'"):
        absent.read("m")


def test_a_bucket_may_have_any_name(influxd: Influxd) -> None:
    store = influxd.store(influxd.bucket("we ird/na'me & ünïcode"))
    store.check()
    store.write(points())
    assert len(store.read("m")) == 1


def test_the_environment_opens_it(influxd: Influxd, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "URL": influxd.url + "/",
        "ORG": influxd.org,
        "BUCKET": "first",
        "TOKEN": influxd.token,
    }.items():
        monkeypatch.setenv(f"INFLUXDB_V2_{name}", value)
    store = open_store()
    store.check()
    assert store.url == influxd.url


def test_points_past_the_retention_are_counted_and_the_others_stored(influxd: Influxd) -> None:
    store = influxd.store(influxd.bucket(retention_s=3600))
    old = [Point("m", {"run": "r"}, {"f": 1.0}, 10**9 + i) for i in range(3)]
    with pytest.raises(WriteRejected, match="retention policy") as caught:
        store.write([*old, *points(2)])
    assert caught.value.count == 3
    assert len(store.read("m")) == 2


def test_a_point_that_the_server_cannot_parse_does_not_cost_the_others(influxd: Influxd) -> None:
    store = influxd.store()
    too_many_tags = Point("m", {f"tag{i}": "x" * 500 for i in range(200)}, {"f": 1.0}, NOW + 50)
    with pytest.raises(WriteRejected) as caught:
        store.write([*points(100)[:50], too_many_tags, *points(100)[51:]])
    assert caught.value.count == 1
    assert caught.value.lines[0][0] == encode([too_many_tags])[:-1]
    assert len(message(caught, influxd.token)) < 100
    assert len(store.read("m")) == 99


LINES = 5_000


def _past(number: int) -> bytes:
    return encode([Point("m", {"run": "r"}, {"f": 1.0}, 10**9 + number)])[:-1]


def _conflicting(number: int) -> bytes:
    return encode([Point("m", {"run": "r"}, {"f": "text\nof two lines"}, NOW + number)])[:-1]


def _too_many_tags(number: int) -> bytes:
    return encode([Point("m", {f"tag{i}": "x" * 500 for i in range(140)}, {"f": 1.0}, NOW + number)])[:-1]


@pytest.mark.parametrize(
    ("wrong", "at", "most_requests"),
    [
        (_past, [2_718], 28),
        (_past, [0], 28),
        (_past, [LINES - 1], 28),
        (_conflicting, [2_718], 28),
        (_too_many_tags, [2_718], 28),
        (_past, [(i * 97 + i * i) % LINES for i in range(50)], 56),
        (_past, range(0, LINES, 2), 56),
        (_conflicting, [(i * 97 + i * i) % LINES for i in range(50)], 650),
        (_past, range(1_000, 3_000), 56),
        (_past, range(LINES), 1),
        (_conflicting, range(LINES), 1),
    ],
    ids=lambda given: given.__name__ if callable(given) else str(given) if isinstance(given, int) else f"{len(given)}",
)
def test_the_refused_of_many_lines_are_found_exactly_and_in_few_requests(
    influxd: Influxd,
    monkeypatch: pytest.MonkeyPatch,
    wrong: Callable[[int], bytes],
    at: Sequence[int],
    most_requests: int,
) -> None:
    store = influxd.store(influxd.bucket(retention_s=3600))
    store.write(points())
    lines = encode(points(LINES)).splitlines()
    refused = {i: wrong(i) for i in at}
    for i, line in refused.items():
        lines[i] = line
    sent: list[int] = []
    send = store.influxdb.write
    monkeypatch.setattr(store.influxdb, "write", lambda body: sent.append(body.count(b"\n")) or send(body))
    with pytest.raises(WriteRejected) as caught:
        store.write_lines(b"\n".join(lines) + b"\n")
    assert sorted(line for line, _ in caught.value.lines) == sorted(refused.values())
    assert all(reason for _, reason in caught.value.lines)
    assert caught.value.count == len(at)
    assert len(sent) <= most_requests
    kept = sorted({0, *range(LINES)} - (set(at) - {0}))  # the first was there before
    assert store.read("m")["f"].tolist() == [float(i) for i in kept]


def test_what_one_measurement_brings_is_refused_in_few_requests(
    influxd: Influxd, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = influxd.store()
    store.write([Point("metrics", {"run": "r"}, {"loss": 1.0}, NOW)])
    metrics = [Point("metrics", {"run": "r"}, {"loss": 1}, NOW + i) for i in range(500)]
    others = points(4_500)
    mixed = [part for i, metric in enumerate(metrics) for part in (*others[i * 9 : i * 9 + 9], metric)]
    sent: list[bytes] = []
    send = store.influxdb.write
    monkeypatch.setattr(store.influxdb, "write", lambda body: sent.append(body) or send(body))
    with pytest.raises(WriteRejected) as caught:
        store.write(mixed)
    assert caught.value.count == 500
    assert len(sent) <= 40
    assert len(store.read("m")) == 4_500


def test_points_that_several_shards_refuse_are_all_found(influxd: Influxd) -> None:
    store = influxd.store()
    days = [Point("m", {}, {"f": 1.0}, NOW - day * 86_400 * 10**9) for day in range(0, 90, 10)]
    store.write(days)
    wrong = [Point("m", {}, {"f": "text"}, day.time + 1) for day in days]
    with pytest.raises(WriteRejected) as caught:
        store.write([*wrong, Point("m", {}, {"f": 2.0}, NOW + 2)])
    assert sorted(line for line, _ in caught.value.lines) == sorted(encode([point])[:-1] for point in wrong)
    assert len(store.read("m")) == len(days) + 1


def test_a_field_whose_type_differs_by_shard_is_read_as_a_float(influxd: Influxd) -> None:
    store = influxd.store()
    run = {"run": "r"}
    store.write([Point("m", run, {"f": 1}, 10**18), Point("m", run, {"f": 2.5}, 1_700_000_000 * 10**9)])
    assert store.read("m")["f"].tolist() == [1.0, 2.5]
    assert store.count("m", "f") == 2
    assert store.tallies("m", "f") == {"r": (2, 1_700_000_000 * 10**9)}


def test_a_stopped_server_is_unavailable_and_comes_back(own_influxd: Influxd) -> None:
    store = own_influxd.store()
    store.write(points())
    own_influxd.stop()
    for ask in (store.check, lambda: store.write(points()), lambda: store.read("m"), store.runs):
        with pytest.raises(WriteUnavailable, match="no connection") as caught:
            ask()
        assert own_influxd.url in message(caught, own_influxd.token)
        assert not caught.value.slow
    own_influxd.start()
    store.write(points(3))
    assert len(store.read("m")) == 3


def test_threads_share_a_store(influxd: Influxd) -> None:
    store = influxd.store()
    batches = [[Point("m", {"w": str(w)}, {"f": 1.0}, NOW + i) for i in range(200)] for w in range(6)]
    threads = [threading.Thread(target=store.write, args=(batch,)) for batch in batches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(store.read("m")) == 1200


LINE = encode(points())

# What influxd cannot be made to do, a small real server does: answer late, wrongly, or not as InfluxDB.
Answer = Callable[[BaseHTTPRequestHandler, bytes], None]


@pytest.fixture
def stand_in() -> Iterator[Callable[[Answer], InfluxStore]]:
    servers: list[ThreadingHTTPServer] = []

    def start(answer: Answer) -> InfluxStore:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                answer(self, self.rfile.read(int(self.headers["Content-Length"] or 0)))

            def do_GET(self) -> None:
                answer(self, b"")

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return InfluxStore(
            Client(f"http://127.0.0.1:{server.server_port}", org="o", bucket="b", token="s3cret", timeout=0.5)
        )

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def replying(status: int, body: bytes = b"", **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [
        (lambda: "7", 7, 7),
        (lambda: "0", 0, 0),
        (lambda: "1.5", 1.5, 1.5),
        (lambda: formatdate(time.time() + 3600, usegmt=True), 3000, 3601),
    ],
    ids=["seconds", "at-once", "parts-of-a-second", "a-date"],
)
def test_a_busy_server_says_when_to_come_back(
    stand_in: Callable[[Answer], InfluxStore], header: Callable[[], str], low: float, high: float
) -> None:
    for status in (429, 503):
        store = stand_in(replying(status, b'{"code":"busy","message":"not now"}', Retry_After=header()))
        for ask in (store.check, lambda store=store: store.write_lines(LINE)):
            with pytest.raises(WriteUnavailable, match="not now") as caught:
                ask()
            assert not caught.value.slow
            assert caught.value.retry_after is not None
            assert low <= caught.value.retry_after <= high


@pytest.mark.parametrize("header", ["soon", "nan", "inf", "-3", "Thu, 01 Jan 99999 00:00:00 GMT", "9" * 5000])
def test_a_senseless_retry_after_does_no_harm(stand_in: Callable[[Answer], InfluxStore], header: str) -> None:
    store = stand_in(replying(503, Retry_After=header))
    with pytest.raises(WriteUnavailable) as caught:
        store.write_lines(LINE)
    assert caught.value.retry_after in (None, 0.0)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_proxy_before_a_server_that_is_away_asks_for_another_try(
    stand_in: Callable[[Answer], InfluxStore], status: int
) -> None:
    store = stand_in(replying(status, b"<html>come again</html>"))
    for ask in (store.check, lambda: store.write_lines(LINE)):
        with pytest.raises(WriteUnavailable, match=f"answers {status}") as caught:
            ask()
        assert message(caught)
        assert not caught.value.slow


def test_a_server_that_hangs_is_unavailable(stand_in: Callable[[Answer], InfluxStore]) -> None:
    release = threading.Event()
    store = stand_in(lambda handler, body: release.wait(30) and None)
    for ask in (store.check, lambda: store.write_lines(LINE), lambda: store.read("m")):
        with pytest.raises(WriteUnavailable, match=r"no answer within 0\.5 s") as caught:
            ask()
        assert not caught.value.slow
    release.set()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (replying(200, b"<html>welcome</html>"), "not InfluxDB"),
        (replying(200, b"{}"), "not InfluxDB"),
        (replying(302, Location="https://login.example/?next=s3cret"), "leads to https://login.example/"),
        (replying(308, Location="https://elsewhere/"), "leads to https://elsewhere/"),
        (replying(404, b"<html>no such page</html>"), "not InfluxDB"),
        (replying(400, b"The plain HTTP request was sent to HTTPS port"), "not InfluxDB"),
        (replying(422, b'["rubbish"]'), "not InfluxDB"),
        (replying(401, b"<html>log in</html>"), "not InfluxDB"),
        (replying(405, b'{"message":"no such method"}'), "no such method|not InfluxDB"),
    ],
)
def test_what_is_no_influxdb_is_told_so_and_takes_no_points(
    stand_in: Callable[[Answer], InfluxStore], answer: Answer, told: str
) -> None:
    store = stand_in(answer)
    with pytest.raises(ConfigError, match=told) as check:
        store.check()
    with pytest.raises(WriteUnavailable, match=told) as write:
        store.write_lines(LINE)
    assert write.value.slow
    with pytest.raises((WriteUnavailable, ConfigError), match=told) as read:
        store.read("m")
    assert all(message(error) for error in (check, write, read))


def test_an_answer_that_breaks_off_is_unavailable(stand_in: Callable[[Answer], InfluxStore]) -> None:
    def answer(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b'{"results":[')
        handler.close_connection = True

    def reset(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        handler.wfile.write(b"HTTP/1.1 204 No Con")
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.close()
        handler.close_connection = True

    for store in (stand_in(answer), stand_in(reset)):
        for ask in (store.check, lambda store=store: store.write_lines(LINE), lambda store=store: store.read("m")):
            with pytest.raises(WriteUnavailable, match="broke") as caught:
                ask()
            assert not caught.value.slow


_LOOKED_UP = {
    "/api/v2/buckets": {"buckets": [{"id": "1", "name": "b", "orgID": "2"}]},
    "/api/v2/orgs": {"orgs": []},
    "/api/v2/dbrps": {
        "content": [{"database": "b", "retention_policy": "autogen", "default": True, "bucketID": "1"}],
    },
}


def _answer(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> bytes:
    series = {"name": "m", "tags": {"run": "r"}, "columns": columns, "values": rows}
    return bytes(msgpack.packb({"results": [{"statement_id": 0, "series": [series]}]}))


def test_an_answer_that_ends_in_the_middle_of_a_message_is_not_taken_for_whole(
    stand_in: Callable[[Answer], InfluxStore],
) -> None:
    types = _answer(["fieldKey", "fieldType"], [["f", "float"]])
    rows = _answer(["time", "f"], [[i, i / 7] for i in range(3)])

    def read(answer: bytes) -> list[float]:
        turns = map(partial(replying, 200), (types, answer))

        def take_turns(handler: BaseHTTPRequestHandler, body: bytes) -> None:
            asked = _LOOKED_UP.get(handler.path.partition("?")[0])
            (next(turns) if asked is None else replying(200, json.dumps(asked).encode()))(handler, body)

        return list(stand_in(take_turns).read("m")["f"])

    assert read(rows + rows) == [i / 7 for i in (0, 0, 1, 1, 2, 2)]
    for kept in (1, len(rows) // 2, len(rows) - 1, len(rows) + 1, 2 * len(rows) - 1):
        with pytest.raises(WriteUnavailable):
            read((rows + rows)[:kept])


def test_a_request_too_large_is_halved_until_it_fits(
    stand_in: Callable[[Answer], InfluxStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[bytes] = []

    def answer(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        lines = gzip.decompress(body).splitlines()
        if len(lines) > 3 or b"m,run=r f=5 " in lines[0]:
            replying(413, b"<html>too large</html>")(handler, body)
        else:
            taken.extend(lines)
            replying(204)(handler, body)

    monkeypatch.setattr(influxdb, "BATCH", 10)
    with pytest.raises(WriteRejected, match="too large") as caught:
        stand_in(answer).write_lines(encode(points(20)))
    assert caught.value.lines == [(encode(points(20)).splitlines()[5], "the request is too large")]
    assert caught.value.count == 1
    assert len(taken) == 19


def _number(text: bytes, i: int) -> bytes:
    return b"m,run=r %s %d" % (text, time.time_ns() - i)


@pytest.mark.parametrize(
    ("wrong", "reason", "requests"),
    [
        ([b"m,run=r rubbish 1"], "invalid field format", 2),
        ([_number(b"f=abc", i) for i in range(500)], "invalid boolean", 2),
        ([_number(b'f="text"', i) for i in range(500)], "field type conflict", 2),
        ([_number(b'f="text"' if i % 2 else b"g=1i", i) for i in range(500)], "field type conflict", 4),
        ([b"m,run=r f=1 %d" % (10**18 + i) for i in range(500)], "outside retention policy", 2),
    ],
    ids=["one", "unparsable", "conflict", "two-conflicts", "retention"],
)
def test_wrong_lines_among_good_ones_take_few_requests(
    influxd: Influxd, wrong: list[bytes], reason: str, requests: int
) -> None:
    bucket = influxd.bucket(retention_s=86400)
    influxd.store(bucket).write([Point("m", {}, {"f": 1.0, "g": 1.0}, time.time_ns())])
    good = [_number(b"f=%d" % i, 10**9 + i) for i in range(500)]
    front = Front(influxd.url)
    store = InfluxStore(Client(front.url, org=influxd.org, bucket=bucket, token=influxd.token))
    mixed = [line for pair in itertools.zip_longest(good, wrong) for line in pair if line]
    with pytest.raises(WriteRejected, match=reason) as caught:
        store.write_lines(b"\n".join(mixed) + b"\n")
    assert sorted(line for line, _ in caught.value.lines) == sorted(wrong)
    assert len(influxd.store(bucket).read("m", run="r")) == 500
    assert len(front.asked) <= requests
    front.close()

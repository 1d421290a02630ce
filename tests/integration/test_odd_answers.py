"""Answers of a server that never end, unpack to gigabytes, or have another form: one line each, in time."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Callable, Iterator

import msgpack
import pytest

from gatewatch import open_store
from gatewatch.collector.errors import GatewatchError, WriteUnavailable
from gatewatch.collector.schema import Point
from gatewatch.collector.store import Store
from gatewatch.jobs.cli import main
from gatewatch.jobs.stack import setup
from tests.fuzz.loop import peak, reset_peak, resident
from tests.fuzz.raw_server import RawServer, Reply

OK = b"HTTP/1.1 200 OK\r\n"
ENDLESS = {
    "a header": Reply(OK + b"X: ", "endless drip"),
    "headers": Reply(OK, "endless", b"X: y\r\n"),
    "interim answers": Reply(b"", "endless", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a body": Reply(OK + b"\r\n", "endless"),
    "a body, slowly": Reply(OK + b"\r\n", "endless drip"),
    "chunks": Reply(OK + b"Transfer-Encoding: chunked\r\n\r\n", "endless", b"1\r\nx\r\n"),
    "the size of a chunk": Reply(OK + b"Transfer-Encoding: chunked\r\n\r\n5;", "endless"),
    "an error": Reply(b"HTTP/1.1 400 Bad Request\r\n\r\n", "endless"),
    "an error, slowly": Reply(b"HTTP/1.1 500 Oh\r\n\r\n", "endless drip"),
    "a message": Reply(OK + b"\r\n\xdb\xff\xff\xff\xff", "endless"),
    "blank lines": Reply(OK + b"\r\n", "endless", b"\r\n"),
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[RawServer]:
    for name, value in (("ORG", "o"), ("BUCKET", "b"), ("TOKEN", "t"), ("TIMEOUT", "300")):
        monkeypatch.setenv(f"INFLUXDB_V2_{name}", value)
    server = RawServer()
    yield server
    server.let_go()


def answering(server: RawServer, *replies: tuple[str, Reply]) -> Store:
    """A store at a server that answers requests for these paths so, and others like one that knows the bucket."""

    def answer(method: str, path: str, body: bytes) -> Reply:
        own = next((reply for start, reply in replies if path.startswith(start)), None)
        return own or _sound(path)

    server.answer = answer
    return open_store(server.url)


def _sound(path: str) -> Reply:
    bucket = {"id": "0" * 16, "name": "b", "orgID": "1" * 16}
    mapping = {"bucketID": "0" * 16, "database": "b", "retention_policy": "autogen", "default": True}
    lists = {"buckets": {"buckets": [bucket]}, "orgs": {"orgs": [{"id": "1" * 16}]}, "dbrps": {"content": [mapping]}}
    for name, answer in lists.items():
        if path.startswith(f"/api/v2/{name}"):
            return body(json.dumps(answer).encode())
    return Reply(b"HTTP/1.1 204 No Content\r\nX-Influxdb-Version: v2.7.1\r\n\r\n")


def body(content: bytes, *headers: str, status: int = 200) -> Reply:
    head = "\r\n".join([f"HTTP/1.1 {status} OK", f"Content-Length: {len(content)}", *headers, "", ""])
    return Reply(head.encode() + content)


def messages(*results: object) -> Reply:
    return body(msgpack.packb({"results": list(results)}))


def problem(work: Callable[[], object]) -> str:
    """What is said of work that fails, in one line; nothing of work that does not."""
    try:
        work()
    except GatewatchError as error:
        text = str(error)
        assert text.isprintable()
        assert len(text) < 1_000
        return text
    return ""


@pytest.mark.parametrize("kind", ENDLESS)
@pytest.mark.parametrize("path", ["/api/v2/write", "/api/v2/buckets", "/query"])
def test_an_answer_that_never_ends_ends_with_the_timeout_and_takes_little_memory(server, path, kind):
    store = answering(server, (path, ENDLESS[kind]))
    before = resident()
    reset_peak()
    write = path == "/api/v2/write"
    assert problem(lambda: store.write([Point("m", {}, {"f": 1.0}, 1)]) if write else store.read("m"))
    assert peak() - before < 250 * 2**20


@pytest.mark.parametrize("kind", ["a body", "a body, slowly", "blank lines", "chunks", "a header"])
def test_a_query_whose_answer_never_ends_ends_with_its_timeout(server, kind, capsys):
    store = answering(server, ("/api/v2/query", ENDLESS[kind]))
    before = resident()
    reset_peak()
    assert main(["query", "runs", "--store", store.url, "--timeout", "1"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert peak() - before < 250 * 2**20


@pytest.mark.parametrize("status", [200, 400, 500])
def test_an_answer_that_unpacks_to_gigabytes_is_not_unpacked(server, status):
    bomb = gzip.compress(bytes(40 * 2**20), 9) * 50
    store = answering(server, ("/api/v2/buckets", body(bomb, "Content-Encoding: gzip", status=status)))
    before = resident()
    reset_peak()
    assert problem(store.runs)
    assert peak() - before < 100 * 2**20


def test_headers_that_cannot_be_parsed_are_not_logged_with_a_traceback(server, caplog):
    caplog.set_level(logging.WARNING)
    store = answering(server, ("/api/v2/write", Reply(b"HTTP/1.1 204 OK\r\nX: y\r\nno colon\r\nZ: y\r\n\r\n")))
    store.write([Point("m", {}, {"f": 1.0}, 1)])
    assert caplog.records == []


def test_a_body_of_an_error_that_is_empty_is_no_error_of_the_client(server):
    store = answering(server, ("/api/v2/write", body(b"", status=502)))
    with pytest.raises(WriteUnavailable, match="answers 502"):
        store.write([Point("m", {}, {"f": 1.0}, 1)])


KEYS = {"series": [{"name": "m", "columns": ["fieldKey", "fieldType"], "values": [["f", "float"]]}]}


@pytest.mark.parametrize(
    "reply",
    [
        body(b"\x01"),
        body(b"\xdd\xff\xff\xff\xff"),
        messages(1),
        messages({"series": 1}),
        messages({"series": [1]}),
        messages({"series": [{"columns": ["time"], "values": [[1, 2]]}]}),
        messages({"series": [{"columns": ["time", "f"], "values": [["x", 1.0]]}]}),
        messages({"series": [{"tags": {"run": 1}, "columns": ["time", "f"], "values": [[1, 1.0]]}]}),
        messages({"series": [{"columns": ["time", "f", "g"], "values": [[1, 1.0, 1.0]]}]}),
        messages({"series": [{"columns": ["time", "f"], "values": [[1, "x"]]}]}),
        messages({"series": [{"columns": ["fieldKey", "fieldType"], "values": [["f", "complex"]]}]}),
        messages({"series": [{"columns": ["time", "f"], "values": []}]}),
    ],
)
def test_an_answer_of_another_form_than_influxql_gives_is_named(server, reply):
    asked = []

    def answer(method: str, path: str, content: bytes) -> Reply:
        if path.startswith("/query"):
            asked.append(content)
            return messages(KEYS) if b"SHOW+FIELD" in content and len(asked) == 1 else reply
        return _sound(path)

    store = answering(server)
    server.answer = answer
    problems = set()
    for read in (lambda: store.read("m"), store.runs, lambda: store.count("m", "f"), lambda: store.tallies("m", "f")):
        asked.clear()
        problems.add(problem(read))
    assert problems - {""} == {f"{server.url}: answers 200, which is not InfluxDB 2; see the address"}


@pytest.mark.parametrize(
    "content",
    [
        {"buckets": 1},
        {"buckets": [1]},
        {"buckets": [{"id": 1, "name": "b", "orgID": "x"}]},
        {"buckets": [{"id": "x", "name": "b"}]},
        [[]],
    ],
)
def test_a_list_of_buckets_of_another_form_is_named(server, content):
    store = answering(server, ("/api/v2/buckets", body(json.dumps(content).encode())))
    with pytest.raises(WriteUnavailable, match="which is not InfluxDB 2; see the address"):
        store.runs()


def test_json_that_is_nested_without_end_is_named(server):
    nested = b"[" * 10**6
    store = answering(server, ("/api/v2/buckets", body(nested)), ("/ping", body(nested)), ("/health", body(nested)))
    with pytest.raises(WriteUnavailable, match="which is not InfluxDB 2; see the address"):
        store.runs()
    store.check()
    refusing = answering(server, ("/api/v2/write", body(nested, status=502)))
    with pytest.raises(WriteUnavailable, match="answers 502"):
        refusing.write([Point("m", {}, {"f": 1.0}, 1)])


@pytest.mark.parametrize(
    "content",
    [
        b"{}",
        b"[]",
        b"null",
        b"<html>",
        b'{"orgs": [1]}',
        b'{"orgs": [{"name": "o"}]}',
        b'{"orgs": [{"name": "o", "id": "x"}], "buckets": [[]]}',
        b'{"orgs": [{"name": "o", "id": "x"}], "buckets": [{"id": "x", "retentionRules": [1]}]}',
        b'{"orgs": [{"name": "o", "id": "x"}], "buckets": [{"id": "x"}], "tasks": [{}]}',
        b'{"orgs": [{"name": "o", "id": "x"}], "buckets": [{"id": "x"}], "tasks": [], "authorizations": ["x"]}',
    ],
)
def test_the_set_up_of_the_stack_names_a_server_that_answers_in_another_form(
    server, tmp_path, monkeypatch, capsys, content
):
    for name in ("USER", "PASSWORD"):
        monkeypatch.setenv(f"GATEWATCH_INFLUXDB_{name}", "correct horse")
    monkeypatch.setenv("INFLUXDB_V2_URL", server.url)
    answering(
        server, ("/api/v2/setup", body(b'{"allowed": false}')), ("/api/v2/signin", body(b"")), ("/", body(content))
    )
    assert setup.main(["--tokens", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said == f"gatewatch: {server.url}: answers 200, which is not InfluxDB 2; see the address\n"

"""`gatewatch spool`: what waits is shown, shipped, and what cannot be is said in one line."""

from __future__ import annotations

import json
import multiprocessing

import pytest

from gatewatch.collector.line_protocol import encode
from gatewatch.collector.schema import Point
from gatewatch.collector.spool.queue import Spool, spool_root
from gatewatch.collector.store import open_store
from gatewatch.jobs.cli import main
from tests.conftest import free_port
from tests.servers import Front, failing_on, replying


def leave(destination, *numbers, rejected=()):
    """What a process leaves that was killed."""

    def work():
        spool = Spool(spool_root(), destination, 2**20)
        for number in numbers:
            spool.append(encode([Point("m", {"run": "r"}, {"f": float(number)}, number)]), 1)
        spool.reject(rejected)

    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join()
    assert child.exitcode == 0


def said(capsys, *arguments):
    status = main(["spool", *arguments])
    output = capsys.readouterr()
    return status, output.out, output.err


@pytest.fixture
def influx(influxd, monkeypatch):
    monkeypatch.setenv("INFLUXDB_V2_TOKEN", influxd.token)
    return {"url": influxd.url, "org": influxd.org, "bucket": influxd.bucket()}


@pytest.mark.parametrize("action", ["status", "flush"])
def test_nothing_waits(capsys, action):
    status, out, _ = said(capsys, action)
    assert (status, out) == (0, f"nothing waits in {spool_root()}\n")
    assert said(capsys, action, "--json")[:2] == (0, "[]\n")


def test_what_waits_is_shown_and_shipped(capsys, influx, influxd):
    leave(influx, 1, 2, 3)
    status, out, _ = said(capsys, "status")
    assert status == 0
    assert influx["url"] in out
    assert influx["bucket"] in out
    (entry,) = json.loads(said(capsys, "status", "--json")[1])
    assert (entry["points"], entry["rejected"], entry["damaged"]) == (3, 0, 0)
    status, out, _ = said(capsys, "flush")
    assert status == 0
    assert "shipped" in out
    assert influxd.store(influx["bucket"]).read("m")["f"].tolist() == [1, 2, 3]
    assert said(capsys, "status")[1].startswith("nothing waits")


def test_what_was_refused_is_shown_with_the_reason(capsys, tmp_path):
    destination = {"url": f"sqlite:///{tmp_path}/g.db"}
    leave(destination, rejected=[(b'm f="x" 1', "field type conflict \x1b[2J")])
    status, out, _ = said(capsys, "status")
    assert status == 0
    assert "refused: 1, in " in out
    assert "field type conflict" in out
    assert "\x1b" not in out


def test_what_the_store_refuses_now_is_put_aside_and_the_rest_arrives(capsys, tmp_path):
    store = open_store(f"sqlite:///{tmp_path}/g.db")
    store.write([Point("m", {"run": "r"}, {"f": "text"}, 9)])
    leave(store.destination, 1)
    store.write([Point("n", {"run": "r"}, {"f": 1.0}, 9)])
    status, out, _ = said(capsys, "flush", "--json")
    assert status == 0
    assert [(one["shipped"], one["rejected"], one["left"]) for one in json.loads(out)] == [(0, 1, 0)]
    assert "is of type float, already exists as str" in said(capsys, "status")[1]


def test_a_store_that_is_not_there_keeps_everything_waiting(capsys, influx):
    leave({**influx, "url": f"http://127.0.0.1:{free_port()}"}, 1, 2)
    status, _, err = said(capsys, "flush", "--timeout", "1")
    assert status == 1
    assert "no connection" in err
    assert len(err.splitlines()) == 1
    assert json.loads(said(capsys, "status", "--json")[1])[0]["points"] == 2


def test_a_point_that_the_server_always_fails_on_waits_until_another_one_passes(capsys, influx, influxd, monkeypatch):
    """Before that it might be an outage."""
    monkeypatch.setattr("gatewatch.collector.spool.delivery.ROUND_WAIT", 0.1)
    front = Front(influxd.url)
    front.answer = failing_on(b" f=666", replying(500, b'{"code":"internal error","message":"engine: broken"}'))
    leave({**influx, "url": front.url}, 666)
    status, _, err = said(capsys, "flush", "--timeout", "3")
    assert status == 1
    assert err == f"gatewatch: {front.url}: engine: broken\n"
    (entry,) = json.loads(said(capsys, "status", "--json")[1])
    assert (entry["points"], entry["rejected"]) == (1, 0)
    leave({**influx, "url": front.url}, 1)
    leave({**influx, "url": front.url}, *range(2, 1000))
    status, out, _ = said(capsys, "flush", "--json")
    assert (status, json.loads(out)[0]["rejected"], json.loads(out)[0]["left"]) == (0, 2, 0)
    assert influxd.store(influx["bucket"]).read("m")["f"].tolist() == [*range(1, 666), *range(667, 1000)]
    (entry,) = json.loads(said(capsys, "status", "--json")[1])
    assert (entry["points"], entry["rejected"], entry["reason"]) == (0, 2, f"{front.url}: engine: broken")
    front.close()


def test_a_token_that_is_missing_is_named(capsys, influx, monkeypatch):
    leave(influx, 1)
    monkeypatch.delenv("INFLUXDB_V2_TOKEN")
    status, _, err = said(capsys, "flush")
    assert status == 1
    assert "INFLUXDB_V2_TOKEN" in err


def test_one_store_that_is_away_does_not_keep_another_waiting(capsys, influx, influxd):
    leave({**influx, "url": f"http://127.0.0.1:{free_port()}"}, 1)
    leave(influx, 2)
    status, _, _ = said(capsys, "flush", "--timeout", "1")
    assert status == 1
    assert influxd.store(influx["bucket"]).read("m")["f"].tolist() == [2]


def test_what_a_running_process_holds_is_left_to_it(capsys, tmp_path):
    destination = {"url": f"sqlite:///{tmp_path}/g.db"}
    held = Spool(spool_root(), destination, 2**20)
    held.append(encode([Point("m", {"run": "r"}, {"f": 1.0}, 1)]), 1)
    status, out, _ = said(capsys, "flush", "--json", "--timeout", "1")
    assert (status, json.loads(out)[0]["shipped"], json.loads(out)[0]["left"]) == (0, 0, 0)
    held.close()
    assert json.loads(said(capsys, "flush", "--json")[1])[0]["shipped"] == 1

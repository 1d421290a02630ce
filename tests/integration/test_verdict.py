"""`gatewatch verdict` and `gatewatch.verdict`: what they say of runs in real stores, and that the report agrees."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

import gatewatch
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.schema import GATE_SCORES, Point
from gatewatch.collector.store import open_store
from gatewatch.collector.store.influxdb import client
from gatewatch.jobs.cli import main
from gatewatch.jobs.report.page import write_report
from tests.conftest import free_port
from tests.recorded import end, fill, recorded, shut
from tests.servers import Front, holding
from tests.tokens import token_of

HOSTILE = 'a "b" </p><b>\u202ec ${d} é漢'


def broken(k, gate, values):
    """A gate that is NaN from the fiftieth capture on."""
    return values * np.nan if k >= 50 and gate == "input" else values


def several(store):
    """Runs that nobody has scored."""
    for run, count, change in (
        ("healthy", 70, None),
        ("shut", 70, shut(50)),
        ("broken", 70, broken),
        ("short", 14, None),
        (HOSTILE, 70, shut(50)),
    ):
        fill(store, recorded(count, run=run, change=change))
        end(store, run)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A store with several runs, all scored by their first verdict."""
    store = open_store(f"sqlite:///{tmp_path_factory.mktemp('runs') / 'points.db'}")
    several(store)
    return store


@pytest.fixture
def said(runs, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("GATEWATCH_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("GATEWATCH_STORE", runs.url)

    def run(*arguments):
        status = main(["verdict", *arguments])
        out, err = capsys.readouterr()
        return status, out, err

    return run


def test_a_training_and_a_verdict_are_two_commands_and_a_right_answer(said):
    status, out, err = said("healthy")
    assert (status, err) == (0, "")
    assert out.startswith("healthy: All 2 gates, 2 parameters and 1 more series stayed in their normal range: ")
    assert out.count("\n") == 1
    status, out, _ = said("shut")
    assert status == 1
    assert out.startswith("alarm: What stands out is the forget gate of memory: ")
    assert re.search(r"^since step +layer +gate +what +source +evidence$", out, re.M)
    assert re.search(
        r"^ *51 +memory +forget +at once a large part of the gate .* network +phase train, share above 1 0.5", out, re.M
    )


def test_json_is_all_that_is_printed(said):
    status, out, err = said("shut", "--json")
    verdict = json.loads(out)
    assert (status, err) == (1, "")
    assert list(verdict) == ["run", "state", "verdict", "sentence", "findings"]
    assert (verdict["run"], verdict["state"], verdict["verdict"]) == ("shut", "completed", "alarm")
    first = verdict["findings"][0]
    assert list(first) == ["source", "layer", "gate", "what", "since_step", "since_time", "evidence"]
    assert (first["source"], first["layer"], first["gate"], first["since_step"]) == ("network", "memory", "forget", 51)
    assert first["since_time"] == "2023-11-14T22:14:11+00:00"
    assert first["evidence"]["phase"] == "train"


def test_values_that_are_not_finite_are_an_alarm_whose_json_is_valid(said):
    status, out, _ = said("broken", "--json")
    verdict = json.loads(out, parse_constant=pytest.fail)
    assert (status, verdict["verdict"]) == (1, "alarm")
    assert verdict["findings"][0]["since_step"] == 50


def test_too_few_captures_are_undecided_and_say_how_many_are_missing(said):
    status, out, err = said("short")
    assert (status, err) == (3, "")
    assert out.startswith("undecided: ")
    assert "14 of the 33 captures" in out
    verdict = json.loads(said("short", "--json")[1])
    assert verdict["findings"][0]["evidence"] == {"phase": "train", "captures": 14, "needed": 33}


def test_a_hostile_name_stays_in_its_line_and_in_its_string(said):
    status, out, err = said(HOSTILE)
    assert (status, err) == (1, "")
    assert "\u202e" not in out
    assert json.loads(said(HOSTILE, "--json")[1])["run"] == HOSTILE


def test_a_run_that_is_not_there(said):
    status, out, err = said("helthy")
    assert (status, out) == (2, "")
    assert re.fullmatch(r"gatewatch: no run 'helthy' in .*: did you mean 'healthy'\?\n", err)


def test_without_scoring_only_what_is_scored_is_judged(tmp_path, capsys):
    store = open_store(f"sqlite:///{tmp_path / 'points.db'}")
    fill(store, recorded(70, run="r", change=shut(50)))
    end(store)
    assert main(["verdict", "r", "--no-score", "--store", store.url]) == 3
    assert "gatewatch jobs --once" in capsys.readouterr().out
    assert store.read(GATE_SCORES).empty
    verdict = gatewatch.verdict(store.url, "r")
    assert (verdict.verdict, verdict.state) == ("undecided", "completed")
    assert main(["verdict", "r", "--store", store.url]) == 1
    assert gatewatch.verdict(store, "r").verdict == "alarm"


def test_what_was_captured_after_the_last_score_is_not_called_healthy(tmp_path, capsys):
    store = open_store(f"sqlite:///{tmp_path / 'points.db'}")
    fill(store, recorded(70, run="r"))
    end(store)
    assert main(["verdict", "r", "--store", store.url]) == 0
    fill(store, recorded(40, 70, run="r"))
    verdict = gatewatch.verdict(store, "r")
    assert verdict.verdict == "undecided"
    assert "40 of its 110 captures" in verdict.sentence
    capsys.readouterr()
    assert main(["verdict", "r", "--store", store.url]) == 0


def test_a_notice_fails_only_where_that_is_asked_for(tmp_path, capsys):
    store = open_store(f"sqlite:///{tmp_path / 'points.db'}")
    fill(store, recorded(70, run="r"))
    end(store)
    url = ["--store", store.url]
    assert main(["verdict", "r", *url]) == 0
    at = store.read(GATE_SCORES)["time"].iloc[-1].value
    tags = {"run": "r", "phase": "train", "layer": "_data", "gate": "feed", "detector": "data"}
    store.write([Point(GATE_SCORES, tags, {"anomaly_score": 2.0, "why_feed_moved": 2.0, "step": 69}, at)])
    capsys.readouterr()
    assert main(["verdict", "r", *url]) == 0
    assert capsys.readouterr().out.startswith("notice: First at step 69, a notice, no alarm: what is fed is not")
    assert main(["verdict", "r", "--fail-on", "notice", *url]) == 1


@pytest.mark.parametrize("run", ["healthy", "shut", "broken", "short"])
def test_the_first_sentence_of_the_report_is_that_of_the_verdict(runs, said, run, tmp_path):
    verdict = json.loads(said(run, "--json")[1])
    page = write_report(runs, run, tmp_path / "report.html").read_text()
    shown = re.search(r'<p class="verdict">(.*?)</p>', page, re.DOTALL)[1]
    assert shown.startswith(verdict["sentence"])


def test_a_store_that_is_away_is_undecided_in_one_line(monkeypatch, capsys):
    for name, value in (("ORG", "o"), ("BUCKET", "b"), ("TOKEN", "t")):
        monkeypatch.setenv(f"INFLUXDB_V2_{name}", value)
    url = f"http://127.0.0.1:{free_port()}"
    assert main(["verdict", "r", "--store", url]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"gatewatch: Undecided: http://127\.0\.0\.1:\d+: no connection.*\n", err)
    assert main(["verdict", "r", "--store", url, "--json"]) == 3
    verdict = json.loads(capsys.readouterr().out)
    assert (verdict["verdict"], verdict["state"], verdict["findings"]) == ("undecided", None, [])
    assert gatewatch.verdict(open_store(url), "r").sentence == verdict["sentence"]


def test_a_store_that_does_not_answer_is_waited_for_as_long_as_was_said(monkeypatch):
    front = Front()
    front.answer = holding
    monkeypatch.setattr(client, "ANSWER_TIMEOUT_S", 30)
    try:
        store = open_store(front.url, org="o", bucket="b", token="t")
        verdict = gatewatch.verdict(store, "r", timeout=0.1)
        assert verdict.sentence == f"Undecided: {front.url} was not read within 0.1 s"
    finally:
        front.close()


def test_a_token_that_may_only_write_is_undecided(influxd, monkeypatch, capsys):
    bucket = influxd.bucket()
    token = token_of(influxd, "write", buckets=(bucket,))
    for name, value in {"URL": influxd.url, "ORG": influxd.org, "BUCKET": bucket, "TOKEN": token}.items():
        monkeypatch.setenv(f"INFLUXDB_V2_{name}", value)
    assert main(["verdict", "r"]) == 3
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "the token may only write" in err
    assert "the token may only write" in gatewatch.verdict(influxd.url, "r").sentence


def test_a_token_that_may_only_read_judges_what_is_scored(influxd, monkeypatch, capsys):
    bucket = influxd.bucket()
    store = influxd.store(bucket)
    fill(store, recorded(40, run="r"))
    end(store)
    token = token_of(influxd, "read", buckets=(bucket,))
    for name, value in {"URL": influxd.url, "ORG": influxd.org, "BUCKET": bucket, "TOKEN": token}.items():
        monkeypatch.setenv(f"INFLUXDB_V2_{name}", value)
    assert main(["verdict", "r"]) == 3
    out, err = capsys.readouterr()
    assert "gatewatch jobs --once" in out
    assert re.fullmatch(r"gatewatch: new captures were not scored: .*\n", err)
    monkeypatch.setenv("INFLUXDB_V2_TOKEN", influxd.token)
    assert main(["verdict", "r"]) == 0


@pytest.mark.parametrize("url", ["sqlite:///nothing.db", "points.db"])
def test_a_store_that_does_not_exist_is_an_argument(url, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["verdict", "r", "--store", url]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_function_raises_where_there_is_no_such_run(runs):
    with pytest.raises(ConfigError, match="no run 'nobody'"):
        gatewatch.verdict(runs, "nobody")

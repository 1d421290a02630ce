"""The named queries on a SQLite file: the same columns and rows as their Flux gives on a real InfluxDB."""

from __future__ import annotations

import json
import math
from contextlib import closing

import pytest

from gatewatch.collector.schema import GATE_DERIVED, GATE_SCORES, GATE_STATS, TRAIN_METRICS, Point
from gatewatch.collector.store import open_store
from gatewatch.jobs.cli import main
from gatewatch.jobs.queries.answers import ANSWERS, answer
from gatewatch.jobs.queries.client import ask
from gatewatch.jobs.queries.named_query import queries
from gatewatch.jobs.queries.output import in_order, with_explanations
from tests import cookbook, seeded

SPAN = {"start": ["1980-01-01"], "stop": ["2025-06-30T12:00:00Z"]}
ASKED = {
    "alerts": [{}, {"rules": ["run-died"]}],
    "anomalies": [{}, {"runs": [cookbook.SICK, seeded.COLLAPSED]}, {"runs": [seeded.COLLAPSED]}],
    "collector": [{}],
    "dead-units": [{"run": [run]} for run in (cookbook.SICK, seeded.GRU, seeded.HOSTILE, "nobody")],
    "drawdown": [
        {"run": [seeded.BACKTEST]},
        {"run": [seeded.BACKTEST], "before": ["1mo"], "curve": ["price"]},
        {"run": [seeded.COLLAPSED], "phase": ["train"], "curve": ["loss"], "before": ["5m"]},
        {"run": [seeded.BACKTEST], "curve": ["nobody"]},
    ],
    "first-anomaly": [{}, {"runs": [cookbook.SICK]}],
    "gates": [
        {"run": [seeded.COLLAPSED]},
        {"run": [seeded.COLLAPSED], "every": ["7m30s"], "statistic": ["entropy"], "gates": ["forget", "input"]},
        {"run": [seeded.BACKTEST], "every": ["2w"], "layers": ["memory"]},
        {"run": [seeded.HOSTILE]},
        {"run": [seeded.COLLAPSED], "start": ["2025-06-30T11:40:07Z"], "every": ["5m"]},
    ],
    "generalisation": [{}, {"runs": [seeded.COLLAPSED]}, {"runs": [seeded.COLLAPSED, seeded.HEALTHY]}],
    "gradients": [{"run": [run]} for run in (cookbook.SICK, seeded.GRU, "nobody")],
    "jobs": [{}],
    "layer-at-step": [
        {"run": [seeded.COLLAPSED], "layer": ["lstm_0"], "step": ["75"]},
        {"run": [seeded.COLLAPSED], "layer": ["lstm_0"], "step": ["-1"]},
        {"run": [seeded.BACKTEST], "layer": ["memory"], "step": ["7"], "phase": ["backtest"]},
    ],
    "memory": [{"run": [run]} for run in seeded.RUN_NAMES],
    "regimes": [{"run": [seeded.BACKTEST]}, {"run": [seeded.COLLAPSED]}],
    "runs": [{}, {"start": ["2025-06-30T11:50:00Z"]}, {"stop": ["2025-06-30T11:59:00Z"]}],
    "saturation-by": [{}, {"tag": ["strategy"]}, {"tag": ["layer"], "runs": [seeded.HEALTHY]}, {"tag": ["nobody"]}],
    "updates": [{"run": [run]} for run in (cookbook.SICK, seeded.COLLAPSED)],
    "worst-layers": [{}, {"top": ["3"]}, {"top": ["1000"]}],
}


@pytest.fixture(scope="module")
def stores(influxd, tmp_path_factory):
    """A file with runs of every kind, and a bucket with the same points."""
    file = open_store(f"sqlite:///{tmp_path_factory.mktemp('file')}/gatewatch.db")
    file.write(cookbook.sick())
    seeded.seed(file, cookbook.NOW)
    server = influxd.store(influxd.bucket())
    with closing(file.history()) as history:
        for name in history.measurements():
            for run in history.runs(name):
                server.write(point for part in history.points(name, run) for point in part)
    return file, server


def both(stores, name, given):
    """The rows of both stores, in the order in which each gives them."""
    file, server = stores
    query = queries()[name]
    texts = {**{key: SPAN[key] for key in SPAN if key not in given}, **given}
    values = query.values(texts, server.destination["bucket"])
    ours = answer(query, file, values, cookbook.NOW)
    theirs = ask(server.influxdb, query.text, values, source=name)
    return [
        list(in_order(with_explanations(rows, query.words) if query.words else rows, query.columns))
        for rows in (ours, theirs)
    ]


def same(cell, other):
    if isinstance(cell, float) and isinstance(other, float):
        return cell == pytest.approx(other, rel=1e-9, abs=1e-15, nan_ok=True)
    return type(cell) is type(other) and cell == other if cell not in (None, "") else other in (None, "")


def by_key(rows):
    """Rows in one order: of equal ones in what a query sorts by, InfluxDB promises none."""
    return sorted(rows, key=lambda row: [str(cell) for cell in row.values() if not isinstance(cell, float)])


@pytest.mark.parametrize(("name", "given"), [(name, each) for name, given in ASKED.items() for each in given])
def test_a_query_has_the_rows_that_its_flux_gives(stores, name, given):
    ours, theirs = both(stores, name, given)
    assert len(ours) == len(theirs)
    for one, other in zip(by_key(ours), by_key(theirs), strict=True):
        assert [key for key in one if not same(one[key], other[key])] == [], (one, other)


@pytest.mark.parametrize("name", ["worst-layers", "drawdown", "alerts", "runs", "gates", "first-anomaly"])
def test_the_rows_are_in_the_order_of_the_flux(stores, name):
    ours, theirs = both(stores, name, ASKED[name][0])
    shown = {"worst-layers": "worst", "drawdown": "times", "alerts": "time"}.get(name, "run")
    assert len(ours) > 1
    for one, other in zip(ours, theirs, strict=True):
        assert same(one.get(shown), other.get(shown))


def test_every_query_but_one_is_answered():
    assert set(queries()) - set(ANSWERS) == {"compare"}
    assert set(ASKED) == set(ANSWERS)
    assert all(given for given in ASKED.values())
    assert math.isfinite(cookbook.NOW)


def said(capsys, *arguments):
    status = main(["query", *arguments])
    out, err = capsys.readouterr()
    return status, out, err


@pytest.fixture
def here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    store = open_store("sqlite:///gatewatch.db")
    tags = {"run": "r", "phase": "train", "layer": "l", "gate": "forget"}
    store.write([Point(GATE_STATS, tags, {"mean": 0.25 * k, "step": k}, 10**18 + k) for k in range(2)])
    return store


def test_the_command_answers_from_a_file(here, capsys):
    status, out, err = said(capsys, "gates", "--param", "run=r", "--json")
    row = {"time": "2001-09-09T01:46:00Z", "phase": "train", "layer": "l", "gate": "forget", "value": 0.125}
    assert (status, err, json.loads(out)) == (0, "", [row])
    status, out, err = said(capsys, "memory", "--param", "run=r")
    assert (status, err) == (0, "")
    assert out == "query 'memory' finds nothing, given run=\"r\", start=1970-01-01T00:00:00Z, stop=now()\n"


def test_csv_gives_text_that_a_spreadsheet_would_run_an_apostrophe_and_numbers_none(here, capsys):
    tags = {"run": "r", "phase": "train", "layer": "=1+1", "gate": "@g"}
    here.write([Point(GATE_STATS, tags, {"mean": -0.5, "step": 0}, 10**18)])
    assert said(capsys, "gates", "--param", "run=r", "--param", "layers==1+1", "--csv")[1].splitlines() == [
        "time,phase,layer,gate,value",
        "2001-09-09T01:46:00Z,train,'=1+1,'@g,-0.5",
    ]


@pytest.mark.parametrize("name", sorted(ANSWERS))
def test_an_empty_file_and_one_with_little_answer_nothing_in_one_line(here, name, capsys, tmp_path):
    given = {"run": "nobody", "layer": "l", "step": "1"}
    known = {parameter.name for parameter in queries()[name].parameters}
    items = [item for key, value in given.items() if key in known for item in ("--param", f"{key}={value}")]
    status, out, err = said(capsys, name, *items, "--param", "start=1980-01-01")
    assert (status, err) == (0, "")
    assert out.startswith(f"query '{name}' finds nothing, given ")
    (tmp_path / "gatewatch.db").unlink()
    open_store("sqlite:///gatewatch.db").check()
    assert said(capsys, name, *items)[0] == 0


def test_what_needs_a_server_says_so_in_one_line(here, capsys):
    status, out, err = said(capsys, "compare", "--param", "run=r", "--param", "other=r")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "Flux needs InfluxDB 2" in err
    for arguments in (("gates", "--param", "run=r", "--show"), ("--flux", "-")):
        assert said(capsys, *arguments)[0] == 2
    assert said(capsys, "memory", "--param", "run=r", "--param", "start=now")[0] == 2
    status, _, err = said(capsys, "gates", "--param", "run=r", "--param", "every=1mo")
    assert (status, err.count("\n")) == (2, 1)
    assert "months and years are counted by InfluxDB alone" in err
    assert said(capsys, "memory", "--param", "run=r", "--store", "sqlite:///no.db")[0] == 2


def test_of_several_at_one_time_what_is_no_layer_then_the_highest_score_is_the_first_anomaly(influxd, tmp_path):
    at = 10**18
    points = []
    for run, scores in {"r": {"a": 1.5, "z": 4.0, "m": 2.0}, "fed": {"a": 5.0, "_data": 2.0}}.items():
        tags = {"run": run, "phase": "train", "gate": "forget"}
        points += [
            Point(
                GATE_SCORES, {**tags, "layer": layer, "detector": "consensus"}, {"anomaly_score": score, "step": 3}, at
            )
            for layer, score in scores.items()
        ]
        points.append(Point(GATE_STATS, {**tags, "layer": "a"}, {"step": 3}, at))
    stores = open_store(f"sqlite:///{tmp_path}/s.db"), influxd.store(influxd.bucket())
    for store in stores:
        store.write(points)
    for rows in both(stores, "first-anomaly", {}):
        assert [(row["run"], row["layer"], row["score"], row["after"]) for row in rows] == [
            ("fed", "_data", 2.0, "0ns"),
            ("r", "z", 4.0, "0ns"),
        ]


def test_runs_shows_nan_where_the_newest_loss_is_nan(influxd, tmp_path):
    points = []
    for run in ("finite", "broken", "back", "other"):
        tags = {"run": run, "phase": "train"}
        points += [Point("runs", tags, {"event": "started", "step": 0}, 10**18)]
        points += [Point(TRAIN_METRICS, tags, {"loss": 0.5, "step": 1}, 10**18)]
    lacking = {"nan_count": 1, "inf_count": 0, "step": 2}
    points += [Point(TRAIN_METRICS, {"run": run, "phase": "train"}, lacking, 10**18 + 5) for run in ("broken", "back")]
    points += [Point(TRAIN_METRICS, {"run": "back", "phase": "train"}, {"loss": 0.25, "step": 3}, 10**18 + 6)]
    seen = {"loss": 0.75, "nan_count": 1, "inf_count": 0, "step": 2}
    points += [Point(TRAIN_METRICS, {"run": "other", "phase": "train"}, seen, 10**18 + 5)]
    points += [Point(GATE_DERIVED, {"run": "no", "phase": "train"}, {"drift": 0.5}, 10**18)]
    stores = open_store(f"sqlite:///{tmp_path}/s.db"), influxd.store(influxd.bucket())
    for store in stores:
        store.write(points)
    for rows in both(stores, "runs", {}):
        losses = {row["run"]: row["loss"] for row in rows}
        assert {run: losses[run] for run in ("finite", "back", "other")} == {"finite": 0.5, "back": 0.25, "other": 0.75}
        assert math.isnan(losses["broken"])

"""The main job, end to end on real prices: `gatewatch demo`, and what it leaves in the embedded store."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gatewatch import open_store
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.schema import (
    GATE_DERIVED,
    GATE_SCORES,
    GATE_STATS,
    GATE_UNITS,
    LAYER_UPDATES,
    RUNS,
    TRAIN_METRICS,
    Point,
)
from gatewatch.jobs.cli import main
from gatewatch.jobs.scoring.residuals import WARM_UP
from gatewatch.jobs.scoring.run_scorer import RunScorer
from gatewatch.jobs.scoring.scoring_pass import run_pass

HEALTHY, FAULT = "demo-1-healthy", "demo-1-fault"


def gatewatch(*arguments, cwd, **environment):
    """Run the command as a user would."""
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("GATEWATCH_", "INFLUXDB_"))}
    return subprocess.run(
        [sys.executable, "-m", "gatewatch.jobs.cli", *arguments],
        cwd=cwd,
        env=keep | {"PYTHONPATH": str(Path(__file__).parents[2])} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """The demo as it is run by `make demo`: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    done = gatewatch("demo", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return folder / "gatewatch-demo", done.stdout


@pytest.fixture
def store(demo, tmp_path):
    """The demo's store, for one test to change."""
    shutil.copy(demo[0] / "gatewatch.db", tmp_path / "gatewatch.db")
    return open_store(f"sqlite:///{tmp_path / 'gatewatch.db'}")


def contents(store):
    """Everything in a SQLite store, row by row."""
    columns = {"series": "id, measurement, run, tags", "points": "*", "fields": "*"}  # not how often it was written
    with store._reading() as connection:
        return {
            name: connection.execute(f"SELECT {chosen} FROM {name} ORDER BY 1, 2").fetchall()
            for name, chosen in columns.items()
        }


def test_it_says_what_stands_out_what_to_open_and_what_to_try(demo):
    folder, said = demo
    rows = {
        (m[1], m[2]): (float(m[3]), m[5])
        for m in re.finditer(r"^(demo\S+) +(\w+ third) +([\d.]+) +([\d.]+) +\S+ +(\S+) ", said, re.M)
    }
    assert len(rows) == 6
    assert rows[FAULT, "last third"] == (0.0, "memory/forget")
    assert min(forget for key, (forget, _) in rows.items() if key != (FAULT, "last third")) > 0.6
    report = Path(re.search(r"Open +file://(\S+)", said)[1])
    assert report == folder / f"{FAULT}.html"
    assert report.stat().st_size > 1e6
    view, verdict = (line.split()[1:] for line in re.findall(r"(gatewatch .*)", said[said.index("Next") :]))
    assert view == ["view", "--open", *verdict[2:]]
    done = gatewatch(*verdict, cwd=folder.parent)
    assert (done.returncode, done.stdout[:22]) == (1, "alarm: First at step 4"), done.stderr
    script = re.search(r"python (\S+) --help", said)[1]
    assert (folder.parent / script).exists()


def test_the_fault_is_found_from_the_data_alone(demo):
    store = open_store(f"sqlite:///{demo[0] / 'gatewatch.db'}")
    scores = store.read(GATE_SCORES, run=FAULT)
    first_bad = (
        store.read(GATE_STATS, run=FAULT, tags={"layer": "memory", "gate": "forget"}).query("mean < 0.1")["step"].min()
    )
    consensus = scores[scores["detector"] == "consensus"]
    forget = consensus[(consensus["layer"] == "memory") & (consensus["gate"] == "forget")].set_index("step")
    before, after = forget[forget.index < first_bad], forget[forget.index >= first_bad]
    assert len(after) >= 40
    assert (after["anomaly_score"].iloc[1:] > 1).all()  # from its second capture to the end
    assert (before["anomaly_score"] <= 1).all()
    assert (consensus[consensus["step"] < first_bad]["anomaly_score"] <= 1).all()
    healthy = store.read(GATE_SCORES, run=HEALTHY, tags={"detector": "consensus"})
    assert (healthy["anomaly_score"] <= 1).all()
    assert (after["why_collapsed"].iloc[1:] > 1).all()
    assert (after["why_saturated"].iloc[1:] > 1).all()
    assert after["why_mean_activation"].min() < -50


def test_scores_keep_their_contract(demo):
    store = open_store(f"sqlite:///{demo[0] / 'gatewatch.db'}")
    scores, stats = store.read(GATE_SCORES, run=FAULT), store.read(GATE_STATS, run=FAULT)
    assert (scores["anomaly_score"] >= 0).all()
    assert (scores["anomalous"] == (scores["anomaly_score"] > 1)).all()
    assert set(scores["detector"]) == {"isolation_forest", "robust", "rules", "checks", "consensus"}
    assert scores["model_id"].nunique() == 1
    captures = np.sort(stats["time"].unique())
    checks = scores[scores["detector"] == "checks"]
    params = {(layer, param) for layer in ("memory", "decision") for param in ("kernel", "recurrent", "bias")}
    params |= {("position", param) for param in ("kernel", "bias")}
    assert set(zip(checks["layer"], checks["gate"], strict=True)) == {*params, ("_optimizer", "steps")}
    assert set(checks["time"]) < set(captures[1:])  # a capture at the end of an epoch may have no step of its own
    assert checks["time"].nunique() > 0.8 * len(captures)
    scores = scores[scores["detector"] != "checks"]
    scores = scores[
        scores["gate"].isin({*stats["gate"], "kernel", "recurrent", "loss"})
    ]  # the checks alone score biases
    assert set(scores["time"]) == set(captures[WARM_UP:])
    gates = set(zip(stats["layer"], stats["gate"], strict=True))
    of_gates = scores.groupby(["layer", "gate"]).filter(lambda rows: rows.name in gates)
    assert set(of_gates.groupby(["layer", "gate", "detector"]).size()) == {len(captures) - WARM_UP}
    merged = scores.merge(stats, on=["time", "layer", "gate", "symbol"])
    assert (merged["step_x"] == merged["step_y"]).all()
    others = set(zip(scores["layer"], scores["gate"], strict=True)) - gates
    assert others == {
        *((layer, param) for layer in ("memory", "decision") for param in ("kernel", "recurrent")),
        ("position", "kernel"),
        ("_model", "loss"),
    }
    assert set(scores[scores["detector"] == "isolation_forest"]["gate"]) == {gate for _, gate in gates}


def test_derived_metrics_of_the_demo(demo):
    derived = open_store(f"sqlite:///{demo[0] / 'gatewatch.db'}").read(GATE_DERIVED, run=FAULT)
    forget = derived[(derived["layer"] == "memory") & (derived["gate"] == "forget")]
    assert forget["memory_timescale"].iloc[0] == pytest.approx(3.2, abs=0.2)
    assert forget["memory_timescale"].iloc[-1] < 0.2
    assert forget["saturation"].iloc[-1] > 0.99
    assert forget["drift"].max() > 0.9
    assert derived["effective_rank"].max() <= 16
    assert derived.loc[derived["gate"] != "forget", "memory_timescale"].isna().all()


def test_a_second_pass_changes_nothing(store):
    before = contents(store)
    passes = run_pass(store)
    assert all(done.unchanged for done in passes)
    assert contents(store) == before


def test_a_pass_over_everything_again_writes_the_same_points(store):
    before = contents(store)
    with store._lock, store._transaction("IMMEDIATE") as connection:
        connection.execute(
            "DELETE FROM points WHERE series_id IN (SELECT id FROM series WHERE measurement IN (?, ?))",
            (GATE_DERIVED, GATE_SCORES),
        )
    assert [done.unchanged for done in run_pass(store)] == [False, False]
    assert contents(store) == before


def test_passes_along_the_way_write_what_one_at_the_end_writes(store, tmp_path):
    live = open_store(f"sqlite:///{tmp_path / 'live.db'}")
    frames = {
        name: store.read(name, run=FAULT) for name in (RUNS, GATE_STATS, GATE_UNITS, LAYER_UPDATES, TRAIN_METRICS)
    }
    moments = np.sort(frames[GATE_STATS]["time"].unique())
    begin = pd.Timestamp(0, tz="UTC")
    for end in [*moments[[5, 31, 32, 40, 111, 130]], moments[-1] + pd.Timedelta(days=1)]:
        for name, frame in frames.items():
            live.write(points(name, frame[(frame["time"] >= begin) & (frame["time"] < end)]))
        run_pass(live)
        begin = end
    for name in (GATE_DERIVED, GATE_SCORES):
        pd.testing.assert_frame_equal(live.read(name, run=FAULT), store.read(name, run=FAULT), check_exact=True)


def points(measurement, frame):
    tags = [c for c in ("run", "phase", "layer", "gate", "param", "symbol") if c in frame]
    for row in frame.to_dict("records"):
        fields = {k: v for k, v in row.items() if k not in (*tags, "time") and not pd.isna(v)}
        yield Point(measurement, {t: row[t] for t in tags}, fields, row["time"].value)


def test_one_run_of_many(store):
    assert [done.run for done in run_pass(store, HEALTHY)] == [HEALTHY]
    with pytest.raises(ConfigError, match=r"no run 'other' in .*: there is 'demo-1-fault', 'demo-1-healthy'"):
        run_pass(store, "other")


class TestCommand:
    """`gatewatch` on the demo's store and beside it."""

    def test_a_pass_is_told_in_a_table_and_as_json(self, store, tmp_path):
        done = gatewatch("jobs", "--once", "--store", "sqlite:///gatewatch.db", cwd=tmp_path)
        assert done.returncode == 0
        assert done.stdout.count("no new captures") == 2
        done = gatewatch("jobs", "--once", "--json", cwd=tmp_path, GATEWATCH_STORE="sqlite:///gatewatch.db")
        assert '"unchanged": true' in done.stdout

    def test_runs_are_listed(self, store, tmp_path):
        done = gatewatch("runs", cwd=tmp_path)
        assert [line.split()[:2] for line in done.stdout.splitlines()[1:]] == [
            [FAULT, "completed"],
            [HEALTHY, "completed"],
        ]
        assert '"run":"demo-1-fault"' in gatewatch("runs", "--json", cwd=tmp_path).stdout.replace(" ", "")

    @pytest.mark.parametrize(
        ("arguments", "status", "said"),
        [
            (["runs", "--store", "sqlite:///nowhere.db"], 2, "sqlite:///nowhere.db does not exist"),
            (["runs", "--store", "ftp://x"], 2, "not the address of a store"),
            (["report", "other"], 2, "other"),
            (["report", "-o", "missing/folder/x.html"], 2, "missing/folder"),
            (["jobs", "--once", "--run", "other"], 2, "no run 'other' in"),
            (["demo", "--folder", "gatewatch.db"], 2, "--folder gatewatch.db"),
        ],
    )
    def test_what_is_wrong_is_said_in_one_line(self, store, tmp_path, arguments, status, said):
        done = gatewatch(*arguments, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (status, "")
        assert done.stderr.startswith("gatewatch: ")
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
        assert not (tmp_path / "nowhere.db").exists()

    def test_an_empty_store_says_where_to_begin(self, tmp_path):
        open_store(f"sqlite:///{tmp_path}/empty.db").check()
        for command in (["runs"], ["jobs", "--once"]):
            done = gatewatch(*command, "--store", "sqlite:///empty.db", cwd=tmp_path)
            assert done.returncode == 0
            assert "GateMonitor" in done.stdout

    def test_a_full_disk_behind_the_output_is_one_line(self, store, tmp_path):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "gatewatch.jobs.cli", "runs"],
                cwd=tmp_path,
                env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONUNBUFFERED": "1"},
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        assert done.returncode == 1
        assert done.stderr == "gatewatch: the output: No space left on device\n"

    def test_one_run_that_cannot_be_scored_does_not_keep_the_others_from_their_scores(
        self, store, tmp_path, monkeypatch, capsys
    ):
        odd = {"run": "odd", "phase": "train", "layer": "l", "gate": "forget"}
        store.write([Point(GATE_STATS, odd, {"entropy": 1.0, "step": 1}, 10**18)])
        store.write([Point("runs", {"run": "odd", "phase": "train"}, {"event": "started", "step": 1}, 2 * 10**18)])
        process_new = RunScorer.process_new

        def fails_for_one(scorer, *arguments):  # a stand-in for a bug: no points are known that scoring cannot take
            if scorer.result.run == "odd":
                raise KeyError("entropy")
            process_new(scorer, *arguments)

        monkeypatch.setattr(RunScorer, "process_new", fails_for_one)
        monkeypatch.chdir(tmp_path)
        assert main(["jobs", "--once"]) == 1
        printed = capsys.readouterr()
        assert printed.err.startswith("gatewatch: run odd: ")
        assert printed.err.count("\n") == 1
        assert printed.out.count("no new captures") == 2

    def test_a_hostile_name_cannot_speak_to_the_terminal(self, tmp_path):
        store = open_store(f"sqlite:///{tmp_path}/gatewatch.db")
        store.write([Point("runs", {"run": "a\u202eb", "phase": "train"}, {"event": "\x1b[2Jgone", "step": 1}, 1)])
        done = gatewatch("runs", cwd=tmp_path)
        assert "\x1b" not in done.stdout
        assert "\u202e" not in done.stdout

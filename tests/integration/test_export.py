"""`gatewatch export`: what it writes and says, and how it fails."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from gatewatch.collector.line_protocol import encode
from gatewatch.collector.schema import GATE_STATS, RUNS, TRAIN_METRICS, Point
from gatewatch.collector.spool.queue import Spool, spool_root
from gatewatch.collector.store import open_store
from gatewatch.jobs.cli import main
from gatewatch.jobs.commands import options

NOON = 1_700_000_000_000_000_000
TAGS = {"run": "goog-1", "phase": "train"}


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    """A store with one run of three measurements, in the current folder."""
    monkeypatch.chdir(tmp_path)
    store = open_store("sqlite:///gatewatch.db")
    gates = {**TAGS, "layer": "lstm", "gate": "forget"}
    store.write([Point(GATE_STATS, gates, {"mean": 0.5, "step": k}, NOON + k) for k in range(3)])
    store.write([Point(TRAIN_METRICS, TAGS, {"loss": 0.25, "step": 1}, NOON)])
    store.write([Point(RUNS, TAGS, {"event": "started", "step": 0}, NOON)])
    return store


def said(capsys, *arguments):
    status = main(["export", *arguments])
    out, err = capsys.readouterr()
    return status, out, err


def fails(capsys, status, text, *arguments):
    """Fail in one line that has this text, and leave nothing behind."""
    before = sorted(Path().rglob("*"))
    got, out, err = said(capsys, *arguments)
    assert (got, out, err.count("\n")) == (status, "", 1)
    assert text in err
    assert sorted(Path().rglob("*")) == before


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def test_a_run_is_one_parquet_file_for_each_measurement(capsys):
    status, out, err = said(capsys, "goog-1", "--to", "new/out")
    assert (status, err) == (0, "")
    assert out == (
        "table          rows  file\n"
        "gate_stats        3  new/out/gate_stats.parquet\n"
        "train_metrics     1  new/out/train_metrics.parquet\n"
        "runs              1  new/out/runs.parquet\n"
    )
    assert names("new/out") == ["gate_stats.parquet", "runs.parquet", "train_metrics.parquet"]
    assert list(pd.read_parquet("new/out/gate_stats.parquet")["step"]) == [0, 1, 2]


def test_json_lists_what_was_written(capsys):
    status, out, err = said(capsys, "goog-1", "--to", "out", "--format", "csv", "--measurement", "runs", "--json")
    assert (status, err, json.loads(out)) == (0, "", [{"table": "runs", "file": "out/runs.csv", "rows": 1}])


def test_one_measurement_goes_into_a_file_whose_ending_says_the_format(capsys):
    assert said(capsys, "goog-1", "--measurement", "train_metrics", "--to", "loss.csv")[0] == 0
    assert Path("loss.csv").read_text().splitlines()[0] == "time,run,phase,step,loss"
    assert said(capsys, "goog-1", "--measurement", "train_metrics", "--to", "loss.parquet")[0] == 0
    assert list(pd.read_parquet("loss.parquet")["loss"]) == [0.25]


def test_a_file_needs_a_measurement_and_its_own_format(capsys):
    fails(capsys, 2, "names a file, and a run has several tables", "goog-1", "--to", "all.csv")
    arguments = ("goog-1", "--measurement", "runs", "--to", "a.csv", "--format", "parquet")
    fails(capsys, 2, "--to 'a.csv' and --format parquet do not agree", *arguments)


def test_what_is_there_is_replaced_only_where_it_is_asked_for(capsys):
    Path("out").mkdir()
    Path("out/runs.csv").write_text("mine")
    arguments = ("goog-1", "--to", "out", "--format", "csv")
    fails(capsys, 2, "out/runs.csv is there already: give --overwrite to replace", *arguments)
    assert said(capsys, *arguments, "--overwrite")[0] == 0
    assert Path("out/runs.csv").read_text().startswith("time,run,phase,event,step\n")
    fails(capsys, 2, "out/gate_stats.csv and 2 more are there already", *arguments)


def test_a_run_a_measurement_and_a_store_that_are_not_there(capsys):
    fails(capsys, 2, "no run 'goog-2' in sqlite:///gatewatch.db: did you mean 'goog-1'?", "goog-2", "--to", "out")
    arguments = ("goog-1", "--to", "out", "--measurement", "gate_stat")
    fails(capsys, 2, "run 'goog-1' has no points of 'gate_stat'; it has gate_stats, train_metrics, runs;", *arguments)
    fails(capsys, 2, "sqlite:///no.db does not exist", "goog-1", "--to", "out", "--store", "sqlite:///no.db")


def test_a_place_where_nothing_can_be_written(capsys):
    Path("taken").write_text("a file")
    fails(capsys, 2, "taken cannot be written (File exists): name another folder", "goog-1", "--to", "taken")
    fails(capsys, 2, "taken/in cannot be written (Not a directory)", "goog-1", "--to", "taken/in")
    Path("odd/runs.csv").mkdir(parents=True)
    fails(capsys, 2, "odd/runs.csv is no file", "goog-1", "--to", "odd", "--format", "csv", "--overwrite")
    fails(capsys, 2, "it holds the character NUL", "goog-1", "--to", "a\0b")


@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_rights(capsys):
    Path("locked").mkdir(mode=0o500)
    fails(capsys, 2, "locked cannot be written (Permission denied)", "goog-1", "--to", "locked")


def test_without_pyarrow_parquet_says_what_to_install_and_csv_works(capsys, monkeypatch):
    find = options.util.find_spec
    monkeypatch.setattr(options.util, "find_spec", lambda name: None if name == "pyarrow" else find(name))
    remedy = "this command needs pyarrow: pip install 'gatewatch[export]', or give --format csv"
    fails(capsys, 2, remedy, "goog-1", "--to", "out")
    assert said(capsys, "goog-1", "--to", "out", "--format", "csv")[0] == 0


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_a_full_disk_is_one_line_and_leaves_the_old_files(form, store, tmp_path):
    gates = {**TAGS, "layer": "lstm", "gate": "forget"}
    store.write([Point(GATE_STATS, gates, {"mean": k / 7, "step": k}, NOON + k) for k in range(20_000)])
    store.close()
    out = tmp_path / "out"
    out.mkdir()
    (out / f"runs.{form}").write_text("mine")
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # noqa: E731 - of the child alone
    command = [sys.executable, "-X", "dev", "-m", "gatewatch", "export", "goog-1", "--to", "out", "--format", form]
    done = subprocess.run([*command, "--overwrite"], capture_output=True, text=True, preexec_fn=limit, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        f"gatewatch: out/gate_stats.{form} cannot be written (File too large): make room, or name another place with"
        " --to\n"
    )
    assert names(out) == [f"runs.{form}"]
    assert (out / f"runs.{form}").read_text() == "mine"


def test_progress_is_shown_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr("gatewatch.jobs.console._REDRAW_S", 0.0)
    status, _, err = said(capsys, "goog-1", "--to", "out")
    assert status == 0
    assert "  1 of 3: 3 rows of gate_stats" in err
    assert err.endswith("\r\x1b[K")


def test_points_that_wait_in_the_spool_are_counted(capsys, store):
    spool = Spool(spool_root(None), store.destination, 2**20)
    spool.append(encode([Point(TRAIN_METRICS, TAGS, {"loss": 0.5, "step": 2}, NOON + 9)]), 1)
    spool.close()
    status, _, err = said(capsys, "goog-1", "--to", "out")
    assert status == 0
    assert err == (
        "gatewatch: 1 point waits in the spool for sqlite:///gatewatch.db: `gatewatch spool flush`, then export again\n"
    )


def test_hostile_names_reach_the_files_and_not_the_terminal(capsys, store):
    tags = {"run": "\u202e../=x", "phase": "train", "my tag": '-a, "b"'}
    store.write([Point("m\u202e", tags, {"=v": 1.0}, NOON)])
    status, out, err = said(capsys, tags["run"], "--to", "out", "--format", "csv")
    assert (status, err) == (0, "")
    assert "\u202e" not in out
    (file,) = Path("out").iterdir()
    assert file.name.isascii()
    assert file.read_text() == (
        'time,run,phase,my tag,\'=v\n2023-11-14T22:13:20.000000000Z,\u202e../=x,train,"\'-a, ""b""",1.0\n'
    )

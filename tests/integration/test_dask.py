"""The jobs on the workers of a Dask cluster: what they write, and what the death of a worker costs."""

from __future__ import annotations

import gzip
import os
import re
import signal
import subprocess
import sys

import psutil
import pytest
from distributed import LocalCluster

from gatewatch.collector.schema import GATE_SCORES, JOBS_HEALTH
from gatewatch.collector.store import open_store
from gatewatch.jobs.cli import main
from gatewatch.jobs.scoring.scoring_pass import run_pass
from tests.conftest import ROOT, free_port
from tests.servers import Front, holding, passing_on
from tests.soak import captures, covered, service, until, wrong

RUNS = ("a", "b", "c, with a comma")


@pytest.fixture
def influx(influxd):
    store = influxd.store()
    for run in RUNS:
        store.write(point for capture in captures(run, 60) for point in capture)
    return store


@pytest.fixture
def environment(influx, influxd):
    about = {"ORG": influxd.org, "BUCKET": influx.destination["bucket"], "TOKEN": influxd.token}
    return {f"INFLUXDB_V2_{name}": value for name, value in about.items()}


@pytest.fixture
def front(influxd):
    front = Front(influxd.url)
    yield front
    front.close()


def holding_scores(handler, body):
    """What writes scores gets no answer; the scores themselves have not arrived."""
    scores = handler.path.startswith("/api/v2/write") and GATE_SCORES.encode() in gzip.decompress(body)
    (holding if scores else passing_on)(handler, body)


def workers(running):
    """The processes of a service's own cluster."""
    children = psutil.Process(running.process.pid).children()
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def complete(store):
    return all(covered(store, run, 60) for run in RUNS)


def test_a_worker_that_is_killed_while_it_scores_costs_nothing_but_time(influx, environment, front, tmp_path):
    front.answer = holding_scores
    arguments = ("--store", front.url, "--executor", "dask")
    with service(tmp_path / "s", *arguments, environment=environment) as running:
        until(lambda: front.held, "a worker is about to write scores")
        (worker,) = workers(running)
        worker.send_signal(signal.SIGKILL)
        assert influx.read(GATE_SCORES).empty
        front.answer = None
        until(lambda: complete(influx), "another worker has done it")
        assert [child.pid for child in workers(running)] != [worker.pid]
        assert running.end() == 0
    assert running.warned == ""
    run_pass(influx)
    assert wrong(influx, tmp_path) == {}


def test_the_workers_share_the_runs_and_end_with_the_service(influx, environment, tmp_path):
    arguments = ("--store", influx.url, "--executor", "dask", "--workers", "2")
    with service(tmp_path / "s", *arguments, environment=environment) as running:
        until(lambda: complete(influx), "all is scored")
        until(lambda: len(set(influx.read(JOBS_HEALTH).get("job", ()))) == 2, "both say how they fare")
        own = workers(running)
        assert len(own) == 2
        for process in (*own, running.process):  # as a terminal does it
            process.send_signal(signal.SIGINT)
        assert running.process.wait(30) == 0
        psutil.wait_procs(own, 5)
        assert not any(child.is_running() for child in own)
    assert running.warned == ""
    run_pass(influx)
    assert wrong(influx, tmp_path) == {}


def test_a_cluster_that_is_there_already(influx, environment, tmp_path, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, silence_logs=50, memory_limit=0
    ) as cluster:
        address = cluster.scheduler_address.replace("tcp://", "dask://")
        with service(tmp_path / "s", "--store", influx.url, "--executor", address, environment=environment) as running:
            assert f"executor {address}," in running.said
            until(lambda: complete(influx), "all is scored")
            assert workers(running) == []
            cluster.close()
            until(lambda: running.warned, "it says that the cluster has gone")
            assert running.end() == 0
    (line,) = running.warned.splitlines()
    assert re.fullmatch(rf"\S+ score failed: executor {address}: .*Dask scheduler.*", line)
    run_pass(influx)
    assert wrong(influx, tmp_path) == {}


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("GATEWATCH_STATE", str(tmp_path / "state"))
    store = open_store(f"sqlite:///{tmp_path / 'g.db'}")
    store.check()
    return store


def test_no_scheduler_at_the_address(capsys, store):
    address = f"dask://127.0.0.1:{free_port()}"
    assert main(["jobs", "--store", store.url, "--executor", address]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(rf"gatewatch: executor {address}: no Dask scheduler answers .*`dask scheduler`.*\n", err)


def test_distributed_is_not_installed(capsys, store, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)  # as far as an import can tell
    assert main(["jobs", "--store", store.url, "--executor", "dask"]) == 2
    assert capsys.readouterr().err.endswith("it needs distributed: pip install 'gatewatch[dask]'\n")


MAIN_THREAD = """
import sys, threading, time
from pathlib import Path
from gatewatch.collector.config import JobsSettings, Settings
from gatewatch.collector.store import open_store
from gatewatch.jobs.service.scheduler import Service

def main():
    settings = Settings(jobs=JobsSettings(interval_seconds=1, executor="dask"))
    service = Service(open_store(sys.argv[1]).destination, settings, Path("state"), warn=print)
    threading.Thread(target=lambda: print(service.run(), flush=True), daemon=sys.argv[2] == "daemon").start()
    while not service.health.running(time.monotonic()):
        time.sleep(0.01)
    time.sleep(float(sys.argv[3]))

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("thread", ["daemon", "joined"])
@pytest.mark.parametrize("seconds", [0, 1])
def test_the_main_thread_ends_in_the_middle_of_a_turn(store, tmp_path, thread, seconds):
    """Before the call has reached Dask, or while a worker is at it; what was cut off is done by the next."""
    store.write(point for capture in captures("a", 60) for point in capture)
    (tmp_path / "main.py").write_text(MAIN_THREAD)
    command = [sys.executable, "main.py", store.url, thread, str(seconds)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout in (["", "True\n"] if thread == "daemon" else ["True\n"])
    run_pass(store)
    assert covered(store, "a", 60)
    assert wrong(store, tmp_path) == {}

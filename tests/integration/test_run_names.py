"""A name in two processes: one of them records, and the others are told before their first step."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.schema import GATE_STATS, RUNS
from gatewatch.collector.store import open_store
from gatewatch.torch import GateMonitor
from tests.conftest import free_port
from tests.servers import Front, replying

ROOT = Path(__file__).parents[2]
PROBE = torch.ones(2, 5, 3)
USED = r"run='exp1': .* already holds a run of this name and phase"

WORKERS = """
import json, os, sys
from multiprocessing import get_context
import torch
from gatewatch import open_store
from gatewatch.torch import GateMonitor

torch.set_num_threads(1)
context = get_context("fork")

def monitor(run):
    return GateMonitor(torch.nn.LSTM(3, 4), None, run=run, probe=torch.ones(2, 5, 3), every=1)

def work(number, said, gate, machines, make):
    if machines:  # a spool of its own, as on another machine that has the file mounted
        os.environ["GATEWATCH_SPOOL"] = f"spool-{number}"
    steps = 0
    gate.wait()
    try:
        with make() as watching:
            for steps in range(1, 6):
                watching.step()
            gate.wait()  # until the others have tried
        said.put(watching.run)
    except ValueError as error:
        gate.wait()
        said.put(f"{steps} steps: {error}")

def answers(workers, said):
    for worker in workers:
        worker.start()
    given = [said.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    return given

def race(make, machines=False):
    said, gate = context.Queue(), context.Barrier(4)
    workers = [context.Process(target=work, args=(i, said, gate, machines, make)) for i in range(4)]
    return answers(workers, said)

def rank(number, said, run, all_ranks):
    address = f"file://{os.getcwd()}/{run}.rendezvous"
    torch.distributed.init_process_group("gloo", init_method=address, rank=number, world_size=2)
    with GateMonitor(
        torch.nn.LSTM(3, 4), None, run=run, probe=torch.ones(2, 5, 3), every=1, all_ranks=all_ranks
    ) as watching:
        for _ in range(3):
            torch.distributed.all_reduce(torch.ones(1))  # a rank that records does not keep the other from its step
            watching.step()
        said.put([number, watching._session.started])
    torch.distributed.destroy_process_group()

def ranks(run, all_ranks):
    said = context.Queue()
    workers = [context.Process(target=rank, args=(i, said, run, all_ranks)) for i in range(2)]
    return answers(workers, said)

unnamed = monitor(None)
print(json.dumps({
    "lock": race(lambda: monitor("lock")),
    "file": race(lambda: monitor("file"), machines=True),
    "unnamed": race(lambda: unnamed),
    "ranks": ranks("ranks", all_ranks=False),
    "all ranks": ranks("all ranks", all_ranks=True),
}))
"""


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    """What four forked workers said that all began a run at the same moment, and the store."""
    folder = tmp_path_factory.mktemp("workers")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "GATEWATCH_SPOOL": str(folder / "spool")}
    command = [sys.executable, "-c", WORKERS]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False, timeout=90)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout), open_store(f"sqlite:///{folder}/gatewatch.db")


@pytest.mark.parametrize("kept_by", ["lock", "file"])
def test_of_four_workers_with_one_name_one_records(workers, kept_by):
    answers, store = workers
    refused = [answer for answer in answers[kept_by] if answer != kept_by]
    assert len(refused) == 3
    for answer in refused:
        assert answer.startswith(f"0 steps: run='{kept_by}': sqlite:///gatewatch.db already holds a run of this name")
        assert "\n" not in answer
    assert store.read(RUNS, run=kept_by)["event"].tolist() == ["started", "completed"]
    forget = store.read(GATE_STATS, run=kept_by, tags={"gate": "forget"})
    assert forget["step"].tolist() == [1, 2, 3, 4, 5]


def test_workers_that_inherit_a_monitor_without_a_name_each_record_a_run(workers):
    answers, store = workers
    assert len(set(answers["unnamed"])) == 4
    for run in answers["unnamed"]:
        assert store.read(GATE_STATS, run=run, tags={"gate": "forget"})["step"].tolist() == [1, 2, 3, 4, 5]


def test_two_monitors_of_a_process_cannot_share_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def monitor(**options):
        return GateMonitor(torch.nn.LSTM(3, 4), None, run="exp1", probe=PROBE, **options)

    with monitor(), monitor(phase="live"), pytest.raises(ConfigError, match=USED), monitor():
        pass
    assert open_store().read(RUNS, run="exp1")["event"].tolist() == ["started", "started", "completed", "completed"]


AWAY = replying(503, b'{"code":"unavailable","message":"away"}')


@pytest.fixture
def machine(influxd, tmp_path, monkeypatch):
    """Begins the run exp1 as another machine would, whose way to the server is down: the monitor, and the way."""
    bucket = influxd.bucket()
    for variable, value in {"ORG": influxd.org, "BUCKET": bucket, "TOKEN": influxd.token}.items():
        monkeypatch.setenv(f"INFLUXDB_V2_{variable}", value)
    with contextlib.ExitStack() as ways:

        def begin(**options):
            front = Front(influxd.url)
            ways.callback(front.close)
            front.answer = AWAY
            monkeypatch.setenv("GATEWATCH_SPOOL", str(tmp_path / front.url[-5:]))
            options = {"run": "exp1", "probe": PROBE, "every": 1, "store": front.url} | options
            monitor = GateMonitor(torch.nn.LSTM(3, 4), None, **options)
            monitor.__enter__()
            monitor.step()
            return monitor, front

        begin.events = lambda: influxd.store(bucket).find(RUNS, run="exp1")
        yield begin


def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def others(caplog):
    return said(caplog, "recorded by another process too")


def test_two_sessions_of_a_run_on_a_server_are_named_at_their_ends(machine, caplog):
    """Two machines that begin a run of one name while the server is away: nobody can tell them before they ship."""
    (first, to_first), (second, to_second) = machine(), machine()
    to_first.answer = to_second.answer = None
    until(lambda: len(machine.events()) == 2)
    for monitor in (first, second):
        monitor.close()
    sessions = [monitor._session._name.session for monitor in (first, second)]
    assert set(machine.events()["session"]) == set(sessions)
    assert [sum(session in line for line in others(caplog)) for session in sessions] == [1, 1]
    assert len(others(caplog)) == 2


def test_a_session_that_ships_late_is_named_while_both_go_on(machine, monkeypatch, caplog):
    monkeypatch.setattr("gatewatch.collector.run_store.HEARTBEAT_SECONDS", 0.1)
    (first, to_first), (second, to_second) = machine(), machine()
    to_first.answer = None
    name = first._session._name
    until(lambda: name._next_look > 1)  # it has looked, and has found nobody
    assert others(caplog) == []
    to_second.answer = None
    until(lambda: len(others(caplog)) == 2)
    for monitor in (first, second):
        monitor.close()  # and the last look says nothing again
    assert sorted(re.findall(r"too \((.*?)\):", " ".join(others(caplog)))) == sorted(
        monitor._session._name.session for monitor in (first, second)
    )


def test_the_session_that_a_run_goes_on_after_is_not_taken_for_another(machine, caplog):
    first, front = machine()
    first._session.close("failed", seconds=0.1)  # what it has recorded waits in its spool
    front.answer = None
    goes_on = GateMonitor(torch.nn.LSTM(3, 4), None, run="exp1", probe=PROBE, every=1, store=front.url, resume=True)
    with goes_on:
        goes_on.step()
    assert machine.events()["event"].tolist() == ["started", "failed", "resumed", "completed"]
    assert others(caplog) == []


def test_a_server_that_can_be_asked_refuses_the_second(influxd, tmp_path, monkeypatch, caplog):
    bucket = influxd.bucket()
    for variable, value in {"ORG": influxd.org, "BUCKET": bucket, "TOKEN": influxd.token}.items():
        monkeypatch.setenv(f"INFLUXDB_V2_{variable}", value)
    monitors = [
        GateMonitor(torch.nn.LSTM(3, 4), None, run="exp1", probe=PROBE, every=1, store=influxd.url) for _ in range(2)
    ]
    with caplog.at_level(logging.WARNING, "gatewatch"), monitors[0] as first:
        first.step()
        first._session._shipper.flush(20)
        monkeypatch.setenv("GATEWATCH_SPOOL", str(tmp_path / "another"))
        with pytest.raises(ConfigError, match=USED), monitors[1]:
            pass
    assert said(caplog, "") == []


def said(caplog, text):
    return [record.getMessage() for record in caplog.records if text in record.getMessage()]


def test_of_two_ranks_the_first_records_unless_all_are_to(workers):
    answers, store = workers
    assert sorted(answers["ranks"]) == [[0, True], [1, False]]
    assert sorted(answers["all ranks"]) == [[0, True], [1, True]]
    for run in ("ranks", "all ranks", "all ranks-rank1"):
        assert store.read(GATE_STATS, run=run, tags={"gate": "forget"})["step"].tolist() == [1, 2, 3], run
    assert "ranks-rank1" not in set(store.runs()["run"])


TENSORFLOW = """
import json, os, sys
os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
number, *addresses = sys.argv[1:]
task = {"type": "worker", "index": int(number)}
os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
import tensorflow as tf
strategy = tf.distribute.MultiWorkerMirroredStrategy()
import keras, numpy
from gatewatch import GateMonitor

with strategy.scope():
    model = keras.Sequential([keras.Input((5, 3)), keras.layers.LSTM(4)])
    with GateMonitor(model, None, run="exp1", probe=numpy.ones((2, 5, 3)), every=1) as monitor:
        for _ in range(3):
            monitor.step()
        print("records" if monitor._session.started else "does nothing")
"""


def test_of_two_workers_of_tensorflow_the_first_records(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    commands = [[sys.executable, "-c", TENSORFLOW, str(number), *addresses] for number in range(2)]
    with contextlib.ExitStack() as running:
        workers = [
            running.enter_context(subprocess.Popen(one, env=environment, cwd=tmp_path, stdout=subprocess.PIPE))
            for one in commands
        ]
        for worker in workers:
            running.callback(worker.kill)
        printed = [worker.communicate(timeout=120)[0] for worker in workers]
    assert printed == [b"records\n", b"does nothing\n"]
    stats = open_store(f"sqlite:///{tmp_path}/gatewatch.db").read(GATE_STATS, run="exp1", tags={"gate": "forget"})
    assert stats["step"].tolist() == [1, 2, 3]


LAUNCHERS = {
    "SLURM array": {
        "SLURM_ARRAY_TASK_ID": "3",
        "SLURM_ARRAY_TASK_COUNT": "4",
        "SLURM_PROCID": "0",
        "SLURM_NTASKS": "1",
    },
    "srun -n 2": {"SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2"},
    "mpirun -n 2": {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1"},
    "mpiexec -n 2": {"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "1"},
    "a TFJob": {"TF_CONFIG": '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}'},
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_independent_trainings_of_one_launcher_are_each_recorded(tmp_path, monkeypatch, caplog, launcher):
    """As in a sweep: what the launcher numbers need not be one training, and nothing here has joined the others."""
    monkeypatch.chdir(tmp_path)
    for name, value in LAUNCHERS[launcher].items():
        monkeypatch.setenv(name, value)
    runs = []
    for _ in range(2):
        with GateMonitor(torch.nn.LSTM(3, 4), None, probe=PROBE, every=1) as monitor:
            monitor.step()
        runs.append(monitor.run)
    assert set(open_store().runs()["run"]) == set(runs)
    assert len(set(runs)) == 2
    assert said(caplog, "rank") == []


@pytest.mark.parametrize(
    ("variables", "records"),
    [
        ({"RANK": "0", "WORLD_SIZE": "2"}, True),
        ({"RANK": "1", "WORLD_SIZE": "2"}, False),
        ({"LOCAL_RANK": "1", "WORLD_SIZE": "2"}, False),
        ({"RANK": "1", "WORLD_SIZE": "1"}, True),  # left over from somewhere
        ({"RANK": "one", "WORLD_SIZE": "2"}, True),
    ],
)
def test_a_launchers_variables_say_who_records(tmp_path, monkeypatch, caplog, variables, records):
    monkeypatch.chdir(tmp_path)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with (
        caplog.at_level(logging.WARNING, "gatewatch"),
        GateMonitor(torch.nn.LSTM(3, 4), None, run="exp1", probe=PROBE, every=1) as monitor,
    ):
        monitor.step()
        monitor.end_epoch()
    assert (tmp_path / "gatewatch.db").exists() == records
    assert len(said(caplog, "rank 1 records nothing, rank 0 does")) == (not records)

"""What a training meets and survives: each row of docs/faults.md is a test here, and each test here is a row there."""

from __future__ import annotations

import ast
import copy
import glob
import io
import json
import logging
import multiprocessing
import os
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gatewatch.collector.cells import LSTM
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.run_life import CLOSE_SECONDS
from gatewatch.collector.schema import (
    COLLECTOR_HEALTH,
    GATE_STATS,
    GATE_TIME,
    GATE_UNITS,
    LAYER_UPDATES,
    RUNS,
    TRAIN_METRICS,
    Point,
)
from gatewatch.collector.spool.delivery import SLOW_WAIT
from gatewatch.collector.spool.inspect import pending
from gatewatch.collector.spool.queue import MEMORY_BYTES, spool_root
from gatewatch.collector.spool.segment import SUFFIX
from gatewatch.collector.store import open_store
from gatewatch.collector.store.influxdb.client import WRITE_TIMEOUT_S
from gatewatch.jobs.cli import main
from gatewatch.torch import GateMonitor
from tests.conftest import free_port
from tests.servers import Front, cutting, dripping, failing_on, first, holding, refusing_more_than, replying

ROOT = Path(__file__).parents[2]
MEGABYTE = 2**20
PROBE = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.head = nn.Linear(4, 1)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


def train(store, steps=8, *, run="r", meanwhile=lambda step, module: None, metrics=None, first_step=1, **options):
    """A training of so many steps, each with a capture. Before each step `meanwhile` is called."""
    module = Policy()
    options = {"log_dir": None, "probe": PROBE, "every": 1} | options
    with GateMonitor(module, run=run, store=store, **options) as monitor:
        for step in range(first_step, first_step + steps):
            meanwhile(step, module)
            one_step(module)
            monitor.step(metrics=metrics(step) if metrics else {"loss": 1 / step})
    return monitor


def one_step(module):
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    optimizer.zero_grad()
    module(PROBE).sum().backward()
    optimizer.step()


def steps_of(store, run="r", measurement=GATE_STATS):
    frame = store.read(measurement, run=run)
    return frame["step"].dropna().astype(int).unique().tolist() if len(frame) else []


def assert_whole(store, steps=range(1, 9), run="r", state="completed"):
    """Every point of every step is there, and the run's end."""
    steps = list(steps)
    for measurement in (GATE_STATS, GATE_UNITS, GATE_TIME, LAYER_UPDATES, TRAIN_METRICS):
        assert steps_of(store, run, measurement) == steps, measurement
    for measurement in (GATE_STATS, GATE_UNITS, GATE_TIME):
        assert len(store.read(measurement, run=run)) == len(LSTM.gate_names) * len(steps)
    told = store.runs().set_index("run").loc[run]
    assert told["state"] == state
    if state == "completed":
        health = store.read(COLLECTOR_HEALTH, run=run).iloc[-1]
        assert (health["captured"], health["rejected"], health["dropped"]) == (len(steps), 0, 0)


def bulky(step):
    """About 20 kB of metrics."""
    return {f"{i:03d}{'x' * 400}": float(step) for i in range(50)}


def at(step, do, *arguments):
    """What `train` is to do meanwhile: this, before that step."""
    return lambda now, module: do(*arguments) if now == step else None


def files_of_the_spool():
    root = spool_root()
    return sorted(root / name for name in glob.glob(f"*/*/*{SUFFIX}", root_dir=root))  # folders vanish meanwhile


def until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def nothing_waits():
    return not any(entry.points for entry in pending(spool_root())) and not files_of_the_spool()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Shorter waits, so that what takes minutes in a day of training takes seconds here."""
    for name, seconds in {
        "spool.delivery.FIRST_WAIT": 0.05,
        "spool.delivery.LONGEST_WAIT": 0.2,
        "spool.delivery.SLOW_WAIT": 0.4,
        "spool.delivery.ROUND_WAIT": 0.2,
        "spool.shipper.LINGER_SECONDS": 0.05,
        "spool.shipper.ADOPT_SECONDS": 0.5,
        "run_life.CLOSE_SECONDS": 20.0,
    }.items():
        monkeypatch.setattr(f"gatewatch.collector.{name}", seconds)


@pytest.fixture
def brief(monkeypatch):
    """The end of a run waits shortly for a store that does not come back, until `comes_back` is given this."""
    with monkeypatch.context() as patch:
        patch.setattr("gatewatch.collector.run_life.CLOSE_SECONDS", 0.3)
        yield patch


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.WARNING, "gatewatch")
    return lambda text="": [record.message for record in caplog.records if text in record.message]


@pytest.fixture
def bucket(influxd, monkeypatch):
    """A bucket of its own, named in the environment."""
    name = influxd.bucket()
    for variable, value in {"ORG": influxd.org, "BUCKET": name, "TOKEN": influxd.token}.items():
        monkeypatch.setenv(f"INFLUXDB_V2_{variable}", value)
    return name


@pytest.fixture
def front(influxd, bucket) -> Iterator[Front]:
    """A server before influxd that can be told to fail."""
    server = Front(influxd.url)
    yield server
    server.close()


@pytest.fixture
def stored(influxd, bucket):
    """What has arrived."""
    return influxd.store(bucket)


AWAY = replying(503, b'{"code":"unavailable","message":"away"}')


def goes_away(front, answer=AWAY):
    front.answer = answer


def comes_back(front, brief=None):
    front.answer = None
    if brief is not None:
        brief.undo()


@contextmanager
def mounted(folder, options):
    """A small file system of its own; where none may be mounted, None."""
    folder.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder], check=False).returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


class Disk:
    """A small disk that can be filled to its last byte, and emptied.

    Where none may be mounted, a limit that lets this process write no file stands in for the full one.
    """

    def __init__(self, folder, is_mounted):
        self.folder, self._is_mounted = folder, is_mounted

    def fill(self):
        if self._is_mounted:
            with suppress(OSError), (self.folder / "filling").open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    def empty(self):
        if self._is_mounted:
            (self.folder / "filling").unlink(missing_ok=True)
        else:
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


@pytest.fixture
def disk(tmp_path):
    with mounted(tmp_path / "disk", "size=1m") as folder:
        found = Disk(tmp_path / "disk", folder is not None)
        yield found
        found.empty()


@pytest.fixture
def locked_folder(tmp_path):
    """A folder that can only be read, by root too."""
    with mounted(tmp_path / "locked", "ro,size=1m") as folder:
        if folder is None:
            (tmp_path / "locked").chmod(0o500)
        yield tmp_path / "locked"


def test_the_table_and_the_tests_agree():
    text = (ROOT / "docs/faults.md").read_text()
    rows = [line.split("|")[1:-1] for line in text.splitlines() if re.match(r"\| (?!fault |---)", line)]
    named = []
    for row in rows:
        assert len(row) == 4
        assert all(cell.strip() for cell in row)
        named.append(re.fullmatch(r" `(?:((?:unit/)?\w+\.py)::)?(test_\w+)` ", row[3]).groups())
    here, folder = Path(__file__), Path(__file__).parent
    ours = names_of_tests(here) - {"test_the_table_and_the_tests_agree"}
    assert sorted(name for file, name in named if file is None) == sorted(ours)
    for file, name in named:
        place = None if file is None else folder.parent / file if file.startswith("unit/") else folder / file
        assert place is None or name in names_of_tests(place), name
    assert len(set(named)) == len(named) >= 24
    for number in (f"{MEMORY_BYTES / MEGABYTE:.0f} MiB", f"{CLOSE_SECONDS:.0f} s at most", f"{WRITE_TIMEOUT_S:.0f} s"):
        assert number in text
    assert SLOW_WAIT == 60  # tried each minute


def names_of_tests(file):
    found = [node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef)]
    return {name for name in found if name.startswith("test_")}


# The disk and the spool.


def test_a_full_disk(front, stored, disk, monkeypatch, said):
    monkeypatch.setenv("GATEWATCH_SPOOL", str(disk.folder / "spool"))

    def meanwhile(step, module):
        if step == 3:
            goes_away(front)
            disk.fill()
        if step == 8:
            comes_back(front)

    train(front.url, 12, meanwhile=meanwhile)
    disk.empty()
    assert_whole(stored, range(1, 13))
    assert len(said("the points stay in memory")) == 1


def test_a_full_disk_that_has_room_again(front, stored, disk, monkeypatch, brief, said):
    monkeypatch.setenv("GATEWATCH_SPOOL", str(disk.folder / "spool"))

    def meanwhile(step, module):
        if step == 3:
            goes_away(front)
            disk.fill()
        if step == 8:
            disk.empty()

    train(front.url, 12, meanwhile=meanwhile)
    assert not said("are lost")
    comes_back(front, brief)
    train(front.url, run="next")
    assert_whole(stored, range(1, 13))


def test_a_full_disk_to_the_end(front, stored, disk, monkeypatch, brief, said):
    monkeypatch.setenv("GATEWATCH_SPOOL", str(disk.folder / "spool"))

    def meanwhile(step, module):
        if step == 3:
            goes_away(front)
        if step == 8:
            disk.fill()

    train(front.url, 12, meanwhile=meanwhile)
    (lost,) = said("are lost")
    assert int(re.search(r"([\d,]+) points are lost", lost)[1].replace(",", "")) > 4 * 3 * len(LSTM.gate_names)
    disk.empty()
    comes_back(front, brief)
    train(front.url, run="next")
    kept = steps_of(stored)
    assert kept == [*range(1, kept[-1] + 1)]
    assert 7 <= kept[-1] < 12
    assert_whole(stored, run="next")


def leave_behind(front, brief, **options):
    """A run whose points wait in the spool when its process is gone."""
    goes_away(front)
    train(front.url, **options)
    comes_back(front, brief)


def test_a_torn_tail(front, stored, brief, said, capsys):
    leave_behind(front, brief)
    file = files_of_the_spool()[-1]
    os.truncate(file, file.stat().st_size - 7)
    assert main(["spool", "status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["damaged"] == 1
    train(front.url, run="next")
    assert_whole(stored, state="started")  # what was torn is the last record, the run's end
    assert_whole(stored, run="next")
    assert len(said("damaged")) == 1


def test_damage_in_the_middle(front, stored, brief, said):
    leave_behind(front, brief)
    metrics = b"loss=0.25,"  # of step 4
    (file,) = [file for file in files_of_the_spool() if metrics in file.read_bytes()]
    content = file.read_bytes()
    at = content.index(metrics)
    file.write_bytes(content[:at] + b"LOSS" + content[at + 4 :])
    train(front.url, run="next")
    assert steps_of(stored, measurement=TRAIN_METRICS) == [1, 2, 3, 5, 6, 7, 8]
    assert steps_of(stored) == [*range(1, 9)]
    assert stored.runs().set_index("run").loc["r", "state"] == "completed"
    assert len(said("damaged")) == 1


def test_the_spool_is_deleted_in_mid_run(front, stored, said):
    def meanwhile(step, module):
        if step == 3:
            goes_away(front)
        if step == 6:
            shutil.rmtree(spool_root())
        if step == 9:
            comes_back(front)
        if step == 11:
            until(lambda: said("deleted"))

    train(front.url, 12, meanwhile=meanwhile)
    arrived = steps_of(stored)
    assert arrived[-7:] == [*range(6, 13)]
    lost = 12 - len(arrived)
    dropped = int(stored.read(COLLECTOR_HEALTH, run="r")["dropped"].iloc[-1])
    assert dropped >= lost * 3 * len(LSTM.gate_names) > 0
    assert len(said("deleted")) == 1


def test_a_spool_that_cannot_be_written(stored, front, locked_folder, monkeypatch):
    monkeypatch.setenv("GATEWATCH_SPOOL", str(locked_folder / "spool"))
    stepped = []
    with pytest.raises(ConfigError, match="GATEWATCH_SPOOL") as caught:
        train(front.url, meanwhile=lambda step, module: stepped.append(step))
    assert "\n" not in str(caught.value)
    assert not stepped
    assert stored.runs().empty


def test_a_full_spool(front, stored, tmp_path, monkeypatch, said):
    (tmp_path / "gatewatch.toml").write_text("[spool]\nmax_mb = 1\n")
    monkeypatch.setenv("GATEWATCH_CONFIG", str(tmp_path / "gatewatch.toml"))

    def meanwhile(step, module):
        if step == 2:
            goes_away(front)
        if step == 64:
            assert sum(file.stat().st_size for file in files_of_the_spool()) <= 1.3 * MEGABYTE
            comes_back(front)

    train(front.url, 64, meanwhile=meanwhile, metrics=bulky)
    kept = steps_of(stored)
    gone = sorted({*range(1, 65)} - {*kept})
    assert gone == [*range(gone[0], gone[-1] + 1)]
    assert 1 < gone[0] < gone[-1] < 60
    health = stored.read(COLLECTOR_HEALTH, run="r").iloc[-1]
    assert health["dropped"] >= (64 - len(kept)) * 3 * len(LSTM.gate_names)
    assert len(said("the oldest points are dropped")) == 1


# Processes.

FORKS = """
import os, signal, sys, torch
from torch.utils.data import DataLoader, TensorDataset
from gatewatch.torch import GateMonitor

torch.set_num_threads(1)
probe = torch.ones(2, 5, 3)
monitor = GateMonitor(torch.nn.LSTM(3, 4), None, run="forked", store=sys.argv[1], probe=probe, every=1)
with monitor:
    for i in range(5):
        monitor.step(metrics={"loss": 1.0})
    child = os.fork()
    if child == 0:
        for i in range(7):
            monitor.step(metrics={"loss": 2.0})
        sys.exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    child = os.fork()
    if child == 0:
        monitor.step(metrics={"loss": 3.0})
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    for i in range(5):
        monitor.step(metrics={"loss": 1.0})

with GateMonitor(torch.nn.LSTM(3, 4), None, run="loaded", store=sys.argv[1], probe=probe, every=1) as monitor:
    for batch in DataLoader(TensorDataset(torch.ones(8, 5, 3)), batch_size=1, num_workers=2):
        monitor.step(metrics={"loss": 1.0})
"""


@pytest.fixture(scope="module")
def forks(influxd, tmp_path_factory):
    """A training that forks, and one whose batches come from forked processes."""
    folder = tmp_path_factory.mktemp("forks")
    bucket = influxd.bucket()
    variables = {"ORG": influxd.org, "BUCKET": bucket, "TOKEN": influxd.token}
    environment = os.environ | {f"INFLUXDB_V2_{name}": value for name, value in variables.items()}
    environment |= {"GATEWATCH_SPOOL": str(folder / "spool"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", FORKS, influxd.url]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False, timeout=90)
    assert (done.returncode, done.stderr) == (0, "")
    assert not list(folder.glob(f"spool/*/*/*{SUFFIX}"))
    return influxd.store(bucket)


def test_a_fork_in_mid_training(forks):
    losses = forks.read(TRAIN_METRICS, run="forked").groupby("loss")["step"].apply(list)
    assert losses[1.0] == [*range(1, 11)]
    assert losses[2.0] == [*range(6, 13)]
    assert losses[3.0] == [6]
    assert forks.read(RUNS, run="forked")["event"].tolist() == ["started", "completed"]


def test_workers_of_a_data_loader(forks):
    assert steps_of(forks, "loaded") == [*range(1, 9)]
    assert forks.read(RUNS, run="loaded")["event"].tolist() == ["started", "completed"]


def spawned(monitor, url):
    """In a spawned process: the monitor it was given, and one of its own."""
    import keras

    x = np.ones((16, 5, 3), "float32")
    model = keras.Sequential([keras.Input((5, 3)), keras.layers.LSTM(4, name="lstm"), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(x, x[:, 0, :1], batch_size=4, verbose=0, callbacks=[monitor])
    train(url, run="own")


def test_a_spawned_process(influxd, bucket, stored, monkeypatch):
    from gatewatch import GateMonitor as KerasMonitor

    monkeypatch.setenv("KERAS_BACKEND", "torch")  # which the new process has imported anyway
    monitor = KerasMonitor(probe=np.ones((2, 5, 3), "float32"), log_dir=None, store=influxd.url, every=1)
    child = multiprocessing.get_context("spawn").Process(target=spawned, args=(monitor, influxd.url))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert_whole(stored, run="own")
    (other,) = set(stored.runs()["run"]) - {"own"}
    assert other != monitor.run
    assert steps_of(stored, other) == [*range(5)]
    assert stored.runs()["state"].tolist() == ["completed"] * 2


@contextmanager
def forked(do):
    """A process that does this; at the end it is no more."""
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)  # those of the process before the fork are not here
        try:
            do()
            os._exit(0)
        finally:
            os._exit(1)
    try:
        yield child
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(child, 0)


def test_sigkill(front, stored):
    goes_away(front)
    told, tell = os.pipe()
    with forked(lambda: train(front.url, 10**6, run="victim", meanwhile=lambda *_: os.write(tell, b"."))) as child:
        os.close(tell)
        begun = 0
        while begun < 10:
            begun += len(os.read(told, 100)) or pytest.fail("the training ended by itself")
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    begun += len(os.read(told, 10**6))
    comes_back(front)
    train(front.url, run="next")
    assert steps_of(stored, "victim") in ([*range(1, begun)], [*range(1, begun + 1)])  # the last one was in the making
    assert stored.runs().set_index("run").loc["victim", "state"] == "started"
    assert_whole(stored, run="next")


def test_two_processes_on_one_spool(front, stored):
    goes_away(front)
    with (
        forked(lambda: train(front.url, 12, run="a")) as one,
        forked(lambda: train(front.url, 12, run="b")) as other,
    ):
        until(lambda: len({file.parent for file in files_of_the_spool()}) == 2)
        comes_back(front)
        for child in (one, other):
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for run in ("a", "b"):
        assert_whole(stored, range(1, 13), run=run)
    assert nothing_waits()


def test_two_monitors_on_one_model(influxd, stored):
    module = Policy()
    both = [
        GateMonitor(module, None, run=run, store=influxd.url, probe=PROBE, every=1, tags={"symbol": run})
        for run in ("a", "b")
    ]
    with both[0], both[1]:
        for _ in range(8):
            one_step(module)
            for monitor in both:
                monitor.step(metrics={"loss": 1.0})
    frames = []
    for run in ("a", "b"):
        assert_whole(stored, run=run)
        seen = stored.read(LAYER_UPDATES, run=run).drop(columns=["run", "symbol", "time"])
        frames.append(seen.sort_values(["layer", "param", "step"]).reset_index(drop=True))
    assert frames[0].equals(frames[1])


# The server.


def test_one_line_that_influxdb_refuses(influxd, stored, monkeypatch, said, capsys):
    """Nothing is sent before the end, so that it is one batch of thousands."""
    monkeypatch.setattr("gatewatch.collector.spool.shipper.LINGER_SECONDS", 600.0)
    stored.write([Point(TRAIN_METRICS, {}, {"odd": "text"}, time.time_ns())])
    train(influxd.url, 80, metrics=lambda step: {"odd" if step == 40 else "loss": 1.0})
    assert len(stored.read(GATE_STATS)) + len(stored.read(GATE_UNITS)) + len(stored.read(GATE_TIME)) == 80 * 18
    assert steps_of(stored, measurement=TRAIN_METRICS) == [*range(1, 40), *range(41, 81)]
    assert len(said("refused 1 points")) == len(said("refused")) == 1
    assert main(["spool", "status", "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert (shown["points"], shown["rejected"]) == (0, 1)
    assert "field type conflict" in shown["reason"]
    assert b"odd=1" in Path(shown["rejected_file"]).read_bytes()


def test_points_past_the_retention(influxd, stored, monkeypatch, said):
    monkeypatch.setenv("INFLUXDB_V2_BUCKET", bucket := influxd.bucket(retention_s=3600))
    bars = {3: 10**18, 4: 10**18 + 1}
    module = Policy()
    with GateMonitor(module, None, run="r", store=influxd.url, probe=PROBE, every=1) as monitor:
        for step in range(1, 9):
            monitor.step(time=bars.get(step))
    assert steps_of(influxd.store(bucket)) == [1, 2, 5, 6, 7, 8]
    assert len(said("retention")) == 1
    (entry,) = pending(spool_root())
    assert entry.rejected == 2 * 3 * len(LSTM.gate_names)


def test_a_proxy_that_limits_the_size(front, stored, monkeypatch, said):
    monkeypatch.setattr("gatewatch.collector.spool.shipper.LINGER_SECONDS", 600.0)
    front.answer = refusing_more_than(20_000)
    train(front.url, 40)
    assert_whole(stored, range(1, 41))
    assert not said()


def test_too_many_requests(front, stored):
    def meanwhile(step, module):
        if step == 3:
            front.asked.clear()
            front.answer = first(replying(429, b'{"code":"too many requests","message":"slow"}', Retry_After="2"))

    train(front.url, meanwhile=meanwhile)
    assert_whole(stored)
    assert 2.0 <= front.asked[1] - front.asked[0] < 10


def test_a_server_that_is_unavailable(front, stored, said):
    answers = [replying(status, b"<html>come again</html>") for status in (500, 502, 503, 504, 408)]
    given = []

    def in_turn(handler, body):
        given.append(len(given) % len(answers))
        answers[given[-1]](handler, body)

    def meanwhile(step, module):
        if step == 3:
            front.answer = in_turn
        if step == 6:
            until(lambda: len(given) > len(answers))
            comes_back(front)

    train(front.url, meanwhile=meanwhile)
    assert_whole(stored)
    assert len(said("takes no points now")) == len(said("takes points again")) == 1


BROKEN = b'{"code":"internal error","message":"engine: broken"}'


def odd_at(*steps):
    return lambda step: {"odd" if step in steps else "loss": 1.0}


def rejected(capsys):
    assert main(["spool", "status", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    return [Path(one["rejected_file"]).read_text().splitlines()[1::2] for one in shown if one["rejected"]]


@pytest.mark.parametrize(
    "answer",
    [
        replying(500, BROKEN),
        replying(503, BROKEN, Retry_After="1"),
        replying(403, b"<html>blocked by the firewall</html>"),
        replying(200, b"<html>welcome</html>"),
    ],
    ids=["500", "503", "403", "200"],
)
def test_lines_that_the_server_never_takes(front, stored, said, capsys, answer):
    front.answer = failing_on(b"odd=", answer)
    train(front.url, 40, metrics=odd_at(3, 4, 17))
    assert steps_of(stored) == [*range(1, 41)]
    assert steps_of(stored, measurement=TRAIN_METRICS) == [step for step in range(1, 41) if step not in (3, 4, 17)]
    (lines,) = rejected(capsys)
    assert len(lines) == 3
    assert all("odd=1" in line for line in lines)
    assert nothing_waits()
    assert len(said("takes no points now")) <= 1


@pytest.mark.parametrize("status", [500, 503])
def test_an_outage_of_a_server_that_goes_on_answering(front, stored, capsys, status):
    """It begins while a line is being looked for that the server never takes, and nobody can tell them apart."""
    answers = []

    def meanwhile(step, module):
        if step == 3:
            front.answer = failing_on(b"odd=", replying(status, BROKEN))
        if step == 10:
            until(lambda: len(front.asked) > 20)
            front.answer = replying(status, BROKEN)
        if step == 30:
            answers.append(len(front.asked))
            until(lambda: len(front.asked) > answers[0] + 30)
            comes_back(front)

    train(front.url, 40, meanwhile=meanwhile, metrics=odd_at(5))
    assert_whole(stored, range(1, 41))
    assert rejected(capsys) == []


def delete(influxd, path):
    request = urllib.request.Request(
        influxd.url + path, headers={"Authorization": f"Token {influxd.token}"}, method="DELETE"
    )
    urllib.request.urlopen(request, timeout=10).close()


def test_a_token_that_is_revoked(influxd, bucket, stored, brief, monkeypatch, said, capsys):
    permissions = [
        {"action": action, "resource": {"type": "buckets", "orgID": influxd.org_id}} for action in ("read", "write")
    ]
    granted = influxd.call("/api/v2/authorizations", {"orgID": influxd.org_id, "permissions": permissions})
    monkeypatch.setenv("INFLUXDB_V2_TOKEN", granted["token"])
    train(influxd.url, meanwhile=at(3, delete, influxd, f"/api/v2/authorizations/{granted['id']}"))
    assert len(said("INFLUXDB_V2_TOKEN")) == 1
    (told,) = said("points wait in")
    assert "`gatewatch spool flush`" in told
    assert main(["spool", "flush"]) == 1
    assert "INFLUXDB_V2_TOKEN" in capsys.readouterr().err
    monkeypatch.setenv("INFLUXDB_V2_TOKEN", influxd.token_for("write"))
    assert main(["spool", "flush"]) == 0
    assert_whole(stored)
    assert nothing_waits()


def test_a_bucket_that_is_deleted(influxd, bucket, stored, said):
    def meanwhile(step, module):
        if step == 3:
            (found,) = influxd.call(f"/api/v2/buckets?name={bucket}")["buckets"]
            delete(influxd, f"/api/v2/buckets/{found['id']}")
            gone.append(step)
        if step == 6:
            until(lambda: said("INFLUXDB_V2_BUCKET"))
            influxd.bucket(bucket)

    gone = []
    train(influxd.url, meanwhile=meanwhile)
    arrived = steps_of(stored)
    assert arrived[-6:] == [*range(3, 9)]
    assert stored.read(RUNS, run="r")["event"].tolist()[-1] == "completed"
    assert len(said("INFLUXDB_V2_BUCKET")) == len(said("takes points again")) == 1


def test_a_server_that_never_answers(front, stored, monkeypatch, said):
    monkeypatch.setattr("gatewatch.collector.run_life.CLOSE_SECONDS", 1.0)
    waited = []

    def meanwhile(step, module):
        if step == 3:
            front.answer = holding
        if step == 4:
            until(lambda: front.held)
        if step == 30:
            waited.append(front.held)

    train(front.url, 30, meanwhile=meanwhile, first_step=1)
    assert waited == [1]  # 26 steps were made while one request waited for its answer
    assert len(said("points wait in")) == 1
    comes_back(front)
    train(front.url, run="next")
    assert_whole(stored, range(1, 31))
    assert_whole(stored, run="next")


HANGING = """
import os, pathlib, sys, time, torch
import gatewatch.collector.runtime.shutdown, gatewatch.collector.run_life
from gatewatch.torch import GateMonitor

gatewatch.collector.runtime.shutdown.END_SECONDS = gatewatch.collector.run_life.CLOSE_SECONDS = 2.0
child = os.fork()
print(child, flush=True) if child else None
with GateMonitor(torch.nn.LSTM(3, 4), None, store=sys.argv[1], probe=torch.ones(2, 5, 3), every=1) as monitor:
    monitor.step()
    while not pathlib.Path("held").exists():
        time.sleep(0.01)
    for i in range(50):
        monitor.step()
    if child == 0:
        pathlib.Path("stepped").touch()
        time.sleep(60)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_the_end_of_a_process_whose_server_never_answers(front, tmp_path):
    """Two processes: one whose training ends, and its child, with a run of its own, which is told to end.

    A request would wait ten minutes for its answer, so that what ends does not wait for the server.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", HANGING, front.url],
        env=os.environ | {"PYTHONPATH": str(ROOT), "INFLUXDB_V2_TIMEOUT": "600000"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        child = int(process.stdout.readline())
        until(lambda: len(front.asked) >= 2, 120)
        front.answer = holding
        (tmp_path / "held").touch()
        until((tmp_path / "stepped").exists, 120)
        until(lambda: front.held >= 2, 120)
        os.kill(child, signal.SIGTERM)
        assert int(process.stdout.readline()) == -signal.SIGTERM
        assert process.wait(120) == 0
    assert sum(entry.points for entry in pending(spool_root())) >= 2 * 50 * 3 * len(LSTM.gate_names)


def refused_at_first(url, match):
    stepped = []
    with pytest.raises(ConfigError, match=match) as caught:
        train(url, meanwhile=lambda step, module: stepped.append(step))
    assert "\n" not in str(caught.value)
    assert not stepped


def away_for_a_while(front, said, answer, match):
    """A training whose server answers so from the third step to the sixth."""

    def meanwhile(step, module):
        if step == 3:
            front.answer = answer
        if step == 6:
            until(lambda: said("takes no points now"))
            comes_back(front)

    train(front.url, meanwhile=meanwhile)
    (told,) = said("takes no points now")
    assert match in told
    assert len(said("takes points again")) == 1


def test_a_server_that_is_none(front, stored, said):
    page = replying(200, b"<html>Log in to the hotel's network</html>", Content_Type="text/html")
    front.answer = page
    refused_at_first(front.url, "not InfluxDB 2")
    comes_back(front)
    away_for_a_while(front, said, page, "not InfluxDB 2")
    assert_whole(stored)


def test_a_redirect(front, stored, said):
    elsewhere = replying(302, Location="https://login.example/?next=secret")
    front.answer = elsewhere
    refused_at_first(front.url, "leads to https://login.example/,")
    comes_back(front)
    away_for_a_while(front, said, elsewhere, "leads to https://login.example/,")
    assert_whole(stored)


def test_an_answer_that_is_cut(front, stored, said):
    away_for_a_while(front, said, cutting, "connection broke")
    assert_whole(stored)


def test_an_answer_that_drips(front, stored, monkeypatch, said):
    monkeypatch.setattr("gatewatch.collector.run_life.CLOSE_SECONDS", 1.0)

    def meanwhile(step, module):
        if step == 3:
            front.answer = dripping
        if step == 4:
            until(lambda: front.held)

    train(front.url, meanwhile=meanwhile)
    assert len(said("points wait in")) == 1
    comes_back(front)
    train(front.url, run="next")
    assert_whole(stored)


def test_no_server_at_first(influxd, bucket, stored, said):
    port = free_port()
    servers = []

    def meanwhile(step, module):
        if step == 5:
            servers.append(Front(influxd.url, port))

    train(f"http://127.0.0.1:{port}", meanwhile=meanwhile)
    servers[0].close()
    assert_whole(stored)
    assert len(said("does not answer yet")) == 1


def test_an_outage(own_influxd, monkeypatch, said):
    bucket = own_influxd.bucket()
    for variable, value in {"ORG": own_influxd.org, "BUCKET": bucket, "TOKEN": own_influxd.token}.items():
        monkeypatch.setenv(f"INFLUXDB_V2_{variable}", value)

    def meanwhile(step, module):
        if step == 4:
            own_influxd.stop()
        if step == 8:
            until(lambda: said("takes no points now"))
            own_influxd.start()

    train(own_influxd.url, 12, meanwhile=meanwhile)
    assert_whole(own_influxd.store(bucket), range(1, 13))
    assert len(said("takes points again")) == 1


def test_a_server_that_does_not_answer_at_first(front, stored, monkeypatch, said):
    monkeypatch.setattr("gatewatch.collector.store.influxdb.client.WRITE_TIMEOUT_S", 0.3)
    front.answer = holding
    train(front.url, meanwhile=at(5, comes_back, front))
    assert_whole(stored)
    assert len(said("does not answer yet; training goes on")) == 1


def test_no_file_descriptors(front, stored, said):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    def meanwhile(step, module):
        if step == 3:
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        if step == 6:
            until(said)
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    try:
        train(front.url, meanwhile=meanwhile)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert_whole(stored)


def test_sigterm_while_the_loop_goes_on(front, stored, brief):
    told, tell = os.pipe()

    def meanwhile(step, module):
        os.write(tell, b".")
        time.sleep(0.01)

    def victim():
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        train(front.url, 10**6, run="victim", meanwhile=meanwhile)

    with forked(victim) as child:
        os.close(tell)
        assert os.read(told, 1) + os.read(told, 1) == b".."
        front.answer = holding
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    comes_back(front, brief)
    train(front.url, run="next")
    arrived = steps_of(stored, "victim")
    assert arrived == [*range(1, len(arrived) + 1)]
    assert stored.runs().set_index("run").loc["victim", "state"] == "interrupted"


# What happens inside the training.


def test_a_clock_that_jumps_back(influxd, stored, monkeypatch):
    """The system's clock is not ours to set: what reads it is replaced."""
    ahead, now = [3600 * 10**9], time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + sum(ahead))
    train(influxd.url, meanwhile=at(4, ahead.clear))
    assert_whole(stored)
    stats = stored.read(GATE_STATS, tags={"gate": "forget"})
    assert stats.sort_values("time")["step"].tolist() == [*range(1, 9)]
    assert stored.read(RUNS).sort_values("time")["event"].tolist() == ["started", "completed"]


def test_weights_that_are_nan(influxd, stored, said):
    def poison(step, module):
        if step == 5:
            with torch.no_grad():
                module.lstm.weight_hh_l0[0] = torch.nan

    train(influxd.url, meanwhile=poison, metrics=lambda step: {"loss": 1.0 if step < 5 else torch.nan})
    assert len(stored.read(GATE_STATS)) == 8 * len(LSTM.gate_names)
    assert steps_of(stored, measurement=GATE_UNITS) == [1, 2, 3, 4]
    assert stored.runs()["state"].tolist() == ["completed"]
    for measurement in (GATE_STATS, LAYER_UPDATES, TRAIN_METRICS):
        counted = stored.read(measurement).groupby("step")["nan_count"].sum()
        assert (counted > 0).to_dict() == {step: step >= 5 for step in range(1, 9)}, measurement
    assert said() == [
        "gatewatch: run 'r', step 5: values are NaN or infinite in all 6 gates, of the layer lstm/l0 first"
    ]


def test_a_torch_layer_that_is_replaced(influxd, stored, said):
    def replace(step, module):
        if step == 5:
            module.lstm, module.head = nn.LSTM(3, 6, batch_first=True), nn.Linear(6, 1)

    train(influxd.url, meanwhile=replace)
    assert steps_of(stored) == [*range(1, 9)]
    units = stored.read(GATE_UNITS, tags={"gate": "forget"}).set_index("step")
    assert units["u005"].notna().to_dict() == {step: step >= 5 for step in range(1, 9)}
    assert set(stored.read(GATE_STATS)["layer"]) == {"lstm/l0"}
    updates = stored.read(LAYER_UPDATES, tags={"layer": "lstm/l0", "param": "recurrent"})
    assert updates["step"].tolist() == [1, 2, 3, 4, 6, 7, 8]
    assert stored.runs()["state"].tolist() == ["completed"]
    assert not said()


def keras_training(url, steps, meanwhile):
    """A loop over `train_on_batch`, each step with a capture."""
    import keras

    from gatewatch import GateMonitor as KerasMonitor

    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(4, 5, 3)).astype("float32")
    model = keras.Sequential([keras.Input((5, 3)), keras.layers.LSTM(4, name="lstm"), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with KerasMonitor(model, None, run="r", store=url, probe=x, every=1) as monitor:
        for step in range(1, steps + 1):
            meanwhile(step, model)
            loss = model.train_on_batch(x, x[:, 0, :1])
            monitor.step(metrics={"loss": loss})


def test_a_keras_layer_that_is_replaced(influxd, stored, said):
    import keras

    def replace(step, model):
        if step == 3:
            model.pop()
            model.pop()
            model.add(keras.layers.GRU(6, name="gru"))
            model.add(keras.layers.Dense(1))
            model.compile("sgd", "mse")

    keras_training(influxd.url, 5, replace)
    stats = stored.read(GATE_STATS)
    assert stats.groupby("layer")["step"].unique().map(list).to_dict() == {"lstm": [1, 2], "gru": [3, 4, 5]}
    assert stored.runs()["state"].tolist() == ["completed"]
    assert len(said("lstm")) == 1


def test_a_keras_layer_that_is_renamed(influxd, stored, said):
    def rename(step, model):
        if step == 3:
            model.layers[0].name = "renamed"

    keras_training(influxd.url, 4, rename)
    assert stored.read(GATE_STATS).groupby("layer")["step"].unique().map(list).to_dict() == {"lstm": [1, 2, 3, 4]}
    assert stored.runs()["state"].tolist() == ["completed"]


def test_a_probe_that_is_overwritten(influxd, stored):
    module, moments = Policy(), {}
    for run in ("left alone", "overwritten"):
        probe = PROBE.clone().numpy() if run == "overwritten" else PROBE.clone()
        with GateMonitor(module, None, run=run, store=influxd.url, probe=probe, every=1) as monitor:
            monitor.step()
            probe[:] = 7.0
            monitor.step()
            del probe
            monitor.step()
        moments[run] = stored.read(GATE_STATS, run=run, tags={"gate": "forget"})["mean"].tolist()
    assert len(set(moments["left alone"] + moments["overwritten"])) == 1


def test_an_input_that_does_not_fit(influxd, stored, said):
    with GateMonitor(Policy(), None, run="r", store=influxd.url, probe=PROBE, every=1) as monitor:
        monitor.step()
        monitor.step(torch.ones(2, 5, 99))
        monitor.step(time="yesterday")
        monitor.step(state=[1, 2, 3])
        monitor.step()
    assert steps_of(stored) == [1, 5]
    assert stored.read(COLLECTOR_HEALTH)["failures"].iloc[-1] == 3
    assert len(said("a capture failed, training goes on")) == 1
    assert len(said("state=[1, 2, 3]: must be arrays (batch, units), not of shape (), (), ()")) == 1
    assert len(said("no time")) == len(said()) - 2 == 1


def test_a_module_that_no_longer_takes_the_probe(influxd, stored, said):
    module = Policy()
    with GateMonitor(module, None, run="r", store=influxd.url, probe=PROBE, every=1) as monitor:
        for step in range(1, 9):
            if step == 4:
                module.lstm = nn.LSTM(99, 4, batch_first=True)
            if step == 7:
                module.lstm = nn.LSTM(3, 4, batch_first=True)
            monitor.step(metrics={"loss": 1.0})
    assert steps_of(stored) == [1, 2, 3, 7, 8]
    assert steps_of(stored, measurement=TRAIN_METRICS) == [*range(1, 9)]
    assert stored.read(COLLECTOR_HEALTH)["failures"].iloc[-1] == 3
    assert len(said("a capture failed, training goes on")) == len(said()) == 1


def test_metrics_of_every_kind(influxd, stored, said):
    odd = {
        "loss": 1.5,
        "text": "up",
        "nothing": None,
        "nan": float("nan"),
        "inf": np.float32("inf"),
        "array": np.ones(3),
        "tensor": torch.tensor(2.0, requires_grad=True),
        "broken": object(),
        'we,ird= "n\\ame"\n\\': 3,
        "": 4.0,
        "time": 5.0,
        "step": 6.0,
        "ünï☃": 7.0,
        "x" * 5000: 8.0,
        9: 9.0,
    }
    train(influxd.url, metrics=lambda step: odd)
    assert_whole(stored)
    row = stored.read(TRAIN_METRICS).iloc[-1]
    assert (row["loss"], row["tensor"], row["nan_count"], row["inf_count"]) == (1.5, 2.0, 1, 1)
    assert (row["step"], row["step_"], row["time_"], row["_"], row["ünï☃"], row["9"]) == (8, 6.0, 5.0, 4.0, 7.0, 9.0)
    assert not {"text", "nothing", "nan", "inf", "array", "broken"} & set(row.index)
    assert {3.0, 8.0} <= set(row[[name for name in row.index if isinstance(row[name], float)]])
    assert sorted(re.findall(r"metric '(\w+)' is left out", "\n".join(said()))) == ["array", "broken", "text"]


def test_a_module_that_is_copied_or_saved(influxd, stored):
    def copies(step, module):
        before = torch.get_rng_state()
        other = copy.deepcopy(module)
        torch.save(module, buffer := io.BytesIO())
        buffer.seek(0)
        torch.load(buffer, weights_only=False)
        one_step(other)
        assert torch.equal(torch.get_rng_state(), before)

    train(influxd.url, meanwhile=copies)
    assert_whole(stored)


def test_an_exception_in_the_training(influxd, stored):
    def fail(step, module):
        if step == 5:
            raise ValueError("no price\nfor GOOG")

    with pytest.raises(ValueError, match="no price"):
        train(influxd.url, meanwhile=fail)
    assert_whole(stored, range(1, 5), state="failed")
    assert stored.runs()["error"].tolist() == ["ValueError: no price for GOOG"]


# The SQLite store, and the folder of the epochs' files.


@pytest.fixture
def database(tmp_path, monkeypatch):
    monkeypatch.setattr("gatewatch.collector.store.sqlite.file.BUSY_TIMEOUT_S", 0.1)
    return tmp_path / "gatewatch.db"


def test_a_database_that_is_locked(database, said):
    store = open_store(f"sqlite:///{database}")

    def meanwhile(step, module):
        if step == 3:
            locking.execute("BEGIN EXCLUSIVE")
        if step == 6:
            until(lambda: said("takes no points now"))
            locking.execute("ROLLBACK")

    store.check()
    locking = sqlite3.connect(database, isolation_level=None)
    train(store.url, meanwhile=meanwhile)
    locking.close()
    assert_whole(store)
    assert len(said("database is locked")) == len(said("takes points again")) == 1


def test_a_database_that_is_deleted(database, said):
    def delete():
        until(lambda: steps_of(open_store(f"sqlite:///{database}")))
        for file in database.parent.glob(f"{database.name}*"):
            file.unlink()

    train(f"sqlite:///{database}", meanwhile=at(4, delete))
    store = open_store(f"sqlite:///{database}")
    arrived = steps_of(store)
    assert arrived == [*range(arrived[0], 9)]
    assert 1 < arrived[0] <= 4
    assert store.runs()["state"].tolist() == ["completed"]
    assert len(said("was removed or replaced while it was open")) == 1


def test_a_database_that_is_damaged(database, said):
    def damage():
        until(lambda: steps_of(open_store(f"sqlite:///{database}")))
        for file in database.parent.glob(f"{database.name}*"):
            file.unlink()
        database.write_bytes(b"no database" * 1000)

    def meanwhile(step, module):
        if step == 4:
            damage()
        if step == 8:
            until(lambda: said("not a sound SQLite file"))
            database.unlink()

    train(f"sqlite:///{database}", meanwhile=meanwhile)
    arrived = steps_of(open_store(f"sqlite:///{database}"))
    assert arrived == [*range(arrived[0], 9)]
    assert 1 < arrived[0] <= 4
    assert len(said("not a sound SQLite file")) == 1


def test_log_dir_is_deleted_in_mid_run(database, tmp_path, said):
    folder = tmp_path / "logs"
    with GateMonitor(Policy(), folder, run="r", store=f"sqlite:///{database}", probe=PROBE, every=1) as monitor:
        monitor.step()
        monitor.end_epoch()
        shutil.rmtree(folder)
        monitor.step()
        monitor.end_epoch()
    assert [file.name for file in folder.iterdir()] == ["gate_epoch_1.npz"]
    assert not said()


def test_log_dir_takes_nothing_more(database, disk, said):
    folder = disk.folder / "logs"
    with GateMonitor(Policy(), folder, run="r", store=f"sqlite:///{database}", probe=PROBE, every=1) as monitor:
        monitor.step()
        monitor.end_epoch()
        disk.fill()
        for _ in range(3):
            monitor.step()
            monitor.end_epoch()
        disk.empty()
    store = open_store(f"sqlite:///{database}")
    assert [file.name for file in folder.iterdir()] == ["gate_epoch_0.npz"]
    assert steps_of(store) == [1, 2, 3, 4]
    assert store.read(COLLECTOR_HEALTH)["failures"].iloc[-1] == 3
    assert len(said("the epoch's file failed, training goes on")) == 1


def test_a_full_disk_under_the_database(disk, said):
    store = open_store(f"sqlite:///{disk.folder / 'gatewatch.db'}")

    def meanwhile(step, module):
        if step == 3:
            disk.fill()
        if step == 6:
            until(lambda: said("takes no points now"))
            disk.empty()

    train(store.url, meanwhile=meanwhile)
    assert_whole(store)
    assert len(said("takes points again")) == 1


def test_the_working_directory_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("GATEWATCH_SPOOL", "spool")
    for name in ("begin", "elsewhere"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "begin")
    with GateMonitor(Policy(), "logs", run="r", store="sqlite:///g.db", probe=PROBE, every=1) as monitor:
        for step in range(8):
            if step == 4:
                monkeypatch.chdir(tmp_path / "elsewhere")
            monitor.step()
        monitor.end_epoch()
    assert not list((tmp_path / "elsewhere").iterdir())
    assert {path.name for path in (tmp_path / "begin").iterdir()} >= {"g.db", "logs", "spool"}
    assert steps_of(open_store(f"sqlite:///{tmp_path}/begin/g.db")) == [*range(1, 9)]


def test_a_run_of_the_same_name(database):
    train(f"sqlite:///{database}")
    refused_at_first(f"sqlite:///{database}", "already holds a run of this name")
    assert_whole(open_store(f"sqlite:///{database}"))

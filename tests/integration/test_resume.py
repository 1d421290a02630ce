"""After a crash: the run goes on, and no step is recorded twice, and none is lost."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.line_protocol import encode
from gatewatch.collector.run_progress import Progress
from gatewatch.collector.schema import GATE_DERIVED, GATE_STATS, LAYER_UPDATES, RUNS, TRAIN_METRICS, Point
from gatewatch.collector.spool.queue import Spool, spool_root
from gatewatch.collector.store import open_store
from gatewatch.jobs.cli import main
from gatewatch.jobs.scoring.scoring_pass import run_pass
from gatewatch.torch import GateMonitor
from tests.tokens import token_of

ROOT = Path(__file__).parents[2]
PROBE = torch.ones(2, 5, 3)

SCRIPT = """
import glob, os, signal, sys
os.environ["KERAS_BACKEND"] = "torch"
sys.modules["tensorboard"] = None  # it would load TensorFlow
import gymnasium, keras, numpy as np, torch
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback
import gatewatch.torch
from gatewatch import GateMonitor
from gatewatch.sb3 import GateMonitorCallback

torch.set_num_threads(1)

def die():
    os.kill(os.getpid(), signal.SIGKILL)

# Keras: BackupAndRestore.

class DiesAt(keras.callbacks.Callback):
    def __init__(self, epoch, batch):
        super().__init__()
        self.at, self.epoch = (epoch, batch), 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            die()

def with_keras(run, dies_at):
    keras.utils.set_random_seed(1)
    x = np.random.default_rng(0).normal(size=(16, 5, 3)).astype("float32")
    model = keras.Sequential([keras.Input((5, 3)), keras.layers.LSTM(4, name="lstm"), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    model.fit(x, x[:, 0, :1], batch_size=4, epochs=4, shuffle=False, verbose=0, callbacks=[
        GateMonitor(log_dir=run, run=run, probe=x[:4], every=1, resume=True),
        keras.callbacks.BackupAndRestore(f"backup-{run}"),
        *([DiesAt(*dies_at)] if dies_at else []),
    ])

# Stable-Baselines3: CheckpointCallback.

class Walk(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-10, 10, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 7
        return self.np_random.normal(size=3).astype("float32"), {}

    def step(self, action):
        self.left -= 1
        return self.np_random.normal(size=3).astype("float32"), 1.0, self.left == 0, False, {}

class DiesAfter(BaseCallback):
    def __init__(self, timesteps):
        super().__init__()
        self.timesteps = timesteps

    def _on_step(self):
        if self.num_timesteps == self.timesteps:
            die()
        return True

def with_sb3(run, dies_at):
    saved = sorted(glob.glob(f"{run}-models/*.zip"), key=os.path.getmtime)
    if saved:
        model = RecurrentPPO.load(saved[-1], Walk(), device="cpu")
    else:
        options = {"lstm_hidden_size": 5, "net_arch": []}
        model = RecurrentPPO("MlpLstmPolicy", Walk(), n_steps=8, batch_size=8, n_epochs=1, seed=1, device="cpu",
                             policy_kwargs=options)
    probe = np.random.default_rng(0).normal(size=(6, 1, 3)).astype("float32")
    model.learn(48 - model.num_timesteps, reset_num_timesteps=False, callback=[
        GateMonitorCallback(run, run=run, probe=probe, every=1, resume=True),
        CheckpointCallback(16, f"{run}-models"),
        *([DiesAfter(dies_at)] if dies_at else []),
    ])

# torch: a loop of one's own, whose checkpoint holds where the monitor was.

def with_torch(run, dies_at):
    torch.manual_seed(1)
    net = torch.nn.LSTM(3, 4, batch_first=True)
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    x, path = torch.ones(2, 5, 3), f"{run}.pt"
    with gatewatch.torch.GateMonitor(net, run, run=run, probe=x, every=1, resume=True) as monitor:
        step = 0
        if os.path.exists(path):
            checkpoint = torch.load(path)
            net.load_state_dict(checkpoint["net"])
            optimizer.load_state_dict(checkpoint["optimizer"])
            monitor.load_state_dict(checkpoint["monitor"])
            step = checkpoint["step"]
        while step < 20:
            optimizer.zero_grad()
            net(x)[0].sum().backward()
            optimizer.step()
            step += 1
            monitor.step(metrics={"loss": 1 / step})
            if step == dies_at:
                die()
            if step % 5 == 0:
                monitor.end_epoch({"score": step})
                state = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "step": step,
                         "monitor": monitor.state_dict()}
                torch.save(state, path)

def process(work, *arguments):
    child = os.fork()
    if child == 0:
        try:
            work(*arguments)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

for work, dies_at in ((with_keras, (2, 1)), (with_sb3, 29), (with_torch, 13)):
    run = work.__name__.removeprefix("with_")
    codes = process(work, run, dies_at), process(work, run, None), process(work, f"{run}-whole", None)
    assert codes == (-signal.SIGKILL, 0, 0), codes
assert process(with_keras, "early", (0, 1)) == -signal.SIGKILL  # before the first backup
assert process(with_keras, "early", None) == 0
"""


@pytest.fixture(scope="module")
def crashed(tmp_path_factory):
    """Trainings that were killed and started again, and such that were not: their folder, the store, and the log."""
    folder = tmp_path_factory.mktemp("crashed")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "GATEWATCH_SPOOL": str(folder / "spool")}
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return folder, open_store(f"sqlite:///{folder}/gatewatch.db"), done.stderr


def recorded(store, measurement, run, **tags):
    """The points without their times and ids, by step."""
    frame = store.read(measurement, run=run, tags=tags)
    return frame.drop(columns=[*({"time", "run"} & set(frame.columns))])


@pytest.mark.parametrize("measurement", [GATE_STATS, LAYER_UPDATES, TRAIN_METRICS])
@pytest.mark.parametrize("run", ["keras", "torch"])
def test_a_training_that_was_killed_is_recorded_as_if_it_had_not_been(crashed, run, measurement):
    _, store, _ = crashed
    resumed, whole = (recorded(store, measurement, name) for name in (run, f"{run}-whole"))
    # How far weights went since the record before, which the first of each process does not know.
    between = whole.columns.intersection(["travel", "travel_steps", "travel_limit", "rate_sum"])
    pd.testing.assert_frame_equal(resumed.drop(columns=between), whole.drop(columns=between), check_exact=True)
    known = resumed[between].notna().all(axis=1)
    assert 0.5 < known.mean() < 1 or between.empty
    # The sum of rates is the difference of two sums, which have begun at another step.
    pd.testing.assert_frame_equal(resumed.loc[known, between], whole.loc[known, between], rtol=1e-12, atol=0)


@pytest.mark.parametrize(("run", "steps"), [("keras", 17), ("early", 17), ("torch", 20), ("sb3", 7)])
def test_every_step_is_recorded_once(crashed, run, steps):
    _, store, log = crashed
    stats = recorded(store, GATE_STATS, run, gate="forget")
    assert stats.groupby("layer")["step"].apply(list).map(len).unique().tolist() == [steps]
    assert not stats.duplicated(["layer", "step"]).any()
    events = store.read(RUNS, run=run)
    assert events["event"].tolist() == ["started", "resumed", "completed"]
    assert events["session"].nunique() == 2
    assert f"run '{run}' goes on after step" in log


def test_the_steps_and_iterations_of_sb3_go_on(crashed):
    _, store, _ = crashed
    for run in ("sb3", "sb3-whole"):
        stats = recorded(store, GATE_STATS, run, gate="forget", layer="lstm_actor/l0")
        assert stats["step"].tolist() == [0, 8, 16, 24, 32, 40, 48]
        metrics = recorded(store, TRAIN_METRICS, run)
        assert metrics[["step", "epoch"]].to_numpy().tolist() == [[8 * n + 8, n] for n in range(6)]


@pytest.mark.parametrize("run", ["keras", "early", "torch"])
def test_the_files_of_the_epochs_go_on(crashed, run):
    folder, _, _ = crashed
    assert sorted(path.name for path in (folder / run).iterdir()) == [f"gate_epoch_{n}.npz" for n in range(4)]


def test_the_command_the_report_and_the_jobs_show_one_run(crashed, tmp_path, capsys):
    _, store, _ = crashed
    assert main(["runs", "--store", store.url, "--json"]) == 0
    listed = {row["run"]: row for row in json.loads(capsys.readouterr().out)}
    assert (listed["keras"]["state"], listed["keras"]["step"]) == ("completed", 16)
    assert listed["keras"]["started"] < listed["keras"]["last_seen"]
    for run in ("keras", "keras-whole"):
        run_pass(store, run)
    resumed, whole = (recorded(store, GATE_DERIVED, run).drop(columns="window_s") for run in ("keras", "keras-whole"))
    pd.testing.assert_frame_equal(resumed, whole, check_exact=True)
    assert main(["report", "keras", "--store", store.url, "-o", str(tmp_path / "report.html")]) == 0
    assert "completed" in (tmp_path / "report.html").read_text()


# Where the state comes from, and what is refused.


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def loop(steps, *, store=None, fails=False, **options):
    monitor = GateMonitor(torch.nn.LSTM(3, 4), None, run="exp1", probe=PROBE, every=1, store=store, **options)
    with monitor:
        for _ in range(steps):
            monitor.step()
        if fails:
            raise ZeroDivisionError


def steps_of(store):
    return store.read(GATE_STATS, run="exp1", tags={"gate": "forget"})["step"].tolist()


def test_a_script_can_always_ask_for_it(place):
    loop(3, resume=True)
    loop(3, resume=True)
    assert steps_of(open_store()) == [1, 2, 3, 4, 5, 6]
    assert open_store().read(RUNS)["event"].tolist() == ["started", "completed", "resumed", "completed"]
    with pytest.raises(ConfigError, match="resume=True needs the name"):
        GateMonitor(torch.nn.LSTM(3, 4), probe=PROBE, resume=True)
    Path("gatewatch.db").unlink()  # and the run with it: it begins anew
    loop(2, resume=True)
    assert steps_of(open_store()) == [1, 2]


def test_a_checkpoint_says_where_the_loop_is(place):
    def monitor():
        return GateMonitor(torch.nn.LSTM(3, 4), None, run="exp1", probe=PROBE, every=1, resume=True)

    with monitor() as first:
        for _ in range(5):
            first.step()
            if first.state_dict()["step"] == 3:
                saved = first.state_dict()
    again = monitor()
    again.load_state_dict(saved)  # before the run has begun, as Lightning does
    with again:
        assert again.state_dict() == saved == {"step": 3, "epoch": 0}
        for _ in range(4):
            again.step()
    assert steps_of(open_store()) == [1, 2, 3, 4, 5, 6, 7]
    with pytest.raises(ConfigError, match=r"load_state_dict\({'step': None}\): give what state_dict\(\) returned"):
        again.load_state_dict({"step": None})


def test_a_run_that_is_alive_is_not_resumed(place, monkeypatch):
    with GateMonitor(torch.nn.LSTM(3, 4), None, run="exp1", probe=PROBE, every=1) as monitor:
        monitor.step()
        monitor._session._shipper.flush(20)
        with pytest.raises(ConfigError, match=rf"'exp1' cannot be resumed: process {os.getpid()} is still recording"):
            loop(1, resume=True)
        monkeypatch.setenv("GATEWATCH_SPOOL", str(place / "another machine"))
        with pytest.raises(ConfigError, match=r"cannot be resumed: .* is still .*; if it has died, try again in \d+ s"):
            loop(1, resume=True)
    loop(1, resume=True)
    assert steps_of(open_store()) == [1, 2]


def test_a_run_whose_clock_is_ahead_may_be_alive_and_the_line_says_so(place):
    ahead = time.time_ns() + 3600 * 10**9
    event = {"event": "heartbeat", "session": "desk:7:abc", "step": 5}
    open_store().write([Point(RUNS, {"run": "exp1", "phase": "train"}, event, ahead)])
    with pytest.raises(ConfigError) as caught:
        loop(1, resume=True)
    assert re.sub(r"3600|3599", "1 h", re.sub(r"3720|3719", "1 h 2 min", str(caught.value))) == (
        "run='exp1' cannot be resumed: desk:7:abc is still recording it; end that first, or choose another name; its "
        "last event lies 1 h s in the future: set the clock of its machine or of this one right; if it has died, try "
        "again in 1 h 2 min s"
    )


LOOKS_LIKE_IT = "x,run=exp1,phase=train y"


@pytest.mark.parametrize(
    ("tags", "goes_on"),
    [
        ({"run": "exp1", "phase": "train"}, True),
        ({"run": "exp1", "phase": "train", "symbol": "A B"}, True),
        ({"run": "other", "phase": "train"}, False),
        ({"run": "exp1", "phase": "live"}, False),
        ({"run": "exp10", "phase": "train"}, False),
        ({"run": LOOKS_LIKE_IT, "phase": "train"}, False),
    ],
)
def test_where_the_database_was_deleted_only_what_waits_of_the_run_itself_counts(place, tags, goes_on):
    loop(3, resume=True)
    Path("gatewatch.db").unlink()
    store = open_store()
    waiting = Spool(spool_root(), store.destination, 2**20)  # of a process that lives, and does not reach the store
    waiting.append(encode([Point(RUNS, tags, {"event": "heartbeat", "config": LOOKS_LIKE_IT, "step": 3}, 1)]), 1)
    loop(2, resume=True)
    waiting.close()
    assert steps_of(store) == ([4, 5] if goes_on else [1, 2])


def test_a_token_that_may_only_write_is_enough(influxd, place, monkeypatch, caplog):
    bucket = influxd.bucket()
    variables = {"ORG": influxd.org, "BUCKET": bucket, "TOKEN": token_of(influxd, "write", buckets=(bucket,))}
    for variable, value in variables.items():
        monkeypatch.setenv(f"INFLUXDB_V2_{variable}", value)
    with pytest.raises(ZeroDivisionError):
        loop(3, store=influxd.url, fails=True)
    with pytest.raises(ConfigError, match="already holds a run of this name"):
        loop(3, store=influxd.url)
    loop(3, store=influxd.url, resume=True)
    assert steps_of(influxd.store(bucket)) == [1, 2, 3, 4, 5, 6]
    assert "cannot be read, whether it already holds a run of this name is not known" in caplog.text


def test_another_machine_goes_on_by_what_is_stored(influxd, place, monkeypatch):
    bucket = influxd.bucket()
    for variable, value in {"ORG": influxd.org, "BUCKET": bucket, "TOKEN": influxd.token}.items():
        monkeypatch.setenv(f"INFLUXDB_V2_{variable}", value)
    with pytest.raises(ZeroDivisionError):
        loop(3, store=influxd.url, fails=True)
    monkeypatch.setenv("GATEWATCH_SPOOL", str(place / "another machine"))
    loop(3, store=influxd.url, resume=True)
    assert steps_of(influxd.store(bucket)) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("run", ["keras", "torch"])
def test_what_is_stored_says_where_the_epochs_are(crashed, run):
    _, store, _ = crashed
    length = {"keras": 4, "torch": 5}[run]
    progress = Progress.from_store(store, run, "train")
    assert progress == Progress(4 * length, 4, 4 * length)
    assert [progress.step_of_epoch(epoch) for epoch in range(5)] == [length * epoch for epoch in range(5)]

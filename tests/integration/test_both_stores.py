"""The same script against the embedded store and against a real influxd, and an influxd that goes away."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

from gatewatch import GateMonitor, open_store
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.schema import (
    COLLECTOR_HEALTH,
    GATE_DERIVED,
    GATE_SCORES,
    GATE_STATS,
    GATE_TIME,
    GATE_UNITS,
    RUNS,
    TRAIN_METRICS,
)
from gatewatch.jobs.report.page import write_report
from gatewatch.jobs.scoring.scoring_pass import run_pass
from tests.conftest import free_port
from tests.keras_models import build_optimizer

ROOT = Path(__file__).parents[2]
X = np.random.default_rng(0).normal(size=(64, 7, 3)).astype("float32")
Y = np.random.default_rng(1).normal(size=(64, 1)).astype("float32")
OF_THE_CLOCK = {"time", "capture_ms", "overhead_ratio", "shipped", "spooled_bytes", "config", "window_s", "model_id"}
OF_THE_PROCESS = {"session"}


@pytest.fixture(scope="module")
def both(influxd, tmp_path_factory):
    """One run of the example in each store: (embedded, InfluxDB)."""
    folder = tmp_path_factory.mktemp("both")
    bucket = influxd.bucket()
    environment = {
        "PYTHONPATH": str(ROOT),
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "INFLUXDB_V2_ORG": influxd.org,
        "INFLUXDB_V2_BUCKET": bucket,
        "INFLUXDB_V2_TOKEN": influxd.token,
    }
    for number, url in enumerate((f"sqlite:///{folder}/gatewatch.db", influxd.url)):
        script = [sys.executable, ROOT / "examples/keras_market_lstm.py", "--run", 'goog "1", ../x']
        done = subprocess.run(
            [*script, "--epochs", "3", "--every", "2", "--store", url, "--log-dir", f"logs{number}"],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    stores = open_store(f"sqlite:///{folder}/gatewatch.db"), influxd.store(bucket)
    for store in stores:
        run_pass(store)
    return stores


@pytest.mark.parametrize(
    "measurement",
    [GATE_STATS, GATE_UNITS, GATE_TIME, TRAIN_METRICS, RUNS, COLLECTOR_HEALTH, GATE_DERIVED, GATE_SCORES],
)
def test_the_same_points_are_in_both_field_by_field(both, measurement):
    frames = []
    for store in both:
        frame = store.read(measurement)
        assert len(frame) > 0
        frame = frame.drop(columns=(OF_THE_CLOCK | OF_THE_PROCESS) & set(frame.columns))
        tags = [tag for tag in ("layer", "gate") if tag in frame]
        frames.append(frame.sort_values(tags, kind="stable").reset_index(drop=True) if tags else frame)
    pd.testing.assert_frame_equal(*frames, check_exact=True)


def test_a_pass_over_influxdb_twice_changes_nothing(both):
    store = both[1]
    before = {name: store.read(name) for name in (GATE_DERIVED, GATE_SCORES)}
    assert run_pass(store)[0].unchanged
    for name, frame in before.items():
        pd.testing.assert_frame_equal(store.read(name), frame)


def policy():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input(X.shape[1:]), keras.layers.LSTM(5, name="memory"), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    build_optimizer(model)
    return model


def refused(match, store):
    model = policy()
    with pytest.raises(ConfigError, match=match) as caught:
        model.fit(X, Y, verbose=0, callbacks=[GateMonitor(probe=X[:4], log_dir=None, store=store, run="r")])
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert int(model.optimizer.iterations) == 0


def test_what_influxdb_refuses_is_said_before_training(influxd):
    refused("INFLUXDB_V2_TOKEN", influxd.store(token="secret-but-wrong"))
    refused("no-such-bucket", influxd.store("no-such-bucket"))
    refused("INFLUXDB_V2_TOKEN", influxd.store(token=influxd.token_for("read")))


def test_a_token_that_may_only_write_is_enough_to_train(influxd):
    bucket = influxd.bucket()
    model = policy()
    monitor = GateMonitor(
        probe=X[:4], log_dir=None, store=influxd.store(bucket, token=influxd.token_for("write")), run="w"
    )
    model.fit(X, Y, batch_size=8, verbose=0, callbacks=[monitor])
    assert influxd.store(bucket).runs()["run"].tolist() == ["w"]


def test_a_server_that_goes_away_in_mid_run_is_survived_and_nothing_is_lost(own_influxd, caplog):
    server = own_influxd
    bucket = server.bucket()

    class Outage(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 20:
                server.process.send_signal(signal.SIGSTOP)
            if batch == 60:
                server.process.send_signal(signal.SIGCONT)

    monitor = GateMonitor(probe=X[:4], log_dir=None, store=server.store(bucket, timeout=1.0), run="outage", every=1)
    with caplog.at_level(logging.WARNING, "gatewatch"):
        policy().fit(X, Y, batch_size=8, epochs=10, verbose=0, callbacks=[Slowly(), Outage(), monitor])
    stats = server.store(bucket).read(GATE_STATS, run="outage", tags={"gate": "forget"})
    assert stats["step"].tolist() == [*range(81)]
    assert server.store(bucket).runs()["state"].tolist() == ["completed"]


class Slowly(keras.callbacks.Callback):
    """So that the training is long enough for a server to go and come back."""

    def on_train_batch_end(self, batch, logs=None):
        time.sleep(0.05)


def test_a_server_that_is_not_there_at_all_does_not_keep_anyone_from_training(monkeypatch, caplog):
    monkeypatch.setattr("gatewatch.collector.run_life.CLOSE_SECONDS", 1.0)
    model = policy()
    for name, value in {"ORG": "o", "BUCKET": "b", "TOKEN": "t"}.items():
        monkeypatch.setenv(f"INFLUXDB_V2_{name}", value)
    url = f"http://127.0.0.1:{free_port()}"
    with caplog.at_level(logging.WARNING, "gatewatch"):
        model.fit(X, Y, batch_size=8, verbose=0, callbacks=[GateMonitor(probe=X[:4], log_dir=None, store=url)])
    assert int(model.optimizer.iterations) == 8
    said = [record.message for record in caplog.records]
    assert sum("does not answer yet" in text for text in said) == 1
    assert sum("points wait in" in text for text in said) == 1
    assert json.dumps(said).count("no points now") == 1


def test_a_report_is_written_from_either(both, tmp_path):
    for number, store in enumerate(both):
        page = write_report(store, output=tmp_path / f"{number}.html").read_text()
        assert len(page) > 1e6
        for shown in ("goog &#34;1&#34;, ../x", "symbol=GOOG", "memory", "epoch 2"):
            assert shown in page

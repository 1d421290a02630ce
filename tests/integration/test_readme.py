"""What the README shows runs, and what it lists is all there is."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import Trainer
from sb3_contrib import RecurrentPPO

from gatewatch import GateMonitor, open_store
from gatewatch.collector.config import Settings, load_settings
from gatewatch.collector.schema import Point
from gatewatch.jobs.command_line import parser
from gatewatch.lightning import GateMonitorCallback as LightningCallback
from gatewatch.sb3 import GateMonitorCallback
from gatewatch.torch import GateMonitor as TorchMonitor
from grafana.emulator.frames import FluxSource
from grafana.emulator.interpolate import Moment, interpolate
from tests.grafana_alerts import SECOND, series
from tests.keras_models import build_optimizer

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = {path: path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
X = np.random.default_rng(0).normal(size=(64, 6, 3)).astype("float32")


def blocks(language, page="README.md"):
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", PAGES[ROOT / page], re.M | re.S)


def policy():
    model = keras.Sequential([keras.Input(X.shape[1:]), keras.layers.LSTM(4, name="memory"), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    build_optimizer(model)
    return model


def test_it_begins_with_the_two_commands():
    assert blocks("")[0].split("\n")[:2] == [
        "make demo    # sets everything up, trains on real prices with a fault put in, and shows what it finds",
        "make test    # sets everything up and runs the whole suite",
    ]


def test_the_python_blocks_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = policy()
    moments = pd.date_range("2024-01-01", periods=5)
    batches = list(torch.tensor(X).split(16))
    names = {
        "model": model,
        "x": X,
        "y": X[:, 0, :1],
        "bars": [(m, X[k : k + 1]) for k, m in enumerate(moments)],
        "module": torch.nn.LSTM(3, 4, batch_first=True),
        "batches": batches,
        "train": lambda module, batch: module(batch)[0].mean(),
        "RecurrentPPO": RecurrentPPO,
        "Trainer": Trainer,
        "environment": "CartPole-v1",
        "gradients": [X[0], X[1]],
    }
    for block in blocks("python"):
        names["model"] = model  # the block for Stable-Baselines3 has a model of its own
        exec(compile(block, "README.md", "exec"), names)
    assert names["forget"].shape == (32, 6, 4)
    assert 0 <= names["metrics"]["saturation"] <= 1
    runs = open_store().runs()
    assert runs["state"].tolist() == ["completed"] * 5
    assert set(runs["framework"]) == {"keras/tensorflow", "torch", "sb3"}
    backtest = open_store().read("gate_stats", tags={"phase": "backtest", "gate": "forget"})
    assert backtest["time"].dt.tz_localize(None).tolist() == list(moments)
    assert len(names["stats"]) > 0


def test_the_flux_query_returns_what_was_written(influxd, tmp_path):
    from influxdb_client import InfluxDBClient

    bucket = influxd.bucket()
    store = influxd.store(bucket)
    model = policy()
    monitor = GateMonitor(probe=X[:8], run="goog-1", store=store, log_dir=tmp_path, every=4)
    model.fit(X, X[:, 0, :1], batch_size=8, verbose=0, callbacks=[monitor])
    (query,) = blocks("flux", "docs/recording.md")
    with InfluxDBClient(influxd.url, influxd.token, org=influxd.org) as client:
        (table,) = client.query_api().query(query.replace('"gatewatch"', f'"{bucket}"'))
    stats = store.read("gate_stats", run="goog-1", tags={"gate": "forget"})
    assert [row["layer"] for row in table] == ["memory"] * 3
    assert [row["_value"] for row in table] == stats["mean"].tolist()
    assert [pd.Timestamp(row["_time"]).floor("us") for row in table] == stats["time"].dt.floor("us").tolist()


def test_the_rule_that_is_set_by_hand_is_one_that_grafana_can_evaluate(influxd):
    bucket, now = influxd.bucket(), 1_750_000_000 * SECOND
    tags = {"run": "goog-1", "phase": "train", "layer": "memory", "gate": "forget"}
    influxd.store(bucket).write(
        [
            Point("gate_stats", tags | {"layer": layer}, {"saturated_low": low}, now - ago * SECOND)
            for layer, low in (("memory", 0.75), ("decision", 0.25))
            for ago in (90, 30)
        ]
    )
    (indented,) = blocks("flux", "docs/grafana.md")
    source = FluxSource(influxd.url, org=influxd.org, bucket=bucket, token=influxd.token)
    filled = interpolate(indented, {}, Moment(now - 600 * SECOND, now, bucket, influxd.org))
    found = {dict(labels)["layer"]: values[-1] for labels, values in series(source.ask(filled).frames).items()}
    source.close()
    assert found == {"memory": 0.75, "decision": 0.25}


def test_every_argument_of_the_monitor_is_listed_with_its_default():
    table = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", README[README.index("## Options") :], re.M))
    signature = inspect.signature(GateMonitor.__init__).parameters
    assert list(table) == [name for name in signature if name != "self"]
    for name, shown in table.items():
        if (default := signature[name].default) is not None:
            assert shown.strip("`").strip('"') == str(default)


def test_every_command_is_listed():
    commands = next(action for action in parser()._actions if action.dest == "command" or action.choices).choices
    listed = set(re.findall(r"^\| `gatewatch (\w+)", README, re.M))
    assert listed == set(commands)


def test_the_other_monitors_have_the_same_options():
    def options(monitor):
        return {name: p.default for name, p in inspect.signature(monitor.__init__).parameters.items() if name != "self"}

    keras_options = options(GateMonitor)
    del keras_options["model"], keras_options["optimizer"]
    torch_options = options(TorchMonitor)
    del torch_options["module"]
    assert torch_options == options(LightningCallback) == keras_options
    for name in ("method", "probe_targets", "loss"):  # what SB3 trains has no targets
        del keras_options[name]
    assert options(GateMonitorCallback) == keras_options | {"verbose": 0}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", PAGES[page]):
        assert (page.parent / target).exists(), target


def test_the_readme_is_short_enough_to_read():
    assert README.count("\n") <= 300


def test_the_sample_configuration_is_one_and_says_what_holds_without_it():
    assert load_settings(ROOT / "config/gatewatch.sample.toml") == Settings()


@pytest.mark.parametrize("path", sorted(p.name for p in (ROOT / "docs/decisions").iterdir()))
def test_decisions_are_numbered(path):
    assert re.match(r"\d{4}-[a-z0-9-]+\.md$", path)


def test_the_version_is_said_once():
    from importlib import metadata

    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == metadata.version("gatewatch")

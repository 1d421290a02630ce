"""The examples, run as a user runs them, and what they leave in a store that all of them write at once."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from backtesting.test import GOOG

from gatewatch import gates, open_store
from gatewatch.collector.schema import GATE_DERIVED, GATE_SCORES, GATE_STATS, LAYER_UPDATES, TRAIN_METRICS

EXAMPLES = Path(__file__).parents[2] / "examples"
LOOP = ["--units", "8", "--epochs", "2", "--batches", "20", "--every", "1"]
SIZES = {
    "custom_loop": [*LOOP, "--symbol", "BTCUSD"],
    "backtest": ["--units", "8", "--epochs", "1", "--bars", "60", "--live", "20"],
    "torch_loop": LOOP,
}
RUNS = {name: f"{name}'s run" for name in SIZES}
RATE, CLIP = 3e-3, 0.1  # as the examples have them


def begin(command, cwd):
    """Start Python with a command, in an environment of its own."""
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("GATEWATCH_", "INFLUXDB_"))}
    ours = {"PYTHONPATH": str(EXAMPLES.parent), "GATEWATCH_SPOOL": str(cwd / "spool")}
    return subprocess.Popen(
        [sys.executable, *command], cwd=cwd, env=keep | ours, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def said(process):
    """What it prints; it has to succeed, and has no complaint."""
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert not re.search("gatewatch|warning|error", err, re.I), err
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where all examples have run at once, and what each of them said to type next has been typed."""
    folder = tmp_path_factory.mktemp("examples")
    common = ["--store", f"sqlite:///{folder / 'all.db'}", "--seed", "3"]
    scripts = {name: [str(EXAMPLES / f"{name}.py"), *sizes, *common] for name, sizes in SIZES.items()}
    for name in SIZES:
        (folder / name).mkdir()
    running = [begin([*command, "--run", RUNS[name]], folder / name) for name, command in scripts.items()]
    nexts = {line for process in running for line in re.findall(r"gatewatch (.+)", said(process))}
    assert {line.split()[0] for line in nexts} == {"runs", "jobs", "report"}
    assert len(nexts) == 2 + len(SIZES)
    for first in ("jobs", "runs|report"):
        typed = [line for line in nexts if re.match(first, line)]
        outputs = [
            said(process)
            for process in [begin(["-m", "gatewatch.jobs.cli", *shlex.split(line)], folder) for line in typed]
        ]
        assert all(outputs)
    return folder


@pytest.fixture(scope="module")
def store(folder):
    return open_store(f"sqlite:///{folder / 'all.db'}")


def example(name):
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", SIZES)
def test_three_lines_are_marked(name):
    assert re.findall(r"# <-- (\d)", (EXAMPLES / f"{name}.py").read_text()) == ["1", "2", "3"]


def test_every_run_is_complete(store):
    runs = store.runs().set_index("run")
    assert runs["state"].to_dict() == dict.fromkeys(RUNS.values(), "completed")
    assert runs.loc[list(RUNS.values()), "phases"].tolist() == ["train,validation", "backtest,live", "train"]
    health = store.read("collector_health")
    assert health[["failures", "rejected", "dropped", "unreplayed_layers"]].to_numpy().max() == 0


@pytest.mark.parametrize("name", SIZES)
def test_it_is_derived_scored_and_reported(folder, store, name):
    run = RUNS[name]
    stats, derived, scores = (store.read(kind, run=run) for kind in (GATE_STATS, GATE_DERIVED, GATE_SCORES))
    assert derived["window_s"].notna().sum() == len(stats) > 0
    assert set(scores["phase"]) == set(stats["phase"])  # live goes on from the backtest of the same network
    (report,) = folder.glob(f"gatewatch-{name}*.html")
    page = report.read_text()
    assert f"{name}&#39;s run" in page
    assert "memory" in page


@pytest.mark.parametrize(("name", "layer"), [("custom_loop", "memory"), ("torch_loop", "memory/l0")])
class TestLoops:
    def test_every_batch_is_captured_and_every_epoch_has_its_loss(self, store, name, layer):
        stats = store.read(GATE_STATS, run=RUNS[name], tags={"phase": "train", "gate": "forget"})
        assert set(stats["layer"]) == {layer}
        assert stats["step"].tolist() == [*range(1, 41)]
        assert stats["epoch"].tolist() == [0] * 20 + [1] * 20
        metrics = store.read(TRAIN_METRICS, run=RUNS[name])
        assert np.isfinite(metrics["loss"].dropna()).sum() == 40
        ends = metrics[metrics["val_loss"].notna()]
        assert ends[["step", "epoch"]].to_numpy().tolist() == [[20, 0], [40, 1]]
        assert ends["val_loss"].iloc[1] < ends["val_loss"].iloc[0]  # it learns

    def test_the_updates_are_those_of_adam(self, store, name, layer):
        updates = store.read(LAYER_UPDATES, run=RUNS[name], tags={"phase": "train"})
        counts = updates.groupby(["layer", "param"]).size()
        assert set(counts.index) == {(layer, p) for p in ("kernel", "recurrent", "bias")} | {
            ("position", "kernel"),
            ("position", "bias"),
        }
        assert counts.min() >= 39  # nobody could look before the first step
        sizes = {"kernel": 3 * 32, "recurrent": 8 * 32, "bias": 64 if name == "torch_loop" else 32}
        for param, rows in updates[updates["layer"] == layer].groupby("param"):
            # Kingma and Ba 2015, section 2.1: no step is longer than (1 − β1)/√(1 − β2) times the rate.
            assert rows["update_norm"].max() < RATE * 3.17 * np.sqrt(sizes[param])
        assert updates["update_norm"].min() > 0
        assert updates["gradient_norm_clipped"].min() > 0
        assert set(updates["optimizer_steps"]) == {1}
        assert updates["nan_count"].max() == updates["inf_count"].max() == 0


def test_the_custom_loop_looks_at_both_sides_of_the_same_network(store):
    stats = store.read(GATE_STATS, run=RUNS["custom_loop"], tags={"gate": "forget"})
    known, held_out = (stats[stats["phase"] == phase] for phase in ("train", "validation"))
    assert held_out[["step", "epoch"]].to_numpy().tolist() == known[["step", "epoch"]].to_numpy().tolist()
    apart = np.abs(held_out["mean"].to_numpy() - known["mean"].to_numpy())
    assert apart.min() > 0
    assert apart.max() < 0.05


@pytest.mark.parametrize("name", ["custom_loop", "torch_loop"])
def test_an_epoch_file_holds_the_gates_that_the_points_tell_of(folder, store, name):
    stats = store.read(GATE_STATS, run=RUNS[name], tags={"phase": "train"})
    last = stats[stats["step"] == 40]
    with np.load(folder / name / "gate_logs/gate_epoch_1.npz") as saved:
        for row in last.itertuples():
            values = saved[f"{row.layer}/{row.gate}"]
            assert values.shape == (16, 24, 8)
            assert row.mean == pytest.approx(values.mean(dtype=float), rel=1e-6)


def test_clipping_shows_in_the_gradients_of_the_torch_loop(store):
    updates = store.read(LAYER_UPDATES, run=RUNS["torch_loop"])
    norms = updates.groupby("step")[["gradient_norm", "gradient_norm_clipped"]].agg(np.linalg.norm)
    whole, clipped = norms["gradient_norm"], norms["gradient_norm_clipped"]
    assert (whole > CLIP).any()
    assert (whole < CLIP).any()
    np.testing.assert_allclose(clipped, np.minimum(whole, CLIP), rtol=1e-4)


class TestBacktest:
    def test_the_points_have_the_times_of_the_bars(self, store):
        stats = store.read(GATE_STATS, run=RUNS["backtest"], tags={"gate": "forget"})
        assert stats["time"].dt.tz_localize(None).tolist() == GOOG.index[-60:].tolist()
        assert stats["phase"].tolist() == ["backtest"] * 40 + ["live"] * 20
        metrics = store.read(TRAIN_METRICS, run=RUNS["backtest"])
        assert metrics["time"].tolist() == stats["time"].tolist()
        assert metrics["price"].tolist() == GOOG["Close"].iloc[-60:].tolist()

    def test_equity_is_what_the_positions_have_earned(self, store):
        metrics = store.read(TRAIN_METRICS, run=RUNS["backtest"])
        position, equity, price = (metrics[name].to_numpy() for name in ("position", "equity", "price"))
        assert np.abs(position).max() <= 1
        earned = position[:-1] * (price[1:] / price[:-1] - 1) - 1e-4 * np.abs(np.diff(position))
        np.testing.assert_allclose(equity[1:] / equity[:-1] - 1, earned, atol=1e-9)

    def test_each_bar_shows_the_gates_of_one_unbroken_sequence(self, tmp_path):
        script = example("backtest")
        bars = script.market("BTCUSD")
        model = script.trained(bars[:60], units=5, epochs=1)
        walked, url = bars[60:90], f"sqlite:///{tmp_path}/walk.db"
        held = script.walk(model, walked[:20], 0.0, 100.0, run="a", store=url, every=1, phase="backtest")[:2]
        script.walk(model, walked[20:], *held, run="a", store=url, every=1, phase="live")

        unbroken = script.policy(5, len(walked))
        unbroken.set_weights(model.get_weights())
        known = walked[script.FEATURES].to_numpy("float32")[None]
        stats = open_store(url).read(GATE_STATS, run="a")
        for gate, values in gates(unbroken, known)["memory"].items():
            rows = stats[stats["gate"] == gate]
            assert rows["time"].dt.tz_localize(None).tolist() == walked.index.tolist()
            np.testing.assert_allclose(rows["mean"], values[0].mean(axis=-1), atol=1e-6)
            np.testing.assert_allclose(rows["std"], values[0].std(axis=-1), atol=1e-6)
        metrics = open_store(url).read(TRAIN_METRICS, run="a")
        np.testing.assert_allclose(metrics["position"], np.asarray(unbroken(known))[0, :, 0], atol=1e-6)


@pytest.mark.parametrize("name", SIZES)
def test_what_is_wrong_is_one_line(monkeypatch, capsys, name):
    monkeypatch.setattr(sys, "argv", [name, *SIZES[name], "--store", "ftp://x"])
    assert example(name).main() == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(f"{name}: .*ftp://x.*\n", err)


@pytest.mark.parametrize("name", SIZES)
def test_nothing_is_known_before_its_time(monkeypatch, name):
    script = example(name)

    def known():
        market = script.market("GOOG")
        return market[script.FEATURES].to_numpy() if name == "backtest" else np.asarray(market[0])

    whole = known()
    monkeypatch.setattr(script.prices, "GOOG", GOOG[:200])
    cut = known()
    assert 170 < len(cut) < 200
    np.testing.assert_array_equal(cut, whole[: len(cut)])


def test_a_training_without_a_name_is_given_one(tmp_path):
    options = ["--epochs", "1", "--fault", "forget-shut", "--store", "sqlite:///a.db"]
    name = said(begin([str(EXAMPLES / "keras_market_lstm.py"), *options], tmp_path)).strip()
    assert open_store(f"sqlite:///{tmp_path}/a.db").runs()["run"].tolist() == [name]
    assert (tmp_path / "gate_logs" / "gate_epoch_0.npz").exists()


RESUMED = """
import os, re, runpy, signal, sys
os.environ["KERAS_BACKEND"] = "torch"
sys.modules["tensorflow"] = None
import keras, lightning.pytorch, sb3_contrib, torch
from gatewatch import GateMonitor
torch.set_num_threads(1)

def start(path, kill_at):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(write, 1)
        sys.stdout.reconfigure(line_buffering=True)
        runpy.run_path(path, run_name="__main__")
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as said:
        for line in said:
            if kill_at and re.search(kill_at, line):
                os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

folder, places = sys.argv[1], {"keras": "Epoch 4", "lightning": "Epoch 4", "sb3": r"iterations +\\| 6 "}
for name, kill_at in places.items():
    path = os.path.join(folder, f"{name}_resume.py")
    codes = start(path, kill_at), start(path, None)
    assert codes == (-signal.SIGKILL, 0), (name, codes)
"""


@pytest.mark.parametrize("name", ["keras", "lightning", "sb3"])
def test_a_training_that_is_killed_goes_on_where_it_was(name, killed):
    stats = killed.read(GATE_STATS, run=f"{name}-resume", tags={"gate": "forget"})
    every_fifth_and_ends_of_epochs = sorted({*range(5, 103, 5), *range(17, 103, 17)})
    steps = {
        "keras": [0, *every_fifth_and_ends_of_epochs],
        "lightning": every_fifth_and_ends_of_epochs,
        "sb3": [*range(0, 1537, 128)],
    }
    for _, rows in stats.groupby("layer"):
        assert rows["step"].tolist() == steps[name]
    events = killed.read("runs", run=f"{name}-resume")["event"]
    assert events[events != "heartbeat"].tolist() == ["started", "resumed", "completed"]


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The store of the examples that go on, each of which was killed once and started again."""
    folder = tmp_path_factory.mktemp("killed")
    process = begin(["-c", RESUMED, str(EXAMPLES)], folder)
    errors = process.communicate()[1]
    assert process.returncode == 0, errors
    return open_store(f"sqlite:///{folder}/gatewatch.db")

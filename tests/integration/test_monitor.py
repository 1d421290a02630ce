"""`GateMonitor` in real Keras trainings on the embedded store: what it writes, refuses and survives."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import gc
import json
import logging
import math
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import torch

import gatewatch.torch
from gatewatch import GateMonitor, gates, open_store
from gatewatch.collector import capture_schedule
from gatewatch.collector.cells import GRU, LSTM
from gatewatch.collector.errors import ConfigError, WriteUnavailable
from gatewatch.collector.replay.lstm import replay_lstm
from tests.keras_models import build_optimizer

X = np.random.default_rng(0).normal(size=(64, 7, 3)).astype("float32")
Y = np.random.default_rng(1).normal(size=(64, 1)).astype("float32")


def not_on_torch(reason):
    return pytest.mark.skipif(keras.backend.backend() == "torch", reason=reason)


@pytest.fixture(autouse=True)
def same_weights_every_time():
    keras.utils.set_random_seed(1)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def policy(*layers, units=5, **options):
    layers = layers or (keras.layers.LSTM(units, name="memory", **options),)
    model = keras.Sequential([keras.Input(X.shape[1:]), *layers, keras.layers.Dense(1)], name="policy")
    model.compile("adam", "mse")
    build_optimizer(model)
    return model


def fit(model, *callbacks, epochs=2, **options):
    return model.fit(X, Y, batch_size=8, epochs=epochs, verbose=0, callbacks=list(callbacks), **options)


def test_one_line_in_a_script_writes_every_measurement(place):
    model = policy()
    before = gates(model, X[:4])["memory"]
    monitor = GateMonitor(probe=X[:4], every=2, tags={"symbol": "GOOG"})
    history = fit(model, monitor, validation_data=(X, Y))

    store = open_store()
    assert (place / "gatewatch.db").exists()
    stats = store.read("gate_stats", run=monitor.run)
    assert set(stats["gate"]) == set(LSTM.gate_names)
    assert set(stats["layer"]) == {"memory"}
    assert set(stats["symbol"]) == {"GOOG"}
    assert set(stats["phase"]) == {"train"}
    forget = stats[stats["gate"] == "forget"]
    assert forget["step"].tolist() == [0, 2, 4, 6, 8, 10, 12, 14, 16]
    assert forget["epoch"].tolist() == [0] * 5 + [1] * 4
    first, last = forget.iloc[0], forget.iloc[-1]
    assert first["mean"] == pytest.approx(before["forget"].mean(), abs=1e-6)
    assert first["std"] == pytest.approx(before["forget"].std(), abs=1e-6)
    assert last["mean"] == pytest.approx(gates(model, X[:4])["memory"]["forget"].mean(), abs=1e-6)
    assert stats.filter(like="hist_").sum(axis=1).to_numpy() == pytest.approx(np.ones(len(stats)))

    units = store.read("gate_units", run=monitor.run)
    assert [c for c in units.columns if c.startswith("u")] == [f"u{i:03d}" for i in range(5)]
    positions = store.read("gate_time", run=monitor.run)
    assert [c for c in positions.columns if c.startswith("t0")] == [f"t{i:03d}" for i in range(7)]
    row = positions[positions["gate"] == "forget"].iloc[0]
    assert row["t003"] == pytest.approx(before["forget"][:, 3].mean(), abs=1e-6)

    metrics = store.read("train_metrics", run=monitor.run)
    ends = metrics.dropna(subset="val_loss")
    assert ends["loss"].tolist() == pytest.approx(history.history["loss"])
    assert ends["val_loss"].tolist() == pytest.approx(history.history["val_loss"])
    assert metrics["loss"].notna().all()

    events = store.read("runs", run=monitor.run)
    assert events["event"].tolist() == ["started", "completed"]
    assert events["framework"].iloc[0] == f"keras/{keras.backend.backend()}"
    health = store.read("collector_health", run=monitor.run)
    assert health["captured"].iloc[-1] == 9
    assert health["replay_error"].max() < 1e-6
    assert health["rejected"].max() == health["dropped"].max() == health["failures"].max() == 0


class Rates(keras.callbacks.Callback):
    """Sets a rate before each batch, halving it; the monitor may come before or after."""

    def on_train_batch_begin(self, batch, logs=None):
        self.model.optimizer.learning_rate = 0.1 * 0.5**batch


def rates(monitor):
    """Step → learning rate, the last that was written."""
    metrics = open_store().read("train_metrics", run=monitor.run).dropna(subset="learning_rate")
    return dict(zip(metrics["step"], metrics["learning_rate"], strict=True))


def test_a_capture_has_the_learning_rate_of_its_step(place):
    monitor = GateMonitor(probe=X[:4], every=2)
    fit(policy(), Rates(), monitor)
    assert rates(monitor) == pytest.approx({step: 0.1 * 0.5 ** ((step - 1) % 8) for step in range(2, 17, 2)})

    monitor = GateMonitor(probe=X[:4], every=2)  # it cannot tell here whether the rate was changed before the step
    fit(policy(), monitor, Rates())
    assert "learning_rate" not in open_store().read("train_metrics", run=monitor.run)

    monitor = GateMonitor(probe=X[:4], every=1)
    fit(policy(), monitor, keras.callbacks.LearningRateScheduler(lambda epoch: 0.5 ** (epoch + 4)))
    assert rates(monitor) == {step: 0.5 ** (4 + (step > 8)) for step in range(1, 17)}


def test_a_learning_rate_that_is_logged_is_taken_at_its_word(place):
    class Logs(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["learning_rate"] = 7.0

    monitor = GateMonitor(probe=X[:4], every=4)
    fit(policy(), Logs(), monitor, epochs=1)
    assert rates(monitor) == pytest.approx({4: 0.001, 8: 7.0})


@not_on_torch("there the training itself calls the schedule at every step")
def test_a_learning_rate_that_cannot_be_had_costs_nothing_else(place, caplog):
    class OnlyCompiled(keras.optimizers.schedules.LearningRateSchedule):
        broken = False

        def __call__(self, step):
            if self.broken:
                raise RuntimeError("no rate today")
            return keras.ops.cast(0.01, "float32")

    class Breaks(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            schedule.broken = batch > 0  # compiled by then

    schedule, model = OnlyCompiled(), policy()
    model.compile(keras.optimizers.Adam(schedule), "mse")
    build_optimizer(model)
    monitor = GateMonitor(probe=X[:4], every=2)
    fit(model, Breaks(), monitor, epochs=1)
    assert sum("a look at the learning rate failed" in text for text in caplog.messages) == 1
    assert set(open_store().read("layer_updates", run=monitor.run)["step"]) == {2, 4, 6, 8}
    assert "learning_rate" not in open_store().read("train_metrics", run=monitor.run)


def test_the_last_capture_of_each_epoch_is_kept_whole(place):
    model = policy(keras.layers.Bidirectional(keras.layers.LSTM(4, name="lstm"), name="both"))
    monitor = GateMonitor(probe=X[:4], log_dir="logs", every=8)
    fit(model, monitor, epochs=3)
    assert sorted(path.name for path in Path("logs").iterdir()) == [f"gate_epoch_{n}.npz" for n in range(3)]
    with np.load("logs/gate_epoch_2.npz") as file:
        assert len(file.files) == 12
        kept = file["both/forward_lstm/forget"]
    np.testing.assert_allclose(kept, gates(model, X[:4])["both/forward_lstm"]["forget"], rtol=0, atol=1e-6)


def test_another_runs_files_are_moved_aside_not_overwritten(place):
    for run in ("first", "../second"):
        keras.utils.set_random_seed(len(run))
        fit(policy(), GateMonitor(run=run, probe=X[:4], log_dir="logs", every=8), epochs=1)
    assert sorted(str(path.relative_to("logs")) for path in Path("logs").rglob("*.npz")) == [
        "first/gate_epoch_0.npz",
        "gate_epoch_0.npz",
    ]


def test_auto_captures_the_first_and_writes_small_epochs_whole(place, monkeypatch):
    monkeypatch.setattr(capture_schedule, "GRACE_SECONDS", 60.0)  # however busy this machine is
    monitor = GateMonitor(probe=X[:4])
    fit(policy(), monitor, epochs=3)
    assert len(list(Path("gate_logs").glob("*.npz"))) == 3
    steps = open_store().read("gate_stats", run=monitor.run)["step"]
    assert {0, 24} <= set(steps)


def test_masks_and_unreplayable_layers(place, caplog):
    inputs = keras.Input(X.shape[1:])
    masked = keras.layers.Masking()(inputs)
    good = keras.layers.GRU(3, name="good")(masked)
    bad = keras.layers.SimpleRNN(3, name="bad")(masked)
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Concatenate()([good, bad])))
    model.compile("adam", "mse")
    probe = X[:4].copy()
    probe[:, 4:] = 0
    monitor = GateMonitor(probe=probe, every=4)
    with caplog.at_level(logging.WARNING, "gatewatch"):
        fit(model, monitor)
    store = open_store()
    stats = store.read("gate_stats", run=monitor.run)
    assert set(stats["layer"]) == {"good"}
    assert stats["nan_count"].max() == 0
    found = gates_of(model, probe)["good"]["update"]
    last = stats[stats["gate"] == "update"].iloc[-1]
    assert last["mean"] == pytest.approx(np.nanmean(found), abs=1e-6)
    assert "t004" not in store.read("gate_time", run=monitor.run)
    said = [record.message for record in caplog.records if "'bad'" in record.message]
    assert len(said) == 1
    health = store.read("collector_health", run=monitor.run)
    assert set(health["unreplayed_layers"]) == {1}
    assert "SimpleRNNCell" in health["unreplayed"].iloc[0]


def test_a_model_of_another_framework_is_refused_by_naming_what_records_it(place):
    module = torch.nn.LSTM(3, 4)
    of_keras_2 = type("Sequential", (type("Layer", (), {"__module__": "tf_keras.src.engine.base_layer"}),), {})()
    for refused, text in [
        (lambda: GateMonitor(module), "model: LSTM is a torch module; gatewatch.torch.GateMonitor records it"),
        (lambda: gates(module, X), "model: LSTM is a torch module; gatewatch.torch.gates records it"),
        (
            lambda: gatewatch.torch.GateMonitor(policy()),
            "module: Sequential is a Keras layer; gatewatch.GateMonitor records it",
        ),
        (lambda: gatewatch.torch.gates(policy(), X), "module: Sequential is a Keras layer; gatewatch.gates records it"),
        (
            lambda: GateMonitor(of_keras_2),
            "model: Sequential is a tf_keras layer; Gatewatch records those of Keras 3: build it with `import keras`",
        ),
    ]:
        with pytest.raises(ConfigError) as caught:
            refused()
        assert str(caught.value) == text


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="Keras wraps torch's modules on its torch backend alone")
def test_a_wrapper_of_another_frameworks_layer_is_refused_by_naming_what_records_it(place):
    wrapper = keras.layers.TorchModuleWrapper(torch.nn.LSTM(3, 4), name="wrapper", output_shape=(7, 4))
    with pytest.raises(ConfigError, match=r"gatewatch\.torch\.GateMonitor records the module that 'wrapper' wraps"):
        gates(wrapper, X)
    with pytest.raises(ConfigError, match=r"gatewatch\.GateMonitor records '0', a Keras layer"):
        gatewatch.torch.gates(torch.nn.Sequential(keras.layers.LSTM(4)), torch.tensor(X))


def test_a_layer_whose_replay_is_wrong_is_compared_again_until_it_is_right(place, caplog):
    wrong = True

    def replay(x, *rest):
        return replay_lstm(-x if wrong else x, *rest)

    class Monitor(GateMonitor):
        cells = (dataclasses.replace(LSTM, replay=replay), GRU)

    class Mend(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            nonlocal wrong
            wrong = batch < 4

    layers = keras.layers.GRU(3, return_sequences=True, name="sound"), keras.layers.LSTM(3, name="odd")
    monitor = Monitor(probe=X[:4], every=1)
    with caplog.at_level(logging.WARNING, "gatewatch"):
        fit(policy(*layers), Mend(), monitor, epochs=1)
    store = open_store()
    stats = store.read("gate_stats", run=monitor.run, tags={"gate": "hidden"})
    steps = stats.groupby("layer")["step"].unique().map(list).to_dict()
    assert steps == {"sound": [*range(9)], "odd": [5, 6, 7, 8]}
    health = store.read("collector_health", run=monitor.run).dropna(subset="unreplayed_layers")
    assert health["unreplayed_layers"].tolist()[:9] == [1] * 5 + [0] * 4
    assert [record.message.split(":")[1] for record in caplog.records] == [
        " layer 'odd' is not recorded",
        " layer 'odd' is recorded again",
    ]


def gates_of(model, x):
    with pytest.warns(UserWarning, match="not exactly replayable"):
        return gates(model, x)


def test_a_network_of_nan_is_counted_and_training_goes_on(place):
    class Poison(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 4:
                layer = self.model.get_layer("memory")
                layer.set_weights([np.full_like(w, np.nan) for w in layer.get_weights()])

    model = policy()
    monitor = GateMonitor(probe=X[:4], every=2)
    fit(model, Poison(), monitor, epochs=1)
    store = open_store()
    stats = store.read("gate_stats", run=monitor.run)
    hidden = stats[stats["gate"] == "hidden"].set_index("step")
    assert hidden["nan_count"].to_dict() == {0: 0, 2: 0, 4: 0, 6: 4 * 7 * 5, 8: 4 * 7 * 5}
    assert math.isnan(hidden.loc[6, "mean"])
    metrics = store.read("train_metrics", run=monitor.run)
    assert metrics["nan_count"].iloc[-1] == 1
    assert store.read("collector_health", run=monitor.run)["failures"].max() == 0


def test_a_layer_that_tells_its_gates_needs_no_probe(place):
    class Told(keras.layers.Layer):
        calls = 0

        def call(self, x):
            return keras.ops.mean(x, axis=1)

        def get_gate_history(self):
            Told.calls += 1
            if Told.calls == 3:
                raise RuntimeError("not now")
            return {"forget": np.full((2, 3, 4), 0.5, "float32")}

    monitor = GateMonitor(every=4)
    fit(policy(Told(name="told")), monitor, epochs=2)
    stats = open_store().read("gate_stats", run=monitor.run)
    assert stats["step"].tolist() == [0, 4, 12, 16]
    assert set(stats["mean"]) == {0.5}


def test_a_loop_of_ones_own_with_market_time(place):
    model = policy()
    with GateMonitor(model, probe=X[:4], every=2, phase="backtest", run="loop") as monitor:
        for bar in range(6):
            monitor.step(X[bar : bar + 4], time=np.datetime64("2020-01-01") + bar, metrics={"reward": float(bar)})
    store = open_store()
    stats = store.read("gate_stats", run="loop", tags={"gate": "forget"})
    assert stats["step"].tolist() == [2, 4, 6]
    assert [f"{time:%Y-%m-%d}" for time in stats["time"]] == [
        "2020-01-02",
        "2020-01-04",
        "2020-01-06",
    ]
    looked_at = stats[stats["step"] == 4]["mean"].item()
    assert looked_at == pytest.approx(gates(model, X[3:7])["memory"]["forget"].mean(), abs=1e-6)
    assert store.read("train_metrics", run="loop")["reward"].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert store.runs().set_index("run").loc["loop", "state"] == "completed"


def test_bars_of_one_market_time_are_all_stored(place):
    model = policy()
    with GateMonitor(model, probe=X[:4], every=1, phase="backtest", run="symbols") as monitor:
        for bar in range(6):
            monitor.step(X[bar : bar + 4], time=np.datetime64("2020-01-01") + bar // 3, metrics={"price": float(bar)})
    store = open_store()
    stats = store.read("gate_stats", run="symbols", tags={"gate": "forget"})
    assert stats["step"].tolist() == [1, 2, 3, 4, 5, 6]
    assert [time.isoformat()[:10] for time in stats["time"]] == ["2020-01-01"] * 3 + ["2020-01-02"] * 3
    assert store.read("train_metrics", run="symbols")["price"].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert store.read("collector_health", run="symbols")["moved_times"].max() == 4


def test_a_state_passed_in_is_where_the_replay_begins(place):
    model = policy()
    state = [np.full((4, 5), 0.7, "float32"), np.full((4, 5), -1.3, "float32")]
    with GateMonitor(model, probe=X[:4], every=1, run="state") as monitor:
        monitor.step(state=state)
    stats = open_store().read("gate_stats", run="state", tags={"gate": "cell"}).set_index("step")
    inputs = keras.Input(X.shape[1:])
    begun = keras.Model(inputs, model.get_layer("memory")(inputs, initial_state=[keras.ops.array(s) for s in state]))
    assert stats.loc[1, "mean"] == pytest.approx(gates(begun, X[:4])["memory"]["cell"].mean(), abs=1e-6)
    assert stats.loc[1, "mean"] != pytest.approx(gates(model, X[:4])["memory"]["cell"].mean(), abs=1e-3)


def test_the_end_of_a_run_is_told(place):
    with pytest.raises(ZeroDivisionError), GateMonitor(policy(), probe=X[:4], run="failed"):
        raise ZeroDivisionError
    with pytest.raises(KeyboardInterrupt), GateMonitor(policy(), probe=X[:4], run="stopped"):
        raise KeyboardInterrupt
    states = open_store().runs().set_index("run")["state"]
    assert states.to_dict() == {"failed": "failed", "stopped": "interrupted"}


def test_another_fit_goes_on_with_the_run(place):
    model, monitor = policy(), GateMonitor(probe=X[:4], every=4, run="twice")
    fit(model, monitor, epochs=1)
    fit(model, monitor, epochs=1)
    store = open_store()
    assert store.read("gate_stats", run="twice", tags={"gate": "forget"})["step"].tolist() == [0, 4, 8, 8, 12, 16]
    assert store.read("runs", run="twice")["event"].tolist() == ["started", "completed"] * 2


@pytest.mark.parametrize("run", ["a,b", 'say "x"', "../../etc/passwd", "🚀 moon", "a=b c", "C:\\runs\\1", "x" * 400])
def test_names_that_are_hostile_but_can_be_stored(place, run):
    fit(policy(), GateMonitor(run=run, probe=X[:4], log_dir="logs", every=8), epochs=1)
    assert open_store().runs()["run"].tolist() == [run]
    assert {path.name for path in place.iterdir()} <= {"logs", "gatewatch.db", "gatewatch.db-wal", "gatewatch.db-shm"}


@pytest.mark.parametrize("run", ["", "  ", "two\nlines", "nul\0", "back\\", 7, "\ud800"])
def test_names_that_cannot_be_stored(run):
    with pytest.raises(ConfigError, match="run="):
        GateMonitor(run=run, probe=X[:4])


def raises_before_the_first_batch(match, model=None, **options):
    """One line, and not a single batch was trained."""
    model = model or policy()
    with pytest.raises(ConfigError, match=match) as caught:
        fit(model, GateMonitor(**{"probe": X[:4], **options}))
    assert "\n" not in str(caught.value)
    assert int(model.optimizer.iterations) == 0


def test_bad_arguments_are_said_before_training(place):
    raises_before_the_first_batch("needs a probe", probe=None)
    raises_before_the_first_batch(r"probe of shape \(4, 7, 9\) does not fit.*\(None, 7, 3\)", probe=np.zeros((4, 7, 9)))
    raises_before_the_first_batch("holds no sequence", probe=X[:0])
    raises_before_the_first_batch("probe is no batch", probe=["a", "b"])
    raises_before_the_first_batch("no batch.*; give an array", probe="x")
    raises_before_the_first_batch("no recurrent layer", model=policy(keras.layers.Flatten()))
    raises_before_the_first_batch("ftp://host", store="ftp://host")
    raises_before_the_first_batch("did you mean 'sqlite:///gatewatch.db'", store="gatewatch.db")
    raises_before_the_first_batch("did you mean 'sqlite:///gatewatch.db'", store=Path("gatewatch.db"))
    raises_before_the_first_batch(r"log_dir='sqlite:///g\.db': is a URL.*as store=", log_dir="sqlite:///g.db")
    raises_before_the_first_batch(r"log_dir=ndarray of shape \(4, 7, 3\).*given as probe=", log_dir=X[:4])
    raises_before_the_first_batch("every=0", every=0)
    raises_before_the_first_batch("every='10'", every="10")
    raises_before_the_first_batch("every='often'", every="often")
    raises_before_the_first_batch("overhead=2", overhead=2)
    raises_before_the_first_batch("phase='training'", phase="training")
    raises_before_the_first_batch("'run' is taken", tags={"run": "x"})
    raises_before_the_first_batch("at most 8", tags={f"t{i}": "x" for i in range(9)})
    raises_before_the_first_batch("'other' is no recurrent layer.*memory", layers=["other"])
    raises_before_the_first_batch("must be a list", layers="memory")
    raises_before_the_first_batch("reference='': a run's name must not be empty; `gatewatch runs` lists", reference="")
    raises_before_the_first_batch("reference=3: a run's name must be text", reference=3)


def test_what_was_given_in_place_of_the_model_is_named_with_what_to_do():
    with pytest.raises(ConfigError, match=r"model=ndarray of shape \(4, 7, 3\): must .*; give the model first"):
        GateMonitor(X[:4])
    with pytest.raises(ConfigError, match=r"model=<class.*: it is a class; give a model of it, such as Model\(\)"):
        GateMonitor(keras.Model, probe=X[:4])
    with pytest.raises(ConfigError, match=r"model=ndarray of shape .*; give the model first"):
        gates(X[:4], policy())


def test_the_optimizer_of_another_model_is_named_once(place, caplog):
    model, other = policy(), policy()
    with GateMonitor(model, probe=X[:4], every=1, optimizer=other.optimizer) as monitor:
        for _ in range(3):
            model.train_on_batch(X[:8], Y[:8])
            other.train_on_batch(X[:8], Y[:8])
            monitor.step()
    assert caplog.text.count("the optimizer steps the variables of another model: no gradient is recorded; give") == 1
    assert len(open_store().read("gate_stats", tags={"gate": "forget"})) == 3
    caplog.clear()
    with GateMonitor(model, probe=X[:4], every=1, optimizer=model.optimizer) as monitor:
        for _ in range(3):
            model.train_on_batch(X[:8], Y[:8])
            monitor.step()
    assert "another model" not in caplog.text


def test_places_that_cannot_be_written_are_said_before_training(place):
    (place / "file").write_text("not a folder")
    raises_before_the_first_batch("log_dir=.*cannot be written", log_dir="file/logs")
    raises_before_the_first_batch("file", store="sqlite:///file/gatewatch.db")
    (place / "foreign.db").write_bytes(b"SQLite format 3\0" + b"\x07" * 4000)
    raises_before_the_first_batch("foreign.db", store="sqlite:///foreign.db")


def test_a_run_name_used_before_is_said_before_training(place):
    fit(policy(), GateMonitor(run="mine", probe=X[:4]), epochs=1)
    raises_before_the_first_batch("run='mine'.*already holds", run="mine")


def test_only_chosen_layers(place):
    lower, upper = keras.layers.LSTM(3, return_sequences=True, name="lower"), keras.layers.LSTM(4, name="upper")
    monitor = GateMonitor(probe=X[:4], layers=["upper"])
    model = policy(lower, upper)
    fit(model, monitor, epochs=1)
    stats = open_store().read("gate_stats", run=monitor.run)
    assert set(stats["layer"]) == {"upper"}
    last = stats[stats["gate"] == "hidden"].iloc[0]
    assert last["step"] == 0


class Unwell:
    """A store that passes its check and then does not answer, or answers nonsense, until it is well again.

    It stands in for a server at the moments that a real one cannot be brought to; the outage of a real influxd is
    tested elsewhere.
    """

    url = "unwell://"

    def __init__(self, error, until=10**9):
        self.error, self.until, self.attempts, self.points = error, until, 0, []

    def check(self):
        pass

    def read(self, *_, **__):
        return []

    def write(self, points):
        self.attempts += 1
        if self.attempts < self.until:
            raise self.error
        self.points += points


@pytest.mark.parametrize("error", [WriteUnavailable("away"), RuntimeError("broken"), OSError(28, "disk full")])
def test_a_store_that_goes_away_never_reaches_the_training(place, caplog, error, monkeypatch):
    monkeypatch.setattr("gatewatch.collector.run_life.CLOSE_SECONDS", 0.2)
    monkeypatch.setattr("gatewatch.collector.spool.delivery.FIRST_WAIT", 60.0)  # fewer tries than quarantine a batch
    with caplog.at_level(logging.WARNING, "gatewatch"):
        history = fit(policy(), GateMonitor(probe=X[:4], store=Unwell(error), every=1), epochs=3)
    assert len(history.history["loss"]) == 3
    assert sum("no points now" in record.message for record in caplog.records) == 1
    assert sum("points wait in" in record.message for record in caplog.records) == 1


def test_a_store_that_comes_back_gets_everything_once(place, caplog):
    store = Unwell(WriteUnavailable("away", retry_after=0.05), until=3)
    with caplog.at_level(logging.WARNING, "gatewatch"):
        fit(policy(), GateMonitor(probe=X[:4], store=store, every=1), epochs=1)
    assert sorted(
        p.fields["step"] for p in store.points if p.measurement == "gate_stats" and p.tags["gate"] == "cell"
    ) == [*range(9)]
    assert len({(p.measurement, *p.tags.items(), p.time) for p in store.points}) == len(store.points)
    assert any("takes points again" in record.message for record in caplog.records)


def test_what_fails_inside_the_monitor_is_said_once(place, caplog, monkeypatch):
    model = policy()
    monitor = GateMonitor(probe=X[:4], every=1)

    def broken(*_, **__):
        raise ValueError("no\nmore")

    class Break(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            monkeypatch.setattr("gatewatch.collector.keras.recorded_layers.trace", broken)

    with caplog.at_level(logging.WARNING, "gatewatch"):
        history = fit(model, monitor, Break())
    assert len(history.history["loss"]) == 2
    said = [record.message for record in caplog.records]
    assert sum("a capture failed, training goes on: ValueError: no more" in text for text in said) == 1
    assert open_store().read("collector_health", run=monitor.run)["failures"].max() >= 16


class Noise(keras.layers.Layer):
    """Draws at every call, in training or not."""

    def __init__(self):
        super().__init__()
        self.seed = keras.random.SeedGenerator(3)

    def call(self, x):
        return x + 0.1 * keras.random.normal(keras.ops.shape(x), seed=self.seed)


class Counting(keras.layers.Layer):
    """Counts its calls, and what it counts is part of what it computes."""

    def __init__(self):
        super().__init__()
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x):
        self.calls.assign_add(1.0)
        return x + 0.01 * self.calls


def stateful_policy():
    inputs = keras.Input(batch_shape=(8, *X.shape[1:]))
    lower = keras.layers.LSTM(4, return_sequences=True, stateful=True, name="lower")(inputs)
    upper = keras.layers.SimpleRNN(3, stateful=True, name="upper")(lower)
    model = keras.Model(inputs, keras.layers.Dense(1)(upper))
    model.compile("adam", "mse")
    build_optimizer(model)
    return model


@pytest.mark.parametrize(
    "build",
    [
        policy,
        lambda: policy(dropout=0.3, recurrent_dropout=0.2),
        lambda: policy(
            keras.layers.LSTM(4, return_sequences=True), Noise(), keras.layers.Dropout(0.5), keras.layers.GRU(3)
        ),
        lambda: policy(keras.layers.LSTM(4), Counting(), keras.layers.BatchNormalization()),
        pytest.param(stateful_policy, marks=not_on_torch("Keras itself cannot train stateful layers there")),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning:keras")
def test_the_training_is_the_same_bit_for_bit(place, build):
    def trained(*callbacks):
        keras.utils.set_random_seed(3)
        model = build()
        fit(model, *callbacks, shuffle=True)
        return model.get_weights()

    bare, watched = trained(), trained(GateMonitor(probe=X[:8], every=1))
    for one, other in zip(bare, watched, strict=True):
        np.testing.assert_array_equal(one, other)


def test_another_thread_that_uses_the_model_notices_nothing(place):
    model = policy()
    expected = keras.ops.convert_to_numpy(model(X[8:12]))
    stop, odd = threading.Event(), []

    def act():
        while not stop.is_set():
            if not np.allclose(keras.ops.convert_to_numpy(model(X[8:12])), expected, atol=1e-6):
                odd.append(1)

    actor = threading.Thread(target=act)
    actor.start()
    with GateMonitor(model, probe=X[:4], every=1, run="beside") as monitor:
        for _ in range(40):
            monitor.step()
    stop.set()
    actor.join()
    assert not odd
    stats = open_store().read("gate_stats", run="beside")
    assert set(stats["layer"]) == {"memory"}
    assert stats.groupby("gate")["mean"].nunique().eq(1).all()


def test_a_fit_that_fails_and_is_caught_ends_the_run_and_leaves_no_thread(place):
    class Prune(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            raise ZeroDivisionError

    def trial():
        with contextlib.suppress(ZeroDivisionError):
            fit(policy(), GateMonitor(probe=X[:4], run="pruned"), Prune())

    trial()
    for _ in range(100):
        gc.collect()
        if not any(thread.name.startswith("gatewatch") for thread in threading.enumerate()):
            break
        time.sleep(0.05)
    else:
        pytest.fail("a thread is left")
    assert open_store().runs()["state"].tolist() == ["interrupted"]


def test_a_script_that_ends_before_its_run_did(place):
    endings = {
        "raise ValueError('a bug of the script')": "failed",
        "raise SystemExit(3)": "interrupted",
        "": "interrupted",
    }
    script = f"""
import os, keras, numpy as np
from gatewatch import GateMonitor
for ending in {[*endings]}:
    if child := os.fork():  # which saves it the imports
        os.waitpid(child, 0)
        continue
    model = keras.Sequential([keras.Input((7, 3)), keras.layers.LSTM(2)])
    monitor = GateMonitor(model, probe=np.zeros((2, 7, 3), "float32"), run=f"script {{ending}}".strip()).__enter__()
    exec(ending)
    break
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=False)
    runs = open_store().runs().set_index("run")["state"].to_dict()
    assert runs == {f"script {ending}".strip(): state for ending, state in endings.items()}


@not_on_torch("Keras takes one step at a time there")
def test_steps_that_are_passed_over_do_not_pass_over_captures(place):
    model = policy()
    model.compile("adam", "mse", steps_per_execution=4)
    build_optimizer(model)
    monitor = GateMonitor(probe=X[:4], every=6)
    fit(model, monitor, epochs=3)
    steps = open_store().read("gate_stats", run=monitor.run, tags={"gate": "forget"})["step"].tolist()
    assert steps == [0, 8, 12, 16, 20, 24]


@pytest.mark.parametrize(
    "options",
    [
        {"tags": 5},
        {"tags": {"layer": "x"}},
        {"tags": {"symbol": 5}},
        {"layers": 5},
        {"layers": []},
        {"log_dir": 5},
        {"store": 5},
        {"model": "model"},
        {"overhead": True},
        {"every": 1.5},
    ],
)
def test_arguments_of_the_wrong_kind(options):
    with pytest.raises(ConfigError, match=f"^{next(iter(options))}"):
        GateMonitor(**{"probe": X[:4], **options})


def test_numbers_of_numpy_are_numbers(place):
    monitor = GateMonitor(probe=X[:4], every=np.int64(4), overhead=np.float32(0.5))
    fit(policy(), monitor, epochs=1)
    assert open_store().read("collector_health", run=monitor.run)["every"].unique().tolist() == [4]


def test_a_probe_for_another_batch_than_a_stateful_layers(place):
    model = stateful_policy()
    raises_before_the_first_batch(
        "holds 5 sequences, but the stateful layer 'lower' is built for 8", model, probe=X[:5]
    )


def test_a_tuner_may_copy_the_monitor(place):
    first = GateMonitor(probe=X[:4], tags={"symbol": "GOOG"}, every=4)
    second = copy.deepcopy(first)
    assert second.run != first.run
    for monitor in (first, second):
        fit(policy(), monitor, epochs=1)
    assert set(open_store().runs()["run"]) == {first.run, second.run}


def test_phases_of_one_run_side_by_side(place):
    model = policy()
    fit(model, GateMonitor(run="both", probe=X[:4], config={"units": 24, "rate": np.float32(0.5)}), epochs=1)
    with GateMonitor(model, run="both", phase="backtest", probe=X[:4], every=1, reference="both") as monitor:
        monitor.step()
    store = open_store()
    assert set(store.read("gate_stats", run="both")["phase"]) == {"train", "backtest"}
    started = store.read("runs", run="both").dropna(subset=["config"])
    told = {phase: json.loads(config) for phase, config in started[["phase", "config"]].to_numpy()}
    assert {phase: config["reference"] for phase, config in told.items()} == {"train": None, "backtest": "both"}
    assert {phase: config["config"] for phase, config in told.items()} == {
        "train": {"units": 24, "rate": 0.5},
        "backtest": None,
    }


def test_a_time_that_is_none_is_said_once_and_stops_nobody(place, caplog):
    with caplog.at_level(logging.WARNING, "gatewatch"), GateMonitor(policy(), probe=X[:4], every=1) as monitor:
        for moment in (2**70, np.datetime64("NaT"), "2024-01-01", np.datetime64("2024-01-02")):
            monitor.step(time=moment)
    assert sum("reading step(time=...) failed" in record.message for record in caplog.records) == 1
    store = open_store()
    assert store.read("gate_stats", tags={"gate": "forget"})["step"].tolist() == [4]
    assert store.read("collector_health")["failures"].max() == 3


@pytest.mark.parametrize("time", [1_700_000_000, 1_700_000_000_000])
def test_seconds_are_not_taken_for_nanoseconds(place, caplog, time):
    with caplog.at_level(logging.WARNING, "gatewatch"), GateMonitor(policy(), probe=X[:4], every=1) as monitor:
        monitor.step(time=time)
        monitor.step(time=time * 10 ** (19 - len(str(time))))
    assert sum("nanoseconds since the Unix epoch are meant" in record.message for record in caplog.records) == 1
    assert open_store().read("gate_stats", tags={"gate": "forget"})["step"].tolist() == [2]


def test_a_loop_whose_steps_bring_their_inputs_needs_no_probe(place, caplog):
    model = policy()
    with caplog.at_level(logging.WARNING, "gatewatch"), GateMonitor(model, every=1, run="bars") as monitor:
        monitor.step()
        for k in range(3):
            monitor.step(X[k : k + 2])
    store = open_store()
    stats = store.read("gate_stats", run="bars", tags={"gate": "forget", "layer": "memory"})
    assert stats["step"].tolist() == [2, 3, 4]
    assert stats["mean"].iloc[-1] == pytest.approx(gates(model, X[2:4])["memory"]["forget"].mean(), abs=1e-6)
    assert store.read("collector_health", run="bars")["replay_error"].dropna().max() < 1e-4
    assert sum("there is nothing to look at" in record.message for record in caplog.records) == 1


def test_a_backtest_keeps_the_metrics_of_every_bar_however_few_it_looks_at(place):
    with GateMonitor(policy(), probe=X[:4], every=5, phase="backtest", run="bars") as monitor:
        for day in range(10):
            monitor.step(time=np.datetime64("2024-01-01") + day, metrics={"equity": 100.0 + day})
    store = open_store()
    assert store.read("train_metrics", run="bars")["equity"].tolist() == [100.0 + day for day in range(10)]
    assert len(store.read("gate_stats", run="bars", tags={"gate": "forget", "layer": "memory"})) == 2
    assert store.read("layer_updates", run="bars").empty


def test_a_name_is_free_again_where_its_run_failed_before_it_learnt(place):
    def failing():
        with GateMonitor(policy(), probe=X[:4], run="again"):
            raise ValueError("a misfit elsewhere in the script")

    with pytest.raises(ValueError, match="a misfit"):
        failing()
    with GateMonitor(policy(), probe=X[:4], run="again", every=1) as monitor:
        monitor.step()
    with pytest.raises(ConfigError, match="already holds a run"), GateMonitor(policy(), probe=X[:4], run="again"):
        pass


def test_another_fit_that_counts_its_epochs_from_0_goes_on_after_the_last(place):
    model, monitor = policy(), GateMonitor(probe=X[:4], every=4)
    for _ in range(2):
        fit(model, monitor, epochs=2)
    assert sorted(path.name for path in Path("gate_logs").glob("*.npz")) == [f"gate_epoch_{n}.npz" for n in range(4)]
    assert sorted(set(open_store().read("train_metrics")["epoch"])) == [0, 1, 2, 3]


class Raises(keras.callbacks.Callback):
    def __init__(self, epoch, batch):
        super().__init__()
        self.at, self.epoch = (epoch, batch), 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            raise ZeroDivisionError


def test_a_fit_after_one_that_raised_takes_up_the_epoch_that_it_says(place):
    model, monitor = policy(), GateMonitor(probe=X[:4], every=1, run="again")
    with pytest.raises(ZeroDivisionError):
        fit(model, monitor, Raises(2, 1), epochs=4)
    fit(model, monitor, epochs=4, initial_epoch=2)
    store = open_store()
    stats = store.read("gate_stats", run="again", tags={"gate": "cell"})
    assert stats["step"].tolist() == [*range(33)]  # 8 a epoch, the first 2 of the third made twice
    epochs = store.read("train_metrics", run="again").groupby("epoch")["step"].apply(lambda steps: sorted(set(steps)))
    assert epochs.tolist() == [[*range(8 * n + 1, 8 * n + 9)] for n in range(4)]
    assert sorted(path.name for path in Path("gate_logs").glob("*.npz")) == [f"gate_epoch_{n}.npz" for n in range(4)]


def test_another_model_after_a_fit_that_raised_is_recorded_with_its_updates(place):
    monitor = GateMonitor(probe=X[:4], every=1, run="again")
    with pytest.raises(ZeroDivisionError):
        fit(policy(), monitor, Raises(1, 1), epochs=2)
    fit(policy(), monitor, epochs=2)
    store = open_store()
    stats, updates = (
        store.read(measurement, run="again", tags=tags)
        for measurement, tags in (
            ("gate_stats", {"gate": "cell"}),
            ("layer_updates", {"layer": "memory", "param": "kernel"}),
        )
    )
    assert stats["step"].tolist() == [*range(11), 10, *range(11, 27)]  # the second model is looked at first of all too
    assert updates["step"].tolist() == [*range(1, 27)]
    assert updates["update_norm"].gt(0).all()
    assert store.read("runs", run="again")["event"].tolist() == ["started", "interrupted", "started", "completed"]
    assert sorted(set(store.read("train_metrics", run="again")["epoch"])) == [0, 1, 2]


def test_a_model_that_is_changed_in_the_middle_is_looked_at_as_it_is_now(place, caplog):
    model = keras.Sequential([keras.Input(X.shape[1:]), keras.layers.LSTM(3, name="old")])
    with caplog.at_level(logging.WARNING, "gatewatch"), GateMonitor(model, probe=X[:4], every=1, run="new") as monitor:
        monitor.step()
        model.pop()
        model.add(keras.layers.GRU(2, name="young"))
        monitor.step()
        monitor.step()
    stats = open_store().read("gate_stats", run="new", tags={"gate": "hidden"})
    assert stats[["step", "layer"]].to_numpy().tolist() == [[1, "old"], [2, "young"], [3, "young"]]
    assert sum("'old' is not recorded" in record.message for record in caplog.records) == 1


def test_an_optimizer_that_the_model_does_not_know_tells_the_gradients(place):
    model = policy()
    optimizer = model.optimizer
    optimizer.build(model.trainable_variables)
    model.optimizer = None
    with GateMonitor(model, probe=X[:4], every=1, run="own", optimizer=optimizer) as monitor:
        for _ in range(3):
            optimizer.apply([keras.ops.ones(v.shape) for v in model.trainable_variables], model.trainable_variables)
            monitor.step()
    updates = open_store().read("layer_updates", run="own", tags={"layer": "memory", "param": "bias"})
    assert updates["gradient_norm_clipped"].tolist() == pytest.approx([np.sqrt(updates_size(model))] * 3, rel=1e-4)
    assert "gradient_norm" not in updates  # whether the loop has clipped it nobody knows
    with pytest.raises(ConfigError, match="optimizer='adam': must be a Keras optimizer"):
        GateMonitor(model, optimizer="adam")


def updates_size(model):
    return int(np.prod(model.get_layer("memory").cell.bias.shape))


def test_a_fork_that_closes_the_monitor_does_not_end_the_run(place):
    with GateMonitor(policy(), probe=X[:4], every=1, run="forked") as monitor:
        monitor.step()
        child = os.fork()
        if child == 0:
            monitor.close("failed")
            os._exit(0)
        os.waitpid(child, 0)
        monitor.step()
    store = open_store()
    assert store.read("runs", run="forked")["event"].tolist() == ["started", "completed"]
    assert store.read("gate_stats", run="forked", tags={"gate": "cell"})["step"].tolist() == [1, 2]

"""`GateMonitorCallback` of Lightning in real fits, each of which ends as one without it."""

# ruff: noqa: E402
from __future__ import annotations

import gc
import logging
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from types import ModuleType

# Lightning imports TensorBoard, which so does without TensorFlow: that would take long, and is of no use here.
sys.modules.setdefault("tensorboard.compat.notf", ModuleType("notf"))

import lightning.pytorch as pl
import numpy as np
import pytest
import pytorch_lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.store import open_store
from gatewatch.lightning import GateMonitorCallback
from tests.zoo.open_files import open_files
from tests.zoo.torch_modules import MISCHIEF, WholeZoo
from tests.zoo.traces import assert_equal, seed_all, traces

ROOT = Path(__file__).parents[2]
X = torch.randn(16, 6, 3, generator=torch.Generator().manual_seed(1))
Y = torch.tanh(X[:, -1, :2])
STORE = "sqlite:///g.db"


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(before)


def fit_with(kind):
    """Return the LightningModule of a package."""

    class Fitted(kind):
        optimizer = staticmethod(lambda parameters: torch.optim.Adam(parameters, 0.05))

        def __init__(self, net=None):
            super().__init__()
            self.net = WholeZoo() if net is None else net
            self.head = nn.Linear(2, 2)

        def forward(self, x):
            return self.head(self.net(x))

        def loss(self, batch):
            return (self(batch[0]) - batch[1]).square().mean()

        def training_step(self, batch, number):
            loss = self.loss(batch)
            self.log("loss", loss, on_step=True, on_epoch=True)
            return loss

        def validation_step(self, batch, number):
            self.log("val_loss", self.loss(batch))

        test_step = validation_step

        def on_train_epoch_end(self):
            self.log("epochs_done", float(self.current_epoch + 1))

        def configure_optimizers(self):
            return self.optimizer(self.parameters())

    return Fitted


Fitted = fit_with(pl.LightningModule)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 2, batch_first=True)

    def forward(self, x):
        return self.lstm(x)[0][:, -1]


class Manual(Fitted):
    """Two optimizers that take turns."""

    def __init__(self, net=None):
        super().__init__(net)
        self.automatic_optimization = False

    def training_step(self, batch, number):
        optimizer = self.optimizers()[number % 2]
        optimizer.zero_grad()
        self.manual_backward(self.loss(batch))
        self.clip_gradients(optimizer, 0.1, "norm")
        optimizer.step()

    def configure_optimizers(self):
        return torch.optim.Adam(self.net.parameters(), 0.05), torch.optim.SGD(self.head.parameters(), 0.05)


class Lbfgs(Fitted):
    optimizer = staticmethod(lambda parameters: torch.optim.LBFGS(parameters, 0.1, max_iter=2))


def trainer(*callbacks, package=pl, epochs=2, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    options = {"enable_checkpointing": any(isinstance(one, ModelCheckpoint) for one in callbacks)} | options
    return package.Trainer(accelerator="cpu", max_epochs=epochs, callbacks=list(callbacks), **quiet, **options)


def batches(size=4):
    return DataLoader(TensorDataset(X, Y), size)


def monitor(run="r", **options):
    return GateMonitorCallback(None, **{"run": run, "store": STORE, "probe": X[:2], "every": 1} | options)


def read(measurement, run="r", **tags):
    with closing(open_store(STORE)) as store:
        return store.read(measurement, run=run, tags=tags)


def captures(run="r"):
    stats = read("gate_stats", run, gate="forget")
    return stats[["step", "epoch"]].drop_duplicates().to_numpy().tolist()


EIGHT = [[1, 0], [2, 0], [3, 0], [4, 0], [5, 1], [6, 1], [7, 1], [8, 1]]
WAYS = {
    "plain": (Fitted, {}),
    "accumulated": (Fitted, {"accumulate_grad_batches": 2}),
    "clipped": (Fitted, {"gradient_clip_val": 0.1}),
    "manual": (Manual, {}),
    "half precision": (Fitted, {"precision": "bf16-mixed"}),
    "LBFGS": (Lbfgs, {}),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_fit_is_the_same_with_a_monitor(way, caplog):
    kind, options = WAYS[way]

    def fitted(*callbacks):
        gc.collect()
        files = open_files()
        seed_all()
        module = kind()
        fit = trainer(*callbacks, **options)
        fit.fit(module, batches(), batches(8))
        left = traces(module, *fit.optimizers)
        return {**left, "metrics": fit.callback_metrics, "opened files": open_files() - files}

    bare = fitted()
    with caplog.at_level(logging.WARNING, "gatewatch"):
        assert_equal(bare, fitted(monitor()))
    said = [record.message for record in caplog.records if record.name == "gatewatch"]
    assert ["gradients of what LBFGS trains" in text for text in said] == [True] * (way == "LBFGS")
    assert captures() == EIGHT
    assert set(read("gate_stats")["layer"]) == {f"net.all.{name}.lstm/l0" for name in MISCHIEF}


@pytest.mark.parametrize("package", [pl, pytorch_lightning])
def test_it_records_what_the_module_logs_when_it_logs_it(package):
    trainer(monitor(), package=package).fit(fit_with(package.LightningModule)(Small()), batches(), batches(8))
    metrics = read("train_metrics").sort_values("time")
    ends = metrics[metrics["epochs_done"].notna()]
    assert ends[["step", "epoch", "epochs_done"]].to_numpy().tolist() == [[4, 0, 1], [8, 1, 2]]
    assert metrics["val_loss"].notna().tolist() == metrics["epochs_done"].notna().tolist()  # once for each validation
    losses = metrics[metrics["epochs_done"].isna()]
    assert losses["step"].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert ends["loss"].tolist() == pytest.approx([losses["loss"][:4].mean(), losses["loss"][4:].mean()])
    assert set(losses["learning_rate"]) == {0.05}
    fed = read("feed_stats")
    assert fed[["step", "sequences", "positions", "features"]].to_numpy().tolist() == [
        [n, 4, 6, 3] for n in range(1, 9)
    ]
    means = read("feed_features", statistic="mean")["f000"].to_numpy()
    assert means == pytest.approx(np.tile(X[:, :, 0].reshape(4, -1).mean(1), 2), abs=1e-6)
    assert len(read("feed_features", statistic="gradient_share")) == 8
    updates = read("layer_updates")
    assert updates.groupby(["layer", "param"]).size().to_dict() == {
        ("head", "bias"): 8,
        ("head", "kernel"): 8,
        ("net.lstm/l0", "bias"): 8,
        ("net.lstm/l0", "kernel"): 8,
        ("net.lstm/l0", "recurrent"): 8,
    }
    assert updates["gradient_norm_clipped"].min() > 0
    since = updates.loc[updates["travel"].notna(), ["travel_steps", "rate_sum"]]
    assert len(since) == 7 * 5  # none at the first of 8 captures
    assert (since["travel_steps"] == 1).all()
    assert since["rate_sum"].to_numpy() == pytest.approx(0.05)
    with closing(open_store(STORE)) as store:
        run = store.runs().iloc[0]
    assert (run["state"], run["framework"], run["model"]) == ("completed", "lightning", "Fitted")


def test_the_feed_is_the_batch_where_a_step_does_not_call_the_modules_forward():
    class Inside(Fitted):
        def loss(self, batch):
            return (self.head(self.net(batch[0])) - batch[1]).square().mean()

    trainer(monitor(feature_names=["a", "b", "c"]), epochs=1).fit(Inside(Small()), batches(8))
    fed = read("feed_stats")
    assert fed[["step", "sequences"]].to_numpy().tolist() == [[1, 8], [2, 8]]
    assert fed["target_correlation"].min() > 0.8  # of tanh(x) with x


def test_the_epochs_are_files(place):
    trainer(monitor(), GateMonitorCallback("gates", run="other", store=STORE, probe=X[:2], every=3)).fit(
        Fitted(Small()), batches()
    )
    assert sorted(path.name for path in (place / "gates").iterdir()) == ["gate_epoch_0.npz", "gate_epoch_1.npz"]
    assert captures("other") == [[3, 0], [4, 0], [6, 1], [8, 1]]


class Dies(pl.Callback):
    def __init__(self, step, error):
        self.step, self.error = step, error

    def on_train_batch_end(self, trainer, *arguments):
        if trainer.global_step == self.step:
            raise self.error


@pytest.mark.parametrize(
    ("error", "raised", "state", "text"),
    [
        (ZeroDivisionError("why"), ZeroDivisionError, "failed", "ZeroDivisionError: why"),
        (KeyboardInterrupt(), SystemExit, "interrupted", "KeyboardInterrupt"),
    ],
)
def test_the_run_says_how_the_fit_ended(error, raised, state, text):
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(raised):
        trainer(monitor(), Dies(6, error)).fit(Fitted(Small()), batches())
    signal.signal(signal.SIGINT, handlers[0])  # Lightning leaves it ignored
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert captures() == EIGHT[:6]
    event = read("runs").iloc[-1]
    assert (event["event"], event["error"]) == (state, text)


CHECKPOINTS = {
    "each epoch": {},
    "each validation": {"save_on_train_epoch_end": False},
    "each two batches": {"every_n_train_steps": 2},  # the last of an epoch too, after which Lightning skips its end
    "each three batches": {"every_n_train_steps": 3},
}


@pytest.mark.parametrize("when", CHECKPOINTS)
@pytest.mark.parametrize("dies_at", [6, 9])
def test_a_fit_from_a_checkpoint_goes_on_with_the_run(when, dies_at):
    def saved():
        return ModelCheckpoint("saved", save_last=True, **CHECKPOINTS[when])

    with pytest.raises(ZeroDivisionError):
        trainer(monitor(resume=True), saved(), Dies(dies_at, ZeroDivisionError()), epochs=3).fit(
            Fitted(Small()), batches(), batches(8)
        )
    trainer(monitor(resume=True), saved(), epochs=3).fit(
        Fitted(Small()), batches(), batches(8), ckpt_path="saved/last.ckpt"
    )
    assert captures() == [*EIGHT, [9, 2], [10, 2], [11, 2], [12, 2]]
    ends = read("train_metrics").dropna(subset="epochs_done")
    assert ends[["step", "epoch", "epochs_done"]].to_numpy().tolist() == [[4, 0, 1], [8, 1, 2], [12, 2, 3]]
    assert read("runs")["event"].tolist() == ["started", "failed", "resumed", "completed"]


def test_another_fit_with_the_same_callback_goes_on_with_the_run():
    callback, module = monitor(), Fitted(Small())
    fit = trainer(callback, epochs=1)
    fit.fit(module, batches())
    fit.fit_loop.max_epochs = 2
    fit.fit(module, batches())
    assert captures() == EIGHT
    trainer(callback, epochs=1).fit(Fitted(Small()), batches())
    assert captures() == [*EIGHT, [9, 2], [10, 2], [11, 2], [12, 2]]


def test_what_is_no_fit_begins_no_run():
    for options in ({"max_steps": 0}, {"epochs": 0}):
        trainer(monitor(), **options).fit(Fitted(Small()), batches(), batches(8))
    fit = trainer(monitor())
    fit.validate(Fitted(Small()), batches(), verbose=False)
    fit.test(Fitted(Small()), batches(), verbose=False)
    assert not Path("g.db").exists()


def test_what_is_wrong_is_said_before_the_first_batch():
    with pytest.raises(ConfigError, match="every=0"):
        monitor(every=0)
    for options, text in (
        ({"probe": X[:2, :, :2]}, "the probe"),
        ({"probe": None}, "needs a probe"),
        ({"layers": ["none"]}, "none"),
        ({"method": "none"}, "Fitted has no such method"),
    ):
        module = Fitted(Small())
        with pytest.raises(ConfigError, match=text):
            trainer(monitor(**options)).fit(module, batches())
        assert module.global_step == 0


class Annealed(Fitted):
    """Its forward reads the epoch and the step, and logs."""

    def forward(self, x):
        self.log("seen", x.mean())
        self.log_dict({"in": x.max()})
        return super().forward(x * (1 + self.current_epoch) + self.global_step)


def test_a_look_sees_the_epoch_and_the_step_and_logs_to_nobody(caplog):
    def fitted(*callbacks):
        seed_all()
        module = Annealed(Small())
        fit = trainer(*callbacks)
        fit.fit(module, batches())
        return module, {**traces(module), "metrics": fit.callback_metrics}

    with pytest.warns() as warned:
        _, bare = fitted()
    with caplog.at_level(logging.WARNING, "gatewatch"), pytest.warns() as again:
        module, monitored = fitted(monitor())
    assert_equal(bare, monitored)
    assert not [str(one.message) for one in again if "self.log" in str(one.message)]
    assert len(again) <= len(warned)
    hidden = read("gate_stats", gate="hidden")["mean"].iloc[-1]
    seen = module.net.lstm(X[:2] * 2 + 8)[0].mean().item()
    assert hidden == pytest.approx(seen, abs=1e-6)


def test_a_compiled_module():
    trainer(monitor(), epochs=1).fit(torch.compile(Fitted(Small()), backend="eager"), batches())
    assert captures() == EIGHT[:4]
    assert set(read("gate_stats")["layer"]) == {"net.lstm/l0"}


TWO_RANKS = """
from tests.integration.test_lightning import *
from tests.zoo.torch_modules import MISCHIEF

class Synced(Fitted):
    def training_step(self, batch, number):
        loss = self.loss(batch)
        self.log("loss", loss, on_step=True, on_epoch=True, sync_dist=True)
        return loss

    def on_train_end(self):
        torch.save(self.state_dict(), f"{name}-{self.global_rank}.pt")

if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, callbacks in (("bare", []), ("monitored", [monitor()])):
        seed_all()
        trainer(*callbacks, strategy="ddp_fork", devices=2, epochs=2).fit(Synced(Small()), batches(), batches(8))
"""


def test_of_two_ranks_the_first_records_and_no_collective_waits(place):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "GATEWATCH_SPOOL": str(place / "spool")}
    done = subprocess.run(
        [sys.executable, "-c", TWO_RANKS], env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    bare, monitored = ([torch.load(f"{name}-{rank}.pt") for rank in (0, 1)] for name in ("bare", "monitored"))
    for one, other in zip(bare, monitored, strict=True):
        assert_equal(one, other)
    assert captures() == [[1, 0], [2, 0], [3, 1], [4, 1]]
    metrics = read("train_metrics")
    assert metrics.dropna(subset="epochs_done")[["step", "epochs_done"]].to_numpy().tolist() == [[2, 1], [4, 2]]

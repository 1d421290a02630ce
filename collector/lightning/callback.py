"""`GateMonitorCallback`: the monitor of PyTorch as a callback of Lightning's Trainer."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, Final

from gatewatch.collector.capture_schedule import Every
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.runtime.shutdown import final_status
from gatewatch.collector.store import Store
from gatewatch.collector.torch.monitor import GateMonitor, choose

_NAMES: Final = {"lightning": "lightning.pytorch", "pytorch_lightning": "pytorch_lightning"}
_INSTALLED: Final = [import_module(name) for package, name in _NAMES.items() if find_spec(package)]
_MODULES: Final = tuple(package.LightningModule for package in _INSTALLED)

if TYPE_CHECKING or not _INSTALLED:
    from lightning.pytorch import Callback, LightningModule, Trainer
else:  # each package has a class of its own, and its Trainer takes that one only
    Callback = type("Callback", tuple(package.Callback for package in _INSTALLED), {})


class GateMonitorCallback(GateMonitor, Callback):
    """Record the gates, gradients and weight updates of a LightningModule while a Trainer fits it.

    ```python
    trainer = Trainer(max_epochs=10, callbacks=[GateMonitorCallback(probe=x[:32])])
    trainer.fit(module, batches)
    ```

    It takes the Trainer of `lightning` and that of `pytorch_lightning`. What is recorded is what the module's own
    `forward` does with the probe, in inference mode. `step` counts training batches. With a capture goes what the
    module has logged since the capture before, with the end of an epoch what it has logged since, by the names that
    `trainer.callback_metrics` has. The run begins when `fit` has checked the validation, and ends with it; another
    `fit` with the same callback goes on with it. `validate`, `test` and `predict` are not recorded.

    Checkpoints of the Trainer hold the step and the epoch: with `run="goog-1", resume=True`, `fit(ckpt_path=...)` goes
    on with the run where the checkpoint was saved.

    Once training has begun nothing is raised into it, and it never waits for the store.

    Args:
        log_dir: folder of the `gate_epoch_<n>.npz` files; None for no such files.
        run: the run's id, which must be new, except with `resume`; generated from the time where None.
        store: a URL (`sqlite:///gatewatch.db`, `http://localhost:8086`) or an open store; where None as `open_store`
            chooses.
        probe: a fixed batch of finite inputs as `forward` takes it, a mapping or a packed sequence too, or a tuple of
            its inputs; 16 to 64 sequences are enough. Not needed where every recurrent layer offers
            `get_gate_history()`.
        probe_targets: what the model should return for the probe, as `loss` takes it; with them every capture has
            the metric `probe_loss`.
        loss: called with what the module returns for the probe, in inference mode, and with `probe_targets`:
            `torch.nn.functional.mse_loss`. Where it returns one for each sample, their mean is recorded.
        every: capture every so many batches, or "auto": as often as `overhead` allows.
        layers: only these, by name (`policy.lstm/l0`) or by the path of their module; all where None.
        phase: train, validation, backtest or live.
        tags: at most 8 of your own, such as {"symbol": "GOOG"}.
        config: your own settings, such as {"units": 24, "dropout": 0.1}: a mapping that JSON can hold, recorded
            with the run and shown where runs are compared.
        overhead: the share of the training's time that "auto" may spend on captures.
        resume: go on with the run of this name after a crash, where there is one. Steps that the training makes once
            more are not recorded twice.
        all_ranks: record each process of a distributed training, as a run of its own (`run`, `run-rank1`, …); otherwise
            rank 0 records and the others do nothing.
        reference: a run whose training feed this phase is compared with, such as that of the training in a backtest;
            recorded in the run's `config`. It may be this very run, where its phases are side by side.
        method: the method that is called with the probe, where it is not `forward`.
        feature_names: what the features that are fed are called, in their order: that of the last dimension, several
            inputs side by side (a tuple in its order, a mapping in the order of its sorted names).

    Raises:
        ConfigError: an argument is wrong; from `fit`, before its first batch, where the probe does not fit the module,
            the module has no recurrent layer, the store refuses or a folder cannot be written.
    """

    framework: ClassVar[str] = "lightning"

    def __init__(  # noqa: PLR0913 - the public signature: one argument for each thing a user may choose
        self,
        log_dir: str | os.PathLike[str] | None = "gate_logs",
        *,
        run: str | None = None,
        store: Store | str | None = None,
        probe: Any = None,
        probe_targets: Any = None,
        loss: Callable[[Any, Any], Any] | None = None,
        every: Every = "auto",
        layers: Sequence[str] | None = None,
        phase: str = "train",
        tags: Mapping[str, str] | None = None,
        config: Mapping[str, Any] | None = None,
        overhead: float = 0.01,
        resume: bool = False,
        all_ranks: bool = False,
        reference: str | None = None,
        method: str | None = None,
        feature_names: Sequence[str] | None = None,
    ) -> None:
        self._set_up(locals())
        self._set_up_look(probe, method, probe_targets, loss)
        self._logged: dict[str, Any] = {}
        self._epoch_over = self._restored = False
        self._earlier_epochs = 0  # of the run, before the epoch that the Trainer counts as 0

    # What Lightning calls.

    @property
    def state_key(self) -> str:
        """The name of the state in checkpoints: another for each run and phase, so that a Trainer may have several."""
        return self._generate_state_key(**{name: self._arguments[name] for name in ("run", "phase")})

    def state_dict(self) -> dict[str, Any]:
        """Return the number of the last step and of the present epoch, for a checkpoint."""
        state = super().state_dict()
        return {**state, "epoch": state["epoch"] + self._epoch_over, "earlier_epochs": self._earlier_epochs}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on counting where the checkpoint was saved."""
        super().load_state_dict(state_dict)
        self._earlier_epochs, self._restored = state_dict.get("earlier_epochs", 0), True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the run, or go on with it."""
        self._watch(pl_module)
        self._logged, self._epoch_over = {}, False
        self.__enter__()
        if not self._restored:
            self._earlier_epochs = self._session.epoch - trainer.current_epoch
        self._restored = False
        self._count_epochs(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *arguments: Any, **options: Any
    ) -> None:
        """Count a step, and capture where one is due. A batch that is a pair is inputs and targets."""
        inputs, targets = batch if isinstance(batch, list | tuple) and len(batch) == 2 else (None, None)
        if inputs is not None:  # a training_step need not call the module's forward
            self._session.feed.see(inputs, targets)
        self.step(metrics=self._newly_logged(trainer), targets=targets)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the epoch before this one."""
        self._finish_epoch(trainer)
        self._count_epochs(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that the epoch is over. What the module logs in its own hook of that name comes after this one."""
        self._epoch_over = self._session.started

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the last epoch and the run."""
        self._finish_epoch(trainer)
        self.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """End the run as failed or interrupted."""
        self._session.close(final_status(exception), exception)

    def _begin(self) -> None:
        layers = choose(self._module, self._chosen, self.cells)
        if self._probe is None and not all(layer.offers_history for layer in layers.values()):
            raise ConfigError("GateMonitorCallback needs a probe, a fixed batch of inputs of the module's forward")
        super()._begin()

    def _call(self, twin: Any, inputs: tuple[Any, ...] | None) -> Any:
        """Call the copy, which has no Trainer, as if it had one: it knows step and epoch, and logs to nobody."""
        counts = {name: getattr(self._module, name) for name in ("current_epoch", "global_step")}
        for part in twin.modules():
            if isinstance(part, _MODULES):
                vars(part).update(_trainer=SimpleNamespace(**counts), log=_log_nothing, log_dict=_log_nothing)
        return super()._call(twin, inputs)

    def _count_epochs(self, trainer: Trainer) -> None:
        """Take the Trainer's count: a fit from a checkpoint may have neither a beginning nor an end of its epoch."""
        self._session.epoch = self._earlier_epochs + trainer.current_epoch

    def _finish_epoch(self, trainer: Trainer) -> None:
        if self._epoch_over:
            self._epoch_over = False
            self.end_epoch(self._newly_logged(trainer))

    def _newly_logged(self, trainer: Trainer) -> dict[str, Any]:
        """Return what was logged since the last call: `callback_metrics` keeps the values of earlier epochs.

        At the end of a batch and of an epoch they are computed already: reading them here waits for no other rank.
        """
        if not self._session.started:
            return {}
        before = self._logged
        with self._session.guarded("the metrics"):
            self._logged = dict(trainer.callback_metrics)
        return {name: value for name, value in self._logged.items() if value is not before.get(name)}


def _log_nothing(*arguments: Any, **options: Any) -> None:
    pass

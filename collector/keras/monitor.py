"""`GateMonitor`: the callback that a training script adds."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import keras

from gatewatch.collector.capture_schedule import Every
from gatewatch.collector.checks import check_framework, mistaken_model
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.keras.description import describe
from gatewatch.collector.keras.feed.feeds import Feeds
from gatewatch.collector.keras.inputs import (
    as_array,
    as_probe,
    check_method,
    input_mismatch_error,
    shapes,
)
from gatewatch.collector.keras.layers import name_of, offers_history
from gatewatch.collector.keras.probe_loss import ProbeLoss
from gatewatch.collector.keras.recorded_layers import RecordedLayers
from gatewatch.collector.keras.states import KerasStates, given_states
from gatewatch.collector.keras.updates import KerasUpdates
from gatewatch.collector.monitor import Monitor, State
from gatewatch.collector.recurrent_state import Begin
from gatewatch.collector.run_metadata import fingerprint
from gatewatch.collector.runtime.error_guard import safe_get
from gatewatch.collector.store import Store
from gatewatch.collector.text import safe_repr
from gatewatch.collector.trace import Look, Trace


class GateMonitor(Monitor, keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """Record the gates of a model's recurrent layers while it trains, and what the training logs.

    ```python
    model.fit(x, y, callbacks=[GateMonitor(probe=x[:32])])
    ```

    What is recorded is what the layers do with the probe, in inference mode, whatever the batches are: captures can
    be compared. For loops that never call `fit` it is a context manager:

    ```python
    with GateMonitor(model, probe=x[:32]) as monitor:
        for batch in batches:
            loss = model.train_on_batch(*batch)
            monitor.step(metrics={"loss": loss})
    ```

    The state that a step's sequences begin with (`recurrent_state`) is that of the stateful layers: in `fit` before the
    batch of a capture; in a loop, which calls `step` before the model, at the moment of a step that is captured or has
    `starts`. Where the model is called first, as the states at the first step tell, they are not taken: give
    `step(state=...)`.

    Once training has begun nothing is raised into it, and it never waits for the store.

    Args:
        model: the model; `fit` gives it too.
        log_dir: folder of the `gate_epoch_<n>.npz` files, which hold every gate of an epoch's end; made where
            missing. None: no such files.
        run: the run's id, which must be new, except with `resume`; generated from the time where None.
        store: a URL (`sqlite:///gatewatch.db`, `http://localhost:8086`) or an open store; where None as `open_store`
            chooses.
        probe: a fixed batch of inputs as the model takes it, (batch, time, features) or a list or mapping of such;
            16 to 64 sequences are enough. Not needed where every `step` brings its own, nor where every recurrent
            layer offers `get_gate_history()`.
        probe_targets: what the model should return for the probe, as `fit` takes it; with them every capture has the
            metric `probe_loss`.
        loss: of the probe, as `compile(loss=...)` takes it, for a model that is not compiled or has a `train_step` with
            a loss of its own; where None, what the model is compiled with.
        every: capture every so many batches, or "auto": as often as `overhead` allows.
        layers: only these, by name or path; all where None.
        phase: train, validation, backtest or live.
        tags: at most 8 of your own, such as {"symbol": "GOOG"}.
        config: your own settings, such as {"units": 24, "dropout": 0.1}: a mapping that JSON can hold, recorded
            with the run and shown where runs are compared.
        overhead: the share of the training's time that "auto" may spend on captures.
        optimizer: the Keras optimizer; gradients are derived from its state. Where None, the one that the model is
            compiled with.
        resume: go on with the run of this name after a crash, where there is one. Steps that the training makes once
            more are not recorded twice.
        all_ranks: record each process of a distributed training, as a run of its own (`run`, `run-rank1`, …); otherwise
            rank 0 records and the others do nothing.
        reference: a run whose training feed this phase is compared with, such as that of the training in a backtest;
            recorded in the run's `config`. It may be this very run, where its phases are side by side.
        method: the method of the model that is called with the probe, or with what `step` brings, where it is not the
            model itself: "act" of an agent. Several arguments are a tuple; arrays are given as they are, not as
            tensors.
        feature_names: what the features that are fed are called, in their order: that of the last dimension, several
            inputs side by side (a tuple in its order, a mapping in the order of its sorted names).

    Raises:
        ConfigError: an argument is wrong; from `fit`, before its first batch, where the probe does not fit the model,
            the model has no recurrent layer, the store refuses or the folder cannot be written.
    """

    def __init__(  # noqa: PLR0913 - the public signature: one argument for each thing a user may choose
        self,
        model: Any = None,
        log_dir: str | os.PathLike[str] | None = "gate_logs",
        *,
        run: str | None = None,
        store: Store | str | None = None,
        probe: Any = None,
        probe_targets: Any = None,
        loss: Any = None,
        every: Every = "auto",
        layers: Sequence[str] | None = None,
        phase: str = "train",
        tags: Mapping[str, str] | None = None,
        config: Mapping[str, Any] | None = None,
        overhead: float = 0.01,
        optimizer: Any = None,
        resume: bool = False,
        all_ranks: bool = False,
        reference: str | None = None,
        method: str | None = None,
        feature_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self._set_up(locals())
        check_framework("model", model, "keras", "GateMonitor")
        if model is not None and not isinstance(model, keras.Layer):
            remedy = mistaken_model(model) or "; with fit it need not be given"
            raise ConfigError(f"model={safe_repr(model)}: must be a Keras model{remedy}")
        if optimizer is not None and not isinstance(optimizer, keras.optimizers.Optimizer):
            raise ConfigError(
                f"optimizer={safe_repr(optimizer)}: must be a Keras optimizer; a compiled model has its own"
            )
        if model is not None and method is not None:
            check_method(model, method)
        self._optimizer, self._method = optimizer, method
        self._probe = None if probe is None else as_probe(probe, method)
        self._loss = ProbeLoss.of(self._probe, probe_targets, loss)
        self._layers = RecordedLayers(self._chosen, method, self.cells)
        self._updates: KerasUpdates | None = None
        self._epoch_start = self._epoch_offset = 0
        self._fits, self._first_epoch = 0, True
        self._watched: Any = None
        self._broken_off = False
        self._states: KerasStates | None = None
        self._is_due_next = True
        self._feeds = Feeds(self._session)
        if model is not None:
            self.set_model(model)

    def feed(self, data: Any, *arrays: Any) -> Any:
        """Wrap what `fit` takes its batches from, so that what is fed is recorded, which no callback sees.

        ```python
        model.fit(monitor.feed(dataset), callbacks=[monitor])
        ```

        What it returns delivers the same batches in the same order, bit for bit, and raises what `data` raises. The
        batch of the step whose update is recorded becomes the points of `feed_stats` and `feed_features`, however far
        `fit` reads ahead. A `PyDataset` with several workers hands its batches over in nearly the order in which `fit`
        takes them, so there it is that batch or one that was made beside it. Where the order is lost nothing is
        recorded.

        Args:
            data: a `tf.data.Dataset`, a `keras.utils.PyDataset`, a torch `DataLoader` or a generator of batches, which
                are inputs, or a tuple of inputs, targets and weights of the samples, as `fit` takes them.
            *arrays: none: `fit` makes the batches of arrays itself.

        Raises:
            ConfigError: data are arrays, a distributed dataset, or nothing that `fit` takes batches from.
        """
        return self._feeds.wrap((data, *arrays) if arrays else data)

    # What Keras calls.

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Check the model, the probe, the store and the folder, and make the first capture."""
        session = self._session
        self._broken_off = session.started  # an earlier fit has raised
        if session.started and self.model is not self._watched:
            session.close("interrupted")
        if not session.started:
            session.begin(self._begin_fit)
        self._fits += 1
        self._first_epoch = True
        self._feeds.begin()

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Keep the epoch's number; another `fit` that counts from 0 again goes on after the last."""
        session = self._session
        if self._first_epoch:
            self._first_epoch = False
            self._epoch_offset = self._take_up(int(epoch))
        session.epoch = int(epoch) + self._epoch_offset
        self._epoch_start = session.step

    def _take_up(self, epoch: int) -> int:
        """Find where in the run a `fit` begins; return what is to be added to its numbers of epochs.

        A `fit` after a crash that begins at a later epoch than 0, or with a model that has learnt nothing yet, says
        where it takes up the work. Any other goes on after the last epoch.

        Args:
            epoch: the number of the first one, as `fit` counts.
        """
        session, resumes = self._session, self._session.resumed and self._fits == 1
        if (epoch and (self._broken_off or resumes)) or (resumes and _is_fresh(self.model)):
            session.go_to(session.progress.step_of_epoch(epoch), epoch)
            return 0
        return max(0, session.progress.epochs - epoch) if self._fits > 1 or resumes else 0

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Note what a step that will be captured begins with, which a callback may have changed."""
        self._feeds.begin_step()
        if self._updates is not None and self._updates.state is not None and self._session.started:
            with self._session.guarded_and_charged("rate"):
                self._updates.note_step()
        if self._is_due_next and self._states is not None and self._session.started:
            with self._session.guarded("the recurrent states"), self._session.charged("states"):
                self._states.before_batch(self._layers.by_path, lambda: self.model)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Capture where one is due."""
        session, before = self._session, self._session.step
        session.step = self._epoch_start + int(batch) + 1
        if session.started:
            self._feeds.end_step(session.step - before)
            self._after_step(logs)
            self._is_due_next = session.prepare()
            self._feeds.prepare()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Write the epoch's metrics, and its file where the budget allows."""
        if self._session.started:
            self._end_epoch(logs)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """End the run; another `fit` with the same monitor goes on with it."""
        self._feeds.end()
        self.close()

    def _begin_fit(self) -> None:
        session, traced = self._session, self._start()
        if traced is not None and not session.is_recorded:
            with session.guarded("the first capture"):
                self._latest = session.step, session.capture(lambda: Look(traced.layers, traced.loss))
                session.metrics(None)  # the capture's own
            session.note_recorded()

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Refuse to watch an `evaluate` by itself; the validation within `fit` is fed no step."""
        self._refuse("evaluate")
        self._feeds.begin_validation()

    def on_test_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Note that the validation within `fit` is over."""
        self._feeds.end_validation()

    def on_predict_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Refuse to watch a `predict` by itself."""
        self._refuse("predict")

    def _refuse(self, method: str) -> None:
        if not self._session.started and not self._session.ended:
            raise ConfigError(
                f"GateMonitor records what fit does, not {method}(callbacks=[...]): use `with GateMonitor(model, "
                'probe=x[:32], phase="validation") as monitor: monitor.step()`'
            )

    # What a loop of one's own calls, beside what every monitor offers.

    def _begin(self) -> None:
        self._start(own_loop=True)

    def _start(self, own_loop: bool = False) -> Trace | None:
        session = self._session
        model = self.model
        if model is None:
            raise ConfigError("GateMonitor has no model: give it as the first argument, or pass the monitor to fit")
        check_framework("model", model, "keras", "GateMonitor")  # fit gives it too
        if self._method is not None:
            check_method(model, self._method)
        if self._loss is not None:
            self._loss.check(model)
        traced = None
        with self._layers.as_if_called(model, self._probe):
            self._layers.choose(model)
            if self._probe is None and self._layers.need_inputs:  # each step brings what to look at
                if not own_loop:
                    raise ConfigError(
                        "GateMonitor needs a probe, a fixed batch of inputs to look at: GateMonitor(probe=x[:32]); "
                        "only layers that offer get_gate_history() do without"
                    )
            else:
                explain = partial(input_mismatch_error, "probe", self._probe, model, method=self._method)
                traced = self._first_look(partial(self._trace, self._probe), explain)
            description = describe(model, self._layers.by_path)
        own_step = own_loop or type(model).train_step is not keras.Model.train_step
        self._watched = model
        self._updates = None
        if session.learns:
            self._updates = KerasUpdates(model, self._optimizer, unclipped=not own_step, warn_once=session.warn_once)
        session.start(
            framework=f"keras/{keras.backend.backend()}",
            model=f"{type(model).__name__} {name_of(model)}",
            config={
                **description,
                "probe": None if self._probe is None else shapes(self._probe),
                "probe_fingerprint": fingerprint(self._probe, as_array),
            },
            updates=self._updates,
        )
        self._is_due_next = True
        with session.guarded("the recurrent states"):
            self._states = KerasStates(self._layers.by_path, own_loop, session.warn_once)
        if traced is not None:
            self._report(traced)
        return traced

    def _begin_states(self, state: State | None, *, needed: bool) -> dict[str, Begin]:
        layers = self._layers
        if state is not None:
            return given_states(layers.by_path, layers.states_by_path(state) or {})
        if self._states is None or not needed:
            return {}
        return self._states.of_step(layers.by_path, is_first=self._session.states.is_new)

    def _trace_reference(self) -> Trace:
        return self._trace(self._probe, self._layers.zero_states())

    def _gives_gates(self) -> Collection[str]:
        return [path for path, layer in self._layers.by_path.items() if offers_history(layer)]

    def _trace(self, x: Any, state: State | None = None) -> Trace:
        return self._layers.trace(self.model, x, state, self._loss if x is self._probe else None)

    def _look(self, x: Any, state: State | None) -> Look:
        inputs = self._probe if x is None else x
        if inputs is None and self._layers.need_inputs:
            raise ConfigError("there is nothing to look at: give GateMonitor a probe, or step() its inputs")
        traced = self._layers.look(self.model, inputs, state, self._loss if inputs is self._probe else None)
        return self._report(traced, verified=traced.error is not None)


def _is_fresh(model: Any) -> bool:
    """Return whether the optimizer of a model has not made a step yet."""
    iterations = safe_get(getattr(model, "optimizer", None), "iterations")
    return iterations is not None and int(iterations) == 0

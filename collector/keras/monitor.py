"""`GateMonitor`: the callback that a training script adds."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import keras

from collector.cadence import Every
from collector.errors import ConfigError
from collector.keras.layers import recurrent_layers
from collector.keras.probe import as_probe, call_once, misfit, shapes
from collector.keras.trace import LayerGates, Trace, trace
from collector.session import Session
from collector.store import Store
from collector.times import Time, nanoseconds


class GateMonitor(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
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

    Once training has begun nothing is raised into it, and it never waits for the store.

    Args:
        model: the model; `fit` gives it too.
        log_dir: folder of the `gate_epoch_<n>.npz` files, which hold every gate of an epoch's end; made where
            missing. None: no such files.
        run: the run's id, not used before; made up from the time where None.
        store: a URL (`sqlite:///gatewatch.db`, `http://localhost:8086`) or an open store; where None as `open_store`
            chooses.
        probe: a fixed batch of inputs as the model takes it, (batch, time, features) or a list or mapping of such;
            16 to 64 sequences are enough. Not needed where every recurrent layer offers `get_gate_history()`.
        every: capture every so many batches, or "auto": as often as `overhead` allows.
        layers: only these, by name or path; all where None.
        phase: train, validation, backtest or live.
        tags: at most 8 of your own, such as {"symbol": "GOOG"}.
        overhead: the share of the training's time that "auto" may spend on captures.

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
        every: Every = "auto",
        layers: Sequence[str] | None = None,
        phase: str = "train",
        tags: Mapping[str, str] | None = None,
        overhead: float = 0.01,
    ) -> None:
        super().__init__()
        self._arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        self._session = Session(
            log_dir=log_dir, run=run, store=store, phase=phase, tags=tags, every=every, overhead=overhead
        )
        if layers is not None and (isinstance(layers, str) or not isinstance(layers, Sequence) or not layers):
            raise ConfigError(f"layers={layers!r}: must be a list of names, such as ['lstm'], or None for all")
        if model is not None and not isinstance(model, keras.Layer):
            raise ConfigError(f"model={model!r}: must be a Keras model; with fit it need not be given")
        self._chosen = None if layers is None else list(layers)
        self._probe = None if probe is None else as_probe(probe)
        weakref.finalize(self, self._session.abandon).atexit = False  # at exit the session ends itself
        self._layers: dict[str, Any] = {}
        self._latest: tuple[int, Mapping[str, LayerGates]] | None = None
        self._epoch_start = 0
        if model is not None:
            self.set_model(model)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A monitor of another run with the same arguments: tuners copy their callbacks for each trial."""
        return type(self)(**self._arguments)

    @property
    def run(self) -> str:
        """The run's id."""
        return self._session.run

    # What Keras calls.

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Check the model, the probe, the store and the folder, and make the first capture."""
        session = self._session
        if not session.started:
            traced = self._begin()
            with session.guarded("the first capture"):
                self._keep(session.capture(lambda: traced.layers))

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Keep the epoch's number."""
        self._session.epoch = int(epoch)
        self._epoch_start = self._session.step

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Capture where one is due."""
        session = self._session
        session.step = self._epoch_start + int(batch) + 1
        if session.started and session.cadence.due(session.step):
            with session.guarded("a capture"):
                self._capture()
                session.metrics(logs)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Write the epoch's metrics, and its file where the budget allows."""
        session = self._session
        if not session.started:
            return
        with session.guarded("the epoch's metrics"):
            session.metrics(logs)
        with session.guarded("the epoch's file"):
            if self._latest is None or (self._latest[0] != session.step and session.cadence.affordable(0.0)):
                self._capture()
            if self._latest is not None and self._latest[0] == session.step:
                session.save_epoch(self._latest[1])

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """End the run; another `fit` with the same monitor goes on with it."""
        self.close()

    # What a loop of one's own calls.

    def __enter__(self) -> Self:
        if not self._session.started:
            self._begin()  # the first capture is that of a step, which may have the market's time
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.close("failed" if issubclass(kind, Exception) else "interrupted")

    def step(
        self,
        x: Any = None,
        *,
        time: Time | None = None,
        metrics: Mapping[str, Any] | None = None,
        state: Mapping[str, Any] | Sequence[Any] | None = None,
    ) -> None:
        """Count one step of a loop, and capture where one is due.

        Args:
            x: what to look at instead of the probe, as the model takes it: the window of a backtest, for example.
            time: the market's time: nanoseconds since the epoch, or a moment (one without a zone is taken as UTC);
                now where None.
            metrics: name → number, written with every capture.
            state: the recurrent state to begin with: layer → its states, each (batch, units), in the order of Keras's
                `initial_state`; or those of the only recurrent layer.

        Raises:
            ConfigError: the run has not begun (use `with`). Once it has, nothing is raised: a step whose arguments are
                wrong is said once in a warning and counted in `collector_health`.
        """
        session = self._session
        if not session.started:
            raise ConfigError("step() outside a run: use `with GateMonitor(model, probe=...) as monitor:`")
        session.step += 1
        if session.cadence.due(session.step):
            with session.guarded("a capture"):
                moment = None if time is None else nanoseconds(time)
                self._capture(x, moment, self._by_layer(state))
                session.metrics(metrics, moment)

    def close(self, status: str = "completed") -> None:
        """End the run: completed, failed or interrupted. Calling it again does nothing.

        What is left is shipped for at most ten seconds.
        """
        self._session.close(status)

    def _begin(self) -> Trace:
        session = self._session
        model = self.model
        if model is None:
            raise ConfigError("GateMonitor has no model: give it as the first argument, or pass the monitor to fit")
        self._layers = self._choose(model)
        traced = self._first_look(model)
        if not traced.layers:
            reasons = "; ".join(f"layer {path!r}: {reason}" for path, reason in traced.unreplayed.items())
            raise ConfigError(f"no recurrent layer can be recorded: {reasons}; offer get_gate_history() on it")
        session.start(
            framework=f"keras/{keras.backend.backend()}",
            model=f"{type(model).__name__} {model.name}",
            config={
                "layers": {path: _describe(layer) for path, layer in self._layers.items()},
                "parameters": int(model.count_params()) if model.built else None,
                "probe": None if self._probe is None else shapes(self._probe),
            },
        )
        session.leave_out(traced.unreplayed)
        errors = [layer.error for layer in traced.layers.values() if layer.error is not None]
        session.replay_error = max(errors) if errors else None
        return traced

    def _choose(self, model: Any) -> dict[str, Any]:
        if not model.built and self._probe is not None:
            call_once(model, self._probe)
        layers = recurrent_layers(model)
        if not layers:
            raise ConfigError(
                f"the model {model.name!r} has no recurrent layer: GateMonitor records LSTM and GRU layers, and "
                "layers that offer get_gate_history()"
            )
        if self._chosen is not None:
            chosen = {path: layer for path, layer in layers.items() if {path, layer.name} & set(self._chosen)}
            for name in self._chosen:
                if not any(name in (path, layer.name) for path, layer in chosen.items()):
                    raise ConfigError(
                        f"layers: {name!r} is no recurrent layer of the model; it has {', '.join(layers)}"
                    )
            layers = chosen
        if self._probe is None and not all(hasattr(layer, "get_gate_history") for layer in layers.values()):
            raise ConfigError(
                "GateMonitor needs a probe, a fixed batch of inputs to look at: GateMonitor(probe=x[:32]); only layers "
                "that offer get_gate_history() do without"
            )
        return layers

    def _first_look(self, model: Any) -> Trace:
        try:
            return trace(model, self._probe, self._layers, verify=True)
        except ConfigError:
            raise
        except Exception as error:
            raise misfit("probe", self._probe, model, error) from error

    def _by_layer(self, state: Mapping[str, Any] | Sequence[Any] | None) -> Mapping[str, Any]:
        if state is None or isinstance(state, Mapping):
            return state or {}
        return dict.fromkeys(self._layers, state)

    def _capture(self, x: Any = None, moment: int | None = None, state: Mapping[str, Any] | None = None) -> None:
        def look() -> Mapping[str, LayerGates]:
            traced = trace(self.model, self._probe if x is None else x, self._layers, states=state)
            self._session.leave_out(traced.unreplayed)
            return traced.layers

        self._keep(self._session.capture(look, moment))

    def _keep(self, layers: Mapping[str, Any]) -> None:
        self._latest = self._session.step, layers


def _describe(layer: Any) -> dict[str, Any]:
    cell = getattr(layer, "cell", None)
    return {
        "type": type(layer).__name__,
        "units": getattr(cell, "units", None),
        "go_backwards": getattr(layer, "go_backwards", None),
        "stateful": getattr(layer, "stateful", None),
        "dropout": getattr(cell, "dropout", None),
    }

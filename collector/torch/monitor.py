"""`GateMonitor` for PyTorch: a context around a training loop."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Final

from torch import nn

from gatewatch.collector.capture_schedule import Every
from gatewatch.collector.cells import CELLS, Cells
from gatewatch.collector.checks import check_framework, choose_layers, mistaken_model
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.monitor import Monitor, State
from gatewatch.collector.recurrent_state import Begin
from gatewatch.collector.run_metadata import fingerprint
from gatewatch.collector.runtime.error_guard import safe_attributes, safe_get
from gatewatch.collector.runtime.signals import allow_sigint, defer_sigint
from gatewatch.collector.store import Store
from gatewatch.collector.text import safe_repr
from gatewatch.collector.torch.call_contexts import isolated
from gatewatch.collector.torch.feed import TorchFeed
from gatewatch.collector.torch.inputs import array_of, as_inputs, as_probe, input_mismatch_error, shapes
from gatewatch.collector.torch.layers import RecurrentLayer, bare, recurrent_layers
from gatewatch.collector.torch.outside import outside_restored
from gatewatch.collector.torch.probe_loss import ProbeLoss
from gatewatch.collector.torch.states import TorchStates, given_states
from gatewatch.collector.torch.trace import trace
from gatewatch.collector.torch.twin import twin_of
from gatewatch.collector.torch.updates import TorchUpdates
from gatewatch.collector.trace import Look, Trace

_OF_ITSELF: Final = ("parameters", "__repr__", "extra_repr")


class GateMonitor(Monitor):
    """Record the gates, gradients and weight updates of a torch module while it trains.

    ```python
    with GateMonitor(module, probe=x[:32]) as monitor:
        for x, y in batches:
            loss = train(x, y)
            monitor.step(metrics={"loss": loss})
    ```

    What is recorded is what `nn.LSTM`, `nn.GRU` and their cells do with the probe, in inference mode, whatever the
    batches are: captures can be compared. Gradients and updates are those of the step before a capture, seen by hooks
    that are there for that step alone.

    The state that a step's sequences begin with (`recurrent_state`) is what the module's own code calls `nn.LSTM`,
    `nn.GRU` and their cells with: in the first call of each since the step before, in training mode where the phase is
    `train`. Where `step(state=...)` gives it, that is taken. It is seen by what torch offers for `module.compile()`,
    from a step to the first such call: of each step while states or `starts` are given, else of those that are
    captured. A state on another device is read where `starts` are given and at captures only, since that waits for it.
    Where torch.compile is in use, none is seen.

    It is a copy of the module that does it, so that the training's own is never called or changed.

    Once training has begun nothing is raised into it, and it never waits for the store.

    Args:
        module: the module, or one of its parts.
        log_dir: folder of the `gate_epoch_<n>.npz` files, which `end_epoch()` writes; None for no such files.
        run: the run's id, which must be new, except with `resume`; generated from the time where None.
        store: a URL (`sqlite:///gatewatch.db`, `http://localhost:8086`) or an open store; where None as `open_store`
            chooses.
        probe: a fixed batch of finite inputs as the module takes it, a mapping or a packed sequence too, or a tuple of
            its inputs; 16 to 64 sequences are enough. Not needed where every `step` brings its own, nor where every
            recurrent layer offers `get_gate_history()`.
        probe_targets: what the model should return for the probe, as `loss` takes it; with them every capture has
            the metric `probe_loss`.
        loss: called with what the module returns for the probe, in inference mode, and with `probe_targets`:
            `torch.nn.functional.mse_loss`. Where it returns one for each sample, their mean is recorded.
        every: capture every so many steps, or "auto": as often as `overhead` allows.
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
        method: the method that is called with the probe, or with what `step` brings, where it is not the module itself:
            "predict" of a policy of Stable-Baselines3, "get_action_and_value" of an agent of CleanRL. It is given
            arrays as they are, not as tensors.
        feature_names: what the features that are fed are called, in their order: that of the last dimension, several
            inputs side by side (a tuple in its order, a mapping in the order of its sorted names).

    Raises:
        ConfigError: an argument is wrong; on entry, where the probe does not fit the module, the module has no
            recurrent layer, the store refuses or a folder cannot be written.
    """

    framework: ClassVar[str] = "torch"

    def __init__(  # noqa: PLR0913 - the public signature: one argument for each thing a user may choose
        self,
        module: nn.Module,
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
        self._watch(module)

    def _set_up_look(self, probe: Any, method: str | None, targets: Any, loss: Any) -> None:
        self._method = method
        self._probe = None if probe is None else as_probe(probe, method)
        self._loss = ProbeLoss.of(self._probe, targets, loss, method)
        self._layers: dict[str, RecurrentLayer] = {}
        self._states: TorchStates | None = None

    def _watch(self, module: nn.Module) -> None:
        check_framework("module", module, "torch", "GateMonitor")
        if not isinstance(module, nn.Module):
            raise ConfigError(f"module={safe_repr(module)}: must be a torch.nn.Module{mistaken_model(module)}")
        method = self._method
        if method is not None and not (isinstance(method, str) and callable(safe_get(bare(module), method))):
            raise ConfigError(
                f"method={safe_repr(method)}: the module {type(bare(module)).__name__} has no such method"
            )
        self._module = module

    def _begin(self) -> None:
        module, session = self._module, self._session
        self._layers = choose(module, self._chosen, self.cells)
        traced = None
        if self._probe is not None:  # or each step brings what to look at
            traced = self._first_look(partial(self._trace, self._probe))
        config = {
            **describe(module, self._layers),
            "probe": None if self._probe is None else shapes(self._probe),
            "probe_fingerprint": fingerprint(self._probe, array_of),
        }
        session.start(
            framework=self.framework,
            model=type(bare(module)).__name__,
            config=config,
            updates=TorchUpdates(module, session.guarded_and_charged, session.warn_once) if session.learns else None,
            feed=TorchFeed(module, session.feed, is_training=session.learns),
        )
        guarded, training = session.guarded_and_charged, session.phase == "train"
        self._states = TorchStates(guarded, training=training)
        session.at_release = self._states.release
        if traced is not None:
            self._report(traced)

    def _begin_states(self, state: State | None, *, needed: bool) -> dict[str, Begin]:
        seen = {} if self._states is None else self._states.end(needed=needed)
        given = {} if state is None else given_states(self._module, self._layers, state)
        return {**seen, **given}

    def _expect_step(self, *, due: bool) -> None:
        if self._states is not None and self._session.started and (due or self._session.states.follows):
            self._states.begin(self._module, self._layers)

    def _look(self, x: Any, state: State | None) -> Look:
        inputs = self._probe if x is None else as_inputs(x, self._method)
        if inputs is None and not all(layer.offers_history for layer in self._layers.values()):
            raise ConfigError("there is nothing to look at: give GateMonitor a probe, or step() its inputs")
        self._layers = choose(self._module, self._chosen, self.cells)  # a module may be changed in the middle of a run
        return self._report(self._trace(inputs, state))

    def _trace_reference(self) -> Trace:
        return self._trace(self._probe, afresh=True)

    def _gives_gates(self) -> Collection[str]:
        return [name for name, layer in self._layers.items() if layer.offers_history]

    def _trace(self, inputs: tuple[Any, ...] | None, state: State | None = None, *, afresh: bool = False) -> Trace:
        what = "probe" if inputs is self._probe else "input"
        explain = partial(input_mismatch_error, what, inputs or (), method=self._method)
        call, names = partial(self._call, inputs=inputs), () if self._method is None else (self._method,)
        loss = self._loss if inputs is self._probe else None
        layers = self._layers
        return trace(self._module, call, layers, states=state, explain=explain, names=names, loss=loss, afresh=afresh)

    def _call(self, twin: Any, inputs: tuple[Any, ...] | None) -> Any:
        method = self._method
        if inputs is None:  # its layers tell what they did in the training's own call
            return None
        return (twin if method is None else getattr(twin, method))(*as_inputs(inputs, method))


def choose(module: nn.Module, names: Sequence[str] | None, cells: Cells = CELLS) -> dict[str, RecurrentLayer]:
    """Return the recurrent layers to record.

    Raises:
        ConfigError: there is none, or none of that name.
    """
    return choose_layers(recurrent_layers(module, cells, required=True), names, lambda layer: layer.path, "module")


def describe(module: nn.Module, layers: Mapping[str, RecurrentLayer]) -> dict[str, Any]:
    """Return what is recorded of a module with its run; None for what raises when it is read."""
    # What a class says of itself may change it.
    with defer_sigint(), isolated(), twin_of(module) as twin, outside_restored(twin, _OF_ITSELF), allow_sigint():
        copy = twin.module
        return {
            "layers": {name: _describe_layer(twin.copies[id(layer.module)]) for name, layer in layers.items()},
            "parameters": safe_get(copy, "parameters()", lambda: sum(one.numel() for one in copy.parameters())),
            "summary": safe_get(copy, "__repr__()", lambda: repr(copy)),
        }


def _describe_layer(module: nn.Module) -> dict[str, Any]:
    names = ("input_size", "hidden_size", "proj_size", "bidirectional", "dropout", "batch_first", "bias")
    return {"type": type(module).__name__, **safe_attributes(module, names)}

"""The recurrent layers of a model that are recorded, and how they are looked at, whatever happens to the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from gatewatch.collector.cells import Cells
from gatewatch.collector.checks import choose_layers
from gatewatch.collector.keras.inputs import call_once, was_called
from gatewatch.collector.keras.isolation import isolated
from gatewatch.collector.keras.layers import name_of, offers_history, recurrent_layers
from gatewatch.collector.keras.probe_loss import ProbeLoss
from gatewatch.collector.keras.trace import trace
from gatewatch.collector.monitor import State
from gatewatch.collector.runtime.signals import allow_sigint, defer_sigint
from gatewatch.collector.trace import Trace


class RecordedLayers:
    """The layers that a monitor records. The model comes with each call: `fit` may bring another.

    Args:
        names: of the layers, or their paths; all where None.
        method: of the model that is called where it is not the model itself.
        cells: what can be replayed.

    Attributes:
        by_path: path → layer; empty before `choose`, and for a model that the training has not built yet.
    """

    def __init__(self, names: Sequence[str] | None, method: str | None, cells: Cells) -> None:
        self._names, self._method, self._cells = names, method, cells
        self.by_path: dict[str, Any] = {}
        self._verified: set[str] = set()  # those whose replay was compared with the layer's own call

    @property
    def need_inputs(self) -> bool:
        """Whether the model has to be called: not all of the layers tell what they did by `get_gate_history()`."""
        return not all(offers_history(layer) for layer in self.by_path.values())

    def choose(self, model: Any) -> None:
        """Find the layers in a model.

        Raises:
            ConfigError: there is none, or none of that name.
        """
        self.by_path = choose_layers(recurrent_layers(model, required=True), self._names, name_of, "model")
        self._verified = set()

    @contextmanager
    def as_if_called(self, model: Any, x: Any) -> Iterator[None]:
        """While open, let a model that was never called be built. Afterwards it is not: the training will build it."""
        if x is None or was_called(model, self._method):
            yield
            return
        try:
            with defer_sigint(), isolated(model, method=self._method), allow_sigint():
                call_once(model, x, "probe", self._method)
                yield
        finally:
            self.by_path, self._verified = {}, set()

    def trace(self, model: Any, x: Any, state: State | None = None, loss: ProbeLoss | None = None) -> Trace:
        """Call the model once with `x`, from a recurrent state where one is given; compute a loss where one is."""
        traced = trace(
            model,
            x,
            self.by_path,
            method=self._method,
            states=self.states_by_path(state),
            verified=self._verified,
            cells=self._cells,
            loss=loss,
        )
        self._verified |= self.by_path.keys() - traced.unreplayed.keys()
        return traced

    def look(self, model: Any, x: Any, state: State | None = None, loss: ProbeLoss | None = None) -> Trace:
        """Do the same in the middle of a run, when the model may have other layers than before, or not be built yet."""
        with self.as_if_called(model, x):
            if not self.by_path:
                self.choose(model)
            traced = self.trace(model, x, state, loss)
            if traced.stale:
                gone = traced.unreplayed
                self.choose(model)
                traced = self.trace(model, x, state, loss)
                traced.unreplayed = {**gone, **traced.unreplayed}
            return traced

    def states_by_path(self, state: State | None) -> Mapping[str, Any] | None:
        """Return path → state of what a user gives, which may be that of the only layer."""
        return state if state is None or isinstance(state, Mapping) else dict.fromkeys(self.by_path, state)

    def zero_states(self) -> Mapping[str, Any]:
        """Return zeros for stateful layers: a backtest moves their states, and the probe is not to move with them."""
        stateful = {path: layer.states for path, layer in self.by_path.items() if getattr(layer, "stateful", False)}
        return {path: [np.zeros(state.shape, "float32") for state in states] for path, states in stateful.items()}

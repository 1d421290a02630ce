"""The gates of all layers from one call of a model, whatever its framework."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from gatewatch.collector.arrays import Array, Mask, as_array
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.text import first_line, one_line

MOST_CALLS: Final = 8
"""Maximum number of recorded calls of one layer: a loop over a layer must not make an unlimited number of series."""


@dataclass(slots=True)
class LayerGates:
    """What one layer did with a batch.

    Attributes:
        gates: gate → (batch, time, units); a masked step is NaN.
        mask: (batch, time), False where a step was masked; None where no step was.
        error: the largest difference between the replayed and the layer's own output, relative to the largest output
            or 1, where that was looked at and there was anything finite to see.
    """

    gates: Mapping[str, Array]
    mask: Mask | None = None
    error: float | None = None


Layers = Mapping[str, LayerGates]
"""Path of a layer → its gates."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a capture has seen.

    Attributes:
        layers: path of the layer → its gates, of the probe or of what the step brought.
        probe_loss: the loss of the probe, where it has targets and was looked at.
        reference: the gates of the probe, where `layers` are those of a window.
    """

    layers: Layers
    probe_loss: float | None = None
    reference: Layers = field(default_factory=dict)


@dataclass(slots=True)
class Trace:
    """What the recurrent layers of a model did with a batch.

    Attributes:
        layers: path of the layer → its gates, in the order in which they ran.
        unreplayed: path of the layer → why it is not among `layers`.
        shared: attribute of the model → why the call was given the training's own, and may have changed it.
        stale: whether some of the layers asked for are no longer in the model: ask `recurrent_layers` again.
        loss: of the probe, where it was computed.
        loss_error: why there is none; a ConfigError where the user's arguments are what is wrong.
    """

    layers: dict[str, LayerGates] = field(default_factory=dict)
    unreplayed: dict[str, str] = field(default_factory=dict)
    shared: dict[str, str] = field(default_factory=dict)
    stale: bool = False
    loss: float | None = None
    loss_error: Exception | None = None

    @property
    def error(self) -> float | None:
        """The largest of the layers' errors; None where none was looked at."""
        return max((layer.error for layer in self.layers.values() if layer.error is not None), default=None)

    def require_layers(self) -> None:
        """See that there is something to record.

        Raises:
            ConfigError: there is not; says why of each layer.
        """
        if not self.layers:
            raise ConfigError(
                f"no recurrent layer can be replayed exactly: {self._reasons}; offer get_gate_history() on it"
            )

    def gates(self) -> dict[str, dict[str, Array]]:
        """Return layer → gate → (batch, time, units), for the caller of a framework's `gates()`.

        Raises:
            ConfigError: nothing could be replayed. Where only some layers could not, a warning names them.
        """
        self.require_layers()
        if self.unreplayed:
            warnings.warn(one_line(f"left out, since not exactly replayable: {self._reasons}"), stacklevel=3)
        return {path: dict(layer.gates) for path, layer in self.layers.items()}

    def ask(self, path: str, layer: Any) -> None:
        """Take the gates that a layer itself gives by `get_gate_history()`, or the reason why that fails.

        Args:
            path: of the layer.
            layer: gives gate → (batch, time, units), or (time, units) of one sequence.
        """
        try:
            gates = {str(gate): _gate_array(gate, values) for gate, values in layer.get_gate_history().items()}
            if not gates:
                raise ValueError("it gave no gates")
            self.layers[path] = LayerGates(gates)
        except Exception as error:  # of the user's class
            self.unreplayed[path] = f"its get_gate_history() failed: {first_line(error)}"

    @property
    def _reasons(self) -> str:
        return "; ".join(f"layer {path!r}: {reason}" for path, reason in self.unreplayed.items())


def _gate_array(gate: object, values: Any) -> Array:
    array = np.array(as_array(values, repr(gate)))  # a copy: the layer may go on with its own
    array = array[None] if array.ndim == 2 else array
    if array.ndim != 3 or array.size == 0:
        raise ValueError(f"{gate!r} has shape {array.shape}, not (batch, time, units)")
    return array

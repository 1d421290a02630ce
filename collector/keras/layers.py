"""Which layers of a Keras model are recurrent, and which of them can be replayed exactly."""

from __future__ import annotations

from typing import Any, Final

import keras

from collector.replay import ACTIVATIONS

ACTIVATION_NAMES: Final = {getattr(keras.activations, n): n for n in ACTIVATIONS if hasattr(keras.activations, n)}
_STOCK_CALLS: Final = {keras.layers.RNN.call, keras.layers.LSTM.call, keras.layers.GRU.call}


def recurrent_layers(model: Any) -> dict[str, Any]:
    """Path → layer, for every layer that is recurrent or offers `get_gate_history()`.

    A wrapped or nested layer is named by its path below the model: `bidirectional/forward_lstm`.
    """
    found: dict[str, Any] = {}
    seen: set[int] = set()

    def walk(layer: Any, path: str) -> None:
        if id(layer) in seen:
            return
        seen.add(id(layer))
        if hasattr(layer, "get_gate_history") or isinstance(layer, keras.layers.RNN):
            found[path or layer.name] = layer
            return
        for child in layer._flatten_layers(include_self=False, recursive=False):
            walk(child, f"{path}/{child.name}" if path else child.name)

    walk(model, "")
    return found


def why_not_replayed(layer: Any) -> str | None:
    """Why a recurrent layer cannot be replayed exactly, whatever it is called with; None where it can."""
    cell = layer.cell
    if type(cell) not in (keras.layers.LSTMCell, keras.layers.GRUCell):
        return f"its cell, {type(cell).__name__}, is not Keras's own LSTM or GRU"
    if type(layer).call not in _STOCK_CALLS or "call" in vars(layer):
        return f"{type(layer).__name__} has a call() of its own"
    for name in ("activation", "recurrent_activation"):
        function = getattr(cell, name)
        if function not in ACTIVATION_NAMES:
            return f"its {name}, {getattr(function, '__name__', type(function).__name__)}, is not known"
    if layer.compute_dtype not in ("float32", "float64"):
        return f"it computes in {layer.compute_dtype}"
    return None

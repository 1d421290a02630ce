"""`gates(model, x)`: the gates of an unmodified model."""

from __future__ import annotations

from functools import partial
from typing import Any

from gatewatch.collector.arrays import Array
from gatewatch.collector.keras.layers import require_recurrent_layers
from gatewatch.collector.keras.mismatch import call_once, input_mismatch_error
from gatewatch.collector.keras.trace import trace
from gatewatch.collector.mismatch import explain_mismatch


def gates(model: Any, x: Any) -> dict[str, dict[str, Array]]:
    """The gates of a Keras model's recurrent layers for a batch, without training.

    Args:
        model: any Keras model or layer; one that was never called is built from the batch.
        x: a batch as the model takes it.

    Returns:
        Layer name → gate → array (batch, time, units), float32, or float64 where the layer computes so. LSTM gates:
        input, forget, candidate, cell, output, hidden; GRU gates: update, reset, candidate, hidden. Position t is the
        t-th element of the input, whichever way the cell ran; a masked step is NaN.

        A wrapped or nested layer is named by its path (`bidirectional/forward_lstm`), a cell of a stack by that of its
        layer and its own name (`rnn/lstm_cell`). A layer that the model calls more than once is its path, `path#2`, up
        to `path#8`; what a `TimeDistributed` layer does with its slices of time is one call, the slices after each
        other along the batch axis. A layer of half precision is replayed in float32, from weights and inputs rounded
        as it sees them.

    Raises:
        ConfigError: no layer of the model is recurrent, the batch does not fit the model, or no recurrent layer can
            be replayed exactly. Where only some cannot, a warning names them.
        Exception: whatever else the model's call raises.
    """
    call_once(model, x)
    layers = require_recurrent_layers(model)
    with explain_mismatch(partial(input_mismatch_error, "batch", x, model)):
        traced = trace(model, x, layers)
    return traced.gates()

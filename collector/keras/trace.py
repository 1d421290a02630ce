"""What the recurrent layers of a Keras model do with a batch.

A layer is not rebuilt or rewired: the model is called on the batch as it is, and for the length of that call each
recurrent layer's `call` is the NumPy replay. So whatever Keras does between the layers (masks, initial states,
Bidirectional, nested and subclassed models) is done by Keras itself, and the slow part is not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import keras

from gatewatch.collector.arrays import Array
from gatewatch.collector.cells import CELLS, Cells
from gatewatch.collector.checks import check_framework, explain_mismatch, mistaken_model
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.keras.inputs import call, call_once, input_mismatch_error, whole_tracebacks
from gatewatch.collector.keras.isolation import isolated
from gatewatch.collector.keras.layers import offers_history, recurrent_layers, walk, why_not_replayed
from gatewatch.collector.keras.patched_call import Recorder, patched_call, recorded_as_one_batch
from gatewatch.collector.keras.probe_loss import ProbeLoss
from gatewatch.collector.runtime.signals import allow_sigint, defer_sigint
from gatewatch.collector.text import safe_repr
from gatewatch.collector.trace import Trace


def gates(model: Any, x: Any) -> dict[str, dict[str, Array]]:
    """Return the gates of a Keras model's recurrent layers for a batch, without training.

    Args:
        model: any Keras model or layer; one that was never called is built from the batch.
        x: a batch as the model takes it.

    Returns:
        Layer name → gate → array (batch, time, units), float32, or float64 where the layer computes so. LSTM gates:
        input, forget, candidate, cell, output, hidden; GRU gates: update, reset, candidate, hidden. Position t is the
        t-th element of the input, whichever way the cell ran; a masked step is NaN.

        A wrapped or nested layer is named by its path (`bidirectional/forward_lstm`), a cell of a stack by the path of
        its layer and its own name (`rnn/lstm_cell`). If the model calls a layer more than once, the calls are named
        `path`, `path#2`, up to `path#8`. A `TimeDistributed` layer counts as one call, with its slices one after the
        other along the batch axis: for an input of shape (4, 3, 10, 2), 4 sequences of 3 slices, the arrays have shape
        (12, 10, units), and the first 4 rows are the first slice of each sequence. A layer of half precision is
        replayed in float32, from weights and inputs that are rounded as the layer sees them.

    Raises:
        ConfigError: no layer of the model is recurrent, the batch does not fit the model, or no recurrent layer can
            be replayed exactly. Where only some cannot, a warning names them.
        Exception: whatever else the model's call raises.
    """
    check_framework("model", model, "keras", "gates")
    if not isinstance(model, keras.Layer):
        raise ConfigError(f"model={safe_repr(model)}: must be a Keras model{mistaken_model(model)}")
    call_once(model, x)
    layers = recurrent_layers(model, required=True)
    with explain_mismatch(partial(input_mismatch_error, "batch", x, model)):
        traced = trace(model, x, layers)
    return traced.gates()


def trace(
    model: Any,
    x: Any,
    layers: Mapping[str, Any],
    *,
    method: str | None = None,
    states: Mapping[str, Any] | None = None,
    verified: Collection[str] | None = None,
    cells: Cells = CELLS,
    loss: ProbeLoss | None = None,
) -> Trace:
    """Call the model on a batch, without training, and record its recurrent layers.

    The model is left as it was, with the states of its stateful layers. If a layer is no longer in the model,
    `unreplayed` names it and the trace is `stale`: call `recurrent_layers(model)` again for its present layers.

    Args:
        model: a built Keras model or layer.
        x: a batch as the model takes it, or the arguments of the method.
        layers: path → layer, as `recurrent_layers` gives them; the others are left alone. A name given here holds,
            whatever the layer is called by now.
        method: the method that is called in the model's place.
        states: path of a layer → the states it begins with, where the model gives it none.
        verified: also run each layer's own call on a part of the batch, and compare, but for these paths; None: for
            no layer.
        cells: the cells that can be replayed.
        loss: computed of what the call returns.
    """
    result = Trace()
    recorder = Recorder(result)
    present = recurrent_layers(model)
    reasons = {path: why_not_replayed(layer, cells) for path, layer in layers.items() if not offers_history(layer)}
    result.unreplayed.update({path: reason for path, reason in reasons.items() if reason})
    replayed = {path: layers[path] for path, reason in reasons.items() if not reason}
    if replayed or loss is not None:
        also = {} if loss is None else loss.called(model)
        with defer_sigint(), isolated(model, result.shared, method, also):
            with ExitStack() as stack:
                for _, layer in walk(model):  # outermost first
                    if isinstance(layer, keras.layers.TimeDistributed):
                        stack.enter_context(recorded_as_one_batch(layer, recorder))
                for path, layer in replayed.items():
                    compared = verified is not None and path not in verified
                    stack.enter_context(patched_call(layer, path, recorder, (states or {}).get(path), compared, cells))
                with whole_tracebacks(), allow_sigint():
                    outputs = call(model, x, method)
            if loss is not None:
                with allow_sigint():
                    result.loss, result.loss_error = loss.score(model, outputs)
    there = {id(layer) for layer in present.values()}
    for path, layer in layers.items():
        if path in recorder.called:
            continue
        if id(layer) not in there:
            result.stale = True
            replaced = "; another layer has its place" if path in present else ""
            result.unreplayed[path] = f"it is no longer in the model{replaced}"
        elif path in replayed:
            result.unreplayed[path] = "the model did not call it, or calls it inside a function compiled before"
        elif offers_history(layer):
            result.ask(path, layer)
    return result

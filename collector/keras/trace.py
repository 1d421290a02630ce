"""What the recurrent layers of a Keras model do with a batch.

A layer is not rebuilt or rewired: the model is called on the batch as it is, and for the length of that call each
recurrent layer's `call` is the NumPy replay. So whatever Keras does between the layers (masks, initial states,
Bidirectional, nested and subclassed models) is done by Keras itself, and the slow part is not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import keras

from gatewatch.collector.cells import CELLS, Cells
from gatewatch.collector.keras.layers import (
    all_variables,
    offers_history,
    recurrent_layers,
    time_distributed_layers,
    why_not_replayed,
)
from gatewatch.collector.keras.mismatch import whole_tracebacks
from gatewatch.collector.keras.patched_call import Recorder, patched_call, recorded_as_one_batch
from gatewatch.collector.runtime.signals import allow_sigint, defer_sigint
from gatewatch.collector.trace import Trace

_LARGEST_STATE: Final = 65_536


def trace(
    model: Any,
    x: Any,
    layers: Mapping[str, Any],
    *,
    states: Mapping[str, Any] | None = None,
    verify: bool = False,
    cells: Cells = CELLS,
) -> Trace:
    """Call the model on a batch, without training, and keep what its recurrent layers do.

    The model is left as it was, the states of its stateful layers too. A layer that is no longer in the model is named
    in `unreplayed`, and the trace is `stale`: `recurrent_layers(model)` has the layers of now.

    Args:
        model: a built Keras model or layer.
        x: a batch as the model takes it.
        layers: path → layer, as `recurrent_layers` gives them; the others are left alone. A name given here holds,
            whatever the layer is called by now.
        states: path of a layer → the states it begins with, where the model gives it none.
        verify: also run each layer's own call on a part of the batch, and compare.
        cells: the cells that can be replayed.
    """
    result = Trace()
    recorder = Recorder(result)
    present = recurrent_layers(model)
    replayed = _replayed(layers, result, cells)
    if replayed:
        with defer_sigint(), ExitStack() as stack:
            stack.enter_context(preserve_state(model, present.values()))
            for layer in time_distributed_layers(model):
                stack.enter_context(recorded_as_one_batch(layer, recorder))
            for path, layer in replayed.items():
                stack.enter_context(patched_call(layer, path, recorder, (states or {}).get(path), verify, cells))
            with whole_tracebacks(), allow_sigint():
                model(x, training=False)
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
            result.ask(path, layer, keras.ops.convert_to_numpy)
    return result


def _replayed(layers: Mapping[str, Any], result: Trace, cells: Cells) -> dict[str, Any]:
    """Those of the layers that can be replayed; of the others that do not tell, the reason is kept."""
    replayed = {}
    for path, layer in layers.items():
        if offers_history(layer):
            continue
        if reason := why_not_replayed(layer, cells):
            result.unreplayed[path] = reason
        else:
            replayed[path] = layer
    return replayed


@contextmanager
def preserve_state(model: Any, recurrent: Iterable[Any]) -> Iterator[None]:
    """Put back what asking something of a model moves on, and record no gradients.

    Args:
        model: a built Keras model or layer.
        recurrent: its recurrent layers.
    """
    with _state_kept(model, recurrent), _framework_kept():
        yield


@contextmanager
def _state_kept(model: Any, recurrent: Iterable[Any]) -> Iterator[None]:
    """Put back what a call moves on besides its result: random seeds, recurrent states, counters of a layer's own.

    Keras draws dropout masks, and so moves their seeds, even where they are not applied.
    """
    stateful = [layer for layer in recurrent if getattr(layer, "stateful", False)]
    variables = [state for layer in stateful for state in keras.tree.flatten(getattr(layer, "states", None) or ())]
    # Frozen weights are not trainable either, and too large to copy at each capture; what a call counts is small.
    variables += [v for v in all_variables(model) if not v.trainable and math.prod(v.shape) <= _LARGEST_STATE]
    before = [keras.ops.copy(variable.value) for variable in variables]
    try:
        yield
    finally:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)


@contextmanager
def _framework_kept() -> Iterator[None]:
    """On torch: no gradients, and its own random state put back, from which Keras's dropout draws there."""
    if keras.backend.backend() != "torch":
        yield
        return
    import torch  # noqa: PLC0415 - only where Keras itself runs on it

    started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch is typed in part
    devices = range(torch.cuda.device_count()) if started else ()
    with torch.random.fork_rng(devices), torch.no_grad():
        yield

"""For the length of one call of a model, its recurrent layers are replayed and recorded."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from gatewatch.collector.cells import Cells
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.keras.layer_replay import as_mask, begins_with, compare, keras_output, move_on, replay_layer
from gatewatch.collector.keras.layers import inner_cells
from gatewatch.collector.text import describe_exception
from gatewatch.collector.trace import MOST_CALLS, LayerGates, Trace


class Recorder:
    """Puts the calls of the layers into a trace, each under its name.

    The calls of a layer are `path`, `path#2` and so on. Inside `slices` the calls of all slices are one, along the
    batch axis.

    Attributes:
        trace: what is filled.
        called: the paths of the layers that the model called, recorded or not.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.called: set[str] = set()
        self._calls: Counter[str] = Counter()
        self._open: list[dict[str, list[LayerGates]]] = []

    def add(self, path: str, layer: LayerGates) -> None:
        """Record one call."""
        if self._open:
            self._open[-1].setdefault(path, []).append(layer)
            return
        self._calls[path] += 1
        call = self._calls[path]
        if call > MOST_CALLS:
            reason = f"the model calls it more than {MOST_CALLS} times; the first {MOST_CALLS} calls are recorded"
            self.trace.unreplayed.setdefault(f"{path}#{MOST_CALLS + 1}…", reason)
            return
        name = path if call == 1 else f"{path}#{call}"
        while name in self.trace.layers:  # a layer of that very name
            call += 1
            name = f"{path}#{call}"
        self.trace.layers[name] = layer

    @contextmanager
    def slices(self, count: int) -> Iterator[None]:
        """While open, join the calls of the model, which runs `count` times over slices of one input."""
        self._open.append({})
        try:
            yield
        finally:
            opened = self._open.pop()
        for path, calls in opened.items():
            self._join(path, calls, count)

    def _join(self, path: str, calls: Sequence[LayerGates], count: int) -> None:
        layer_of_a_stack = path.rpartition("/")[0]
        if {path, layer_of_a_stack} & self.trace.unreplayed.keys():  # in one slice: the others are not the whole
            return
        each = len(calls) // count
        groups = [calls[first::each] for first in range(each)]
        if len(calls) != each * count or any(len({_shapes(call) for call in group}) > 1 for group in groups):
            self.trace.unreplayed[path] = "it does not do the same with every slice of time"
            return
        for group in groups:
            self.add(path, _joined(group))


@contextmanager
def patched_call(layer: Any, path: str, recorder: Recorder, states: Any, verify: bool, cells: Cells) -> Iterator[None]:
    """While open, replay a call of the layer; where that cannot be, make its own call and keep the reason.

    Args:
        layer: one for which `why_not_replayed` has no reason.
        path: its name.
        recorder: takes what it does.
        states: what it begins with, where the model gives it nothing.
        verify: also make its own call on a part of the batch, and compare.
        cells: the cells that can be replayed.
    """
    own_call = layer.call
    thread = threading.get_ident()
    trace = recorder.trace
    calls = 0
    # Bidirectional's fused path, which would run neither layer's call, is kept out too.
    unfused = {"use_cudnn": False} if hasattr(layer, "use_cudnn") else {}
    before = {name: getattr(layer, name) for name in unfused}

    def call(sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False) -> Any:
        nonlocal calls

        def own(reason: str) -> Any:
            trace.unreplayed[path] = reason
            with _replaced(layer, before):  # a graph that is made here is kept
                return own_call(sequences, initial_state=initial_state, mask=mask, training=training)

        if threading.get_ident() != thread:  # an actor beside the learner, for whom nothing has changed
            return own_call(sequences, initial_state=initial_state, mask=mask, training=training)
        calls += 1
        recorder.called.add(path)
        if training and any(_drops(cell) for _, cell in inner_cells(layer)):
            return own("its dropout is always in play")
        try:
            x = keras.ops.convert_to_numpy(sequences)
        except Exception:
            return own("it runs inside tf.function or vectorized_map, where there are no values to replay it with")
        try:
            initial = states if initial_state is None and not (layer.stateful and calls > 1) else initial_state
            begin = begins_with(layer, initial, len(x))
            numpy_mask = as_mask(mask, x.shape[:2])
            replay = replay_layer(layer, x, begin, numpy_mask, cells)
            error = None
            if verify and calls <= MOST_CALLS:
                error, tolerable = compare(layer, own_call, sequences, begin, numpy_mask, cells)
                if not tolerable:
                    return own(f"its replay differs from its own output by {error:.2g}")
            output = keras_output(layer, replay, begin)
            if layer.stateful:
                move_on(layer, replay)
        except ConfigError:
            raise
        except Exception as failure:
            return own(f"its replay failed: {describe_exception(failure)}")
        for suffix, gates in replay.gates:
            recorder.add(path + suffix, LayerGates(gates, replay.mask, error))
        return output

    with _replaced(layer, {"call": call, **unfused}):
        yield


def _drops(cell: Any) -> bool:
    return bool(getattr(cell, "dropout", 0) or getattr(cell, "recurrent_dropout", 0))


@contextmanager
def recorded_as_one_batch(layer: Any, recorder: Recorder) -> Iterator[None]:
    """While open, record the slices of time that a TimeDistributed layer hands on as one batch."""
    own_call = layer.call
    thread = threading.get_ident()

    def call(inputs: Any, *arguments: Any, **options: Any) -> Any:
        count = inputs.shape[1]
        if threading.get_ident() != thread or count is None:
            return own_call(inputs, *arguments, **options)
        with recorder.slices(count):
            return own_call(inputs, *arguments, **options)

    with _replaced(layer, {"call": call}):
        yield


@contextmanager
def _replaced(layer: Any, attributes: Mapping[str, Any]) -> Iterator[None]:
    """Set attributes through the instance's dictionary, past Keras's tracking of attributes."""
    own = vars(layer)
    before = {name: own[name] for name in attributes if name in own}
    try:
        own.update(attributes)
        yield
    finally:
        for name in attributes:
            own.pop(name, None)
        own.update(before)


def _shapes(call: LayerGates) -> tuple[tuple[int, ...], ...]:
    return tuple(values.shape for values in call.gates.values())


def _joined(calls: Sequence[LayerGates]) -> LayerGates:
    masks = [np.ones(next(iter(c.gates.values())).shape[:2], bool) if c.mask is None else c.mask for c in calls]
    return LayerGates(
        {gate: np.concatenate([call.gates[gate] for call in calls]) for gate in calls[0].gates},
        None if all(call.mask is None for call in calls) else np.concatenate(masks),
        max((call.error for call in calls if call.error is not None), default=None),
    )

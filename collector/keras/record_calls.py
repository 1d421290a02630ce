"""What the recurrent layers of a model did with a batch, call by call, and how the calls are named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import numpy as np

from gatewatch.collector.trace import LayerGates, Trace

MOST_CALLS: Final = 8
"""So many calls of one layer are recorded; a loop over one layer must not make series without end."""


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
        """While open, the model runs `count` times over slices of one input."""
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


def _shapes(call: LayerGates) -> tuple[tuple[int, ...], ...]:
    return tuple(values.shape for values in call.gates.values())


def _joined(calls: Sequence[LayerGates]) -> LayerGates:
    mask = None
    if any(call.mask is not None for call in calls):
        masks = [np.ones(next(iter(c.gates.values())).shape[:2], bool) if c.mask is None else c.mask for c in calls]
        mask = np.concatenate(masks)
    errors = [call.error for call in calls if call.error is not None]
    return LayerGates(
        {gate: np.concatenate([call.gates[gate] for call in calls]) for gate in calls[0].gates},
        mask,
        max(errors) if errors else None,
    )

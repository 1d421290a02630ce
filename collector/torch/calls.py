"""One form for every way in which torch's recurrent modules are called, and its replay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from gatewatch.collector.arrays import Array, Mask
from gatewatch.collector.cells import Cell
from gatewatch.collector.replay.recurrence import Replay
from gatewatch.collector.replay.rounding import Change, Precision, compare, precision_of
from gatewatch.collector.torch.layers import as_array, suffixes
from gatewatch.collector.trace import LayerGates


@dataclass(frozen=True, slots=True)
class Call:
    """One call: B sequences of T steps and F features, through L layers, those of each direction counted.

    Attributes:
        x: (B, T, F).
        mask: (B, T), False past the end of a packed sequence; None where all are of one length.
        begin: the states at the beginning, each (L, B, units).
        outputs: (B, T, units), those of both directions side by side.
        end: the states at the end, each (L, B, units).
        precision: in which it was computed.
    """

    x: Array
    mask: Mask | None
    begin: tuple[Array, ...]
    outputs: Array
    end: tuple[Array, ...]
    precision: Precision

    @property
    def is_step(self) -> bool:
        """Whether it is one step, which may be one of a loop over time."""
        return self.mask is None and self.x.shape[1] == 1


def read_call(module: nn.Module, arguments: Sequence[Any], options: Mapping[str, Any], result: Any) -> Call:
    """Return a copy of what a recurrent module was called with and of what it gave.

    Args:
        module: an LSTM, a GRU, or a cell of one.
        arguments: its positional arguments.
        options: its arguments by name.
        result: its outputs.
    """
    x, hx = read_arguments(*arguments, **options)
    mask: Mask | None = None
    if isinstance(module, nn.RNNCellBase):
        states, outputs = result, as_tuple(result)[0]
        x, outputs = (tensor[None, None] if tensor.dim() == 1 else tensor[:, None] for tensor in (x, outputs))
        batched = 2
    else:
        outputs, states = result
        batched = 3
        if isinstance(x, PackedSequence):
            x, lengths = pad_packed_sequence(x, batch_first=True)
            outputs, _ = pad_packed_sequence(outputs, batch_first=True)
            mask = np.arange(x.shape[1]) < lengths.numpy()[:, None]
        elif x.dim() == 2:
            x, outputs = x[None], outputs[None]
        elif not module.batch_first:
            x, outputs = x.transpose(0, 1), outputs.transpose(0, 1)
    begin, end = (tuple(_layers_first(s, batched) for s in as_tuple(some)) for some in (hx, states))
    return Call(
        as_array(x).copy(),
        None if mask is None or mask.all() else mask,
        begin or tuple(np.zeros_like(state) for state in end),
        as_array(outputs).copy(),
        end,
        precision_of([str(outputs.dtype).removeprefix("torch.")], outputs.is_cuda),
    )


def read_weights(module: nn.Module, cell: Cell) -> list[Any]:
    """Return the weights of each layer of a recurrent module, as they are in effect now, in torch's order of layers."""

    def read(suffix: str, name: str) -> Any:
        weight = getattr(module, f"{name}{suffix}", None)
        return None if weight is None else as_array(weight).copy()  # the forward may yet change it

    if cell.from_torch is None:
        raise ValueError(f"{cell.name} has no from_torch to read its weights")
    return [cell.from_torch(partial(read, suffix)) for suffix in suffixes(module)]


def replay(calls: Sequence[Call], cell: Cell, weights: Sequence[Any], directions: int) -> tuple[list[LayerGates], bool]:
    """Return the gates of each layer over one call, or over the steps of a loop, side by side in time.

    Their error is one for all: the largest difference between the replay and the module's own outputs and states; None
    where nothing is finite.

    Args:
        calls: one, or several of one step and the same batch.
        cell: of the module.
        weights: of each layer, those of both directions in turn.
        directions: 1 or 2.

    Returns:
        The gates, and whether they may be recorded: the replay is the module's own output, but for rounding.
    """
    whole = _side_by_side(calls)
    replays, ours = _run(whole, cell, weights, directions)

    def again(change: Change, rows: Any) -> Sequence[Array]:
        return _run(_sequences(whole, rows), cell, [change(one) for one in weights], directions)[1]

    error, is_exact = compare(ours, _compared(whole.outputs, whole.end, whole.mask), whole.precision, again)
    layers = [
        LayerGates({gate: _in_time(values, len(calls)) for gate, values in one.gates.items()}, whole.mask, error)
        for one in replays
    ]
    return layers, is_exact


def _run(call: Call, cell: Cell, weights: Sequence[Any], directions: int) -> tuple[list[Replay], list[Array]]:
    """Replay each layer, and return these with the outputs and states of all, to be compared."""
    x = call.x
    replays: list[Replay] = []
    for first in range(0, len(weights), directions):
        for k in range(first, first + directions):
            begin = tuple(state[k] for state in call.begin)
            replays.append(cell.replay(x, weights[k], begin, call.mask, reverse=k > first))
        x = np.concatenate([one.outputs for one in replays[first:]], axis=-1)
    states = [np.stack(states) for states in zip(*(one.states for one in replays), strict=True)]
    return replays, _compared(x, states, call.mask)


def _compared(outputs: Array, states: Sequence[Array], mask: Mask | None) -> list[Array]:
    """Return outputs and states with the sequences first, and without what is past the end of a packed one."""
    kept = outputs if mask is None else np.where(mask[:, :, None], outputs, 0)
    return [kept, *(state.swapaxes(0, 1) for state in states)]


def _sequences(call: Call, rows: Any) -> Call:
    """Return a call of some of the sequences."""
    mask = None if call.mask is None else call.mask[rows]
    begin, end = (tuple(state[:, rows] for state in states) for states in (call.begin, call.end))
    return Call(call.x[rows], mask, begin, call.outputs[rows], end, call.precision)


def read_arguments(input: Tensor | PackedSequence, hx: Any = None) -> tuple[Any, Any]:
    """Return the arguments of a recurrent module, which may be given by torch's own names for them."""
    return input, hx


def as_tuple(states: Any) -> tuple[Any, ...]:
    """Return the states of an LSTM, the only one of a GRU, or none."""
    if states is None:
        return ()
    return tuple(states) if isinstance(states, (tuple, list)) else (states,)


def _layers_first(state: Tensor, batched: int) -> Array:
    """Return a state as (L, B, units). A cell's has no dimension of layers, that of one sequence none of a batch."""
    if state.dim() < batched:
        state = state.unsqueeze(-2)
    array: Array = as_array(state if batched == 3 else state[None]).copy()
    return array


def _side_by_side(calls: Sequence[Call]) -> Call:
    """Join calls to one of a larger batch: each has its own states, so none waits for the one before."""
    if len(calls) == 1:
        return calls[0]
    return Call(
        np.concatenate([call.x for call in calls]),
        None,
        tuple(np.concatenate(states, axis=1) for states in zip(*(call.begin for call in calls), strict=True)),
        np.concatenate([call.outputs for call in calls]),
        tuple(np.concatenate(states, axis=1) for states in zip(*(call.end for call in calls), strict=True)),
        max(call.precision for call in calls),
    )


def _in_time(values: Array, calls: int) -> Array:
    """Reshape (calls × B, 1, units) of several calls to (B, calls, units); one call stays as it is."""
    if calls == 1:
        return values
    return values.reshape(calls, -1, values.shape[-1]).transpose(1, 0, 2)

"""Every recurrent cell and every gate, once: what a gate is called, its range, and how a cell is replayed.

Everything that differs from cell to cell is read from `CELLS`, by the adapters, the statistics, the jobs and the
dashboards. A function that depends on the cells takes them as an argument.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pkgutil import resolve_name
from typing import Any, Final

from gatewatch.collector.replay.gru import gru_from_keras, gru_from_torch, replay_gru
from gatewatch.collector.replay.lstm import lstm_from_keras, lstm_from_torch, replay_lstm
from gatewatch.collector.replay.recurrence import ReadAttribute, Replay


@dataclass(frozen=True, slots=True)
class GateScale:
    """The fixed scale on which a gate is counted, so that two captures or two runs can be compared.

    Attributes:
        low, high: the range of the histogram; what lies beyond falls into its first or last bin.
        saturated_low, saturated_high: activations outside are saturated. For a sigmoid gate 0.1 and 0.9 (Karpathy,
            Johnson and Fei-Fei 2015, "Visualizing and Understanding Recurrent Networks"); for tanh ±0.9; for the
            cell state where its tanh passes ±0.9.
        centre: the activation of a pre-activation of zero; crossings of it are counted.
        through_tanh: whether the cell uses the activation through tanh, so that it has no bounds itself.
    """

    low: float
    high: float
    saturated_low: float
    saturated_high: float
    centre: float
    through_tanh: bool = False


SIGMOID: Final = GateScale(0.0, 1.0, 0.1, 0.9, 0.5)
TANH: Final = GateScale(-1.0, 1.0, -0.9, 0.9, 0.0)
CELL_STATE: Final = GateScale(-3.0, 3.0, -math.atanh(0.9), math.atanh(0.9), 0.0, through_tanh=True)


@dataclass(frozen=True, slots=True)
class Gate:
    """One gate or state of a cell.

    Attributes:
        name: as the tag `gate` stores it.
        scale: the range of its activations.
        title: of its pictures.
        colour: of its lines, as #rrggbb (Okabe and Ito's palette, which people with colour-blindness can tell apart).
        keeps_memory: whether its activation is the share of the old state that is kept.
    """

    name: str
    scale: GateScale
    title: str
    colour: str
    keeps_memory: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """One kind of recurrent cell.

    Attributes:
        name: for people.
        gates: in the order in which they are shown; each is an array of the replay.
        pictured: the gates of which `render_gate_heatmap` draws pictures, at most four.
        states: how many states a step hands to the next.
        replay: (inputs, weights, states to begin with, mask, reverse) → the gates; see `replay_lstm`.
        keras: dotted names of the Keras cells that are replayed by it; their subclasses are not.
        from_keras: reads the weights of such a cell, for `replay`.
        torch: dotted names of the torch modules that are replayed by it; their subclasses are too.
        from_torch: reads the weights of one layer of such a module, for `replay`.
    """

    name: str
    gates: tuple[Gate, ...]
    pictured: tuple[str, ...]
    states: int
    replay: Callable[..., Replay]
    keras: tuple[str, ...] = ()
    from_keras: Callable[[ReadAttribute], Any] | None = None
    torch: tuple[str, ...] = ()
    from_torch: Callable[[ReadAttribute], Any] | None = None

    @property
    def gate_names(self) -> tuple[str, ...]:
        """The names of the gates."""
        return tuple(gate.name for gate in self.gates)


_CANDIDATE: Final = Gate("candidate", TANH, "Candidate State", "#cc79a7")
_HIDDEN: Final = Gate("hidden", TANH, "Hidden State Evolution", "#56b4e9")

LSTM: Final = Cell(
    name="LSTM",
    gates=(
        Gate("input", SIGMOID, "Input Signal Flow", "#0072b2"),
        Gate("forget", SIGMOID, "Forget Gate Activation", "#d55e00", keeps_memory=True),
        _CANDIDATE,
        Gate("cell", CELL_STATE, "Cell State Evolution", "#009e73"),
        Gate("output", SIGMOID, "Output Gate Response", "#e69f00"),
        _HIDDEN,
    ),
    pictured=("input", "forget", "cell", "output"),
    states=2,
    replay=replay_lstm,
    keras=("keras.layers.LSTMCell",),
    from_keras=lstm_from_keras,
    torch=("torch.nn.LSTM", "torch.nn.LSTMCell"),
    from_torch=lstm_from_torch,
)
GRU: Final = Cell(
    name="GRU",
    gates=(
        Gate("update", SIGMOID, "Update Gate Activation", "#0072b2", keeps_memory=True),
        Gate("reset", SIGMOID, "Reset Gate Activation", "#d55e00"),
        _CANDIDATE,
        _HIDDEN,
    ),
    pictured=("update", "reset", "candidate", "hidden"),
    states=1,
    replay=replay_gru,
    keras=("keras.layers.GRUCell",),
    from_keras=gru_from_keras,
    torch=("torch.nn.GRU", "torch.nn.GRUCell"),
    from_torch=gru_from_torch,
)

Cells = tuple[Cell, ...]
CELLS: Final[Cells] = (LSTM, GRU)


@cache
def gates_by_name(cells: Cells = CELLS) -> Mapping[str, Gate]:
    """Return name → gate, each once, in the order of the cells."""
    return {gate.name: gate for cell in cells for gate in cell.gates}


GATES: Final = gates_by_name()
MEMORY_GATES: Final = frozenset(gate.name for gate in GATES.values() if gate.keeps_memory)
"""The gates whose activation is the share of the old state that is kept."""


@cache
def types_of(dotted_names: tuple[str, ...]) -> tuple[type, ...]:
    """Return the classes that `Cell.keras` or `Cell.torch` names; the framework is imported where it was not."""
    return tuple(resolve_name(name) for name in dotted_names)


def gate_scale(gate: str, cells: Cells = CELLS) -> GateScale:
    """Return the scale of a gate; for a name that is not in `cells`, as `get_gate_history` may give, that of tanh."""
    gates = gates_by_name(cells)
    return gates[gate].scale if gate in gates else TANH

"""The state that sequences begin with, and whether it is the initial one where an episode begins: pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from gatewatch.collector.arrays import Array, Mask
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.names import clean_name
from gatewatch.collector.schema import RECURRENT_STATE, FieldValue, Point
from gatewatch.collector.text import safe_repr

OF_THE_MODEL: Final = "_model"
"""The tag `layer` of what is of no layer."""


class Begin(NamedTuple):
    """What the B sequences of one layer begin with.

    Attributes:
        sequences: B.
        states: hidden state, cell state and so on, each (B, units); None where the layer was given no state, so that
            it begins with the zeros of its framework.
        learned: for each of these, the parameters of the model that may be such a state, each (units,).
    """

    sequences: int
    states: tuple[Array, ...] | None
    learned: Sequence[Sequence[Array]] = ()

    def norm(self) -> float | None:
        """Return the mean norm of a sequence's state, all its parts together; None where no norm is finite."""
        if self.states is None:
            return 0.0
        squares = np.sum([np.square(part.astype(np.float64)).sum(axis=1) for part in self.states], axis=0)
        finite = squares[np.isfinite(squares)]
        return float(np.sqrt(finite).mean()) if finite.size else None

    def is_initial(self) -> Mask:
        """Return of each sequence whether its state is zero, or is a parameter of the model: (B,)."""
        if self.states is None:
            return np.ones(self.sequences, bool)
        learned = self.learned or ((),) * len(self.states)
        initial = np.ones(self.sequences, bool)
        for part, candidates in zip(self.states, learned, strict=True):
            initial &= np.logical_or.reduce([_equal(part, one) for one in (np.zeros(()), *candidates)])
        return initial

    def not_initial(self, starts: Mask) -> int:
        """Return how many of the sequences that are flagged do not begin with an initial state.

        The initial state is zero, or a parameter of the model. What two or more flagged sequences have in common,
        value for value, is initial too: a state that was kept differs between sequences.

        Args:
            starts: (B,), True where an episode begins.
        """
        initial = self.is_initial()
        if self.states is not None and starts.sum() > 1:
            flagged = [part[starts] for part in self.states]
            if all(_equal(part, part[0]).all() for part in flagged):
                return 0
        return int((starts & ~initial).sum())


def read_starts(starts: Any) -> Mask:
    """Return flags as an array of booleans, (B,), or () for one flag of all sequences.

    Args:
        starts: booleans, or numbers that are 0 or 1: a list, an array or a tensor of any framework.

    Raises:
        ConfigError: they are something else.
    """
    values = starts.detach().cpu() if hasattr(starts, "detach") else starts
    try:
        flags = np.asarray(values)
        if flags.dtype.kind in "biuf" and flags.ndim <= 1 and np.isin(flags, (0, 1)).all():
            return flags.astype(bool)
    except Exception as error:  # of whatever library it is
        raise _no_flags(starts) from error
    raise _no_flags(starts)


def state_points(
    by_layer: Mapping[str, Mapping[str, FieldValue]], tags: Mapping[str, str], time: int, step: int
) -> list[Point]:
    """Return the `recurrent_state` points of one capture.

    Args:
        by_layer: layer → fields.
        tags: run, phase and the user's own.
        time: nanoseconds since the epoch.
        step: of the training.
    """
    return [
        Point(RECURRENT_STATE, {**tags, "layer": clean_name(layer)}, {**fields, "step": step}, time)
        for layer, fields in by_layer.items()
        if fields
    ]


def _equal(part: Array, value: Array) -> Mask:
    """Return of each sequence whether its state is this one, value for value: (B,)."""
    same: Mask = (part == value.astype(part.dtype)).all(axis=1)
    return same


def _no_flags(starts: Any) -> ConfigError:
    return ConfigError(
        f"starts={safe_repr(starts)}: must be one flag for each sequence (True where an episode begins), or one for all"
    )

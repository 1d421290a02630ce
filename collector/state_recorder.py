"""What is recorded of recurrent states: gathered over the steps since a capture, written with the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from gatewatch.collector.arrays import Mask
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.recurrent_state import OF_THE_MODEL, Begin
from gatewatch.collector.schema import FieldValue

_STATELESS: Final = 64
"""A loop whose first so many steps gave no layer a state keeps none: its steps are not followed further."""


@dataclass(slots=True)
class _Layer:
    """What is known of one layer since the latest record.

    Attributes:
        latest: what the latest sequences began with.
        starts, not_reset: so many sequences at which an episode began; so many of these did not begin anew.
        is_judged: whether `not_reset` is known of all of `starts`.
        resets, sequences: so many sequences began with an initial state, of so many.
        steps: so many steps were seen.
    """

    latest: Begin | None = None
    starts: int = 0
    not_reset: int = 0
    is_judged: bool = True
    resets: int = 0
    sequences: int = 0
    steps: int = 0


class StateRecorder:
    """Counts the starts of episodes and the resets of states from one capture to the next.

    A state that is not zero, where an episode begins, is a mistake only where the initial state is known: where a
    sequence of that layer was seen to begin with zeros, or with a parameter, at any earlier time of the run. The
    decoder of a translation, which begins with the last state of an encoder, never does.

    Args:
        warn_once: logs what cannot be recorded, once for each topic.
    """

    def __init__(self, warn_once: Callable[[str], None]) -> None:
        self._warn_once = warn_once
        self._layers: dict[str, _Layer] = {}
        self._single: dict[str, dict[str, FieldValue]] = {}
        self._begins_anew: set[str] = set()
        self._flagged: set[str] = set()
        self._has_state = False
        self._all_steps = self._steps = 0
        self._flags_lost = False

    @property
    def is_new(self) -> bool:
        """Whether no step was noted yet."""
        return not self._all_steps

    @property
    def follows(self) -> bool:
        """Whether each step is of interest, not only those of captures."""
        return bool(self._flagged) or self._has_state or self._all_steps < _STATELESS

    def note(self, begins: Mapping[str, Begin], starts: Mask | None = None) -> None:
        """Count one step.

        Args:
            begins: layer → what its sequences began with; nothing where that was not seen.
            starts: flags of these sequences, (B,), or () for one flag of all; None where none were given.

        Raises:
            ConfigError: there is another number of flags than of sequences; all else is counted.
        """
        self._all_steps += 1
        self._steps += 1
        for name, begin in begins.items():
            layer = self._layers.setdefault(name, _Layer())
            initial = begin.is_initial()
            layer.latest = begin
            layer.resets += int(initial.sum())
            layer.sequences += begin.sequences
            layer.steps += 1
            self._has_state |= begin.states is not None
            if initial.any():
                self._begins_anew.add(name)
        if starts is not None:
            self._count_starts(begins, starts)

    def lose_flags(self) -> None:
        """Note that the flags of a step could not be read: the starts since the latest record are not known."""
        self._flags_lost = True

    def add_starts(self, layer: str, starts: int, not_reset: int | None) -> None:
        """Count sequences at which an episode began, and those of them that did not begin anew; None if not known."""
        self._flagged.add(layer)
        counted = self._layers.setdefault(layer, _Layer())
        counted.starts += starts
        counted.not_reset += not_reset or 0
        counted.is_judged &= not_reset is not None

    def put(self, layer: str, **fields: FieldValue | None) -> None:
        """Set fields of the next record; None takes a field back."""
        kept = {**self._single.get(layer, {}), **fields}
        self._single[layer] = {name: value for name, value in kept.items() if value is not None}

    def fields(self) -> dict[str, dict[str, FieldValue]]:
        """Return layer → fields of its `recurrent_state` point."""
        names = dict.fromkeys([*self._layers, *sorted(self._flagged), *self._single])
        return {name: {**self._counts(name), **self._single.get(name, {})} for name in names}

    def recorded(self) -> None:
        """Begin to count anew: what there was is written."""
        self._layers, self._single, self._steps, self._flags_lost = {}, {}, 0, False

    def _count_starts(self, begins: Mapping[str, Begin], starts: Mask) -> None:
        fitting = {n: begin for n, begin in begins.items() if not starts.ndim or len(starts) == begin.sequences}
        if begins and not fitting:
            self.lose_flags()
            several = " or ".join(map(str, sorted({begin.sequences for begin in begins.values()})))
            raise ConfigError(
                f"starts has {len(starts)} flags for {several} sequences: give one flag for each, or one for all"
            )
        if not begins:
            self.add_starts(OF_THE_MODEL, int(starts.sum()), None)
            self._warn_once(
                "starts_not_reset is not recorded: the state that the sequences of a step began with was not seen; "
                "give it to step(state=...)"
            )
        for name, begin in fitting.items():
            flags = np.broadcast_to(starts, (begin.sequences,))
            not_reset: int | None = begin.not_initial(flags)
            if not_reset and name not in self._begins_anew:
                not_reset = None
                self._warn_once(
                    f"starts_not_reset of {name!r} is not recorded: no sequence was seen to begin with zeros or with a "
                    "parameter of the model, so its initial state is not known"
                )
            self.add_starts(name, int(flags.sum()), not_reset)

    def _counts(self, name: str) -> dict[str, FieldValue]:
        layer = self._layers.get(name, _Layer())
        fields: dict[str, FieldValue] = {}
        norm = None if layer.latest is None else layer.latest.norm()
        if norm is not None:
            fields["initial_norm"] = norm
        if name in self._flagged and not self._flags_lost:
            fields["starts"] = layer.starts
            if layer.is_judged:
                fields["starts_not_reset"] = layer.not_reset
        if layer.steps and layer.steps == self._steps:
            fields |= {"resets": layer.resets, "sequences_begun": layer.sequences}
        return fields

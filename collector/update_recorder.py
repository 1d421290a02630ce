"""Which step of the optimizer is recorded with a capture, whether it steps as often as the loop or not."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Final

from gatewatch.collector.arrays import Array
from gatewatch.collector.capture_schedule import CaptureSchedule
from gatewatch.collector.updates import Measured, Updates

_PATIENCE: Final = 1_000
"""So many steps of a loop without one of the optimizer, and nothing waits for it any more."""
_GAPS: Final = 16
"""How long an optimizer may pause is taken from so many of its last steps."""
_TURNS: Final = 16
"""Optimizers that take turns within so many steps of a loop are recorded with one capture, even if it has to wait."""


class UpdateRecorder:
    """Begins a look at the optimizer's next step where a capture will need one, and holds what it found until then.

    An optimizer that steps as often as the loop is looked at in the step of the loop before a capture. Another one
    (gradients are accumulated, a window is learnt from after many bars, two optimizers take turns) is looked at for as
    long before the capture as it has lately paused, and the first step in that time is recorded; one in the last step
    of the loop takes its place. Where no step fell into that time the look goes on, and the next capture has what it
    finds. So a capture's update is of a step since the capture before it, or there was none.

    Steps are numbered as the session numbers them.

    Attributes:
        held_step: the step of the loop in which the update was made that waits to be recorded; None where none does.

    Args:
        updates: looks at the parameters.
        schedule: says when a capture will be due.
        step: the number of the step before the first.
        guarded: the context for what may fail.
    """

    def __init__(
        self,
        updates: Updates,
        schedule: CaptureSchedule,
        step: int,
        guarded: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        self._updates, self._schedule, self._guarded = updates, schedule, guarded
        self._begin = step
        self._rhythms: dict[int, _Rhythm] = {}
        self._stepped: set[int] = set()
        self._is_counted = True
        self._looking_since: int | None = None
        self._patient_until = step
        self._held: Measured = {}
        self._held_rate: float | None = None
        self._stepped_in = step
        self.held_step: int | None = None
        updates.watch()

    def follow(self, step: int) -> bool:
        """At the end of a step of the loop: note which optimizers have stepped; return whether a look is complete."""
        stepped = self._updates.stepped()
        self._is_counted = stepped is not None
        if stepped is None or stepped:
            self._stepped_in = step
        if stepped is None:  # nobody looked: taken to be as often as the loop
            for rhythm in self._rhythms.values():
                rhythm.latest = step
            return False
        for optimizer in stepped:
            self._rhythms.setdefault(optimizer, _Rhythm(step)).note(step)
        self._stepped.update(stepped)
        return self._looking_since is not None and self._is_complete()

    def is_waiting(self, step: int) -> bool:
        """Return whether a capture that may be made at any time should wait for a step of the optimizer.

        It waits for as long as an optimizer has lately paused; where one has stepped, not much longer for others.
        """
        if self._schedule.every != "auto" or self._looking_since is None or self._is_complete():
            return False
        turns = self._looking_since + _TURNS * self._schedule.stride
        return step < (min(turns, self._patient_until) if self._stepped else self._patient_until)

    def needs_look(self, step: int, *, due: bool) -> bool:
        """Return, at the end of a step of the loop, whether a look at the optimizer's next step must begin.

        Args:
            step: this one.
            due: whether a capture is due at the next one.
        """
        patience = _PATIENCE * self._schedule.stride
        self._rhythms = {key: one for key, one in self._rhythms.items() if step - one.latest <= patience}
        if due:
            return not self.is_waiting(step)
        is_expected = bool(self._rhythms) or 0 < step - self._begin <= patience
        if self._looking_since is not None:
            if not is_expected:
                self._looking_since = None
                self._updates.watch()
            return False
        if not self._rhythms:
            return is_expected and self._is_counted
        stride = self._schedule.stride
        gap = max(max(*one.gaps, step + stride - one.latest) for one in self._rhythms.values())  # the present one too
        return self._schedule.is_due_within(gap, step)

    def begin_look(self, step: int) -> None:
        """Begin a look at the optimizer's next step."""
        if self._stepped:
            self.end_look()
        self._updates.keep()
        longest = max((max(one.gaps) for one in self._rhythms.values()), default=0)
        self._looking_since, self._patient_until, self._stepped = step, step + longest, set()

    def end_look(self) -> None:
        """Hold what the look has found. Where that is nothing it goes on."""
        since, self._looking_since = self._looking_since, None
        if since is None:
            return
        rate = None
        with self._guarded("a look at the learning rate"):
            rate = self._updates.rate()
        if measured := self._updates.measure():
            self._held, self._held_rate, self.held_step = {**self._held, **measured}, rate, self._stepped_in
        else:  # a scaler skipped the step, for example
            self._looking_since = since
        self._stepped = set()

    @property
    def is_looking(self) -> bool:
        """Whether a look at the optimizer's next step goes on."""
        return self._looking_since is not None

    def take(self, step: int) -> tuple[Measured, float | None]:
        """Return what is recorded with a capture at this step: the updates, and the learning rate of theirs.

        `held_step` is theirs until the next call.
        """
        if not self._held:
            self.held_step = None
        self.follow(step)
        since = self._looking_since
        if since is not None and since < step and (self._stepped or not self._is_counted):
            self.end_look()
        taken, self._held, self._held_rate = (self._held, self._held_rate), {}, None
        return taken

    def kernel_shares(self) -> Mapping[str, Array]:
        """Return layer → share of each of its inputs in its kernel's gradient, of the update that `take()` returned."""
        return self._updates.kernel_shares() if self.held_step is not None else {}

    def recorded(self, updates: Measured) -> None:
        """Note that what `take()` has returned is recorded: from there the parameters' travel counts."""
        self._updates.recorded(updates.keys())

    def release(self) -> None:
        """Let go of the model."""
        self._updates.release()

    def _is_complete(self) -> bool:
        return bool(self._stepped) and self._rhythms.keys() <= self._stepped


class _Rhythm:
    """How many steps of the loop lie between two of an optimizer.

    Attributes:
        latest: the step of the loop in which it made its latest.
        gaps: how far its last ones are apart.
    """

    def __init__(self, step: int) -> None:
        self.latest = step
        self.gaps: deque[int] = deque([0], _GAPS)

    def note(self, step: int) -> None:
        """Note that it has made a step."""
        if step > self.latest:
            self.gaps.append(step - self.latest)
            self.latest = step

"""When to capture: every so many steps, or as often as a budget of the training's own time allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

import numpy as np

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.text import safe_repr

GRACE_SECONDS: Final = 0.3
"""What the files of the epochs may cost beyond the budget and the first capture, which is slow and not to be had for
less: so those of a small or short training are complete."""

Every = int | Literal["auto"]


class CaptureSchedule:
    """Decides at which steps to capture, and keeps account of what captures cost.

    `prepare` says one step before whether a capture will be due: a change is measured from before the step to after it.

    Attributes:
        stride: how far apart the last step and the next are.

    Args:
        every: capture at the first step that reaches or passes a multiple of it; or "auto": at the step after the one
            at which the cost so far and of the next capture stay within the budget.
        overhead: the budget, as a share of the time since `begin`.
        clock: seconds, monotonic.

    Raises:
        ConfigError: `every` is not a positive whole number or "auto", or `overhead` not in (0, 1].
    """

    def __init__(self, every: Every, overhead: float, clock: Callable[[], float]) -> None:
        every = int(every) if isinstance(every, np.integer) else every
        overhead = float(overhead) if isinstance(overhead, np.floating) else overhead
        if every != "auto" and (isinstance(every, bool) or not isinstance(every, int) or every < 1):
            raise ConfigError(f"every={safe_repr(every)}: must be a whole number of steps from 1, or 'auto'")
        if isinstance(overhead, bool) or not isinstance(overhead, int | float) or not 0 < overhead <= 1:
            raise ConfigError(f"overhead={safe_repr(overhead)}: must be a share of the training's time, such as 0.01")
        self.every = every
        self.overhead = overhead
        self._clock = clock
        self.begin()

    def begin(self, step: int = 0) -> None:
        """Begin to count, now; `step` is the number of the step before the first."""
        self.spent = 0.0
        self._beginning = self._last = self._prepared = step
        self.stride = 1
        self._ready = False
        self._started = self._clock()
        self._cost: dict[str, float] = {}
        self._captures = 0
        self._after_first = (0.0, 0.0)

    def prepare(self, step: int, upcoming: int | None = None) -> bool:
        """Whether a capture will be due at the next step, as far as can be known at the end of this one.

        Args:
            step: this one.
            upcoming: the next; where None, as far from this one as this one was from the last.
        """
        # Steps may be passed over: Keras counts several as one where the user says so.
        self.stride = max(1, step - self._prepared if upcoming is None else upcoming - step)
        self._prepared = step
        if self.every != "auto":
            return self.is_due_within(self.stride, step)
        self._ready = self._ready or self.spent + self.capture_seconds <= self.overhead * self.elapsed
        return self._ready

    def is_due_within(self, steps: int, step: int) -> bool:
        """Return whether a capture will be due within so many steps from this one; False with "auto", unknown there."""
        return self.every != "auto" and (step + steps) // self.every > step // self.every

    def may_be_due(self, steps: int, step: int) -> bool:
        """Return whether a capture may be due so many steps after this one, as far as can be known now.

        With "auto" the time until then is estimated from the steps so far, and taken twice: rather too early.
        """
        if self.every != "auto":
            return steps % self.stride == 0 and self.is_due_within(self.stride, step + steps - self.stride)
        then = self.elapsed * (1 + 2 * steps / max(1, step - self._beginning))
        return self._ready or self.spent + self.capture_seconds <= self.overhead * then

    def due(self, step: int, *, wait: bool = False) -> bool:
        """Whether to capture at this step; with `wait` and "auto" at none, but at a later one."""
        if self.every != "auto":
            due = step // self.every > self._last // self.every
            self._last = step
            return due
        due = self._ready and not wait
        self._ready = self._ready and wait
        return due

    def affordable(self, seconds: float) -> bool:
        """Return whether the budget allows an epoch's file that takes about `seconds`; always True with fixed steps."""
        first, _ = self._after_first
        return self.every != "auto" or self.spent - first + seconds <= self.overhead * self.elapsed + GRACE_SECONDS

    def charge(self, kind: str, seconds: float) -> None:
        """Add what work of a kind has cost; "prepare" and "capture" together are the estimate for the next capture."""
        self.spent += seconds
        self._cost[kind] = seconds
        if kind == "capture":
            self._captures += 1
            if self._captures == 1:
                self._after_first = (self.spent, self.elapsed)

    @property
    def capture_seconds(self) -> float:
        """What the last capture has cost, its preparation included."""
        return self._cost.get("prepare", 0.0) + self._cost.get("capture", 0.0)

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return max(self._clock() - self._started, 1e-9)

    @property
    def overhead_ratio(self) -> float | None:
        """What watching has cost since the first capture, as a share of the time since then; None until the second.

        The first capture is slower than any other: frameworks compile what it calls.
        """
        if self._captures < 2:
            return None
        spent, elapsed = self._after_first
        return (self.spent - spent) / max(self.elapsed - elapsed, 1e-9)

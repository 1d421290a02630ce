"""Which of the batches that `fit` takes from its data is fed to which step."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np

MOST_BYTES: Final = 2**26
"""Copies of batches that wait for their step may take so much memory; what is beyond is not looked at."""
MOST_BATCHES: Final = 64

Batch = tuple[Any, Any]
"""Inputs and targets."""


@dataclass(frozen=True, slots=True)
class _Held:
    batch: Batch
    size: int


class FeedLine:
    """The batches that `fit` has taken from one object and not yet fed to a step: first in, first out.

    `fit` reads ahead: it takes batches before the steps that they are fed to. But it feeds them in the order in which
    it took them. So they are counted as they are taken, and as steps end; what a capture may need is kept until then,
    as a copy, since a generator may use its arrays again.

    Before a fit begins nothing is counted; see `begin`. Its methods may be called in any thread.

    Args:
        is_needed: (n, step) → whether a capture may need what is fed n steps after this one.
        guarded: the context for what may fail.

    Attributes:
        active: whether `fit` is training on this object, as far as is known.
        ahead: how many steps ahead of the training a batch was taken, at most; 1 where nothing is read ahead.
        counts_all: whether every batch is counted as it is taken.
    """

    counts_all: ClassVar[bool] = True

    def __init__(
        self, is_needed: Callable[[int, int], bool], guarded: Callable[[str], AbstractContextManager[None]]
    ) -> None:
        self._is_needed, self._guarded = is_needed, guarded
        self._lock = threading.Lock()
        self.active = self._paused = False
        self._taken = self._fed = self._step = 0
        self._marked: int | None = None
        self._shared = False
        self._thread: int | None = None
        self._held: dict[int, _Held] = {}
        self._seconds = 0.0
        self.ahead = 1

    def begin(self, step: int) -> None:
        """Begin with a fit, after this step: nothing is taken yet."""
        with self._lock:
            self.active, self._paused, self._shared, self._marked = True, False, False, None
            self._thread = threading.get_ident()
            self._taken = self._fed = 0
            self._step = step
            self._held = {}

    def end(self) -> None:
        """End with the fit."""
        with self._lock:
            self.active, self._held = False, {}

    @property
    def counts(self) -> bool:
        """Whether what is taken now is for a step of the training."""
        return self.active and not self._paused

    @property
    def is_fed(self) -> bool:
        """Whether anything was taken since the fit began."""
        return self._taken > 0

    def take(self, batch: Callable[[], Batch]) -> None:
        """Count a batch, the next one in line.

        Args:
            batch: returns its inputs and targets.
        """
        if not self.counts:
            return
        with self._lock:
            self._taken += 1
            number = self._taken
        self.keep(number, batch)

    def restart(self) -> int:
        """Note that `fit` begins to read anew; return how many batches were fed before."""
        with self._lock:
            self._held = {}
            self._taken = self._fed
            return self._fed

    def take_at(self, number: int, batch: Callable[[], Batch]) -> None:
        """Note that the batch of this number was taken: 1 is the first of the fit. Others may have been passed over."""
        with self._lock:
            self._taken = max(self._taken, number)
        self.keep(number, batch)

    def keep(self, number: int, batch: Callable[[], Batch]) -> None:
        """Copy the batch of a number, if a capture may need it."""
        begin = time.perf_counter()
        with self._lock:
            ahead, step = number - self._fed, self._step
            self.ahead = max(self.ahead, ahead)
        with self._guarded("a look at the feed"):
            if ahead > 0 and self._is_needed(ahead, step):
                held = _copied(batch())
                with self._lock:
                    size = held.size + sum(one.size for one in self._held.values())
                    if size <= MOST_BYTES and len(self._held) < MOST_BATCHES:
                        self._held[number] = held
        self._seconds += time.perf_counter() - begin

    def feed(self, batches: int, step: int) -> Batch | None:
        """Count the batches that were fed until the end of this step; return the last, None where it was not kept.

        Where the data end within several steps that are executed at once, `fit` says more than there were.
        """
        with self._lock:
            self._marked, self._step = None, step
            self._fed += batches
            if self.counts_all:
                self._fed = min(self._fed, self._taken)
            held = self._held.pop(self._fed, None)
            self._held = {number: one for number, one in self._held.items() if number > self._fed}
        return None if held is None else held.batch

    def spent(self) -> float:
        """Return how many seconds looking at batches has cost since this was last asked."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    # The same object as validation data.

    def mark(self) -> None:
        """Note that the thread of `fit` prepares to read: for the training, or for a validation that will begin."""
        if self.counts and self._marked is None and threading.get_ident() == self._thread:
            self._marked = self._taken

    def begin_step(self, step: int) -> None:
        """Note that the step after this one begins: the training prepared to read, if anybody did."""
        self._marked, self._step = None, step

    def begin_validation(self) -> bool:
        """Count nothing until the validation ends, if it reads from the same object.

        Returns:
            False where it is not known any more which batch is fed to which step: the training has read ahead.
        """
        with self._lock:
            marked, self._marked = self._marked, None
            if marked is not None:
                self._shared = True
                self._taken = marked
                self._held = {number: one for number, one in self._held.items() if number <= marked}
            if not self._shared:
                return True
            self._paused = True
            return self._taken == self._fed

    def end_validation(self) -> None:
        """Count again."""
        self._paused = False


def _copied(batch: Batch) -> _Held:
    inputs, targets = batch
    size = 0

    def copy(part: Any) -> Any:
        nonlocal size
        if isinstance(part, dict):
            return {key: copy(value) for key, value in part.items()}
        if isinstance(part, list | tuple):
            return [copy(one) for one in part]
        if isinstance(part, np.ndarray):
            size += part.nbytes
            return part.copy()
        if hasattr(part, "detach"):  # of torch
            size += part.nbytes
            return part.detach().clone()
        return part.copy() if hasattr(part, "copy") else part  # of SciPy and pandas; tensors of others never change

    return _Held((copy(inputs), copy(targets)), size)

"""A Python generator whose batches are seen as `fit` takes them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Final

from gatewatch.collector.keras.feed.batch import inputs_and_targets
from gatewatch.collector.keras.feed.line import Batch, FeedLine

_PEEKED: Final = 2
"""So many batches `fit` takes from a generator to know their shapes, and feeds them afterwards
(`NUM_BATCHES_FOR_TENSOR_SPEC` of Keras)."""
_REMEMBERED: Final = 4
_FORGOTTEN_AFTER: Final = 16


class GeneratorLine(FeedLine):
    """Also knows the batches that `fit` took before it said that it begins.

    Any beyond the first two went into a call that only builds the model, and are lost.
    """

    def __init__(
        self, is_needed: Callable[[int, int], bool], guarded: Callable[[str], AbstractContextManager[None]]
    ) -> None:
        super().__init__(is_needed, guarded)
        self._forget()

    def _forget(self) -> None:
        self._early: list[tuple[int, Any]] = []  # who took it, and what
        self._requests = 0

    def yielded(self, element: Any) -> None:
        """Count what the generator has yielded."""
        self._requests += 1
        if self._requests <= _REMEMBERED:
            self._early.append((threading.get_ident(), element))
        elif self._requests == _FORGOTTEN_AFTER:  # no fit with this monitor
            self._early = []
        self.mark()
        self.take(lambda: inputs_and_targets(element))

    def begin(self, step: int) -> None:
        """See `FeedLine.begin`."""
        early = [element for thread, element in self._early if thread == threading.get_ident()]
        self._forget()
        super().begin(step)
        for element in early[:_PEEKED]:
            self.take(lambda element=element: inputs_and_targets(element))  # type: ignore[misc]

    def begin_step(self, step: int) -> None:
        """See `FeedLine.begin_step`."""
        self._forget()
        super().begin_step(step)

    def feed(self, batches: int, step: int) -> Batch | None:
        """See `FeedLine.feed`."""
        self._forget()
        return super().feed(batches, step)


def watch(batches: Iterator[Any], line: GeneratorLine) -> Iterator[Any]:
    """Yield what an iterator yields, as a generator, since `fit` takes no other iterators."""
    for batch in batches:
        line.yielded(batch)
        one = [batch]
        del batch
        yield one.pop()  # so that nothing here holds it while a step is made

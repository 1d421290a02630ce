"""A `tf.data.Dataset` whose elements are seen as `fit` takes them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

import numpy as np
import tensorflow as tf

from gatewatch.collector.keras.feed.batch import inputs_and_targets
from gatewatch.collector.keras.feed.line import Batch, FeedLine

_NO_VALUES: Final = (tf.variant, tf.resource)

Pattern = tuple[int, int]
"""(n, width): the steps whose number leaves a remainder below `width` when it is divided by `n`."""
NONE: Final = (1, 0)
ALL: Final = (1, 1)


class DatasetLine(FeedLine):
    """Lets only those elements come to Python that a capture may need, since each costs time there.

    The first element of a reading always comes: then `fit` begins to read anew.

    Args:
        is_needed: see `FeedLine`.
        guarded: see `FeedLine`.
    """

    counts_all = False

    def __init__(
        self,
        is_needed: Callable[[int, int], bool],
        guarded: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        super().__init__(is_needed, guarded)
        self._changing = threading.Lock()
        self._start = 0  # so many batches of the fit were fed before this reading began
        self._settings = (0, *NONE)  # what is added to an element's number, and the pattern
        with tf.device("CPU:0"):
            self._gate = tf.Variable(tf.constant(self._settings, tf.int64), trainable=False)

    def let_through(self, pattern: Pattern) -> None:
        """Let the elements of these steps come to Python from now on."""
        self._set(self._settings[0], pattern)

    def end(self) -> None:
        """See `FeedLine.end`."""
        super().end()
        self.let_through(NONE)

    def begin_validation(self) -> bool:
        """Count nothing until the validation ends: any reading that begins is of its own."""
        self._paused = True
        return True

    def is_wanted(self, index: Any) -> Any:
        """Return, as a tensor, whether the element of an index comes to Python."""
        shift, every, width = tf.unstack(self._gate.read_value())
        return (index == 0) | ((index + shift) % every < width)

    def passed(self, index: int, batch: Callable[[], Batch]) -> None:
        """Note that the element of an index has passed."""
        if not self.counts:
            return
        if index == 0:
            self._start = self.restart()
            self._set(self._step + 1, self._settings[1:])
        self.take_at(self._start + index + 1, batch)

    def _set(self, shift: int, pattern: Pattern) -> None:
        with self._changing, self._guarded("a look at the feed"):
            if (shift, *pattern) != self._settings:
                self._settings = (shift, *pattern)
                self._gate.assign(self._settings)


def watch(dataset: Any, line: DatasetLine) -> Any:
    """Return a dataset with the same elements, cardinality and options, which are noted as they are taken."""
    structure = dataset.element_spec

    def note(index: Any, places: Any, *parts: Any) -> Any:
        line.passed(int(index), lambda: inputs_and_targets(_packed(structure, places, parts)))
        return np.bool_(True)

    def see(index: Any, element: Any) -> Any:
        parts = tf.nest.flatten(element, expand_composites=True)
        places = [place for place, part in enumerate(parts) if tf.is_tensor(part) and part.dtype not in _NO_VALUES]
        seen = tf.cond(
            line.is_wanted(index),
            lambda: tf.numpy_function(note, [index, places, *(parts[place] for place in places)], tf.bool),
            lambda: tf.constant(False),
        )
        with tf.control_dependencies([seen]):
            return tf.nest.map_structure(
                lambda part: tf.identity(part) if tf.is_tensor(part) else part, element, expand_composites=True
            )

    numbers = tf.data.Dataset.range(2**62).repeat()  # endless, and faster than `Dataset.counter`
    return tf.data.Dataset.zip((numbers, dataset)).map(see)


def _packed(structure: Any, places: Any, parts: tuple[Any, ...]) -> Any:
    """Return an element again, of arrays, and of tensors where it has ragged or sparse ones."""
    specs = tf.nest.flatten(structure)
    composite = any(len(tf.nest.flatten(spec, expand_composites=True)) > 1 for spec in specs)
    flat: list[Any] = [None] * len(tf.nest.flatten(structure, expand_composites=True))
    for place, part in zip(places, parts, strict=True):
        flat[place] = tf.constant(part) if composite else part
    return tf.nest.pack_sequence_as(structure, flat, expand_composites=True)

"""A `keras.utils.PyDataset` whose batches are seen as they are made."""

from __future__ import annotations

import multiprocessing
import uuid
from typing import Any, Final
from weakref import WeakValueDictionary

import keras

from gatewatch.collector.keras.feed.batch import inputs_and_targets
from gatewatch.collector.keras.feed.line import FeedLine

_OWN: Final = ("_dataset", "_line", "_key")
_WORKER: Final = "Keras_worker_"
"""How the names of the processes begin in which Keras has batches made."""
_LINES: Final[WeakValueDictionary[str, FeedLine]] = WeakValueDictionary()
"""Those of this process; a batch that comes from a worker process knows the key of its line."""


class WatchedDataset(keras.utils.PyDataset):  # type: ignore[misc]  # Keras has no types
    """Hands on everything to the user's dataset.

    A worker process makes batches in a copy of it. They are counted as they arrive in the process that trains.
    """

    def __init__(self, dataset: Any, line: FeedLine | None, key: str) -> None:
        self._dataset, self._line, self._key = dataset, line, key

    def __getitem__(self, index: Any) -> Any:
        batch = self._dataset[index]
        if multiprocessing.current_process().name.startswith(_WORKER):
            return _Arriving(batch, self._key)
        if self._line is not None:
            self._line.take(lambda: inputs_and_targets(batch))
        return batch

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self._dataset, self._key)

    @property
    def num_batches(self) -> int | None:
        """See `PyDataset`."""
        return self._dataset.num_batches  # type: ignore[no-any-return]

    @property
    def workers(self) -> int:
        """See `PyDataset`. `fit` reads it when it begins to train on a dataset, or to validate."""
        if self._line is not None:
            self._line.mark()
        return self._dataset.workers  # type: ignore[no-any-return]

    @workers.setter
    def workers(self, value: int) -> None:
        self._dataset.workers = value

    @property
    def use_multiprocessing(self) -> bool:
        """See `PyDataset`."""
        return self._dataset.use_multiprocessing  # type: ignore[no-any-return]

    @use_multiprocessing.setter
    def use_multiprocessing(self, value: bool) -> None:
        self._dataset.use_multiprocessing = value

    @property
    def max_queue_size(self) -> int:
        """See `PyDataset`."""
        return self._dataset.max_queue_size  # type: ignore[no-any-return]

    @max_queue_size.setter
    def max_queue_size(self, value: int) -> None:
        self._dataset.max_queue_size = value

    def on_epoch_begin(self) -> None:
        """See `PyDataset`."""
        self._dataset.on_epoch_begin()

    def on_epoch_end(self) -> None:
        """See `PyDataset`."""
        self._dataset.on_epoch_end()

    def __iter__(self) -> Any:
        return iter(self._dataset)

    def __getattr__(self, name: str) -> Any:
        if name in _OWN:
            raise AttributeError(name)  # not made yet: by a copy
        return getattr(self._dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OWN or isinstance(getattr(type(self), name, None), property):
            super().__setattr__(name, value)
        else:
            setattr(self._dataset, name, value)


class _WatchedSized(WatchedDataset):
    """The same for a dataset that has a length."""

    def __len__(self) -> int:
        return len(self._dataset)


def watch(dataset: Any, line: FeedLine) -> WatchedDataset:
    """Return a dataset that hands on what the user's does."""
    key = uuid.uuid4().hex
    _LINES[key] = line
    return _kind(dataset)(dataset, line, key)


def _kind(dataset: Any) -> type[WatchedDataset]:
    return _WatchedSized if hasattr(type(dataset), "__len__") else WatchedDataset


class _Arriving:
    """A batch on its way from a worker process: where it arrives it is counted, and is itself again."""

    def __init__(self, batch: Any, key: str) -> None:
        self._batch, self._key = batch, key

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, (self._batch, self._key)


def _arrived(batch: Any, key: str) -> Any:
    if (line := _LINES.get(key)) is not None:
        line.take(lambda: inputs_and_targets(batch))
    return batch


def _again(dataset: Any, key: str) -> WatchedDataset:
    """Return a copy; in another process, where its line is not, only what its workers make there is counted."""
    return _kind(dataset)(dataset, _LINES.get(key), key)

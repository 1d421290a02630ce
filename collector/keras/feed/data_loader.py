"""A `DataLoader` of torch whose batches are seen as `fit` takes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from torch.utils.data import DataLoader

from gatewatch.collector.keras.feed.batch import inputs_and_targets
from gatewatch.collector.keras.feed.line import FeedLine

_OWN: Final = ("_loader", "_line")


class WatchedLoader(DataLoader[Any]):
    """Hands on everything to the user's loader."""

    def __init__(self, loader: DataLoader[Any], line: FeedLine) -> None:
        self._loader, self._line = loader, line

    def __iter__(self) -> Any:
        batches = iter(self._loader)
        return _WatchedIterator(batches, self._line) if self._line.counts else batches

    def __reduce__(self) -> tuple[Any, ...]:
        return _itself, (self._loader,)  # a copy is the user's own loader

    def __len__(self) -> int:
        return len(self._loader)

    def __getattribute__(self, name: str) -> Any:
        if name in _OWN or name.startswith("__"):
            return super().__getattribute__(name)
        if name == "batch_size":  # which `fit` reads when it begins to train on a loader, or to validate
            self._line.mark()
        return getattr(self._loader, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OWN:
            object.__setattr__(self, name, value)
        else:
            setattr(self._loader, name, value)


class _WatchedIterator:
    def __init__(self, batches: Iterator[Any], line: FeedLine) -> None:
        self._batches, self._line = batches, line

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        batch = next(self._batches)
        self._line.take(lambda: inputs_and_targets(batch))
        return batch


def _itself(loader: DataLoader[Any]) -> DataLoader[Any]:
    return loader

"""What a monitor's `feed` has wrapped, and what of it is fed to the steps of the running `fit`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Final, TypeVar
from weakref import WeakSet, WeakValueDictionary

import keras

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.keras.feed import generator, py_dataset
from gatewatch.collector.keras.feed.line import FeedLine
from gatewatch.collector.run_session import RunSession
from gatewatch.collector.text import safe_repr

_KINDS: Final = "a tf.data.Dataset, a keras.utils.PyDataset, a torch DataLoader or a generator"
_MARGIN: Final = 2
"""With "auto" the elements of a `tf.data.Dataset` come to Python from so many steps before a capture may be due."""

_Line = TypeVar("_Line", bound=FeedLine)


class Feeds:
    """Wraps data for `fit`, and shows what the watched step is fed to the session.

    Args:
        session: of the monitor.
    """

    def __init__(self, session: RunSession) -> None:
        self._session = session
        self._lines: WeakSet[FeedLine] = WeakSet()
        self._wrapped: WeakValueDictionary[int, Any] = WeakValueDictionary()
        self._chosen = False

    def wrap(self, data: Any) -> Any:
        """Return data for `fit` that are the same, and whose batches are seen.

        Raises:
            ConfigError: they are of a kind whose batches cannot be seen.
        """
        if self._wrapped.get(id(data)) is data and data is not None:
            return data
        wrapped = self._wrap(data)
        self._wrapped[id(wrapped)] = wrapped
        return wrapped

    def _wrap(self, data: Any) -> Any:
        tensorflow, torch = sys.modules.get("tensorflow"), sys.modules.get("torch.utils.data")
        if isinstance(data, keras.utils.PyDataset):
            return py_dataset.watch(data, self._line(FeedLine))
        if tensorflow is not None and isinstance(data, tensorflow.data.Dataset):
            from gatewatch.collector.keras.feed import tf_data  # noqa: PLC0415 - only where TensorFlow is there

            return tf_data.watch(data, self._line(tf_data.DatasetLine))
        if torch is not None and isinstance(data, torch.DataLoader):
            from gatewatch.collector.keras.feed import data_loader  # noqa: PLC0415 - only where torch is there

            return data_loader.WatchedLoader(data, self._line(FeedLine))
        if isinstance(data, Iterator):
            return generator.watch(data, self._line(generator.GeneratorLine))
        raise ConfigError(_refusal(data))

    def _line(self, kind: Callable[..., _Line]) -> _Line:
        line = kind(self._is_needed, self._session.guarded)
        self._lines.add(line)
        return line

    # What happens in `fit`. Nothing is raised into it.

    def begin(self) -> None:
        """Begin with a fit, where the run has begun."""
        with self._guarded():
            self._chosen = False
            for line in list(self._lines):
                if self._session.started:
                    line.begin(self._session.step)
                else:
                    line.end()
            self._open_gates()

    def end(self) -> None:
        """End with it."""
        with self._guarded():
            for line in list(self._lines):
                line.end()

    def begin_step(self) -> None:
        """Note that a step begins."""
        for line in self._active():
            line.begin_step(self._session.step)

    def end_step(self, batches: int) -> None:
        """Note that a step has ended, or several that were executed at once; show the batch that the last was fed."""
        with self._guarded():
            for line in self._active() if self._chosen else self._choose():
                batch = line.feed(batches, self._session.step)
                if batch is not None:
                    self._session.feed.see(*batch)
                if spent := line.spent():
                    self._session.schedule.charge("feed", spent)

    def prepare(self) -> None:
        """After the session has prepared for the next step: let through what it may need."""
        with self._guarded():
            self._open_gates()

    def begin_validation(self) -> None:
        """Note that a validation within the fit begins."""
        for line in self._active():
            if not line.begin_validation():
                line.end()
                self._session.warn_once(
                    "what feed() returned is also the validation_data, so it is not known any more which batch is fed "
                    "to which step, and the feed is not recorded: give validation_data what feed() was given"
                )

    def end_validation(self) -> None:
        """Note that it has ended."""
        for line in self._active():
            line.end_validation()

    def _guarded(self) -> AbstractContextManager[None]:
        return self._session.guarded("a look at the feed")

    def _active(self) -> list[FeedLine]:
        return [line for line in list(self._lines) if line.active]

    def _choose(self) -> list[FeedLine]:
        """At the end of the first step: find out on which of the wrapped data `fit` trains."""
        self._chosen = True
        active = self._active()
        fed = [line for line in active if line.is_fed]
        for line in active:
            if line not in fed or len(fed) > 1:
                line.end()
        if len(fed) > 1:
            self._session.warn_once(
                "fit takes batches from several things that feed() returned, so the feed is not recorded: wrap what is "
                "given to fit, once"
            )
        return self._active()

    def _is_needed(self, ahead: int, step: int) -> bool:
        return self._session.feed.is_wanted or self._session.schedule.may_be_due(ahead, step)

    def _open_gates(self) -> None:
        for line in self._active():
            if (let_through := getattr(line, "let_through", None)) is not None:
                let_through(self._pattern(line.ahead))

    def _pattern(self, ahead: int) -> tuple[int, int]:
        """Return which elements come to Python: every n-th and so many after it, see `tf_data.Pattern`."""
        session, every = self._session, self._session.schedule.every
        if every != "auto":
            due = session.schedule.may_be_due(session.schedule.stride, session.step)
            return (1, 1) if session.feed.is_wanted and not due else (every, session.schedule.stride)
        near = session.feed.is_wanted or session.schedule.may_be_due(ahead + _MARGIN, session.step)
        return (1, 1) if near else (1, 0)


def _refusal(data: Any) -> str:
    kind = type(data)
    if any(base.__name__ in ("DistributedDataset", "DistributedDatasetsFromFunction") for base in kind.__mro__):
        return "feed() takes no distributed dataset: give it the tf.data.Dataset, and distribute what it returns"
    if hasattr(data, "__array__") or isinstance(data, list | tuple | dict):
        return (
            f"feed() takes no arrays ({kind.__name__}): fit makes the batches of those itself, where nothing can see "
            f"them; give it {_KINDS}, such as tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x)).batch(32)"
        )
    return f"feed({safe_repr(data)}): must be what fit takes batches from: {_KINDS}"

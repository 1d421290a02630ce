"""Stand-ins for what a call must not use: iterators and files, which can neither be copied nor set back."""

from __future__ import annotations

import copy
import itertools
import threading
import warnings
from collections.abc import Iterator
from typing import Any, Final

from gatewatch.collector.errors import GatewatchError

_COPIED_ITERATORS: Final = tuple(map(type, (iter([]), iter(()), iter(range(0)), itertools.count())))


class NotIsolatedError(GatewatchError):
    """A call uses something whose change cannot be undone, so it was not made to its end."""


def stand_in(value: Any, place: str) -> Any:
    """Return a copy of an iterator, or what raises `NotIsolatedError` where this thread uses it.

    Args:
        value: an iterator or a file. Other threads use it as if it were there itself.
        place: where it lies, for the message.
    """
    if not isinstance(value, _COPIED_ITERATORS):
        return _StandIn(value, place)
    with warnings.catch_warnings():  # Python 3.14 no longer copies those of itertools
        warnings.simplefilter("ignore", DeprecationWarning)
        return copy.copy(value)


class _StandIn:
    def __init__(self, own: Any, place: str) -> None:
        self._own, self._place, self._thread = own, place, threading.get_ident()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self._used())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._used(), name)

    def _used(self) -> Any:
        if threading.get_ident() != self._thread:
            return self._own
        raise NotIsolatedError(
            f"the model is not looked at: its call uses {self._place}, a {type(self._own).__name__}, which can neither "
            "be copied nor set back"
        )

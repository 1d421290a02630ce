"""Reset objects in a forked child, where a lock that another thread of the parent holds is never released."""

from __future__ import annotations

import os
import weakref
from typing import Final, Protocol


class _Resettable(Protocol):
    def after_fork_in_child(self) -> None: ...


_registered: Final[weakref.WeakSet[_Resettable]] = weakref.WeakSet()


def reset_in_forked_child(thing: _Resettable) -> None:
    """Call the object's `after_fork_in_child` in every child that is forked while the object lives."""
    _registered.add(thing)


def _after_fork_in_child() -> None:
    for thing in list(_registered):
        thing.after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)

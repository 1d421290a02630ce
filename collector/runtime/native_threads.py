"""Native libraries held to one thread while a network is looked at: its matrices are too small to gain from more."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from threadpoolctl import ThreadpoolController


class _Limit:
    """What was before the first look of several at once is what each puts back.

    Some libraries keep the number by thread and others for the process, so each thread sets and restores it itself; one
    that looks on after another has finished may have more threads than it needs, which costs it a little time.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.controller: ThreadpoolController | None = None
        self.before: Any = None

    def enter(self) -> None:
        with self.lock:
            self.controller = self.controller or ThreadpoolController()
            limiter = self.controller.limit(limits=1)
            self.before = limiter if self.users == 0 else self.before
            self.users += 1

    def leave(self) -> None:
        with self.lock:
            self.users -= 1
            self.before.restore_original_limits()

    def forked(self) -> None:
        """In the child: the other threads that needed it are not there."""
        self.lock = threading.Lock()
        if self.users:
            self.users = 0
            self.before.restore_original_limits()


_limit = _Limit()


@contextmanager
def one_thread() -> Iterator[None]:
    """Hold BLAS and OpenMP to one thread. For any number of threads at once, each in its own time."""
    _limit.enter()
    try:
        yield
    finally:
        _limit.leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_limit.forked)

"""Hold BLAS and OpenMP to one thread during a capture: the matrices are too small to gain from more."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from threadpoolctl import ThreadpoolController

from gatewatch.collector.runtime.fork import reset_in_forked_child


class _Limit:
    """The limit that overlapping captures share: each restores the numbers from before the first of them.

    Some libraries keep the number by thread and others by process, so each thread sets and restores it itself. A
    capture that goes on after another has ended may have more than one thread, which costs a little time.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.controller: ThreadpoolController | None = None
        self.before: Any = None
        reset_in_forked_child(self)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold BLAS and OpenMP to one thread. It may be nested, and entered by several threads at once."""
        with self.lock:
            self.controller = self.controller or ThreadpoolController()
            limiter = self.controller.limit(limits=1)
            self.before = limiter if self.users == 0 else self.before
            self.users += 1
        try:
            yield
        finally:
            with self.lock:
                self.users -= 1
                self.before.restore_original_limits()

    def after_fork_in_child(self) -> None:
        """Forget the users: the child has none of the parent's other threads."""
        self.lock = threading.Lock()
        if self.users:
            self.users = 0
            self.before.restore_original_limits()


single_threaded_blas: Final = _Limit().hold

"""What goes wrong beside a training is said once and counted, and never raised into it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from gatewatch.collector.errors import GatewatchError
from gatewatch.collector.run_metadata import line, told

log = logging.getLogger("gatewatch")


def ask(owner: Any, name: str, answer: Callable[[], Any] | None = None) -> Any:
    """Ask something of a user's object, whose class may do anything: the answer, or None where asking raises.

    A failure is logged in one line that names the object's class, the method and the exception.

    Args:
        owner: the object.
        name: what is asked, for the log: `summary()`, or the name of an attribute.
        answer: asks it. Where None, the attribute of that name is read; it is None where there is no such attribute.
    """
    try:
        return getattr(owner, name, None) if answer is None else answer()
    except Exception as error:
        log.warning(
            "gatewatch: %s.%s is left out of what is recorded of the run: it raised %s",
            type(owner).__name__,
            name,
            told(error),
        )
        return None


def has_attribute(owner: Any, name: str) -> bool:
    """Whether an object of a user's class has an attribute; it has none where asking raises."""
    try:
        return hasattr(owner, name)
    except Exception:  # of whoever wrote its class
        return False


class Guard:
    """Says and counts.

    Attributes:
        failures: what was being done → how often it failed.
        unreplayed: layer → why it is not recorded.
    """

    def __init__(self) -> None:
        self.failures: dict[str, int] = {}
        self.unreplayed: dict[str, str] = {}
        self._said: set[str] = set()

    def say_once(self, text: str) -> None:
        """Log a warning, the first time."""
        if text not in self._said:
            self._said.add(text)
            log.warning("gatewatch: %s", line(text))

    def leave_out(self, unreplayed: Mapping[str, str]) -> None:
        """Say once of each layer that it is not recorded, and why."""
        for path, reason in unreplayed.items():
            if path not in self.unreplayed:
                log.warning("gatewatch: layer %r is not recorded: %s", path, reason)
                self.unreplayed[path] = reason

    @contextmanager
    def guarded(self, doing: str) -> Iterator[None]:
        """Let nothing out into the training: log a failure once and count it."""
        try:
            yield
        except Exception as error:
            self.failed(doing, error)

    def failed(self, doing: str, error: Exception) -> None:
        """Log a failure, the first time, and count it."""
        if doing not in self.failures:
            text = line(error) if isinstance(error, GatewatchError) else told(error)
            log.warning("gatewatch: %s failed, training goes on: %s", doing, text)
        self.failures[doing] = self.failures.get(doing, 0) + 1

"""Errors beside a training: each is logged once and counted, and none is raised into the training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from gatewatch.collector.errors import reason_of
from gatewatch.collector.log import log
from gatewatch.collector.text import describe_exception


def safe_get(owner: Any, name: str, call: Callable[[], Any] | None = None) -> Any:
    """Read or call something of a user's object, and return None where that raises.

    A failure is logged in one line that names the object's class, the method and the exception.

    Args:
        owner: the object.
        name: what is read, for the log: `summary()`, or the name of an attribute.
        call: reads it. Where None, the attribute of that name is read, None if there is no such attribute.
    """
    try:
        return getattr(owner, name, None) if call is None else call()
    except Exception as error:
        member, problem = f"{type(owner).__name__}.{name}", describe_exception(error)
        log.warning("gatewatch: %s is left out of what is recorded of the run: it raised %s", member, problem)
        return None


def has_attribute(owner: Any, name: str) -> bool:
    """Return whether an object of a user's class has an attribute; False where reading it raises."""
    try:
        return hasattr(owner, name)
    except Exception:  # a user's class may do anything
        return False


def safe_attributes(owner: Any, names: Iterable[str]) -> dict[str, Any]:
    """Return those of the attributes that an object of a user's class has; None for one that raises when it is read."""
    return {name: safe_get(owner, name) for name in names if has_attribute(owner, name)}


class ErrorGuard:
    """Swallow errors: log each kind once, and count them.

    Attributes:
        failures: activity → how often it failed.
        problems: activity → why it failed the first time.
    """

    def __init__(self) -> None:
        self.failures: dict[str, int] = {}
        self.problems: dict[str, str] = {}
        self._warned: set[str] = set()

    def warn_once(self, text: str, topic: str | None = None) -> None:
        """Log a warning, unless one of the same topic was logged before; where there is no topic, the same text."""
        if (topic or text) not in self._warned:
            self._warned.add(topic or text)
            log.warning("gatewatch: %s", text)

    def forget(self, *topics: str) -> None:
        """Let the next warning of these topics be logged again."""
        self._warned.difference_update(topics)

    @contextmanager
    def guarded(self, activity: str) -> Iterator[None]:
        """Catch every exception that is raised inside; the first of each activity is logged, all are counted."""
        try:
            yield
        except Exception as error:
            self.record_failure(activity, error)

    def record_failure(self, activity: str, error: Exception) -> None:
        """Log an exception, the first of each activity, and count it."""
        if activity not in self.failures:
            text = reason_of(error)
            log.warning("gatewatch: %s failed, training goes on: %s", activity, text)
            self.problems[activity] = text
        self.failures[activity] = self.failures.get(activity, 0) + 1

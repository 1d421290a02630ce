"""What goes wrong beside a training is said once and counted, and never raised into it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from collector.about import line, told
from collector.errors import GatewatchError

log = logging.getLogger("gatewatch")


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
            if doing not in self.failures:
                text = line(error) if isinstance(error, GatewatchError) else told(error)
                log.warning("gatewatch: %s failed, training goes on: %s", doing, text)
            self.failures[doing] = self.failures.get(doing, 0) + 1

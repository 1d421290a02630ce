"""Find the lines that a store never takes while it takes others, whatever its answer; an outage is none of theirs.

A batch that fails is halved only after a line that the store has taken before, the witness, passed again. A line is
given up only after it failed alone in several rounds, each with the witness passing after it. Rounds lie apart, and a
line is sent a random number of times in each, so that of several servers behind one address a single sick one gives up
no line.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

ROUNDS: Final = 3
"""In so many rounds a line must fail before it is given up."""
ROUND_WAIT: Final = 10.0
"""Seconds between two rounds."""
_MOST_TRIES: Final = 3
"""The most times that a line is sent in a round."""

_jitter: Final = random.Random()  # noqa: S311 - no secret. Its own: the global one is the training's
Send = Callable[[list[bytes]], Exception | None]
"""Sends lines; returns why the store did not take them, None where it did."""


@dataclass(slots=True)
class _Part:
    """Lines that failed together.

    Attributes:
        lines: of line protocol, without the newlines that end them.
        rounds: in how many rounds they failed while others passed, where it is one line.
        error: of the last time.
    """

    lines: list[bytes]
    rounds: int = 0
    error: Exception | None = None


class Isolation:
    """The lines of one batch that are left, between its rounds.

    Args:
        lines: of the batch, which failed while the witness passed.

    Attributes:
        error: the last error of its lines.
    """

    def __init__(self, lines: list[bytes]) -> None:
        self._parts = [_Part(lines)]
        self.error: Exception | None = None

    def round(self, send: Send, others_pass: Callable[[], bool], stops: Callable[[Exception], bool]) -> bool:
        """Halve what fails, down to single lines.

        Args:
            send: sends lines.
            others_pass: sends the witness; whether it passed.
            stops: whether an error ends the round: it says that nothing should be sent now.

        Returns:
            Whether the store answered as one that is well: false in an outage.
        """
        if not others_pass():
            return False
        waiting, self._parts, failed = self._parts[::-1], [], list[_Part]()
        failures = 0  # since anything passed
        try:
            while waiting:
                part = waiting[-1]
                for _ in range(1 if len(part.lines) > 1 else _jitter.randint(2, _MOST_TRIES)):
                    if (error := send(part.lines)) is None:
                        break
                if error is None:
                    waiting.pop()
                    failures = 0
                    continue
                failures += 1
                self.error = error
                if stops(error) or (failures > 1 and not others_pass()):
                    return False
                failures %= 2
                waiting.pop()
                part.error = error
                if len(part.lines) == 1:
                    failed.append(part)
                else:
                    half = len(part.lines) // 2
                    waiting += [_Part(part.lines[half:]), _Part(part.lines[:half])]
            if failed and not others_pass():
                return False
            for part in failed:
                part.rounds += 1
            return True
        finally:
            self._parts = [*failed, *waiting[::-1]]

    def given_up(self) -> list[tuple[bytes, Exception]]:
        """Return the lines that failed often enough, each with the last error."""
        return [(part.lines[0], part.error) for part in self._parts if part.error and part.rounds >= ROUNDS]

    def forget_given_up(self) -> None:
        """Leave them out: they are put aside."""
        self._parts = [part for part in self._parts if part.rounds < ROUNDS]

    @property
    def done(self) -> bool:
        """Whether every line was taken or put aside."""
        return not self._parts

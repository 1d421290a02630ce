"""The contract of a target of the fuzzer, and what targets share."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from random import Random
from typing import Any, ClassVar

from gatewatch.collector.errors import GatewatchError
from gatewatch.jobs.cli import main

STATUSES = (0, 1, 2, 3, 130)
"""Exit statuses that commands may have."""


class Target(ABC):
    """Something that is given odd input: makes a case from random numbers, and runs it.

    A case is anything with a `repr` that a person can read.

    Args:
        folder: empty, of this target alone: for what all cases begin with.

    Attributes:
        said: what a user has seen since the case began, in pieces; see `commands` for what may have several lines.
        commands: the same of commands: arguments, exit status, standard output and standard error.
    """

    name: ClassVar[str]
    seconds: ClassVar[float] = 20.0
    """The longest that a case may take, on a slow machine: its own time-outs, twice."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[str] = []
        self.commands: list[tuple[list[str], int | None, str, str]] = []

    @classmethod
    def is_available(cls) -> bool:
        """Return whether this machine has what it needs."""
        return True

    @abstractmethod
    def sound(self) -> Any:
        """Return a case with nothing wrong in it: run first, it must succeed and raise nothing at all."""

    @abstractmethod
    def make(self, random: Random) -> Any:
        """Return a case."""

    def place(self, case: Any, folder: Path) -> None:  # noqa: B027 - most targets have files, and not all
        """Lay out the files of a case in its folder, which is empty, and is the working directory."""

    @abstractmethod
    def run(self, case: Any, folder: Path) -> None:
        """Do what the case is about. What is not `allowed` and raises, is found."""

    def others(self, folder: Path) -> Mapping[str, object]:
        """Return what belongs to another run, by what to call it. A case must not change it."""
        return {}

    @contextmanager
    def allowed(self, *more: type[Exception]) -> Iterator[None]:
        """Let errors of Gatewatch pass, and keep their text.

        Args:
            more: other exceptions that the docstring of what is called names.
        """
        try:
            yield
        except GatewatchError as error:
            self.said.append(str(error))
        except more as error:
            self.said.append(str(error))

    def command(self, *arguments: str) -> int | None:
        """Run `gatewatch` in this process, and return its exit status."""
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            try:
                status: int | None = main(arguments)
            except SystemExit as end:  # of argparse
                status = end.code if isinstance(end.code, int) else None
        self.commands.append(([*arguments], status, out.getvalue(), err.getvalue()))
        return status

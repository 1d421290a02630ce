"""Messages for the person at the terminal, and the exit status of commands.

Exit status: 0 done, 1 the work failed, 2 the arguments or the configuration are wrong, 130 interrupted. An error is one
line.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import TextIOBase
from typing import Final, TextIO

from gatewatch.collector.environment import read_variable
from gatewatch.collector.errors import ConfigError, GatewatchError
from gatewatch.collector.text import escape_controls, one_line

_REDRAW_S: Final = 0.2


class _Legible(TextIOBase):
    """A stream that shows control characters as escapes, but for the ends of lines, and never fails on a character."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a stream without one takes every text
        return getattr(self.stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write a text, of one line or several."""
        shown = escape_controls(text, keep="\n")
        self.stream.write(shown.encode(self.encoding, "backslashreplace").decode(self.encoding))
        return len(text)

    def flush(self) -> None:
        self.stream.flush()

    def isatty(self) -> bool:
        return self.stream.isatty()

    def fileno(self) -> int:
        return self.stream.fileno()


@contextmanager
def legible_output() -> Iterator[None]:
    """While open, make all that is printed legible: names, files and servers may hold what a terminal obeys."""
    with redirect_stdout(_Legible(sys.stdout)), redirect_stderr(_Legible(sys.stderr)):
        yield


def write_data(pieces: Iterable[str]) -> None:
    """Print JSON or CSV: in a pipe exactly as it is, for the program that reads it."""
    stream = sys.stdout
    if isinstance(stream, _Legible) and not stream.isatty():
        stream = stream.stream
    stream.writelines(pieces)


def fail(text: str, status: int = 1) -> int:
    """Print an error in one line of standard error, and return the exit status that it stands for."""
    print(f"gatewatch: {one_line(text)}", file=sys.stderr)
    return status


def fail_each(problems: Iterable[str]) -> int:
    """Print each problem as an error, and return the exit status: 1, or 0 where there is none."""
    return max(map(fail, problems), default=0)


def show_progress(text: str) -> None:
    """Replace the last line of the terminal by a text, which stays if it ends in a newline; print nothing in a pipe."""
    if sys.stderr.isatty():
        stream = sys.stderr.stream if isinstance(sys.stderr, _Legible) else sys.stderr
        ends = "\n" * text.endswith("\n")
        print(f"\r\x1b[K{escape_controls(text.removesuffix(ends))}", end=ends, file=stream, flush=True)


class ProgressLine:
    """The last line of a terminal, replaced a few times a second; in a pipe nothing is printed."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def show(self, text: str) -> None:
        """Show a text, cut to the width of the terminal, unless another was shown just now."""
        now = time.monotonic()
        if now - self._last >= _REDRAW_S:
            self._last = now
            show_progress(text[: shutil.get_terminal_size().columns - 1])


def exit_status(work: Callable[[], int | None]) -> int:
    """Run a command, print its error in one line, and return its exit status; a command without one has 0."""
    status = 0
    try:
        with ignore_closed_pipe():
            status = work() or 0
    except ConfigError as error:
        return fail(str(error), 2)
    except GatewatchError as error:
        return fail(str(error))
    except KeyboardInterrupt:
        return fail("interrupted", 130)
    except OSError as error:
        return fail(f"{error.filename or 'the output'}: {error.strerror or error}")
    except Exception as error:
        if read_variable("GATEWATCH_TRACEBACK"):
            raise
        what = f"{type(error).__name__}: {error}"
        return fail(f"{what}; this is a bug: please report what GATEWATCH_TRACEBACK=1 makes of it")
    return status


@contextmanager
def ignore_closed_pipe() -> Iterator[None]:
    """End the block where nobody reads the output any more, and send all further output nowhere."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

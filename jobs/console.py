"""Messages for the person at the terminal, and the exit status of commands.

Exit status: 0 done, 1 the work failed, 2 the arguments or the configuration are wrong, 130 interrupted. An error is one
line.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from gatewatch.collector.environment import read_variable
from gatewatch.collector.errors import ConfigError, GatewatchError
from gatewatch.collector.text import one_line


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
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


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

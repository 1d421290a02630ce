"""Messages for the person at the terminal."""

from __future__ import annotations

import sys

from gatewatch.collector.text import one_line


def fail(text: str, status: int = 1) -> int:
    """Print an error in one line of standard error, and return the exit status that it stands for."""
    print(f"gatewatch: {one_line(text)}", file=sys.stderr)
    return status

"""The `gatewatch` command. Its imports are inside `main`, so that Ctrl-C while they load ends in one line too."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    try:
        from gatewatch.jobs.command_line import run  # noqa: PLC0415 - see above

        return run(arguments)
    except KeyboardInterrupt:
        print("gatewatch: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())

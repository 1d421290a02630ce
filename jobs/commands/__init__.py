"""The commands of `gatewatch`, a module each.

A module has a function `add(commands, with_store)`, which adds the command's parser and sets its `run_command`. That
function takes the parsed arguments and returns the exit status. It imports what is heavy, so that `gatewatch --help`
is quick and needs none of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Final, Protocol

from gatewatch.jobs.commands import backfill, baseline, check, copy, demo, grafana, jobs, query, report, runs, spool
from gatewatch.jobs.commands.common import Commands


class Command(Protocol):
    """A module of a command."""

    def add(self, commands: Commands[argparse.ArgumentParser], with_store: argparse.ArgumentParser) -> None:
        """Add the command's parser.

        Args:
            commands: the subparsers of `gatewatch`.
            with_store: a parent parser with the option `--store`, for commands that read or write a store.
        """
        ...


COMMANDS: Final[Sequence[Command]] = (demo, jobs, runs, report, query, baseline, backfill, grafana, copy, check, spool)
"""The commands, in the order of the help."""

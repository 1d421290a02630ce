"""The commands of `gatewatch`, a module each.

A module has `add(commands, with_store)`: it adds its parser, with `with_store` as a parent where it takes `--store`,
and sets `run_command`, which is given the parsed arguments and returns the exit status. What is heavy is imported
there, so that `gatewatch --help` is quick and needs none of it.
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
        """Add its parser."""
        ...


COMMANDS: Final[Sequence[Command]] = (demo, jobs, runs, report, query, baseline, backfill, grafana, copy, check, spool)
"""In the order of the help."""

"""Parse the command line, and run the command."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from gatewatch.jobs.commands.options import COMMANDS, AddCommand
from gatewatch.jobs.console import exit_status


def run(arguments: Sequence[str] | None = None, commands: Sequence[AddCommand] = COMMANDS) -> int:
    """Run the command line and return its exit status.

    Args:
        arguments: what was typed after `gatewatch`; those of this process where None.
        commands: the commands there are, in the order of the help.
    """
    parsed = parser(commands).parse_args(arguments)
    return exit_status(lambda: parsed.run_command(parsed))


def parser(commands: Sequence[AddCommand] = COMMANDS) -> argparse.ArgumentParser:
    """Return the parser of the whole command line, with a subparser for each command."""
    whole = argparse.ArgumentParser(
        prog="gatewatch", description="Watch the inside of recurrent networks while they train."
    )
    whole.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    subparsers = whole.add_subparsers(title="commands", required=True, metavar="COMMAND")
    with_store = argparse.ArgumentParser(add_help=False)
    with_store.add_argument(
        "--store",
        metavar="URL",
        help="sqlite:///file.db or http://host:8086 (default: GATEWATCH_STORE, else gatewatch.toml, else "
        "sqlite:///gatewatch.db)",
    )
    for add_command in commands:
        add_command(subparsers, with_store)
    return whole


class _Version(argparse.Action):
    """Print the version and exit; it is looked up only here, since that reads the installed packages."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(f"gatewatch {metadata.version('gatewatch')}")
        parser.exit()

"""Parse the command line, and run the command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Any, NoReturn

from gatewatch.collector.text import nearest
from gatewatch.jobs.commands.options import COMMANDS, AddCommand
from gatewatch.jobs.console import exit_status, fail, legible_output
from gatewatch.jobs.text import join_words


def run(arguments: Sequence[str] | None = None, commands: Sequence[AddCommand] = COMMANDS) -> int:
    """Run the command line and return its exit status.

    Args:
        arguments: what was typed after `gatewatch`; those of this process where None.
        commands: the commands there are, in the order of the help.
    """
    with legible_output():
        parsed = parser(commands).parse_args(arguments)
        return exit_status(lambda: parsed.run_command(parsed))


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, and which asks whether the nearest command or option was meant."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse what was typed for this command; an option that it does not know is its error, not the whole's."""
        parsed, others = super().parse_known_args(args, namespace)
        if others:
            name = next((text.partition("=")[0] for text in others if text.startswith("-")), "")
            self.error(f"unrecognized arguments: {' '.join(others)}{nearest(name, self._option_string_actions)}")
        return parsed, others

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        if arg_strings == ["--"] and action.option_strings and action.nargs is None:
            arg_strings = ["--", "--"]  # the first is taken for the end of the options, before Python 3.13
        return super()._get_values(action, arg_strings)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            names = [str(name) for name in action.choices]
            there = f"there are {join_words(names)}{nearest(str(value), names)}"
            raise argparse.ArgumentError(action, f"invalid choice: {value!r}; {there}")

    def error(self, message: str) -> NoReturn:
        """Print what is wrong in one line, and exit."""
        sys.exit(fail(f"{message} (see `{self.prog} --help`)", 2))


def parser(commands: Sequence[AddCommand] = COMMANDS) -> argparse.ArgumentParser:
    """Return the parser of the whole command line, with a subparser for each command."""
    whole: argparse.ArgumentParser = _Parser(
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

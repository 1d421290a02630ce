"""Parse the command line, run the command and turn its errors into one line.

Exit status: 0 done, 1 the work failed, 2 the arguments or the configuration are wrong, 130 interrupted. An error is one
line.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from gatewatch.collector.environment import read_variable
from gatewatch.collector.errors import ConfigError, GatewatchError
from gatewatch.jobs.commands import COMMANDS, Command
from gatewatch.jobs.console import fail


def run(arguments: Sequence[str] | None = None, commands: Sequence[Command] = COMMANDS) -> int:
    """Run the command line and return its exit status.

    Args:
        arguments: what was typed after `gatewatch`; those of this process where None.
        commands: the commands there are, in the order of the help.
    """
    parsed = parser(commands).parse_args(arguments)
    try:
        status: int = parsed.run_command(parsed)
    except ConfigError as error:
        return fail(str(error), 2)
    except GatewatchError as error:
        return fail(str(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return fail(f"{error.filename or 'the output'}: {error.strerror or error}")
    except Exception as error:
        if read_variable("GATEWATCH_TRACEBACK"):
            raise
        what = f"{type(error).__name__}: {error}"
        return fail(f"{what}; this is a bug: please report what GATEWATCH_TRACEBACK=1 makes of it")
    return status


def parser(commands: Sequence[Command] = COMMANDS) -> argparse.ArgumentParser:
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
    for command in commands:
        command.add(subparsers, with_store)
    return whole


class _Version(argparse.Action):
    """Print the version and exit; it is looked up only here, since that reads the installed packages."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(f"gatewatch {metadata.version('gatewatch')}")
        parser.exit()

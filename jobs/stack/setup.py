"""`python -m gatewatch.jobs.stack.setup`: make what Gatewatch needs in an InfluxDB, once; again it changes nothing.

Exit status: 0 all is there, 1 the server does not answer or refuses, 2 the environment or the arguments are wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from gatewatch.collector.store.influxdb.client import Client
from gatewatch.jobs.console import exit_status, ignore_closed_pipe, legible_output
from gatewatch.jobs.retry import Retry
from gatewatch.jobs.stack import server
from gatewatch.jobs.stack.desired_state import DesiredState, desired_state
from gatewatch.jobs.stack.downsampling import hourly_task
from gatewatch.jobs.stack.token_files import check_folders

WAIT_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 1.0


@legible_output()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m gatewatch.jobs.stack.setup", description="Make what Gatewatch needs in an InfluxDB, once."
    )
    parser.add_argument("--tokens", type=_folder, required=True, metavar="FOLDER", help="where the tokens are put")
    folder: Path = parser.parse_args(arguments).tokens
    return exit_status(lambda: set_up(desired_state(os.environ), folder, _say))


def _folder(text: str) -> Path:
    if not text.strip():
        raise argparse.ArgumentTypeError("name a folder, . for this one")
    return Path(text)


def _say(line: str) -> None:
    """Print a line where anybody still reads; the work goes on without."""
    with ignore_closed_pipe():
        print(line, flush=True)


def set_up(desired: DesiredState, folder: Path, say: Callable[[str], None]) -> None:
    """Make what is missing: owner, organisation, buckets, task and tokens.

    Args:
        desired: what InfluxDB is to hold.
        folder: of the tokens' files.
        say: given a line for each thing that was done.

    Raises:
        ConfigError: the owner is not let in, the organisation is another, or the folder cannot be written.
        GatewatchError: the server does not answer, or refuses.
    """
    check_folders(folder, server.token_permissions("", ""))
    with (
        closing(Client(desired.url, timeout=server.TIMEOUT_S)) as nobody,
        closing(Client(desired.url, user=desired.user, password=desired.password, timeout=server.TIMEOUT_S)) as owner,
        owner.understood(),
    ):
        if Retry(WAIT_SECONDS, longest=_POLL_SECONDS)(lambda: server.is_new(nobody)):
            server.onboard(nobody, desired)
            say(f"made the user {desired.user!r}, the organisation {desired.org!r} and the bucket {desired.bucket!r}")
        org = server.organisation(owner, desired)
        ids = server.ensure_buckets(owner, org, desired.retentions, say)
        bucket, history = ids[desired.bucket], ids[desired.history]
        server.ensure_task(owner, org, hourly_task(bucket, history, org), say)
        server.ensure_tokens(owner, org, server.token_permissions(bucket, history), folder, say)
    say(f"{desired.url} is set up; the tokens are in {folder}")


if __name__ == "__main__":
    sys.exit(main())

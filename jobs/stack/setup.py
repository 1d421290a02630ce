"""`python -m gatewatch.jobs.stack.setup`: make what Gatewatch needs in an InfluxDB, once; again it changes nothing.

Exit status: 0 all is there, 1 the server does not answer or refuses, 2 the environment or the arguments are wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from gatewatch.collector.errors import ConfigError, GatewatchError
from gatewatch.jobs.console import fail
from gatewatch.jobs.retry import Retry
from gatewatch.jobs.stack.desired_state import DesiredState, desired_state
from gatewatch.jobs.stack.downsampling import TASK, hourly_task
from gatewatch.jobs.stack.plan import KeepFor, bucket_steps, task_steps, token_permissions, token_steps
from gatewatch.jobs.stack.server import Server
from gatewatch.jobs.stack.token_files import check_folders, read_token, token_path, write_token

WAIT_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 1.0
_ABOUT_TASK: Final = "Hourly aggregates, for histories that outlive the points. Gatewatch's set-up keeps it."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m gatewatch.jobs.stack.setup", description="Make what Gatewatch needs in an InfluxDB, once."
    )
    parser.add_argument("--tokens", type=_folder, required=True, metavar="FOLDER", help="where the tokens are put")
    folder: Path = parser.parse_args(arguments).tokens
    try:
        set_up(desired_state(os.environ), folder, _say)
    except ConfigError as error:
        return fail(str(error), 2)
    except GatewatchError as error:
        return fail(str(error))
    except KeyboardInterrupt:
        return fail("interrupted", 130)
    except OSError as error:
        return fail(f"the output: {error.strerror or error}")
    return 0


def _folder(text: str) -> Path:
    if not text.strip():
        raise argparse.ArgumentTypeError("name a folder, . for this one")
    return Path(text)


def _say(line: str) -> None:
    """Say it to whoever still listens: the work goes on without."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
    check_folders(folder, token_permissions("", ""))
    with closing(Server(desired)) as server:
        if Retry(WAIT_SECONDS, longest=_POLL_SECONDS)(server.is_new):
            server.onboard()
            say(f"made the user {desired.user!r}, the organisation {desired.org!r} and the bucket {desired.bucket!r}")
        org = server.organisation()
        ids = _buckets(server, org, desired, say)
        _task(server, org, ids[desired.bucket], ids[desired.history], say)
        _tokens(server, org, token_permissions(ids[desired.bucket], ids[desired.history]), folder, say)
    say(f"{desired.url} is set up; the tokens are in {folder}")


def _buckets(server: Server, org: str, desired: DesiredState, say: Callable[[str], None]) -> dict[str, str]:
    """Make and change the buckets: name → id."""
    for step in bucket_steps(desired.retentions, server.buckets(org)):
        if isinstance(step, KeepFor):
            server.keep_for(step.id, step.retention_s)
            before, after = _how_long(step.before_s), _how_long(step.retention_s)
            say(f"the bucket {step.name!r} keeps points {after}; it was {before}")
        else:
            server.make_bucket(org, step.name, step.retention_s)
            say(f"made the bucket {step.name!r}, which keeps points {_how_long(step.retention_s)}")
    return {name: bucket.id for name, bucket in server.buckets(org).items()}


def _task(server: Server, org: str, source: str, target: str, say: Callable[[str], None]) -> None:
    for step in task_steps(hourly_task(source, target, org), server.tasks(org, TASK)):
        if step.id is None:
            server.make_task(org, step.flux, _ABOUT_TASK)
            say(f"made the task {TASK!r}")
        else:
            server.change_task(step.id, step.flux)
            say(f"put the task {TASK!r} back")


def _tokens(
    server: Server,
    org: str,
    desired: Mapping[str, frozenset[tuple[str, str]]],
    folder: Path,
    say: Callable[[str], None],
) -> None:
    there = {name: read_token(folder, name) for name in desired}
    accepted = frozenset(name for name, token in there.items() if token is not None and server.accepts(token))
    for step in token_steps(desired, server.grants(org), accepted):
        for grant in step.stale:
            server.drop_grant(grant)
        write_token(folder, step.name, server.make_token(org, step.name, step.permissions))
        may = " and ".join(sorted({action for action, _ in step.permissions}))
        replaced = "; the one before no longer works" if step.stale else ""
        say(f"made the token {token_path(folder, step.name)}, which may {may}{replaced}")


def _how_long(seconds: int) -> str:
    return f"for {seconds / 86_400:g} days" if seconds else "for ever"


if __name__ == "__main__":
    sys.exit(main())

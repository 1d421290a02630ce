"""A Docker to run the stack in: the one that runs here, or else one of its own for as long as the tests take."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

START_SECONDS: Final = 60
# A daemon's own bridge; nothing else is on it once the daemon has ended.
_BRIDGE: Final = "docker0"


class NoDockerError(Exception):
    """Docker cannot be had here; why, and what would help."""


@dataclass(frozen=True)
class Engine:
    """A running Docker.

    Attributes:
        environment: what a client needs to find it.
        own: whether it was started here, and is nobody else's.
    """

    environment: dict[str, str]
    own: bool

    def docker(self, *arguments: str | Path, check: bool = True) -> str:
        """What a command of Docker prints."""
        return run([_client(), *arguments], self.environment, check=check).stdout.strip()


@contextlib.contextmanager
def engine() -> Iterator[Engine]:
    """A running Docker.

    Raises:
        NoDockerError: there is none, and none can be started.
    """
    # The builder of long ago: it needs no plugin.
    environment = os.environ | {"DOCKER_BUILDKIT": "0", "COMPOSE_BAKE": "false"}
    running = Engine(environment, own=False)
    if shutil.which("docker") and run([_client(), "info"], environment, check=False).returncode == 0:
        yield running
        return
    if os.geteuid() != 0 or not shutil.which("dockerd"):
        raise NoDockerError("no Docker runs here, and starting one takes root and dockerd (on Debian: docker.io)")
    with _started(environment) as own:
        yield own


@contextlib.contextmanager
def _started(environment: dict[str, str]) -> Iterator[Engine]:
    """A daemon with a socket, a process file and images of its own. The images stay, to be quick the next time."""
    cache = os.environ.get("GATEWATCH_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "gatewatch"
    root = Path(cache).expanduser() / "docker"
    root.mkdir(parents=True, exist_ok=True)
    had_bridge = _bridge_exists()
    folder = Path(tempfile.mkdtemp(prefix="gw-"))  # short: the path of a socket may have 107 bytes
    own = Engine(environment | {"DOCKER_HOST": f"unix://{folder}/docker.sock"}, own=True)
    with (root.parent / "docker.lock").open("w") as lock, (folder / "log").open("w") as log:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two daemons cannot share a folder
        daemon = subprocess.Popen(
            [
                "dockerd",
                f"--host=unix://{folder}/docker.sock",
                f"--data-root={root}",
                f"--exec-root={folder}/exec",
                f"--pidfile={folder}/docker.pid",
                # where containerd runs already it is shared; what is another's stays apart
                "--containerd-namespace=gatewatch",
                "--containerd-plugins-namespace=gatewatch-plugins",
            ],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            _wait(own, daemon, folder / "log")
            _remove_leftovers(own)
            yield own
        finally:
            if daemon.poll() is None:
                _remove_leftovers(own)
            _stop(daemon)
            shutil.rmtree(folder, ignore_errors=True)
            if not had_bridge and _bridge_exists() and shutil.which("ip"):
                subprocess.run(["ip", "link", "delete", _BRIDGE], check=False)


def _wait(own: Engine, daemon: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while run([_client(), "info"], own.environment, check=False).returncode:
        if daemon.poll() is not None or time.monotonic() > deadline:
            raise NoDockerError(f"dockerd does not start here: {' '.join(log.read_text().split()[-60:])}")
        time.sleep(0.3)


def _remove_leftovers(own: Engine) -> None:
    """Remove what a run that was killed has left; the daemon is nobody else's."""
    if containers := own.docker("ps", "--all", "--quiet", check=False).split():
        own.docker("rm", "--force", "--volumes", *containers, check=False)
    own.docker("network", "prune", "--force", check=False)
    own.docker("volume", "prune", "--force", check=False)
    own.docker("image", "prune", "--force", "--filter", "until=240h", check=False)  # what no build uses any more


def _stop(daemon: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        daemon.terminate()
        try:
            daemon.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(daemon.pid, signal.SIGKILL)
            daemon.wait()


def _bridge_exists() -> bool:
    return Path("/sys/class/net", _BRIDGE).exists()


def _client() -> str:
    return shutil.which("docker") or "docker"


def run(
    command: list[str | Path], environment: dict[str, str], *, check: bool = True, timeout: float = 1500
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end.

    Raises:
        AssertionError: it failed and `check` is true; with what it said.
    """
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=timeout)
    if check:
        assert done.returncode == 0, f"{' '.join(map(str, command))}: {(done.stdout + done.stderr)[-3000:]}"
    return done

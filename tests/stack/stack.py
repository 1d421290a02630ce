"""The stack as its user has it: docker-compose.yml, a filled-in .env, and `docker compose`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gatewatch.collector.store.influxdb.client import Client
from gatewatch.collector.store.influxdb.store import InfluxStore
from tests.conftest import ROOT, free_port
from tests.stack.engine import Engine, NoDockerError, run
from tests.stack.stand_ins import official, provide, python_image

PROJECT = "gatewatch-check"  # another than that of a stack which may run here
PASSWORD = "correct horse's $taple"
WAIT_SECONDS = 120


def compose_binary() -> Path:
    """`docker compose`, built where need be.

    Raises:
        NoDockerError: it cannot be built here.
    """
    built = subprocess.run([ROOT / "tools/build-compose"], capture_output=True, text=True, check=False)
    if built.returncode:
        raise NoDockerError(" ".join(built.stderr.split()))
    return Path(built.stdout.split()[-1])


@dataclass
class Stack:
    """The stack's services, as far as their images can be had.

    Attributes:
        engine: where it runs.
        folder: for what a user has on the host: .env, the collector's token, what a training keeps.
        services: those that are run.
        made: images that were made here, in place of official ones.
        binary: `docker compose`.
    """

    engine: Engine
    folder: Path
    services: list[str] = field(default_factory=lambda: ["influxdb", "setup", "jobs"])
    made: list[str] = field(default_factory=list)
    binary: Path = field(default_factory=compose_binary)

    def __post_init__(self) -> None:
        self.port = free_port()
        self.env = self.fill_in(
            GATEWATCH_INFLUXDB_PASSWORD=PASSWORD,
            GATEWATCH_GRAFANA_PASSWORD=PASSWORD,
            GATEWATCH_INFLUXDB_PORT=str(self.port),
            GATEWATCH_GRAFANA_PORT=str(free_port()),
            INFLUXDB_V2_URL=f"http://localhost:{self.port}",
        )

    def fill_in(self, name: str = ".env", **values: str) -> Path:
        """A copy of the sample environment file with these values in it, as a user writes them."""
        text = (ROOT / "config/.env.example").read_text()
        for key, value in values.items():
            quoted = "'" + value.replace("'", "\\'") + "'"
            text, count = re.subn(rf"^{key}=.*$", lambda _, line=f"{key}={quoted}": line, text, flags=re.M)
            assert count == 1, key
        path = self.folder / name
        path.write_text(text)
        return path

    def provide_images(self) -> None:
        """Pull or make the images that are not built from the Dockerfile; Grafana's cannot be made."""
        images = {name: each["image"] for name, each in self.configuration()["services"].items()}
        self.made = provide(self.engine, [python_image(), images["influxdb"]])
        if official(self.engine, images["grafana"]):
            self.services.append("grafana")

    def compose(
        self, *arguments: str | Path, check: bool = True, env: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `docker compose`."""
        options = ["--project-directory", ROOT, "--project-name", PROJECT, "--env-file", env or self.env]
        return run([self.binary, *options, *arguments], self.engine.environment, check=check)

    def configuration(self) -> dict[str, Any]:
        """The compose file, with its variables filled in."""
        found: dict[str, Any] = json.loads(self.compose("config", "--format", "json").stdout)
        return found

    def up(self) -> None:
        """Start what is not running, and wait until all is healthy."""
        self.compose("up", "--detach", "--wait", "--wait-timeout", "180", *self.services)

    def down(self, *options: str) -> None:
        """Remove the containers and networks; the volumes stay."""
        self.compose("down", "--remove-orphans", *options)

    def container(self, service: str) -> dict[str, Any]:
        """What Docker knows of a service's container."""
        name = f"{PROJECT}-{service}-1"
        [found] = json.loads(self.engine.docker("inspect", name))
        return dict(found)

    def execute(self, service: str, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in a service's container."""
        return self.compose("exec", "-T", service, *command, check=check)

    def train(self, run_name: str) -> None:
        """Train on the host, with nothing but what the collector needs in the environment."""
        kept = ("PATH", "HOME", "LD_LIBRARY_PATH", "OMP_NUM_THREADS")
        variables = {name: os.environ[name] for name in kept if name in os.environ}
        about = {
            "INFLUXDB_V2_URL": f"http://localhost:{self.port}",
            "INFLUXDB_V2_ORG": "gatewatch",
            "INFLUXDB_V2_BUCKET": "gatewatch",
            "INFLUXDB_V2_TOKEN_FILE": "collector.token",
            "GATEWATCH_SPOOL": str(self.folder / "spool"),
        }
        command = [sys.executable, ROOT / "examples/torch_loop.py", "--run", run_name, "--epochs", "4"]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=variables | about | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert not done.stderr, done.stderr

    def token(self, name: str) -> str:
        """A token, taken from where the set-up put it."""
        path = self.folder / f"{name}.token"
        path.unlink(missing_ok=True)
        self.compose("cp", f"setup:/tokens/{name}/{name}.token", path)
        return path.read_text().strip()

    def store(self, name: str = "jobs", bucket: str = "gatewatch") -> InfluxStore:
        """A bucket, with one of the tokens."""
        url = f"http://localhost:{self.port}"
        return InfluxStore(Client(url, org="gatewatch", bucket=bucket, token=self.token(name)))


def until(condition: Callable[[], object], what: str, about: Mapping[str, Callable[[], object]]) -> None:
    """Wait until something is so.

    Raises:
        AssertionError: it is not so in time; says what, and what is known of it.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(
                f"{what}: not so in {WAIT_SECONDS} s; { {name: ask() for name, ask in about.items()} }"
            )
        time.sleep(1)

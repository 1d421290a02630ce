"""Fixtures for every test: a clean environment, and a real InfluxDB for those that ask for one."""

from __future__ import annotations

import gc
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from hypothesis import HealthCheck, settings

from gatewatch.collector.store.influxdb.client import Client
from gatewatch.collector.store.influxdb.store import InfluxStore
from tests.declared_fields import declared_fields, watch_points  # noqa: F401 - a fixture for every test

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

ROOT = Path(__file__).parent.parent
_BINARY = os.environ.get("GATEWATCH_INFLUXD")
_CI = os.environ.get("CI", "").lower() not in ("", "0", "false")

# Compiling Flux makes much garbage: fewer collections, and no profile of who makes it, save a third of influxd's time.
_GO = {"GOGC": "400", "GODEBUG": "memprofilerate=0,profstackdepth=1"}

_spools = count()

settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])  # not by the clock
settings.load_profile("tests")
watch_points()

# TensorFlow and Triton each bring an LLVM, and a process that loads both aborts. torch does without Triton on a CPU.
sys.modules["triton"] = None  # type: ignore[assignment]  # which makes its import fail


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Leave what is imported out of garbage collections: with three frameworks each takes most of a second."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test sees the developer's own store, token, configuration, spool or proxy, nor another test's."""
    for name in list(os.environ):
        if name.startswith(("INFLUXDB_V2_", "GATEWATCH_", "GRAFANA_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("GATEWATCH_SPOOL", str(tmp_path_factory.getbasetemp() / f"spool-{next(_spools)}"))


@dataclass
class Influxd:
    """A running influxd with one organisation, and what a test needs of it."""

    binary: str
    address: str
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    org: str = "gatewatch-tests"
    token: str = "the-operator's-token"
    org_id: str = ""
    buckets: Iterator[int] = field(default_factory=count)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{self.address}"

    def start(self) -> None:
        """Start the server on what its folder holds, and wait until it answers."""
        places = [f"--{name}-path={self.folder / name}" for name in ("bolt", "sqlite", "engine")]
        log = self.folder / "influxd.log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [self.binary, f"--http-bind-address={self.address}", "--reporting-disabled", *places],
                env=os.environ | _GO,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                if self.call("/health")["status"] == "pass":
                    return
            except (urllib.error.URLError, OSError):
                pass
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"influxd did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop the server; what it holds stays in its folder."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def call(self, path: str, body: object = None) -> Any:
        """Ask the server's API: a POST where there is a body. Gives the decoded answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Authorization": f"Token {self.token}"})
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.loads(response.read() or b"null")

    def bucket(self, name: str | None = None, retention_s: int = 0) -> str:
        """A fresh bucket's name."""
        name = name or f"bucket-{next(self.buckets)}"
        rules = [{"type": "expire", "everySeconds": retention_s}] if retention_s else []
        self.call("/api/v2/buckets", {"orgID": self.org_id, "name": name, "retentionRules": rules})
        return name

    def token_for(self, *actions: str) -> str:
        """A token that may do these things (read, write) with every bucket and nothing else."""
        permissions = [{"action": a, "resource": {"type": "buckets", "orgID": self.org_id}} for a in actions]
        answer = self.call("/api/v2/authorizations", {"orgID": self.org_id, "permissions": permissions})
        return str(answer["token"])

    def store(self, bucket: str | None = None, token: str | None = None, timeout: float | None = None) -> InfluxStore:
        """A store in a bucket, a fresh one by default."""
        return InfluxStore(
            Client(self.url, org=self.org, bucket=bucket or self.bucket(), token=token or self.token, timeout=timeout)
        )


def free_port() -> int:
    """A port of the loopback address that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def influxd_binary() -> str:
    """The path of influxd; where there is none the test is skipped, and fails on CI."""
    if _BINARY:
        return _BINARY
    cached = subprocess.run([ROOT / "tools/build-influxd", "--cached"], capture_output=True, text=True, check=False)
    if cached.returncode:
        lacking("influxd is not built: `make influxd` builds it once, or GATEWATCH_INFLUXD names one")
    return cached.stdout.strip()


def lacking(remedy: str) -> NoReturn:
    """Skip the test for want of something; on CI fail it."""
    if _CI:
        pytest.fail(remedy)
    pytest.skip(remedy)


@pytest.fixture(scope="session")
def influxd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influxd]:
    """A real InfluxDB on the loopback address, for the whole session."""
    yield from run_influxd(tmp_path_factory.mktemp("influxd"))


@pytest.fixture
def own_influxd(tmp_path: Path) -> Iterator[Influxd]:
    """A real InfluxDB for one test, which may stop it."""
    yield from run_influxd(tmp_path)


def run_influxd(folder: Path) -> Iterator[Influxd]:
    """Start influxd in a folder, set it up, and stop it in the end."""
    server = Influxd(influxd_binary(), f"127.0.0.1:{free_port()}", folder)
    try:
        server.start()
        setup = {"username": "tests", "password": "correct horse", "org": server.org, "bucket": "first"}
        server.org_id = server.call("/api/v2/setup", setup | {"token": server.token})["org"]["id"]
        yield server
    finally:
        server.stop()

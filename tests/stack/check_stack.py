"""docker-compose.yml, run for real from nothing to scores, through crashes, and down and up again.

The tests are one story, in this order. Grafana takes part where its image can be pulled.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatewatch.collector.errors import ConfigError, WriteUnavailable
from gatewatch.collector.schema import GATE_DERIVED, GATE_SCORES, GATE_STATS, LAYER_UPDATES, RUNS, TRAIN_METRICS
from gatewatch.jobs.scoring.residuals import WARM_UP
from tests.conftest import lacking
from tests.stack.engine import NoDockerError, engine
from tests.stack.stack import PASSWORD, PROJECT, Stack, until

pytestmark = pytest.mark.timeout(1800)  # the first time the image is built from nothing

FIELDS = {
    GATE_STATS: "mean",
    LAYER_UPDATES: "weight_norm",
    TRAIN_METRICS: "loss",
    RUNS: "event",
    GATE_DERIVED: "drift",
    GATE_SCORES: "anomaly_score",
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack, of which nothing runs yet; in the end nothing of it is left."""
    try:
        with engine() as docker:
            stack = Stack(docker, tmp_path_factory.mktemp("stack"))
            stack.down("--volumes")  # what a run that was killed has left
            stack.provide_images()
            try:
                yield stack
            finally:
                stack.down("--volumes")
                if not docker.own:
                    docker.docker("rmi", *stack.made, check=False)
    except NoDockerError as error:
        lacking(f"the stack is not run: {error}")


def crash(stack: Stack, service: str) -> None:
    """Kill the container's process from outside, as the kernel does when memory runs out."""
    container = stack.container(service)
    process = container["State"]["Pid"]
    groups = Path(f"/proc/{process}/cgroup")
    if os.geteuid() != 0 or not groups.exists() or container["Id"] not in groups.read_text():
        lacking("the processes of this Docker are another machine's or another user's")
    os.kill(process, signal.SIGKILL)


def status(stack: Stack, service: str) -> str:
    """Whether a service is healthy; of one that is not running its state."""
    state = stack.container(service)["State"]
    return str(state.get("Health", state)["Status"]) if state["Running"] else str(state["Status"])


def counts(stack: Stack) -> dict[str, int]:
    """Measurement → points."""
    store = stack.store()
    return {measurement: store.count(measurement, field) for measurement, field in FIELDS.items()}


def scored(stack: Stack, run: str) -> None:
    """Wait until all that can be scored of a run that has ended is."""
    store = stack.store()
    captures = store.count(GATE_STATS, "mean", run=run, tags={"gate": "forget"})
    wanted = captures - WARM_UP
    assert wanted > 10
    only = {"gate": "forget", "detector": "consensus"}
    until(
        lambda: store.count(GATE_SCORES, "anomaly_score", run=run, tags=only) >= wanted,
        f"{run} is scored",
        {"log": lambda: stack.compose("logs", "--tail", "20", "jobs").stdout},
    )
    seen: list[dict[str, int]] = []
    until(lambda: seen.append(counts(stack)) or seen[-1:] == seen[-2:-1], "the last of it is written", {})


@pytest.mark.parametrize("missing", ["GATEWATCH_INFLUXDB_PASSWORD", "GATEWATCH_GRAFANA_PASSWORD"])
def test_the_stack_does_not_start_without_a_password(stack: Stack, missing: str) -> None:
    others = {"GATEWATCH_INFLUXDB_PASSWORD", "GATEWATCH_GRAFANA_PASSWORD"} - {missing}
    done = stack.compose("up", "--detach", check=False, env=stack.fill_in("env", **dict.fromkeys(others, PASSWORD)))
    assert done.returncode
    [said] = done.stderr.strip().splitlines()
    assert f"{missing} is missing a value: choose a password" in said
    assert "put it into .env" in said
    assert not stack.engine.docker("ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={PROJECT}")


def test_up_from_nothing_makes_every_service_healthy(stack: Stack) -> None:
    stack.compose("build", "setup", "jobs")
    stack.up()
    for service in stack.services:
        state = stack.container(service)["State"]
        assert (state["Status"], state["ExitCode"]) == (("exited", 0) if service == "setup" else ("running", 0)), (
            stack.compose("logs", service).stdout
        )
        assert service == "setup" or state["Health"]["Status"] == "healthy"


def test_ports_are_open_on_the_loopback_address_only(stack: Stack) -> None:
    for service in stack.services:
        for bindings in stack.container(service)["HostConfig"]["PortBindings"].values():
            assert {each["HostIp"] for each in bindings} == {"127.0.0.1"}


def test_the_jobs_run_without_rights_on_a_read_only_file_system_with_gatewatch_alone(stack: Stack) -> None:
    assert stack.execute("jobs", "id", "-u").stdout.strip() == "10001"
    for path in ("/x", "/opt/gatewatch/x", "/run/gatewatch/x"):
        assert "Read-only file system" in stack.execute("jobs", "touch", path, check=False).stderr
    names = ["torch", "keras", "tensorflow", "collector", "jobs", "gatewatch"]
    look = f"from importlib.util import find_spec; print(*filter(find_spec, {names}))"
    assert stack.execute("jobs", "python", "-c", look).stdout.split() == ["gatewatch"]


def test_no_secret_is_in_the_image_or_in_a_log(stack: Stack) -> None:
    told = stack.engine.docker("history", "--no-trunc", "gatewatch") + stack.compose("logs").stdout
    for secret in (PASSWORD, *map(stack.token, ("collector", "jobs", "grafana"))):
        assert secret not in told


def test_each_service_can_read_its_own_token_and_no_other(stack: Stack) -> None:
    assert stack.execute("jobs", "ls", "/run/gatewatch").stdout.split() == ["jobs.token"]
    assert stack.execute("jobs", "cat", "/run/gatewatch/jobs.token").stdout.strip() == stack.token("jobs")

    def as_grafana(volume: str) -> str:
        mount = f"{PROJECT}_{volume}-token:/run/gatewatch:ro"
        command = ["run", "--rm", "--user", "472:0", "--entrypoint", "cat", "--volume", mount, "gatewatch"]
        return stack.engine.docker(*command, f"/run/gatewatch/{volume}.token", check=False)

    assert as_grafana("grafana") == stack.token("grafana")
    assert as_grafana("collector") == as_grafana("jobs") == ""


def test_a_training_on_the_host_is_scored(stack: Stack) -> None:
    stack.token("collector")  # into the file that .env names
    stack.train("first")
    scored(stack, "first")
    runs = stack.store().runs()
    assert list(zip(runs["run"], runs["state"], strict=True)) == [("first", "completed")]


def test_each_token_allows_only_what_its_service_does(stack: Stack) -> None:
    assert stack.store("collector").count(GATE_STATS, "mean") > 0
    with pytest.raises(ConfigError, match="cannot be read"):
        stack.store("collector", "gatewatch_hourly").count(GATE_STATS, "mean")
    grafana = stack.store("grafana")
    assert grafana.count(GATE_STATS, "mean") > 0
    with pytest.raises(WriteUnavailable, match="the right to write"):
        grafana.write_lines(b"m f=1 1\n")


@pytest.mark.parametrize("service", ["influxdb", "jobs"])
def test_a_crashed_service_is_restarted(stack: Stack, service: str) -> None:
    before, restarts = counts(stack), stack.container(service)["RestartCount"]
    crash(stack, service)
    about = {"log": lambda: stack.compose("logs", "--tail", "20", service).stdout}
    until(lambda: stack.container(service)["RestartCount"] > restarts, f"{service} starts again", about)
    until(lambda: status(stack, service) == "healthy", f"{service} is healthy again", about)
    assert counts(stack) == before


def test_killed_services_start_again_with_up(stack: Stack) -> None:
    before = counts(stack)
    stack.compose("kill", *stack.services)
    assert status(stack, "influxdb") == "exited"
    stack.up()
    assert counts(stack) == before
    stack.train("second")
    scored(stack, "second")


def test_the_jobs_stop_cleanly(stack: Stack) -> None:
    stack.compose("stop", "jobs")
    assert stack.container("jobs")["State"]["ExitCode"] == 0
    assert stack.compose("logs", "jobs").stdout.rstrip().endswith(" stopped")


def test_down_and_up_keep_points_and_tokens(stack: Stack) -> None:
    before, tokens = counts(stack), {name: stack.token(name) for name in ("collector", "jobs", "grafana")}
    assert all(before.values())
    stack.down()
    stack.up()
    assert counts(stack) == before
    assert {name: stack.token(name) for name in tokens} == tokens
    [said] = stack.compose("logs", "--no-log-prefix", "setup").stdout.strip().splitlines()
    assert said == "http://influxdb:8086 is set up; the tokens are in /tokens"


def test_a_wrong_password_is_an_error_of_one_line(stack: Stack, tmp_path: Path) -> None:
    other = stack.fill_in("env", GATEWATCH_INFLUXDB_PASSWORD="another", GATEWATCH_GRAFANA_PASSWORD="another")
    short = stack.compose("run", "--rm", "--no-deps", "setup", check=False, env=other)
    assert short.returncode == 2
    assert "gatewatch: GATEWATCH_INFLUXDB_PASSWORD must be 8 to 72 bytes long; choose another" in short.stderr
    other = stack.fill_in("env", GATEWATCH_INFLUXDB_PASSWORD="another one", GATEWATCH_GRAFANA_PASSWORD="another")
    wrong = stack.compose("run", "--rm", "--no-deps", "setup", check=False, env=other)
    assert wrong.returncode == 2
    assert "gatewatch: http://influxdb:8086 was set up before and does not let 'gatewatch' in" in wrong.stderr

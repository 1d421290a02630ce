"""The stack's files hold together: what they say of versions, variables, addresses and paths."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from influxdb_client.client._base import _BaseClient

ROOT = Path(__file__).parents[2]
COMPOSE = (ROOT / "docker-compose.yml").read_text()
SERVICES = yaml.safe_load(COMPOSE)["services"]
SAMPLE = (ROOT / "config/.env.example").read_text()
PINNED = re.compile(r"^([a-z0-9._-]+)==(\S+)", re.M)


def requirements(name: str) -> set[tuple[str, str]]:
    return set(PINNED.findall((ROOT / f"requirements/{name}.txt").read_text()))


def test_the_sample_lists_exactly_the_variables_that_are_read():
    code = "".join(path.read_text() for part in ("collector", "jobs") for path in (ROOT / part).rglob("*.py"))
    names = r"(?:GATEWATCH|INFLUXDB|GRAFANA)_\w+"
    read = set(re.findall(rf'(?:read_variable|read_password|state_folder|_number|_truth)\("({names})"', code))
    read |= {f"INFLUXDB_V2_{name}" for name in re.findall(r'(?<!\w)_variable\("(\w+)"\)', code)}
    read |= set(re.findall(rf'\((?:environ|environment), "({names})"', code))
    read |= set(re.findall(rf"\$\{{({names})", COMPOSE))
    sample = set(re.findall(r"^(?:# )?([A-Z]\w+)=", SAMPLE, re.M))
    assert sample == read


def test_the_sample_names_every_variable_that_influxdb_client_reads_and_those_of_other_programs():
    theirs = set(re.findall(r"INFLUXDB_V2_[A-Z_]+", inspect.getsource(_BaseClient)))
    assert len(theirs) == 13
    for name in theirs | {"REQUESTS_CA_BUNDLE", "HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"}:
        assert name in SAMPLE


def test_the_sample_has_the_defaults_of_the_compose_file():
    defaults = dict(re.findall(r"\$\{(\w+):-([^}]+)\}", COMPOSE))
    values = {name: value for name, value in re.findall(r"^(\w+)=(.*)$", SAMPLE, re.M) if value}
    apart = {"INFLUXDB_V2_URL", "INFLUXDB_V2_TOKEN_FILE"}  # where the host finds it; the stack has its own names
    assert {name: values[name] for name in values.keys() - apart} == {
        name: defaults[name] for name in values.keys() - apart
    }


def test_no_password_has_a_value_or_a_default():
    for name in ("GATEWATCH_INFLUXDB_PASSWORD", "GATEWATCH_GRAFANA_PASSWORD"):
        assert re.search(rf"^{name}=$", SAMPLE, re.M)
        assert re.search(rf"\$\{{{name}:\?[^}}]*put it into \.env[^}}]*\}}", COMPOSE)
        assert len(re.findall(rf"(?<!\$)\$\{{{name}\b", COMPOSE)) == 1


def test_every_image_is_pinned():
    images = [service["image"] for service in SERVICES.values() if "build" not in service]
    images += re.findall(r"^FROM (\S+:\S+)", (ROOT / "Dockerfile").read_text(), re.M)
    for image in images:
        assert re.fullmatch(r"[\w/.-]+:\d+\.\d+[\w.-]*", image), image


def test_the_server_is_the_one_that_the_tests_run():
    [version] = re.findall(r"influxdata/influxdb/v2 v(\S+)", (ROOT / "tools/go.mod").read_text())
    assert SERVICES["influxdb"]["image"] == f"influxdb:{version}"


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_has_a_health_check_bounded_logs_and_local_ports(name):
    service = SERVICES[name]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["logging"]["options"]["max-size"]
    assert service["restart"] == ("no" if name == "setup" else "unless-stopped")
    if name == "setup":
        assert service["healthcheck"] == {"disable": True}
    else:
        assert "healthcheck" in service or "HEALTHCHECK" in (ROOT / "Dockerfile").read_text()
    for port in service.get("ports", ()):
        assert port.startswith("${GATEWATCH_BIND:-127.0.0.1}:")


@pytest.mark.parametrize("name", ["jobs", "grafana"])
def test_services_that_read_a_token_start_after_the_set_up(name):
    assert SERVICES[name]["depends_on"]["setup"] == {"condition": "service_completed_successfully"}
    assert SERVICES[name]["depends_on"]["influxdb"] == {"condition": "service_healthy"}


def test_grafana_has_every_variable_that_its_files_name():
    given = set(SERVICES["grafana"]["environment"])
    for path in (ROOT / "grafana/provisioning").rglob("*.*"):
        asked = set(re.findall(r"(?<!\$)\$\{?([A-Z][A-Z0-9_]{2,})", path.read_text()))
        assert asked <= given, path


def test_grafanas_files_are_where_it_looks_for_them():
    mounts = [mount.split(":") for mount in SERVICES["grafana"]["volumes"] if isinstance(mount, str)]
    places = {target: source for source, target, *_ in mounts}
    for source in places.values():
        assert not source.startswith("./") or (ROOT / source).is_dir(), source
    providers = list((ROOT / "grafana/provisioning/dashboards").iterdir())
    assert providers
    for path in providers:
        for provider in yaml.safe_load(path.read_text())["providers"]:
            assert provider["options"]["path"] in places
    [datasource] = yaml.safe_load((ROOT / "grafana/provisioning/datasources/gatewatch.yaml").read_text())["datasources"]
    [token] = re.findall(r"\$__file\{(.+)\}", datasource["secureJsonData"]["token"])
    [volume] = [v for v in SERVICES["grafana"]["volumes"] if isinstance(v, dict) and v["source"] == "grafana-token"]
    assert token == f"{volume['target']}/grafana.token"


def test_the_image_has_the_versions_that_are_tested_and_no_framework():
    jobs = requirements("jobs")
    assert jobs <= requirements("dev")
    names = {name for name, _ in jobs}
    assert not names & {"torch", "keras", "tensorflow", "tensorflow-cpu", "stable-baselines3", "sb3-contrib"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["jobs"], *extras["dask"]]
    assert {re.split(r"[><=\[; ]", each)[0] for each in wanted} - {"gatewatch"} <= names


def test_the_build_of_the_image_has_every_file_that_the_wheel_is_made_of():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    let_in = {line[1:] for line in lines if line.startswith("!")}
    assert all((ROOT / name).exists() for name in let_in)
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {*wheel["only-include"], "pyproject.toml", "README.md", "LICENSE"} <= let_in

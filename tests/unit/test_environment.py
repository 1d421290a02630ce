"""Values from the environment, as a .env file that was saved on Windows leaves them there: with a carriage return."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gatewatch.collector.capture_schedule import CaptureSchedule
from gatewatch.collector.config import load_settings
from gatewatch.collector.environment import read_password, read_variable, whole_number
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.runtime.ranks import current_rank
from gatewatch.collector.schema import Point
from gatewatch.collector.spool.queue import spool_root
from gatewatch.collector.store import open_store
from gatewatch.jobs.alerts import smtp
from gatewatch.jobs.cli import main
from gatewatch.jobs.grafana.artifacts import alert_environment
from gatewatch.jobs.grafana.artifacts import wanted as wanted_in_grafana
from gatewatch.jobs.grafana.connection import connect, token
from gatewatch.jobs.service.state_folder import state_folder
from gatewatch.jobs.stack.desired_state import desired_state
from tests.conftest import ROOT


@pytest.mark.parametrize("value", ["g.db", "g.db\r", "g.db\r\n", "  g.db\t", "g.db \r"])
def test_white_space_around_a_value_is_no_part_of_it(monkeypatch, value):
    monkeypatch.setenv("GATEWATCH_STORE", value)
    assert read_variable("GATEWATCH_STORE") == "g.db"
    assert read_variable("GATEWATCH_STORE", {"GATEWATCH_STORE": value}) == "g.db"


@pytest.mark.parametrize("value", [None, "", "\r", " \r\n"])
def test_an_empty_value_is_one_that_is_not_given(monkeypatch, value):
    if value is not None:
        monkeypatch.setenv("GATEWATCH_STORE", value)
    assert read_variable("GATEWATCH_STORE") == ""


def test_a_password_keeps_its_blanks_and_loses_a_line_break_at_its_end():
    assert read_password("P", {"P": " horse \r\n"}) == " horse "
    assert read_password("P", {"P": "a\rb"}) == "a\rb"
    assert read_password("P", {"P": "\r"}) == ""
    assert read_password("P", {}) == ""


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("12", 12),
        ("0" * 5000 + "7", 7),
        ("9" * 5001, None),
        ("-1", None),
        ("1.5", None),
        ("²", None),
        ("", None),
    ],
)
def test_a_whole_number_of_any_length_is_read_or_refused(text, number):
    assert whole_number(text) == number


def test_numbers_of_thousands_of_digits_are_refused_by_their_names(monkeypatch):
    digits = "9" * 5001
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, digits)
    assert current_rank().number == 0
    for name, value in (("ORG", "o"), ("BUCKET", "b"), ("TOKEN", "t"), ("TIMEOUT", digits)):
        monkeypatch.setenv(f"INFLUXDB_V2_{name}", value)
    with pytest.raises(ConfigError, match=r"INFLUXDB_V2_TIMEOUT='9+…9+' is not a number") as caught:
        open_store("http://localhost:8086")
    assert len(str(caught.value)) <= 1000
    with pytest.raises(ConfigError, match="overhead=a int that cannot be shown: must be a share"):
        CaptureSchedule("auto", 10**5000, lambda: 0.0)


def test_a_training_and_a_command_find_the_same_store(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWATCH_STORE", "sqlite:///g.db\r")
    store = open_store()
    store.write([Point("runs", {"run": "goog-1", "phase": "train"}, {"event": "started", "step": 0}, 10**18)])
    store.close()
    assert main(["runs"]) == 0
    assert "goog-1" in capsys.readouterr().out
    assert {path.name.partition("-")[0] for path in tmp_path.iterdir()} == {"g.db"}


def test_an_empty_store_leaves_the_choice_to_the_file(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gatewatch.toml").write_text('[store]\nurl = "sqlite:///file.db"\n')
    monkeypatch.setenv("GATEWATCH_STORE", "\r")
    monkeypatch.setenv("GATEWATCH_CONFIG", "\r")
    assert open_store().url == "sqlite:///file.db"


def test_the_influxdb_of_such_an_environment(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "collector.token").write_bytes(b"s3cret\r\n")
    values = {"URL": "http://h:8086\r", "ORG": "o\r", "BUCKET": "b\r", "TOKEN": "\r", "TOKEN_FILE": "collector.token\r"}
    for name, value in values.items():
        monkeypatch.setenv(f"INFLUXDB_V2_{name}", value)
    assert open_store().destination == {"url": "http://h:8086", "org": "o", "bucket": "b"}
    assert open_store().influxdb.token == "s3cret"


def test_the_files_and_folders_of_such_an_environment(monkeypatch, tmp_path):
    (tmp_path / "own.toml").write_text("[spool]\nmax_mb = 7\n")
    monkeypatch.setenv("GATEWATCH_CONFIG", f"{tmp_path}/own.toml\r")
    monkeypatch.setenv("GATEWATCH_SPOOL", f"{tmp_path}/spool\r")
    monkeypatch.setenv("GATEWATCH_STATE", f"{tmp_path}/state\r")
    assert load_settings().spool.max_mb == 7
    assert spool_root() == tmp_path / "spool"
    assert state_folder(None, {}).parent == tmp_path / "state"
    for name in ("GATEWATCH_SPOOL", "GATEWATCH_STATE"):
        monkeypatch.setenv(name, "\r")
    monkeypatch.setenv("XDG_STATE_HOME", f"{tmp_path}/home\r")
    assert spool_root() == tmp_path / "home/gatewatch/spool"
    assert state_folder(None, {}).parent == tmp_path / "home/gatewatch"


def test_the_grafana_and_the_mail_of_such_an_environment(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRAFANA_TOKEN", "glsa_1\r")
    monkeypatch.setenv("GATEWATCH_SMTP_PASSWORD", "horse \r")
    assert token() == "glsa_1"
    assert smtp._password() == "horse "
    assert alert_environment({"GATEWATCH_ALERT_TO": "a@b.cd;e@f.gh\r"})["GATEWATCH_ALERT_TO"] == "a@b.cd;e@f.gh"
    assert "policy" not in {resource.kind for resource in wanted_in_grafana(None, {"GATEWATCH_ALERT_TO": "\r"})}
    monkeypatch.setenv("GRAFANA_URL", "\r")
    with pytest.raises(Exception, match="GRAFANA_URL is not set"):
        connect()


def test_the_set_up_of_such_an_environment():
    given = {
        "INFLUXDB_V2_URL": "http://influxdb:8086\r",
        "GATEWATCH_INFLUXDB_PASSWORD": "correct horse \r",
        "GATEWATCH_INFLUXDB_USER": "me\r",
        "GATEWATCH_RETENTION": "72h\r",
        "INFLUXDB_V2_BUCKET": "\r",
    }
    found = desired_state(given)
    assert (found.url, found.password, found.user) == ("http://influxdb:8086", "correct horse ", "me")
    assert (found.retention_s, found.bucket) == (259_200, "gatewatch")


def test_nothing_else_reads_a_variable_by_itself():
    reads = re.compile(r"environ(ment)?(\.get\(|\.setdefault\(|\[[\"'])|getenv")
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for part in ("collector", "jobs")
        for path in sorted(Path(ROOT, part).rglob("*.py"))
        for line in path.read_text().splitlines()
        if reads.search(line) and path.name != "environment.py"
    ]
    assert found == [
        'jobs/grafana/artifacts.py: return "$".join(_VARIABLE.sub(lambda m: environment.get(m[1] or m[2], ""), part) '
        "for part in parts)",  # which expands them as Grafana does
    ]

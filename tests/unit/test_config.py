"""The configuration file, and how a store is chosen."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from gatewatch.collector import config
from gatewatch.collector.config import Settings, load_settings
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.run_session import RunSession
from gatewatch.collector.schema import Point
from gatewatch.collector.spool.queue import spool_root
from gatewatch.collector.store import open_store
from gatewatch.collector.store.influxdb.settings import read_token_file
from gatewatch.jobs.commands.query import _read
from gatewatch.jobs.report.page import write_report
from gatewatch.jobs.service.state_folder import state_folder

SAMPLE = Path(__file__).parents[2] / "config/gatewatch.sample.toml"
URL, ORG, BUCKET, TOKEN = (f"INFLUXDB_V2_{name}" for name in ("URL", "ORG", "BUCKET", "TOKEN"))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def influxdb_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ((URL, "http://from-url:8086"), (ORG, "o"), (BUCKET, "b"), (TOKEN, "s3cret")):
        monkeypatch.setenv(name, value)


def test_without_a_file_there_are_defaults() -> None:
    assert load_settings().store.url is None


def test_the_file_of_the_working_directory_is_read(folder: Path) -> None:
    (folder / config.FILE).write_text('[store]\nurl = "sqlite:///a.db"\n')
    assert load_settings().store.url == "sqlite:///a.db"


def test_the_environment_names_another_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "other.toml").write_text('[store]\nurl = "sqlite:///b.db"\n')
    monkeypatch.setenv("GATEWATCH_CONFIG", str(folder / "other.toml"))
    assert load_settings().store.url == "sqlite:///b.db"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"[store]\nurll = 'x'", r"unknown key 'urll' in \[store\]; allowed: .*url"),
        (b"[shop]\nx = 1", r"unknown key 'shop'; allowed: .*store"),
        (b"[store]\nurl = 3", "store.url: .*string"),
        (b"store = 3", "store: "),
        (b"[mail]\nhots = 'h'", r"unknown key 'hots' in \[mail\]; allowed: host, .*timeout_seconds"),
        (b"[mail]\nhost = 'a b'", "mail.host: "),
        (b"[mail]\nhost = 'h\\r\\nRCPT TO:<a@b>'", "mail.host: "),
        (b"[mail]\nport = 70000", "mail.port: .*65535"),
        (b"[mail]\nsecurity = 'ssl'", "mail.security: .*'starttls'"),
        (b"[mail]\nto = ['a@b.c']", "mail: to is given and host is not"),
        (b"[mail]\nhost = 'h'\nto = ['a@b.c']", "mail: to is given and sender is not"),
        (b"[mail]\nhost = 'h'\nsender = 's@b.c'\nto = ['a b']", "mail.to.0: 'a b' is no mail address"),
        (b"[mail]\nsender = 's@b.c\\nBcc: x@y.z'", "mail.sender: .*no mail address"),
        (b"[alerts]\nrepeat_hours = 0", "alerts.repeat_hours: "),
        (b"[alerts]\nrule = []", r"unknown key 'rule' in \[alerts\]; allowed: .*rules"),
        (b"[[alerts.rules]]\nnme = 'x'", r"unknown key 'nme' in \[alerts.rules\]; allowed: name, .*runbook"),
        (b"[[alerts.rules]]\nname = 'x'\nfield = 'f'\nabove = 1", "alerts.rules.0.measurement: field required"),
        (b"[[alerts.rules]]\nname = 'A B'\nfield = 'f'\nabove = 1\nmeasurement = 'm'", "alerts.rules.0.name: "),
        (
            b"[[alerts.rules]]\nname = 'x'\nfield = 'f'\nmeasurement = 'm'",
            "alerts.rules.0: .*give above, below",
        ),
        (
            b"[[alerts.rules]]\nname = 'x'\nfield = 'f'\nmeasurement = 'm'\nabove = 1\nrecovery = 2",
            "would recover where it fires",
        ),
        (
            b"[[alerts.rules]]\nname = 'x'\nfield = 'f'\nmeasurement = 'm'\nabove = 1\nfor_captures = 3\nwithin = 2",
            "more captures",
        ),
        (b"[store", "not valid TOML"),
        (b"\xff\xfe", "not UTF-8"),
        ("[store]".encode("utf-16"), "not UTF-8 text; save it as UTF-8"),
        ("[store]".encode("utf-16-le"), "not UTF-8"),
        ("[store]\nurl = 'sqlite:///\u00e9.db'".encode("latin-1"), "not UTF-8"),
        (b"[store]\rurl = 'a'", "not valid TOML"),
        (b"[store]\nurl = 'a'\nurl = 'b'", "not valid TOML: Cannot overwrite a value"),
        (b"[[store]]\nurl = 'a'", "store: "),
        (b"[stor]\nurl = 'a'", "unknown key 'stor'; allowed: .*; did you mean 'store'"),
        (b"[mail]\nhots = 'h'", "did you mean 'host'"),
        (b'"\\u001b[31m\\u202e" = 1', r"unknown key '\\x1b\[31m\\u202e'; allowed: store"),
        (b"[store]\n" + b"k" * 65536 + b" = 1", r"unknown key 'k+…k+' in \[store\]; allowed: url"),
        (b"[mail]\nport = '25'", "mail.port: input should be a valid integer"),
        (b"[mail]\nto = 'a@b'", "mail.to: input should be a valid list"),
        (b"[spool]\nmax_mb = " + b"9" * 5001, "not valid TOML: a number has too many digits"),
        (b"[spool]\nmax_mb = 0x" + b"f" * 5001, "spool.max_mb: input should be less than"),
        (b"[spool]\nmax_mb = " + b"9" * 4000, "spool.max_mb: input should be less than"),
        (b"[jobs]\ncaptures_per_pass = " + b"9" * 4000, "jobs.captures_per_pass: input should be less than"),
        (b"[jobs]\nfalse_alarm_rate = 5.0", "jobs.false_alarm_rate: input should be less than or equal to 0.5"),
        (b"[jobs]\nfalse_alarm_rate = 0", "jobs.false_alarm_rate: input should be greater than or equal to 0.01"),
        (b"[jobs]\ninterval_seconds = nan", "jobs.interval_seconds: input should be a finite number"),
        (b"[alerts]\nrepeat_hours = 1e999", "alerts.repeat_hours: input should be a finite number"),
        (b"[alerts]\ngroup_wait_seconds = -inf", "alerts.group_wait_seconds: input should be a finite number"),
        (b"[alerts]\ngroup_wait_seconds = -1", "alerts.group_wait_seconds: input should be greater than"),
        (b"x = " + b"[" * 100_000, "not valid TOML: its tables and values are nested too deeply"),
        (b"a" + b".a" * 100_000 + b" = 1", "nested too deeply"),
        (b"[" + b"a ." * 100_000 + b"a]", "nested too deeply"),
        (b"#" * 2**20 + b"\n", "cannot be read: it is larger than 1 MiB"),
    ],
    ids=lambda value: value[:40],
)
def test_a_wrong_file_is_one_line_with_file_key_and_remedy(folder: Path, text: bytes, reason: str) -> None:
    (folder / config.FILE).write_bytes(text)
    with pytest.raises(ConfigError, match=reason) as caught:
        load_settings()
    assert str(caught.value).startswith(f"{config.FILE}: ")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) <= 1000


@pytest.mark.parametrize("text", ["[store]\r\nurl = 'sqlite:///a.db'\r\n", "\ufeff[store]\nurl = 'sqlite:///a.db'"])
def test_a_file_that_windows_has_saved_is_read_as_any_other(folder: Path, text: str) -> None:
    (folder / config.FILE).write_bytes(text.encode())
    assert load_settings().store.url == "sqlite:///a.db"


def test_a_comment_of_dots_and_many_recipients_are_not_deep(folder: Path) -> None:
    recipients = ", ".join(f"'{number}@a.b'" for number in range(200))
    text = f"# {'.' * 200}\n[mail]\nhost = 'h'\nsender = 's@b.c'\nto = [{recipients}]\n"
    (folder / config.FILE).write_text(text)
    assert len(load_settings().mail.to) == 200


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/dev/zero", "it is larger than 1 MiB"),
        ("pipe", "it is a pipe; name a file"),
        ("large", "it is larger than 1 MiB"),
        ("socket", "No such device or address"),
        ("loop", "Too many levels of symbolic links"),
        (".", "Is a directory"),
        ("x" * 5000, "File name too long"),
    ],
)
def test_what_is_no_file_of_a_person_is_refused_at_once(folder: Path, monkeypatch, name: str, reason: str) -> None:
    os.mkfifo(folder / "pipe")
    with (folder / "large").open("wb") as large:
        large.truncate(2**31)
    socket.socket(socket.AF_UNIX).bind("socket")
    (folder / "loop").symlink_to("loop")
    monkeypatch.setenv("GATEWATCH_CONFIG", name)
    with pytest.raises(ConfigError, match=f"cannot be read: {reason}") as caught:
        load_settings()
    assert len(str(caught.value)) <= 1000


def test_no_configuration_is_what_dev_null_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWATCH_CONFIG", "/dev/null")
    assert load_settings() == Settings()


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_a_path_that_no_file_can_have_is_named_by_its_source(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv("GATEWATCH_SPOOL")
    store = open_store("sqlite:///g.db")
    store.write([Point("runs", {"run": "r", "phase": "train"}, {"event": "started", "step": 0}, 10**18)])
    session = {"run": None, "store": store, "phase": "train", "tags": None, "resume": False, "all_ranks": False}
    for source, use in {
        "the configuration: ": lambda: load_settings(name),
        "the store's file: ": lambda: open_store(f"sqlite:///{name}"),
        "GATEWATCH_SPOOL or [spool] path: ": lambda: spool_root(name),
        "GATEWATCH_STATE or [jobs] state: ": lambda: state_folder(name, {}),
        "log_dir: ": lambda: RunSession(**session, log_dir=name, every=1, overhead=0.01),
        "--flux: ": lambda: _read(name),
        "-o: ": lambda: write_report(store, output=name),
        "--from-token-file: ": lambda: read_token_file(name, "--from-token-file"),
    }.items():
        with pytest.raises(ConfigError) as caught:
            use()
        assert str(caught.value).startswith(source)
        assert str(caught.value).isprintable()


def test_a_named_file_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWATCH_CONFIG", "absent.toml")
    with pytest.raises(ConfigError, match=r"absent\.toml: no such configuration file"):
        load_settings()


def test_a_folder_is_no_file(folder: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(folder)


def test_the_store_is_sqlite_here_by_default() -> None:
    assert open_store().url == "sqlite:///gatewatch.db"


def test_argument_environment_file_and_influxdb_come_in_this_order(
    folder: Path, monkeypatch: pytest.MonkeyPatch, influxdb_environment: None
) -> None:
    assert open_store().url == "http://from-url:8086"
    (folder / config.FILE).write_text('[store]\nurl = "sqlite:///file.db"\n')
    assert open_store().url == "sqlite:///file.db"
    monkeypatch.setenv("GATEWATCH_STORE", "sqlite:///variable.db")
    assert open_store().url == "sqlite:///variable.db"
    assert open_store("sqlite:///argument.db").url == "sqlite:///argument.db"


def test_opening_makes_no_file_and_no_connection(folder: Path, influxdb_environment: None) -> None:
    open_store("sqlite:///a.db").close()
    open_store("http://127.0.0.1:1/").close()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("form", ["sqlite:///data/a b.db", "sqlite:////tmp/x.db"])
def test_relative_and_absolute_paths(form: str) -> None:
    assert open_store(form).url == form


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("gatewatch.db", "sqlite:///gatewatch.db"),
        ("data/g.db", "sqlite:///data/g.db"),
        ("/tmp/g.db", "sqlite:////tmp/g.db"),
        ("sqlite://g.db", "sqlite:///g.db"),
        ("sqlite:g.db", "sqlite:///g.db"),
        ("sqlite:/tmp/g.db", "sqlite:////tmp/g.db"),
        ("C:\\runs\\g.db", "sqlite:///C:\\runs\\g.db"),
        ("localhost:8086", "http://localhost:8086"),
        ("10.0.0.1:8086/", "http://10.0.0.1:8086/"),
    ],
)
def test_a_path_or_a_host_in_place_of_a_url_is_answered_with_the_url(given: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"; did you mean '{meant}'?")):
        open_store(given)


@pytest.mark.parametrize("given", ["ftp://host", "me:s3cret@host", "", "//", "a\x1bb", "host?token=s3cret"])
def test_what_may_be_anything_is_answered_with_the_forms_alone(given: str) -> None:
    with pytest.raises(ConfigError, match=r"use sqlite:///relative\.db") as caught:
        open_store(given)
    assert "did you mean" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("given", [5, b"sqlite:///g.db", ["sqlite:///g.db"]])
def test_what_is_no_text_is_no_url(given: object) -> None:
    with pytest.raises(ConfigError, match=r"is no text; use sqlite:///relative\.db"):
        open_store(given)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["pipe", "/dev/null"])
def test_a_device_or_a_pipe_is_no_store(folder: Path, name: str) -> None:
    os.mkfifo("pipe")
    with pytest.raises(ConfigError, match="is a device or a pipe; name a file"):
        open_store(f"sqlite:///{name}").check()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "gatewatch.db",
        "sqlite://gatewatch.db",
        "sqlite:///",
        "http://",
        "http://[::1",
        "http://host:port",
        "postgres://me:s3cret@host/db",
        "http://me:s3cret@host:8086",
        "http://host:8086?token=s3cret",
        "http://admin:s3cret?rest@host:8086",
        "http://host:port?token=a@s3cret",
        "ftp://host",
        "//me:s3cret@host",
        "me:s3cret@host",
    ],
)
def test_any_other_url_is_refused_in_one_line_without_its_secrets(url: str, influxdb_environment: None) -> None:
    with pytest.raises(ConfigError) as caught:
        open_store(url)
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "http" in str(caught.value)


@pytest.mark.parametrize("missing", [ORG, BUCKET, TOKEN])
def test_a_missing_variable_is_named(missing: str, influxdb_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(missing, " ")
    with pytest.raises(ConfigError, match=f"{missing} is not set"):
        open_store()


def test_a_token_that_is_no_header_is_refused(influxdb_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN, "a\r\nX-Evil: s3cret")
    with pytest.raises(ConfigError, match=TOKEN) as caught:
        open_store()
    assert "s3cret" not in str(caught.value)


def test_the_token_shows_nowhere(influxdb_environment: None) -> None:
    store = open_store()
    assert "s3cret" not in f"{store!r} {store} {store.url}"


def test_a_sqlite_store_by_argument_loads_neither_influxdb_client_nor_pandas() -> None:
    code = (
        "import sys; from gatewatch.collector.store import open_store; from gatewatch.collector.schema import Point\n"
        "store = open_store('sqlite:///a.db'); store.write([Point('m', {}, {'f': 1.0}, 1)])\n"
        "print([name for name in ('influxdb_client', 'pandas', 'pydantic') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def keys(model: type[BaseModel], at: str = "") -> dict[str, object]:
    """Every key of the model and what it is by default, tables in tables too."""
    found: dict[str, object] = {}
    for name, about in model.model_fields.items():
        inner = [part for part in (about.annotation, *get_args(about.annotation)) if isinstance(part, type)]
        tables = [part for part in inner if issubclass(part, BaseModel)]
        found |= keys(tables[0], f"{at}{name}.") if tables else {f"{at}{name}": about.get_default()}
    return found


def given(table: dict[str, object], at: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in table.items():
        if isinstance(value, dict) and name != "where":
            found |= given(value, f"{at}{name}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for one in value:
                found |= given(one, f"{at}{name}.")
        else:
            found[f"{at}{name}"] = value
    return found


def test_the_sample_names_every_key_with_its_default_and_no_other(folder: Path) -> None:
    whole = re.sub(r"^# (?=\w+ = |\[\[)", "", SAMPLE.read_text(), flags=re.M)
    (folder / "whole.toml").write_text(whole)
    load_settings(folder / "whole.toml")
    told, known = given(tomllib.loads(whole)), keys(Settings)
    assert told.keys() == known.keys()
    for name, default in known.items():
        if default not in (None, []) and not name.startswith("alerts.rules."):
            assert told[name] == default, name


def test_the_sample_as_it_stands_changes_nothing(folder: Path, influxdb_environment: None) -> None:
    assert load_settings(SAMPLE) == Settings()
    shutil.copy(SAMPLE, folder / "gatewatch.toml")
    assert open_store().url == "http://from-url:8086"

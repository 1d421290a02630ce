"""The token of an InfluxDB may lie in a file that the environment names."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatewatch import open_store
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.store import reopen_store
from gatewatch.collector.store.influxdb.store import InfluxStore

URL = "http://127.0.0.1:1"


@pytest.fixture
def token_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "collector.token"
    monkeypatch.setenv("INFLUXDB_V2_TOKEN_FILE", str(path))
    monkeypatch.setenv("INFLUXDB_V2_ORG", "org")
    monkeypatch.setenv("INFLUXDB_V2_BUCKET", "bucket")
    return path


def token() -> str:
    store = open_store(URL)
    assert isinstance(store, InfluxStore)
    return store.influxdb.token


def test_the_file_holds_the_token(token_file: Path) -> None:
    token_file.write_text("s3cret==\n")
    assert token() == "s3cret=="


def test_the_variable_comes_first_and_an_empty_one_is_none(token_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token_file.write_text("of the file")
    monkeypatch.setenv("INFLUXDB_V2_TOKEN", "of the variable")
    assert token() == "of the variable"
    monkeypatch.setenv("INFLUXDB_V2_TOKEN", " ")
    assert token() == "of the file"


def test_a_store_that_is_opened_again_reads_it_again(token_file: Path) -> None:
    token_file.write_text("first")
    destination = open_store(URL).destination
    token_file.write_text("second")
    store = reopen_store(destination)
    assert isinstance(store, InfluxStore)
    assert store.influxdb.token == "second"


def test_a_home_directory_may_be_meant(token_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    token_file.write_text("at home")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("INFLUXDB_V2_TOKEN_FILE", "~/collector.token")
    assert token() == "at home"


def test_neither_variable_nor_file_is_said_as_before(token_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFLUXDB_V2_TOKEN_FILE", "")
    with pytest.raises(ConfigError, match="INFLUXDB_V2_TOKEN is not set"):
        token()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file or directory; name the file that holds the token"),
        (b"\n \n", "is empty; put the token into it, or set INFLUXDB_V2_TOKEN"),
        (b"\xff\xfe", "cannot be read: it is no file of text"),
        (b"two\nlines", "has a character that cannot be part of it"),
    ],
)
def test_a_file_without_a_token_is_named_with_its_remedy(token_file: Path, content: bytes | None, said: str) -> None:
    if content is not None:
        token_file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        token()
    assert str(caught.value).startswith(f"INFLUXDB_V2_TOKEN_FILE: {token_file} ")
    assert said in str(caught.value)
    assert "two" not in str(caught.value).replace(str(token_file), "")  # never the content


def test_a_folder_is_no_file(token_file: Path) -> None:
    token_file.mkdir()
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        token()

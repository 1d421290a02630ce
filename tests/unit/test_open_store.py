"""What `open_store` takes as arguments comes before the environment."""

from __future__ import annotations

import pytest

from gatewatch import open_store
from gatewatch.collector.errors import ConfigError

URL = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ORG", "BUCKET", "TOKEN"):
        monkeypatch.setenv(f"INFLUXDB_V2_{name}", f"variable-{name.lower()}")


def test_what_is_given_is_used_and_the_rest_comes_from_the_environment() -> None:
    store = open_store(URL, org="desk", bucket="runs", token="s3cret")
    assert store.destination == {"url": URL, "org": "desk", "bucket": "runs"}
    assert store.influxdb is not None
    assert store.influxdb.token == "s3cret"
    store = open_store(URL, bucket="runs")
    assert store.destination == {"url": URL, "org": "variable-org", "bucket": "runs"}
    assert store.influxdb is not None
    assert store.influxdb.token == "variable-token"


def test_arguments_need_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ORG", "BUCKET", "TOKEN"):
        monkeypatch.delenv(f"INFLUXDB_V2_{name}")
    assert open_store(URL, org="desk", bucket="runs", token="s3cret").url == URL
    with pytest.raises(ConfigError, match="INFLUXDB_V2_ORG is not set"):
        open_store(URL, bucket="runs", token="s3cret")


@pytest.mark.parametrize("argument", ["org", "bucket", "token"])
def test_a_file_has_no_organisation_bucket_or_token(argument: str) -> None:
    with pytest.raises(ConfigError, match=r"sqlite:///g\.db is a file, which has no organisation, bucket or token"):
        open_store("sqlite:///g.db", **{argument: "any"})


def test_no_text_of_a_store_holds_its_token() -> None:
    store = open_store(URL, token="s3cret")
    assert "s3cret" not in f"{store!r} {store.influxdb!r} {store.destination}"

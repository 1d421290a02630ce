"""What is read is what was written: the bucket that a name or an id stands for, whatever is mapped to its name."""

from __future__ import annotations

import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.line_protocol import encode
from gatewatch.collector.schema import Point
from gatewatch.collector.spool.queue import Spool, spool_root
from gatewatch.collector.store import reopen_store
from gatewatch.collector.store.influxdb import client
from gatewatch.collector.store.influxdb.client import Client
from gatewatch.collector.store.influxdb.store import InfluxStore
from gatewatch.collector.user_folders import note_store
from gatewatch.jobs.cli import main
from gatewatch.jobs.service.state_folder import state_folder

if TYPE_CHECKING:
    from ..conftest import Influxd

NOW = time.time_ns()


def bucket_id(server: Influxd, name: str) -> str:
    named = urlencode({"name": name, "orgID": server.org_id})
    return str(server.call(f"/api/v2/buckets?{named}")["buckets"][0]["id"])


def map_database(server: Influxd, database: str, bucket: str, policy: str = "autogen") -> None:
    body = {"orgID": server.org_id, "bucketID": bucket_id(server, bucket), "database": database}
    server.call("/api/v2/dbrps", body | {"retention_policy": policy, "default": True})


def databases(server: Influxd) -> list[str]:
    """The databases that somebody has mapped, in the order of their names."""
    mappings = server.call(f"/api/v2/dbrps?orgID={server.org_id}")["content"]
    return sorted(each["database"] for each in mappings if not each["virtual"])


def token_for(server: Influxd, bucket: str, *actions: str) -> str:
    """A token that may do these things with one bucket."""
    resource = {"type": "buckets", "orgID": server.org_id, "id": bucket_id(server, bucket)}
    permissions = [{"action": action, "resource": resource} for action in actions]
    return str(server.call("/api/v2/authorizations", {"orgID": server.org_id, "permissions": permissions})["token"])


def new_org(server: Influxd, name: str) -> str:
    return str(server.call("/api/v2/orgs", {"name": name})["id"])


def event(run: str, **fields: Any) -> Point:
    return Point("runs", {"run": run, "phase": "train"}, {"event": "started", "step": 0} | fields, NOW)


def runs_of(store: InfluxStore) -> list[str]:
    """The runs that are in a store, by each way in which it is read."""
    runs = store.runs()["run"].tolist()
    assert len(store.read("runs")) == len(runs)
    assert store.count("runs", "step") == len(runs)
    assert sorted(store.tallies("runs", "step")) == sorted(runs)
    history = store.history()
    assert history.measurements() == (["runs"] if runs else [])
    assert sorted(filter(None, history.runs("runs"))) == sorted(runs)
    return sorted(runs)


@pytest.fixture
def server(own_influxd: Influxd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Influxd:
    monkeypatch.setenv("GATEWATCH_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return own_influxd


def test_a_database_of_the_buckets_name_that_leads_elsewhere_is_not_read(server: Influxd) -> None:
    for name in ("runs", "other"):
        server.bucket(name)
    server.store("other").write([event("of-another")])
    map_database(server, "runs", "other")
    tokens = [server.token, *(token_for(server, "runs", "read", "write") for _ in range(2))]
    for number, token in enumerate(tokens):
        store = server.store("runs", token)
        store.write([event(f"r{number}")])
        assert runs_of(store) == [f"r{n}" for n in range(number + 1)]
    assert databases(server) == sorted(["runs", bucket_id(server, "runs")])  # one more, made once, for all of them
    assert runs_of(server.store("runs", token_for(server, "runs", "read"))) == ["r0", "r1", "r2"]


def test_nor_where_it_is_mapped_while_the_store_is_open(server: Influxd, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("runs", "other"):
        server.bucket(name)
    server.store("other").write([event("of-another")])
    store = server.store("runs")
    store.write([event("ours")])
    assert runs_of(store) == ["ours"]
    map_database(server, "runs", "other")
    monkeypatch.setattr(client, "TRUSTED_S", 0.0)  # a minute later
    assert runs_of(store) == ["ours"]


def test_a_token_that_may_only_read_says_what_to_do_where_no_database_leads_to_the_bucket(server: Influxd) -> None:
    for name in ("runs", "other"):
        server.bucket(name)
    map_database(server, "runs", "other")
    ours = bucket_id(server, "runs")
    with pytest.raises(ConfigError, match=f"influx v1 dbrp create --bucket-id {ours} --db {ours} --rp autogen") as told:
        server.store("runs", token_for(server, "runs", "read")).runs()
    assert "\n" not in str(told.value)


def test_nothing_is_made_on_the_server_where_the_name_leads_to_the_bucket(server: Influxd) -> None:
    store = server.store("first")
    store.write([event("a")])
    assert runs_of(store) == ["a"]
    assert runs_of(server.store("first", token_for(server, "first", "read"))) == ["a"]
    assert databases(server) == []


def test_a_database_of_another_name_that_leads_to_the_bucket_is_as_good(server: Influxd) -> None:
    for name in ("/x", "other"):
        server.bucket(name)
    map_database(server, "anything", "/x")
    server.store("/x").write([event("a")])
    assert runs_of(server.store("/x", token_for(server, "/x", "read"))) == ["a"]
    assert databases(server) == ["anything"]


@pytest.fixture(scope="module")
def bucket_a(influxd: Influxd) -> None:
    influxd.bucket("a")
    influxd.store("a").write([event("of-another")])


@pytest.mark.parametrize(
    "name",
    ["/x", "y/", "/", "a/b", "a/b/c", "it's ünïcode 日本", "a\\b", "a%2Fb", "-", "0123456789abcdef", "runs; DROP"],
)
def test_a_bucket_may_have_any_name(influxd: Influxd, bucket_a: None, name: str) -> None:
    influxd.bucket(name)
    store = influxd.store(name, token_for(influxd, name, "read", "write"))
    store.check()
    store.write([event("r")])
    assert runs_of(store) == ["r"]


def test_a_bucket_in_a_database_of_several_policies_is_read_by_who_may_only_read(server: Influxd) -> None:
    server.bucket("a/b")
    server.store("a/b").write([event("r")])
    assert server.store("a/b", token_for(server, "a/b", "read")).runs()["run"].tolist() == ["r"]


def test_two_buckets_that_are_one_database_are_kept_apart(server: Influxd) -> None:
    for name in ("runs", "runs/autogen"):
        server.bucket(name)
    for token in (None, token_for(server, "runs", "read", "write")):
        server.store("runs", token).write([event("a")])
        assert runs_of(server.store("runs", token)) == ["a"]
    assert runs_of(server.store("runs/autogen")) == []


def test_a_bucket_and_an_organisation_may_be_given_by_their_ids(server: Influxd) -> None:
    bucket = bucket_id(server, "first")
    server.store("first").write([event("a")])
    for token in (server.token, token_for(server, "first", "read", "write")):
        store = InfluxStore(Client(server.url, org=server.org_id, bucket=bucket, token=token))
        store.check()
        store.write([event("b")])
        assert runs_of(store) == ["a", "b"]
        assert store.influxdb.bucket_name() == "first"


def test_two_organisations_with_buckets_of_one_name_are_kept_apart(server: Influxd) -> None:
    other = new_org(server, "other")
    server.call("/api/v2/buckets", {"orgID": other, "name": "first", "retentionRules": []})
    ours = server.store("first")
    theirs = InfluxStore(Client(server.url, org="other", bucket="first", token=server.token))
    ours.write([event("ours")])
    theirs.write([event("theirs")])
    assert runs_of(ours) == ["ours"]
    with pytest.raises(ConfigError, match="a token of another organisation") as told:  # which InfluxQL cannot read with
        theirs.runs()
    assert "INFLUXDB_V2_TOKEN" in str(told.value)
    permissions = [{"action": a, "resource": {"type": "buckets", "orgID": other}} for a in ("read", "write")]
    token = server.call("/api/v2/authorizations", {"orgID": other, "permissions": permissions})["token"]
    assert runs_of(InfluxStore(Client(server.url, org="other", bucket="first", token=token))) == ["theirs"]


def test_a_bucket_that_is_deleted_and_made_again_is_read_as_it_is_written(server: Influxd) -> None:
    server.bucket("runs")
    store = server.store("runs")
    store.write([event("before")])
    assert runs_of(store) == ["before"]
    _delete(server, bucket_id(server, "runs"))
    server.bucket("runs")
    store.write([event("after")])
    assert runs_of(store) == ["after"]


def test_the_same_where_it_is_read_by_a_database_of_its_own(server: Influxd) -> None:
    server.bucket("/x")
    store = server.store("/x")
    store.write([event("before")])
    assert runs_of(store) == ["before"]
    _delete(server, bucket_id(server, "/x"))
    with pytest.raises(ConfigError, match="cannot be read: it is missing"):
        store.runs()
    server.bucket("/x")
    store.write([event("after")])
    assert runs_of(store) == ["after"]


def _delete(server: Influxd, bucket: str) -> None:
    headers = {"Authorization": f"Token {server.token}"}
    request = urllib.request.Request(f"{server.url}/api/v2/buckets/{bucket}", headers=headers, method="DELETE")
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 204


# --- What waits for a bucket, and what is remembered of it, belongs to the bucket and not to its name. ----------------


def spool_of(store: InfluxStore) -> Spool:
    return Spool(spool_root(), store.destination, 2**20)


def leave(store: InfluxStore, run: str) -> Path:
    """Points that a process left which has ended; the folder of the store in which they lie."""
    spool = spool_of(store)
    spool.append(encode([event(run)]), 1)
    spool.close()
    return spool.folder


def adopted(store: InfluxStore) -> list[str]:
    """Ship what is left, as a training does that begins; the runs that are then in the store."""
    store.check()
    spool = spool_of(store)
    spool.adopt()
    while batch := spool.next_batch():
        store.write_lines(batch.lines)
        spool.done(batch)
    spool.close()
    return runs_of(store)


def test_the_spool_of_a_bucket_is_one_whether_the_server_answers_or_not(server: Influxd) -> None:
    away = leave(server.store("first"), "away")  # nothing was asked
    store = server.store("first")
    assert adopted(store) == ["away"]
    assert leave(store, "there") == away
    assert leave(server.store("first"), "away-again") == away
    assert adopted(server.store("first")) == ["away", "away-again", "there"]


def test_a_token_that_may_only_write_ships_from_the_same_spool(server: Influxd) -> None:
    store = server.store("first", token_for(server, "first", "write"))
    store.check()
    assert store.destination == {"url": server.url, "org": server.org, "bucket": "first"}
    leave(store, "a")
    assert adopted(server.store("first")) == ["a"]


def test_a_bucket_has_one_spool_and_one_state_by_whichever_name_it_is_opened(server: Influxd) -> None:
    by_name = server.store("first")
    by_name.check()
    ident = bucket_id(server, "first")
    by_id = InfluxStore(Client(server.url, org=server.org_id, bucket=ident, token=server.token))
    before = leave(by_id, "unasked")  # by an id, and the server was away
    by_id.check()
    assert leave(by_name, "by-name") == leave(by_id, "by-id") == before
    assert adopted(server.store("first")) == ["by-id", "by-name", "unasked"]
    state = state_folder(None, by_id.destination)
    state.mkdir(parents=True)
    note_store(state, by_id.destination)
    assert state_folder(None, by_name.destination) == state


def test_a_bucket_made_anew_under_a_name_has_a_spool_and_a_state_of_its_own(server: Influxd) -> None:
    server.bucket("runs")
    store = server.store("runs")
    store.check()
    old, old_state = leave(store, "of-the-old"), state_folder(None, store.destination)
    old_state.mkdir(parents=True)
    note_store(old_state, store.destination)
    _delete(server, bucket_id(server, "runs"))
    server.bucket("runs")
    again = server.store("runs")
    assert again.resolve_destination() != store.destination
    assert leave(again, "of-the-new") != old
    assert state_folder(None, again.destination) != old_state
    assert adopted(again) == ["of-the-new", "of-the-old"]  # as `gatewatch spool flush` ships what waits for a name


def test_spool_flush_ships_what_lies_under_either(
    server: Influxd, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("INFLUXDB_V2_TOKEN", server.token)
    leave(server.store("first"), "unasked")
    store = InfluxStore(Client(server.url, org=server.org, bucket=bucket_id(server, "first"), token=server.token))
    store.check()
    leave(store, "asked")
    assert main(["spool", "flush"]) == 0
    assert runs_of(server.store("first")) == ["asked", "unasked"]


def test_a_store_is_opened_again_with_the_id_that_was_found(server: Influxd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFLUXDB_V2_TOKEN", server.token)
    store = server.store("first")
    store.check()
    expected = {"url": server.url, "org": server.org, "bucket": "first", "bucket_id": bucket_id(server, "first")}
    assert store.destination == expected
    assert reopen_store(store.destination).destination == expected


def test_a_bucket_is_not_copied_to_itself_by_another_name(
    server: Influxd, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"ORG": server.org, "BUCKET": "first", "TOKEN": server.token}.items():
        monkeypatch.setenv(f"INFLUXDB_V2_{name}", value)
    ours = ["--from", server.url, "--from-bucket", bucket_id(server, "first"), "--to", server.url]
    assert main(["copy", *ours]) == 2
    assert "are the same store" in capsys.readouterr().err


def test_a_query_may_be_asked_of_a_bucket_that_is_given_by_its_id(
    server: Influxd, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server.store("first").write([event("asked-by-id")])
    values = {"URL": server.url, "ORG": server.org_id, "BUCKET": bucket_id(server, "first"), "TOKEN": server.token}
    for name, value in values.items():
        monkeypatch.setenv(f"INFLUXDB_V2_{name}", value)
    assert main(["query", "runs"]) == 0
    assert "asked-by-id" in capsys.readouterr().out
    assert main(["check"]) in (0, 1)
    assert "cannot read" not in capsys.readouterr().out

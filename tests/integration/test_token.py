"""What is found out about a token of a real InfluxDB, and what `gatewatch check` says of it."""

from __future__ import annotations

import json
import re
import time

import pytest

from gatewatch.collector.errors import ConfigError, GatewatchError
from gatewatch.collector.schema import Point
from gatewatch.collector.store.influxdb import client, permissions
from gatewatch.collector.store.influxdb.client import Client
from gatewatch.collector.store.influxdb.permissions import Permissions
from gatewatch.jobs.cli import main
from tests.conftest import free_port
from tests.servers import Front, holding, replying
from tests.tokens import token_of


@pytest.fixture
def bucket(influxd):
    return influxd.bucket()


@pytest.fixture
def token(influxd, bucket):
    """Makes a token: `read` and `write` of our bucket, `read all` and `write all` of every one, `tokens`."""
    return lambda *rights: token_of(influxd, *rights, buckets=(bucket,))


def allowed(url, org, bucket, token):
    """What the token may do."""
    return permissions.permissions(Client(url, org=org, bucket=bucket, token=token))


class TestPermissions:
    @pytest.mark.parametrize("wanted", [("read",), ("write",), ("read", "write")])
    def test_of_our_bucket_alone(self, influxd, bucket, token, wanted):
        found = allowed(influxd.url, influxd.org, bucket, token(*wanted))
        assert found == Permissions("read" in wanted, "write" in wanted)
        assert found.excess() == ""

    def test_of_all_buckets(self, own_influxd):
        """A server of its own: of one with hundreds of buckets not all are listed."""
        server, (bucket, other, *_) = own_influxd, [own_influxd.bucket() for _ in range(6)]
        found = allowed(server.url, server.org, bucket, token_of(server, "read all", "write", buckets=(bucket,)))
        assert (found.reads, found.writes, found.writes_too, found.tokens) == (True, True, (), False)
        assert other in found.reads_too
        found = allowed(server.url, server.org, bucket, token_of(server, "read all", "write all", buckets=(bucket,)))
        assert other in found.writes_too
        assert re.search(r"^reads '.+' and \d+ more too, writes '.+' and \d+ more too$", found.excess())

    def test_of_the_operator(self, influxd, bucket):
        found = allowed(influxd.url, influxd.org, bucket, influxd.token)
        assert found.tokens
        assert found.excess().endswith("reads every token")

    def test_nothing_is_written_to_find_out(self, influxd, bucket):
        store = influxd.store(bucket)
        store.write([Point("m", {"run": "r"}, {"f": 1.0}, time.time_ns())])
        allowed(influxd.url, influxd.org, bucket, influxd.token)
        assert store.count("m", "f") == 1

    def test_a_token_that_nobody_knows(self, influxd, bucket):
        with pytest.raises(ConfigError, match="unauthorized access; see INFLUXDB_V2_TOKEN"):
            allowed(influxd.url, influxd.org, bucket, "s3cret")

    def test_nobody_is_there(self):
        with pytest.raises(GatewatchError, match="no connection; see that InfluxDB runs there"):
            allowed(f"http://127.0.0.1:{free_port()}", "o", "b", "s3cret")

    def test_the_hourly_aggregates_of_our_bucket_are_no_excess(self, influxd, bucket):
        hourly = influxd.bucket(f"{bucket}_hourly")
        found = allowed(influxd.url, influxd.org, bucket, token_of(influxd, "read", buckets=(bucket, hourly)))
        assert found == Permissions(reads=True, writes=False)
        found = allowed(influxd.url, influxd.org, hourly, token_of(influxd, "read", buckets=(hourly,)))
        assert found == Permissions(reads=True, writes=False)

    def test_of_more_buckets_than_are_listed_at_once(self, influxd, monkeypatch):
        monkeypatch.setattr(permissions, "LISTED", 2)
        names = [influxd.bucket() for _ in range(4)]
        token = token_of(influxd, "read", buckets=tuple(names))
        assert [allowed(influxd.url, influxd.org, name, token).reads for name in names] == [True] * 4

    def test_an_organisation_that_is_not_there(self, influxd, bucket, token):
        assert allowed(influxd.url, "elsewhere", bucket, token("read")) == Permissions(reads=False, writes=False)

    @pytest.mark.parametrize(
        ("body", "problem"),
        [(b'{"code":"unavailable","message":"starting"}', "starting"), (b"busy", "answers 503")],
    )
    def test_a_server_that_is_unwell(self, body, problem):
        front = Front()
        front.answer = replying(503, body)
        try:
            with pytest.raises(GatewatchError, match=problem):
                allowed(front.url, "o", "b", "s3cret")
        finally:
            front.close()

    @pytest.mark.parametrize("body", [b"<html>hello</html>", b"[]", b""])
    def test_something_else_is_there(self, body):
        front = Front()
        front.answer = replying(200, body)
        try:
            with pytest.raises(GatewatchError, match="not InfluxDB 2"):
                allowed(front.url, "o", "b", "s3cret")
        finally:
            front.close()


class TestTheCheckCommand:
    @pytest.fixture
    def finding(self, influxd, bucket, monkeypatch, capsys, tmp_path):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("GATEWATCH_STATE", str(tmp_path / "state"))
        for name, value in {"URL": influxd.url, "ORG": influxd.org, "BUCKET": bucket}.items():
            monkeypatch.setenv(f"INFLUXDB_V2_{name}", value)

        def found(token):
            monkeypatch.setenv("INFLUXDB_V2_TOKEN", token)
            status = main(["check", "--json"])
            out, err = capsys.readouterr()
            assert token not in out + err
            return status, {one["what"]: one for one in json.loads(out)}

        return found

    def test_one_that_reads_and_writes_the_bucket(self, finding, token, bucket):
        status, found = finding(token("read", "write"))
        assert (status, found["token"]["warning"]) == (0, False)
        assert found["token"]["detail"].startswith(f"it reads and writes {bucket!r}, as trainings and the jobs need")

    def test_one_that_can_do_more_than_it_needs(self, finding, influxd, bucket):
        status, found = finding(influxd.token)
        assert (status, found["token"]["ok"], found["token"]["warning"]) == (0, True, True)
        assert re.search(
            rf"reads every token, and needs '{bucket}' alone: .*influx auth create", found["token"]["detail"]
        )

    def test_one_that_may_only_write(self, finding, token):
        status, found = finding(token("write"))
        assert status == 0
        assert found["store"]["detail"].endswith("which the token may write and not read")
        assert (
            "cannot see whether its run's name is taken; the jobs, `gatewatch runs` and Grafana need another"
            in found["token"]["detail"]
        )

    def test_one_that_may_only_read_is_enough_for_grafana(self, finding, token):
        status, found = finding(token("read"))
        assert (status, found["store"]["ok"]) == (1, False)
        assert "enough for Grafana; a training and the jobs need another" in found["token"]["detail"]


class TestAStoreThatDoesNotAnswer:
    def test_the_check_command_asks_it_once_and_looks_at_all_else(self, monkeypatch, capsys, tmp_path):
        front = Front()
        front.answer = holding
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(client, "ANSWER_TIMEOUT_S", 0.5)
        for name, value in {"URL": front.url, "ORG": "o", "BUCKET": "b", "TOKEN": "s3cret"}.items():
            monkeypatch.setenv(f"INFLUXDB_V2_{name}", value)
        try:
            assert main(["check", "--json"]) == 1
            assert front.held == 1
        finally:
            front.close()
        found = {one["what"]: one for one in json.loads(capsys.readouterr().out)}
        assert found["store"]["detail"] == f"{front.url}: no answer within 0.5 s; see that InfluxDB runs there"
        assert [*found] == ["configuration", "store", "spool", "state folder", "mail"]

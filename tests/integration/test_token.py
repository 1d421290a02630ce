"""What is found out about a token of a real InfluxDB, and what `gatewatch check` says of it."""

from __future__ import annotations

import json
import re
import time

import pytest

from collector.errors import GatewatchError
from collector.schema import Point
from jobs.cli import main
from jobs.influx_token import Rights, rights
from tests.conftest import free_port
from tests.servers import Front, replying


@pytest.fixture
def bucket(influxd):
    return influxd.bucket()


@pytest.fixture
def token(influxd, bucket):
    """Makes a token: `read` and `write` of our bucket, `read all` and `write all` of every one, `tokens`."""
    found = influxd.call(f"/api/v2/buckets?name={bucket}")["buckets"][0]["id"]

    def made(*rights):
        permissions = []
        for right in rights:
            action, _, what = right.partition(" ")
            resource = {"type": "authorizations" if what == "tokens" else "buckets", "orgID": influxd.org_id}
            permissions.append({"action": action, "resource": resource | ({} if what else {"id": found})})
        answer = influxd.call("/api/v2/authorizations", {"orgID": influxd.org_id, "permissions": permissions})
        return str(answer["token"])

    return made


class TestRights:
    @pytest.mark.parametrize("wanted", [("read",), ("write",), ("read", "write")])
    def test_of_our_bucket_alone(self, influxd, bucket, token, wanted):
        found = rights(influxd.url, influxd.org, bucket, token(*wanted))
        assert found == Rights("read" in wanted, "write" in wanted)
        assert found.excess() == ""

    def test_of_all_buckets(self, influxd, bucket, token):
        other = influxd.bucket()
        found = rights(influxd.url, influxd.org, bucket, token("read all", "write"))
        assert (found.reads, found.writes, found.writes_too, found.tokens) == (True, True, (), False)
        assert other in found.reads_too
        found = rights(influxd.url, influxd.org, bucket, token("read all", "write all"))
        assert found.writes_too
        assert re.search(r"^reads '.+' and \d+ more too, writes '.+' and \d+ more too$", found.excess())

    def test_of_the_operator(self, influxd, bucket):
        found = rights(influxd.url, influxd.org, bucket, influxd.token)
        assert found.tokens
        assert found.excess().endswith("reads every token")

    def test_nothing_is_written_to_find_out(self, influxd, bucket):
        store = influxd.store(bucket)
        store.write([Point("m", {"run": "r"}, {"f": 1.0}, time.time_ns())])
        rights(influxd.url, influxd.org, bucket, influxd.token)
        assert store.count("m", "f") == 1

    def test_a_token_that_nobody_knows(self, influxd, bucket):
        with pytest.raises(GatewatchError, match="the token is refused; see INFLUXDB_V2_TOKEN"):
            rights(influxd.url, influxd.org, bucket, "s3cret")

    def test_nobody_is_there(self):
        with pytest.raises(GatewatchError, match="no answer"):
            rights(f"http://127.0.0.1:{free_port()}", "o", "b", "s3cret")

    def test_something_else_is_there(self):
        front = Front()
        front.answer = replying(200, b"<html>hello</html>")
        try:
            with pytest.raises(GatewatchError, match="not InfluxDB 2"):
                rights(front.url, "o", "b", "s3cret")
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
        assert found["token"]["detail"].startswith(f"it reads and writes {bucket!r}, as the jobs need")

    def test_one_that_can_do_more_than_it_needs(self, finding, influxd, bucket):
        status, found = finding(influxd.token)
        assert (status, found["token"]["ok"], found["token"]["warning"]) == (0, True, True)
        assert re.search(
            rf"reads every token, and needs '{bucket}' alone: .*influx auth create", found["token"]["detail"]
        )

    def test_one_that_may_only_write_is_enough_for_a_training(self, finding, token):
        status, found = finding(token("write"))
        assert status == 0
        assert found["store"]["detail"].endswith("which the token may write and not read")
        assert "enough for a training; the jobs, `gatewatch runs` and Grafana need another" in found["token"]["detail"]

    def test_one_that_may_only_read_is_enough_for_grafana(self, finding, token):
        status, found = finding(token("read"))
        assert (status, found["store"]["ok"]) == (1, False)
        assert "enough for Grafana; a training and the jobs need another" in found["token"]["detail"]

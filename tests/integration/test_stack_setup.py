"""The set-up of InfluxDB for the stack, against a real influxd that nobody has set up yet."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.rest import ApiException

from gatewatch.collector.errors import ConfigError, WriteUnavailable
from gatewatch.collector.schema import Point
from gatewatch.collector.store.influxdb.client import Client
from gatewatch.collector.store.influxdb.store import InfluxStore
from gatewatch.jobs.stack import health_check, setup
from gatewatch.jobs.stack.downsampling import TASK
from gatewatch.jobs.stack.token_files import token_path
from tests.conftest import Influxd, free_port, influxd_binary
from tests.servers import Front, replying

USER, PASSWORD = "gatewatch", "correct horse"
HOUR = 3_600 * 10**9
REPLACED = "; the one before no longer works"


@pytest.fixture(scope="module")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influxd]:
    yield from _fresh(tmp_path_factory.mktemp("influxd"))


def _fresh(folder: Path) -> Iterator[Influxd]:
    server = Influxd(influxd_binary(), f"127.0.0.1:{free_port()}", folder, org="gatewatch", token="")
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Influxd]:
    """An influxd that nobody has set up, and the environment that names it."""
    folder = tmp_path / "influxd"
    folder.mkdir()
    for server in _fresh(folder):
        environment(monkeypatch, server)
        yield server


@pytest.fixture(scope="module")
def tokens(_server: Influxd, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tokens of `server`, set up once."""
    folder = tmp_path_factory.mktemp("tokens")
    with pytest.MonkeyPatch.context() as patch:
        environment(patch, _server)
        assert setup.main(["--tokens", str(folder)]) == 0
    return folder


@pytest.fixture
def server(_server: Influxd, tokens: Path, monkeypatch: pytest.MonkeyPatch) -> Influxd:
    """An influxd that is set up, and the environment that names it."""
    environment(monkeypatch, _server)
    return _server


def environment(monkeypatch: pytest.MonkeyPatch, server: Influxd) -> None:
    monkeypatch.setenv("INFLUXDB_V2_URL", server.url)
    monkeypatch.setenv("GATEWATCH_INFLUXDB_USER", USER)
    monkeypatch.setenv("GATEWATCH_INFLUXDB_PASSWORD", PASSWORD)


def run(capsys: pytest.CaptureFixture[str], folder: Path, status: int = 0) -> list[str]:
    """The lines that a set-up prints: of its output where it ends well, else of its error."""
    capsys.readouterr()
    assert setup.main(["--tokens", str(folder)]) == status
    out, err = capsys.readouterr()
    assert not (err if status == 0 else out)
    return (out if status == 0 else err).splitlines()


def store(server: Influxd, folder: Path, name: str, bucket: str = "gatewatch") -> InfluxStore:
    token = token_path(folder, name).read_text().strip()
    return InfluxStore(Client(server.url, org="gatewatch", bucket=bucket, token=token))


@contextlib.contextmanager
def owner(server: Influxd) -> Iterator[InfluxDBClient]:
    with InfluxDBClient(server.url, username=USER, password=PASSWORD, org="gatewatch") as client:
        yield client


def points(count: int = 3, at: int | None = None) -> list[Point]:
    at = at or time.time_ns()
    return [Point("m", {"run": "r"}, {"f": float(i)}, at + i) for i in range(count)]


class TestOnce:
    def test_it_says_what_it_makes_and_nothing_the_second_time(self, fresh, tmp_path, capsys):
        folder = tmp_path / "tokens"
        made = run(capsys, folder)
        assert made == [
            "made the user 'gatewatch', the organisation 'gatewatch' and the bucket 'gatewatch'",
            "made the bucket 'gatewatch_hourly', which keeps points for ever",
            "made the task 'Gatewatch hourly'",
            f"made the token {folder}/collector/collector.token, which may read and write",
            f"made the token {folder}/jobs/jobs.token, which may read and write",
            f"made the token {folder}/grafana/grafana.token, which may read",
            f"{fresh.url} is set up; the tokens are in {folder}",
        ]
        before = {path: (path.read_text(), path.stat().st_mtime_ns) for path in folder.rglob("*.token")}
        assert run(capsys, folder) == made[-1:]
        assert {path: (path.read_text(), path.stat().st_mtime_ns) for path in folder.rglob("*.token")} == before
        assert len(list(folder.rglob("*"))) == 6  # three folders with a file each: nothing half-written is left

    def test_each_file_is_its_services_own(self, tokens):
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tokens.rglob("*.token")}
        assert modes == {"collector.token": 0o400, "jobs.token": 0o400, "grafana.token": 0o440}
        assert {stat.S_IMODE(path.stat().st_mode) for path in tokens.iterdir()} == {0o750}

    def test_the_password_and_the_tokens_are_said_nowhere(self, fresh, tmp_path, capsys):
        folder = tmp_path / "tokens"
        said = "\n".join(run(capsys, folder))
        for path in folder.rglob("*.token"):
            assert path.read_text().strip() not in said
        assert PASSWORD not in said

    def test_retentions_are_those_that_are_asked_for_and_follow_them(self, fresh, tmp_path, capsys, monkeypatch):
        monkeypatch.setenv("GATEWATCH_RETENTION", "90d")
        monkeypatch.setenv("GATEWATCH_HISTORY_RETENTION", "2y")
        folder = tmp_path / "tokens"
        run(capsys, folder)
        assert self.retentions(fresh) == {"gatewatch": 90 * 86_400, "gatewatch_hourly": 730 * 86_400}
        monkeypatch.setenv("GATEWATCH_RETENTION", "0")
        assert run(capsys, folder)[:-1] == ["the bucket 'gatewatch' keeps points for ever; it was for 90 days"]
        assert self.retentions(fresh) == {"gatewatch": 0, "gatewatch_hourly": 730 * 86_400}

    def retentions(self, server):
        with owner(server) as client:
            buckets = client.buckets_api().find_buckets(org="gatewatch").buckets
        return {
            b.name: b.retention_rules[0].every_seconds if b.retention_rules else 0 for b in buckets if b.type == "user"
        }

    @pytest.mark.parametrize("name", ["we ird/na'me & ünïcode ${x}\\", "r:x|y"])
    def test_names_may_be_anything_that_influxdb_takes(self, fresh, tmp_path, capsys, monkeypatch, name):
        monkeypatch.setenv("INFLUXDB_V2_ORG", name)
        monkeypatch.setenv("INFLUXDB_V2_BUCKET", name)
        folder = tmp_path / "tokens"
        run(capsys, folder)
        assert len(run(capsys, folder)) == 1
        token = token_path(folder, "jobs").read_text().strip()
        named = InfluxStore(Client(fresh.url, org=name, bucket=name, token=token))
        named.write(points())
        assert named.count("m", "f") == 3


class TestTokens:
    @pytest.mark.parametrize("name", ["collector", "jobs"])
    def test_who_writes_reads_and_writes_one_bucket_and_nothing_else(self, server, tokens, name):
        own, other = store(server, tokens, name), store(server, tokens, name, "gatewatch_hourly")
        own.check()
        own.write(points())
        assert own.count("m", "f") >= 3
        with pytest.raises(WriteUnavailable):
            other.write(points())
        with pytest.raises(ConfigError, match="cannot be read"):
            other.count("m", "f")

    def test_grafanas_may_read_both_buckets_and_write_neither(self, server, tokens):
        for bucket in ("gatewatch", "gatewatch_hourly"):
            grafana = store(server, tokens, "grafana", bucket)
            assert grafana.count("nothing", "f") == 0
            with pytest.raises(ConfigError, match="the right to write"):
                grafana.check()
            with pytest.raises(WriteUnavailable, match="the right to write"):
                grafana.write(points())

    @pytest.mark.parametrize("name", ["collector", "jobs", "grafana"])
    def test_none_may_administer(self, server, tokens, name):
        with InfluxDBClient(server.url, token_path(tokens, name).read_text().strip()) as client:
            assert not client.authorizations_api().find_authorizations()
            assert not client.tasks_api().find_tasks()
            with pytest.raises(ApiException):
                client.buckets_api().create_bucket(bucket_name="mine", org=self.org(server))

    def org(self, server):
        with owner(server) as client:
            return client.organizations_api().find_organizations()[0].id


class TestRepair:
    """What was lost is made again, and what is well is left alone."""

    def test_a_token_that_was_deleted(self, server, tokens, capsys):
        before = {path.name: path.read_text() for path in tokens.rglob("*.token")}
        with owner(server) as client:
            api = client.authorizations_api()
            [lost] = [a for a in api.find_authorizations() if a.description == "Gatewatch: grafana"]
            api.delete_authorization(lost)
        assert run(capsys, tokens)[:-1] == [f"made the token {tokens}/grafana/grafana.token, which may read"]
        after = {path.name: path.read_text() for path in tokens.rglob("*.token")}
        assert [name for name in after if after[name] != before[name]] == ["grafana.token"]
        assert store(server, tokens, "grafana").count("nothing", "f") == 0

    @pytest.mark.parametrize("content", [None, b"", b"not-one-of-its-tokens", b"\xff\n", b"two\nlines"])
    def test_a_file_that_is_lost_or_spoilt(self, server, tokens, capsys, content):
        path = token_path(tokens, "jobs")
        old = path.read_text().strip()
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        assert run(capsys, tokens)[:-1] == [f"made the token {path}, which may read and write{REPLACED}"]
        store(server, tokens, "jobs").check()
        with pytest.raises(ConfigError, match="unauthorized"):
            InfluxStore(Client(server.url, org="gatewatch", bucket="gatewatch", token=old)).check()

    def test_a_token_that_was_switched_off_or_may_do_more(self, server, tokens, capsys):
        with owner(server) as client:
            api = client.authorizations_api()
            [off] = [a for a in api.find_authorizations() if a.description == "Gatewatch: collector"]
            off.status = "inactive"
            api.update_authorization(off)
        assert len(run(capsys, tokens)) == 2
        store(server, tokens, "collector").check()
        with owner(server) as client:
            api = client.authorizations_api()
            [own] = [a for a in api.find_authorizations() if a.description == "Gatewatch: collector"]
            more = own.permissions[0]
            api.delete_authorization(own)
            more.action = "read"
            own.permissions = [more]
            wrong = api.create_authorization(authorization=own)
        path = token_path(tokens, "collector")
        path.unlink()
        path.write_text(wrong.token)
        assert len(run(capsys, tokens)) == 2
        assert path.read_text().strip() != wrong.token
        store(server, tokens, "collector").check()

    def test_two_tokens_of_one_purpose_become_one(self, server, tokens, capsys):
        with owner(server) as client:
            api = client.authorizations_api()
            [own] = [a for a in api.find_authorizations() if a.description == "Gatewatch: jobs"]
            twin = api.create_authorization(authorization=own).token
            said = run(capsys, tokens)
            assert len([a for a in api.find_authorizations() if a.description == "Gatewatch: jobs"]) == 1
        assert said[:-1] == [f"made the token {token_path(tokens, 'jobs')}, which may read and write{REPLACED}"]
        store(server, tokens, "jobs").check()
        with pytest.raises(ConfigError, match="unauthorized"):
            InfluxStore(Client(server.url, org="gatewatch", bucket="gatewatch", token=twin)).check()

    def test_a_task_that_was_changed_or_deleted_and_not_one_that_is_off(self, server, tokens, capsys):
        with owner(server) as client:
            api = client.tasks_api()
            [task] = api.find_tasks(name=TASK)
            flux = task.flux
            task.flux = flux.replace("25h", "1h")
            task.status = "inactive"
            api.update_task(task)
            assert run(capsys, tokens)[:-1] == [f"put the task {TASK!r} back"]
            [task] = api.find_tasks(name=TASK)
            assert (task.flux, task.status) == (flux, "inactive")
            api.delete_task(task.id)
            assert run(capsys, tokens)[:-1] == [f"made the task {TASK!r}"]
            [task] = api.find_tasks(name=TASK)
            assert (task.flux, task.status) == (flux, "active")

    def test_another_folder_says_what_becomes_of_the_first(self, fresh, tmp_path, capsys):
        run(capsys, tmp_path / "one")
        said = run(capsys, tmp_path / "two")[:-1]
        assert [line.endswith(REPLACED) for line in said] == [True] * 3
        for name in ("collector", "jobs", "grafana"):
            with pytest.raises(ConfigError, match="unauthorized"):
                store(fresh, tmp_path / "one", name).check()

    def test_a_bucket_that_was_deleted(self, server, tokens, capsys):
        with owner(server) as client:
            api = client.buckets_api()
            api.delete_bucket(api.find_bucket_by_name("gatewatch_hourly"))
        said = run(capsys, tokens)
        assert said[0] == "made the bucket 'gatewatch_hourly', which keeps points for ever"
        assert f"put the task {TASK!r} back" in said
        assert f"made the token {tokens}/grafana/grafana.token, which may read{REPLACED}" in said
        assert len(said) == 4  # the collector and the jobs keep theirs
        assert len(run(capsys, tokens)) == 1


class TestHourly:
    def test_the_task_writes_the_right_aggregates_and_twice_the_same(self, server, tokens):
        now = time.time_ns()
        hour = now - now % HOUR - 2 * HOUR  # whole, and past
        jobs = store(server, tokens, "jobs")
        tags = {"run": "r'${x}\\y", "phase": "train", "layer": "memory", "gate": "forget"}
        score = {**tags, "detector": "consensus"}
        written = []
        for i, (mean, worst) in enumerate([(0.25, 0.5), (0.75, 3.5), (0.5, 1.0)]):
            at = hour + (i + 1) * 10**10
            stats = {"mean": mean, "nan_count": i, "dead_units": 2 - i, "step": 10 * i}
            written.append(Point("gate_stats", tags, stats, at))
            scores = {"anomaly_score": worst, "anomalous": int(worst > 1), "step": 10 * i, "model_id": "m"}
            written.append(Point("gate_scores", score, scores, at))
            written.append(Point("train_metrics", {"run": "r", "phase": "train"}, {"loss": mean, "epoch": i}, at))
        written.append(Point("gate_stats", tags, {"mean": 0.125}, hour + HOUR))  # the first of the next hour
        written.append(Point("gate_stats", tags, {"mean": 9.0}, now))  # of an hour that is not over
        written.append(Point("jobs_health", {"job": "score"}, {"lag_s": 1.0}, hour))  # not of a run
        jobs.write(written)
        for _ in range(2):
            self.run_task(server)
            hourly = store(server, tokens, "grafana", "gatewatch_hourly")
            stats = hourly.read("gate_stats")
            assert [t.value for t in stats["time"]] == [hour, hour + HOUR]
            assert dict(stats.iloc[0][list(tags)]) == tags
            first = stats.iloc[0]
            assert (first["mean"], first["nan_count"], first["dead_units"], first["step"]) == (0.5, 2, 2, 20)
            assert stats.iloc[1]["mean"] == 0.125
            [scores] = hourly.read("gate_scores").to_dict("records")
            assert (scores["anomaly_score"], scores["anomalous"], scores["step"]) == (3.5, 1, 20)
            assert "model_id" not in scores
            [metrics] = hourly.read("train_metrics").to_dict("records")
            assert (metrics["loss"], metrics["epoch"]) == (0.5, 2)
            assert hourly.read("jobs_health").empty

    def run_task(self, server):
        with owner(server) as client:
            api = client.tasks_api()
            [task] = api.find_tasks(name=TASK)
            started = api.run_manually(task.id, datetime.now(UTC))
            deadline = time.monotonic() + 60
            while (done := self.run_of(api, task.id, started.id)) is None or done.status not in ("success", "failed"):
                assert time.monotonic() < deadline
                time.sleep(0.2)
            assert done.status == "success", [line.message for line in api.get_run_logs(task.id, started.id)]

    def run_of(self, api, task, started):
        """A run; None while InfluxDB moves it from those that go on to those that are over, and finds it in neither."""
        try:
            return api.get_run(task, started)
        except ApiException as error:
            if error.status != 404:
                raise
            return None


class TestOutput:
    """The work is done whoever reads what is said of it."""

    def test_a_closed_pipe(self, fresh, tmp_path):
        reading, writing = os.pipe()
        os.close(reading)
        done = self.run(tmp_path, writing)
        os.close(writing)
        assert (done.returncode, done.stderr) == (0, "")
        store(fresh, tmp_path, "jobs").check()

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
    def test_a_full_disk(self, server, tokens):
        with Path("/dev/full").open("w") as full:
            done = self.run(tokens, full.fileno())
        assert (done.returncode, done.stderr) == (1, "gatewatch: the output: No space left on device\n")

    def run(self, folder, stdout):
        command = [sys.executable, "-m", "gatewatch.jobs.stack.setup", "--tokens", os.fspath(folder)]
        return subprocess.run(command, check=False, stdout=stdout, stderr=subprocess.PIPE, text=True)


class TestBadInput:
    def test_no_folder(self, tmp_path, capsys, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit, match="2"):
            setup.main(["--tokens", ""])
        assert "--tokens: name a folder" in capsys.readouterr().err
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("url", ["http://localhost:99999", "http://localhost:port"])
    def test_no_port(self, tmp_path, capsys, monkeypatch, url):
        monkeypatch.setenv("INFLUXDB_V2_URL", url)
        monkeypatch.setenv("GATEWATCH_INFLUXDB_PASSWORD", PASSWORD)
        [said] = run(capsys, tmp_path, 2)
        assert said == "gatewatch: INFLUXDB_V2_URL is not the address of an InfluxDB; write it as http://host:8086"

    def test_another_password(self, server, tokens, capsys, monkeypatch):
        monkeypatch.setenv("GATEWATCH_INFLUXDB_PASSWORD", "another horse")
        [said] = run(capsys, tokens, 2)
        assert said.startswith(f"gatewatch: {server.url} was set up before and does not let 'gatewatch' in: set ")
        assert "GATEWATCH_INFLUXDB_PASSWORD" in said
        assert "another horse" not in said

    def test_another_organisation(self, server, tokens, capsys, monkeypatch):
        monkeypatch.setenv("INFLUXDB_V2_ORG", "elsewhere")
        [said] = run(capsys, tokens, 2)
        assert said.endswith("has no organisation 'elsewhere': set INFLUXDB_V2_ORG to one that is there ('gatewatch')")

    def test_nobody_there(self, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr(setup, "WAIT_SECONDS", 0.1)
        monkeypatch.setenv("INFLUXDB_V2_URL", url := f"http://127.0.0.1:{free_port()}")
        monkeypatch.setenv("GATEWATCH_INFLUXDB_PASSWORD", PASSWORD)
        assert run(capsys, tmp_path, 1) == [f"gatewatch: {url}: no connection; see that InfluxDB runs there"]

    @pytest.mark.parametrize(
        ("status", "body"), [(200, b"<html>hello</html>"), (404, b"<html>nothing</html>"), (200, b"[]"), (200, b"{}")]
    )
    def test_something_else_there(self, tmp_path, capsys, monkeypatch, status, body):
        front = Front()
        front.answer = replying(status, body)
        monkeypatch.setenv("INFLUXDB_V2_URL", front.url)
        monkeypatch.setenv("GATEWATCH_INFLUXDB_PASSWORD", PASSWORD)
        try:
            [said] = run(capsys, tmp_path, 1)
        finally:
            front.close()
        assert said.startswith(f"gatewatch: {front.url}: answers ")
        assert "InfluxDB 2" in said

    def test_a_folder_that_cannot_be_written(self, fresh, tmp_path, capsys):
        (tmp_path / "file").write_text("")
        folder = tmp_path / "file"
        [said] = run(capsys, folder, 2)
        assert said.startswith(f"gatewatch: the folder {folder}/collector cannot be written: ")
        assert fresh.call("/api/v2/setup")["allowed"]  # nothing was begun


class TestHealthy:
    @pytest.fixture(autouse=True)
    def _as_the_jobs(self, server, tokens, monkeypatch):
        monkeypatch.setenv("INFLUXDB_V2_ORG", "gatewatch")
        monkeypatch.setenv("INFLUXDB_V2_BUCKET", "gatewatch")
        monkeypatch.setenv("INFLUXDB_V2_TOKEN_FILE", str(token_path(tokens, "jobs")))
        self.jobs = store(server, tokens, "jobs")

    def test_only_where_something_was_written_of_late(self, capsys):
        old = time.time_ns() - int((health_check.SILENT_SECONDS + 5) * 1e9)
        self.jobs.write([Point("jobs_health", {"job": "score"}, {"duration_s": 1.0}, old)])
        assert health_check.main() == 1
        assert "no service has written jobs_health" in capsys.readouterr().err
        self.jobs.write([Point("jobs_health", {"job": "score"}, {"duration_s": 1.0}, time.time_ns())])
        assert health_check.main() == 0

    def test_not_where_the_store_is_away_or_the_token_is_missing(self, capsys, monkeypatch, tmp_path):
        monkeypatch.setenv("GATEWATCH_STORE", f"http://127.0.0.1:{free_port()}")
        assert health_check.main() == 1
        monkeypatch.setenv("INFLUXDB_V2_TOKEN_FILE", os.fspath(tmp_path / "absent"))
        assert health_check.main() == 2
        assert len(capsys.readouterr().err.splitlines()) == 2

"""`gatewatch copy`, between real stores: what arrives, what is passed over, and what stands in its way."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gatewatch.collector.line_protocol import encode
from gatewatch.collector.schema import Point, point_problem
from gatewatch.collector.spool.queue import Spool, spool_root
from gatewatch.collector.store import open_store
from gatewatch.collector.store.sqlite.store import SqliteStore
from gatewatch.jobs.cli import main
from gatewatch.jobs.copying.copier import Check, Copier
from gatewatch.jobs.copying.counts import problems
from gatewatch.jobs.copying.plan import CopyScope
from gatewatch.jobs.retry import Retry
from tests.conftest import ROOT, free_port
from tests.contract.test_store import values
from tests.servers import Front, holding, passing_on, replying

NOON = 1_700_000_000_000_000_000
HOSTILE = 'goog "1", ${x} back\\slash'


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def server(influxd, monkeypatch):
    """A fresh bucket, and the environment that names it."""
    return named(influxd, monkeypatch)


def named(influxd, monkeypatch, bucket=None, token=None):
    monkeypatch.setenv("INFLUXDB_V2_ORG", influxd.org)
    monkeypatch.setenv("INFLUXDB_V2_BUCKET", bucket or influxd.bucket())
    monkeypatch.setenv("INFLUXDB_V2_TOKEN", token or influxd.token)
    return open_store(influxd.url)


@pytest.fixture
def source(tmp_path):
    store = SqliteStore(tmp_path / "points.db")
    store.write(history())
    yield store
    store.close()


def history():
    """A little of everything that a store holds."""
    for run in (HOSTILE, "r2"):
        tags = {"run": run, "phase": "train", "symbol": "GOOG=1, 2"}
        yield Point("runs", tags, {"event": "started", "config": '{"a":\n"b"}', "step": 0}, NOON)
        for k in range(40):
            for gate in ("input", "forget"):
                series = tags | {"layer": "bi/fwd lstm,1", "gate": gate}
                yield Point("gate_units", series, {f"u{i:03d}": i / (k + 1) for i in range(9)} | {"step": k}, NOON + k)
            sparse = {"val_loss": 2.0} if k % 7 == 0 else {}
            yield Point("train_metrics", tags, {"loss": 1 / (k + 1), "step": k, "done": k > 38, **sparse}, NOON + k)
    yield Point("jobs_health", {"job": "score"}, {"lag_s": 1.0, "windows": 3}, NOON)
    yield Point("alert_events", {"rule": "a rule"}, {"state": "firing\nstill", "delivered": True}, NOON + 1)
    yield Point("my own, table", {}, {"a field=": 1.5, "text": 'say "\\"'}, 1)


def everything(store):
    """Every point as its line."""
    with closing(store.history()) as held:
        parts = [p for name in held.measurements() for run in held.runs(name) for p in held.points(name, run)]
    return sorted(encode(part) for points in parts for part in ([each] for each in points))


def said(capsys, *arguments):
    status = main(["copy", *arguments])
    out, err = capsys.readouterr()
    return status, out, err


def told(capsys, *arguments):
    """Status, and what became of each measurement."""
    status, out, err = said(capsys, *arguments, "--json")
    return status, {each["measurement"]: each for each in json.loads(out)}, err


def total(copied, name):
    return sum(each[name] for each in copied.values())


class TestWhatArrives:
    def test_everything_does_and_is_counted(self, source, server, capsys):
        status, out, err = said(capsys, "--from", source.url, "--to", server.url)
        assert (status, err) == (0, "")
        assert everything(server) == everything(source)
        rows = {line.split("  ")[0]: line.split()[-6:] for line in out.splitlines()}
        assert rows["gate_units"] == ["160", "160", "0", "0", "1600", "1600"]
        assert rows["my own, table"] == ["1", "1", "0", "0", "2", "2"]
        assert rows["in all"][:2] == [str(len(everything(source)))] * 2

    def test_and_comes_back_the_same(self, source, server, capsys, tmp_path):
        assert said(capsys, "--from", source.url, "--to", server.url)[0] == 0
        assert said(capsys, "--from", server.url, "--to", "sqlite:///back.db")[0] == 0
        assert said(capsys, "--from", "sqlite:///back.db", "--to", "sqlite:///once-more.db")[0] == 0
        assert everything(open_store("sqlite:///back.db")) == everything(source)
        assert everything(open_store("sqlite:///once-more.db")) == everything(source)

    def test_a_second_copy_writes_nothing(self, source, server, capsys):
        assert told(capsys, "--from", source.url, "--to", server.url)[0] == 0
        status, copied, _ = told(capsys, "--from", source.url, "--to", server.url)
        assert status == 0
        assert total(copied, "written") == 0
        assert total(copied, "already_there") == total(copied, "points") == len(everything(source))
        assert total(copied, "found") == total(copied, "values") > 0
        out = said(capsys, "--from", source.url, "--to", server.url)[1]
        assert out.endswith(f"nothing to do: all {len(everything(source))} points are there\n")

    def test_what_is_new_is_written_by_the_next_copy(self, source, server, capsys):
        assert said(capsys, "--from", source.url, "--to", server.url)[0] == 0
        source.write([Point("train_metrics", {"run": "r2", "phase": "train"}, {"loss": 0.5}, NOON + 99)])
        source.write([Point("jobs_health", {"job": "score"}, {"failures": 1}, NOON)])  # a field more of an old point
        status, copied, _ = told(capsys, "--from", source.url, "--to", server.url)
        assert (status, total(copied, "written")) == (0, 2)
        assert everything(server) == everything(source)

    def test_only_what_is_named(self, source, server, capsys):
        options = ("--run", HOSTILE, "--measurement", "train_metrics", "--since", "2023-11-14T22:13:20Z")
        source.write([Point("train_metrics", {"run": HOSTILE}, {"loss": 9.0}, NOON - 1)])
        status, copied, _ = told(capsys, "--from", source.url, "--to", server.url, *options)
        assert status == 0
        assert list(copied) == ["train_metrics"]
        assert copied["train_metrics"]["points"] == 40
        assert {line.split(b" ")[0][:13] for line in everything(server)} == {b"train_metrics"}

    def test_a_dry_run_writes_nothing(self, source, server, capsys, tmp_path):
        status, out, _ = said(capsys, "--from", source.url, "--to", server.url, "--dry-run")
        assert status == 0
        assert "to write" in out
        assert "nothing was written" in out
        assert everything(server) == []
        status, copied, _ = told(capsys, "--from", source.url, "--to", "sqlite:///none.db", "--dry-run")
        assert (status, total(copied, "written")) == (0, len(everything(source)))
        assert not (tmp_path / "none.db").exists()

    def test_an_empty_store_is_said_to_be_one(self, server, capsys):
        SqliteStore("empty.db").check()
        status, out, _ = said(capsys, "--from", "sqlite:///empty.db", "--to", server.url)
        assert (status, out) == (0, "sqlite:///empty.db holds no points that were asked for\n")

    def test_points_of_several_stores_unite(self, source, server, capsys):
        other = SqliteStore("other.db")
        other.write(
            [Point("jobs_health", {"job": "score"}, {"lag_s": 7.0, "windows": 1}, NOON + i) for i in (-5, 0, 5)]
        )
        for url in (source.url, other.url, source.url):
            status, copied, err = told(capsys, "--from", url, "--to", server.url)
            assert (status, err) == (0, "")
            assert copied["jobs_health"]["found"] == copied["jobs_health"]["values"]
        lines = [line for line in everything(server) if line.startswith(b"jobs_health")]
        assert len(lines) == 3
        assert total(copied, "written") == 0

    def test_fields_that_only_the_destination_has_do_not_matter(self, source, server, capsys):
        assert said(capsys, "--from", source.url, "--to", server.url)[0] == 0
        server.write([Point("jobs_health", {"job": "score"}, {"missed": 1}, NOON)])
        status, copied, _ = told(capsys, "--from", source.url, "--to", server.url)
        assert (status, total(copied, "written")) == (0, 0)

    def test_points_that_wait_for_the_source_are_mentioned(self, source, server, capsys):
        spool = Spool(spool_root(None), source.destination, 2**20)
        spool.append(encode([Point("m", {}, {"f": 1.0}, 1)]), 1)
        spool.close()
        status, _, err = said(capsys, "--from", source.url, "--to", server.url)
        assert status == 0
        assert err.startswith("gatewatch: 1 point waits in the spool for sqlite:///")
        assert "gatewatch spool flush" in err

    def test_nothing_is_shown_in_a_pipe(self, source, server, capsys):
        assert said(capsys, "--from", source.url, "--to", server.url)[2] == ""

    def test_progress_is_shown_on_a_terminal(self, source, server, capsys, monkeypatch):
        monkeypatch.setattr("sys.stderr.isatty", lambda: True)
        monkeypatch.setattr("gatewatch.jobs.console._REDRAW_S", 0.0)
        status, _, err = said(capsys, "--from", source.url, "--to", server.url)
        assert status == 0
        assert "a second, gate_units of goog" in err
        assert err.endswith("\r\x1b[K")

    @pytest.mark.parametrize("how", ["--again", "--verify"])
    def test_what_counting_cannot_see_is_mended_on_request(self, how, source, server, capsys):
        assert said(capsys, "--from", source.url, "--to", server.url)[0] == 0
        source.write([Point("jobs_health", {"job": "score"}, {"lag_s": 2.0}, NOON)])
        status, copied, _ = told(capsys, "--from", source.url, "--to", server.url)
        assert (status, total(copied, "written")) == (0, 0)
        status, copied, _ = told(capsys, "--from", source.url, "--to", server.url, how)
        assert status == 0
        assert copied["jobs_health"]["written"] == 1
        assert total(copied, "written") == (1 if how == "--verify" else total(copied, "points"))
        assert everything(server) == everything(source)

    @pytest.mark.parametrize("direction", ["to the server", "from the server"])
    def test_a_training_may_go_on_writing_to_the_source(self, direction, source, server):
        destination = server
        if direction == "from the server":
            server.write(history())
            source, destination = server, SqliteStore("back.db")
        ended = threading.Event()
        wrote = []

        def train():
            store = reopen(source)
            while not ended.is_set():
                moment = NOON + 1_000 + len(wrote)
                store.write([Point("train_metrics", {"run": "r2", "phase": "train"}, {"loss": 1.0}, moment)])
                wrote.append(moment)
            store.close()

        training = threading.Thread(target=train)
        training.start()
        try:
            for _ in range(5):
                copied = Copier(source, destination, Retry(10)).run(CopyScope())
                assert list(problems(copied)) == []
                assert all(each.agrees for each in copied)
        finally:
            ended.set()
            training.join()
        Copier(source, destination, Retry(10)).run(CopyScope())
        assert everything(destination) == everything(source)
        assert len(wrote) > 5


def reopen(store):
    """The same store, for another thread."""
    return SqliteStore(store.path) if isinstance(store, SqliteStore) else open_store(store.url)


names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=6)
points = st.builds(
    Point,
    st.sampled_from(["m", "own one", 'a"b,c']) | names,
    st.dictionaries(st.sampled_from(["run", "phase", "symbol"]) | names, names, max_size=3),
    st.dictionaries(st.sampled_from(["u000", "u001", "why_ x"]) | names, values, min_size=1, max_size=4),
    st.integers(NOON, NOON + 5) | st.integers(-(2**60), 2**60),
).filter(lambda candidate: point_problem(candidate) is None)


@pytest.fixture(scope="module")
def triples(influxd, tmp_path_factory):
    """Gives three fresh stores: a file, a bucket, a file."""
    folder = tmp_path_factory.mktemp("triples")
    opened = []

    def fresh():
        files = [SqliteStore(folder / f"{len(opened)}-{i}.db") for i in range(2)]
        opened.extend(three := (files[0], influxd.store(), files[1]))
        return three

    yield fresh
    for store in opened:
        store.close()


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(batch=st.lists(points, max_size=12), check=st.sampled_from(Check))
def test_there_and_back_gives_the_same_bytes(batch, check, triples):
    there, server, back = triples()
    types = {}
    for each in batch:
        if all(types.setdefault((each.measurement, n), type(v)) is type(v) for n, v in each.fields.items()):
            there.write([each])
    for one, other in ((there, server), (server, back)):
        copied = Copier(one, other, Retry(10), check).run(CopyScope())
        assert list(problems(copied)) == []
        assert all(each.agrees and each.written == each.points for each in copied)
    assert everything(back) == everything(server) == everything(there)


class TestWhatStandsInTheWay:
    def test_points_of_another_type_are_refused_and_the_others_copied(self, source, server, capsys):
        server.write([Point("train_metrics", {"run": "another"}, {"loss": 1}, NOON)])
        status, out, err = said(capsys, "--from", source.url, "--to", server.url)
        assert status == 1
        assert err.startswith("gatewatch: 80 points of train_metrics refused: ")
        assert "already exists as type integer" in err
        assert "another type" in err
        assert err.count("\n") == 1
        assert "refused: 80 of train_metrics: " in out
        row = next(line for line in out.splitlines() if line.startswith("train_metrics"))
        assert row.split() == ["train_metrics", "80", "0", "0", "80", "252", "0"]
        lacking = set(everything(source)) - set(everything(server))
        assert {line[:13] for line in lacking} == {b"train_metrics"}
        assert len(lacking) == 80

    def test_points_that_no_store_of_ours_takes_are_refused(self, source, server, capsys):
        server.write_lines(b"cpu,host=a\tb usage=1.5 1\ncpu,host=c usage=2.5 1\n")
        status, copied, err = told(capsys, "--from", server.url, "--to", "sqlite:///back.db")
        assert status == 1
        assert err.startswith("gatewatch: 1 point of cpu refused: cpu: tag 'host'='a\\tb' must not contain")
        assert (copied["cpu"]["written"], copied["cpu"]["found"], copied["cpu"]["values"]) == (1, 1, 2)

    def test_points_older_than_the_bucket_keeps_are_told(self, source, influxd, capsys, monkeypatch):
        server = named(influxd, monkeypatch, influxd.bucket(retention_s=86_400))
        source.write([Point("train_metrics", {"run": "new"}, {"loss": 1.0}, time.time_ns() - i) for i in range(10)])
        status, copied, err = told(capsys, "--from", source.url, "--to", server.url)
        assert status == 1
        assert "retention" in err
        assert "--since" in err
        assert total(copied, "refused") == total(copied, "points") - 10
        assert len(everything(server)) == 10
        since = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 3_600))
        assert said(capsys, "--from", source.url, "--to", server.url, "--since", since)[0] == 0

    def test_a_token_that_may_not_read_is_told_before_anything_is_written(self, source, influxd, capsys, monkeypatch):
        bucket = influxd.bucket()
        named(influxd, monkeypatch, bucket, influxd.token_for("write"))
        status, _, err = said(capsys, "--from", source.url, "--to", influxd.url)
        assert status == 2
        assert "the token may only write" in err
        assert "nothing was copied: what arrives is counted, so the token must be one that may read and write" in err
        assert everything(influxd.store(bucket)) == []

    def test_a_token_that_may_not_write_is_told(self, source, influxd, capsys, monkeypatch):
        named(influxd, monkeypatch, token=influxd.token_for("read"))
        status, _, err = said(capsys, "--from", source.url, "--to", influxd.url)
        assert status == 2
        assert "INFLUXDB_V2_TOKEN" in err

    def test_a_server_that_is_away_from_the_beginning_is_told(self, source, server, capsys):
        away = f"http://127.0.0.1:{free_port()}"
        for one, other in ((source.url, away), (away, source.url)):
            status, _, err = said(capsys, "--from", one, "--to", other, "--timeout", "1")
            assert status == 1
            assert f"{away}: no connection" in err
            assert err.endswith("run the same command again to go on\n")

    def test_one_that_takes_connections_and_answers_nothing_is_told_in_time(self, source, server, capsys, tmp_path):
        front = Front(server.url)
        front.answer = holding
        try:
            for one, other in ((source.url, front.url), (front.url, "sqlite:///b.db")):
                status, _, err = said(capsys, "--from", one, "--to", other, "--timeout", "1")
                assert status == 1
                assert f"{front.url}: no answer within 1 s" in err  # and not within the many of a write or a read
                assert err.endswith("run the same command again to go on\n")
        finally:
            front.close()

    @pytest.mark.parametrize("options", [[], ["--run", "r3"], ["--measurement", "foo"]])
    def test_no_file_is_made_where_nothing_can_be_copied(self, options, source, server, capsys, tmp_path):
        url = source.url if options else f"http://127.0.0.1:{free_port()}"
        assert said(capsys, "--from", url, "--to", "sqlite:///b.db", *options)[0] != 0
        assert not (tmp_path / "b.db").exists()

    def test_a_measurement_that_is_not_there_is_told_with_those_that_are(self, source, capsys):
        status, _, err = said(capsys, "--from", source.url, "--to", "sqlite:///b.db", "--measurement", "foo")
        assert status == 2
        assert "--measurement 'foo': the source has no points of it; it has alert_events, gate_units, jobs_hea" in err

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            (["--from-token-file", "."], "--from-token-file: . cannot be read: Is a directory"),
            (["--from-token-file", "other"], "see the token that was given"),
            (["--from-bucket", "nope"], "see the bucket that was given and INFLUXDB_V2_TOKEN"),
        ],
    )
    def test_what_is_wrong_with_the_source_is_told_by_the_option_that_names_it(
        self, options, told, server, capsys, tmp_path
    ):
        (tmp_path / "other").write_text("of nobody")
        status, _, err = said(capsys, "--from", server.url, "--to", "sqlite:///b.db", *options)
        assert status == 2
        assert told in err

    def test_one_that_goes_away_for_a_moment_is_waited_for(self, source, server, capsys):
        front = Front(server.url)
        try:
            busy = replying(503, b"{}", Retry_After="1")
            front.answer = lambda handler, body: (busy if len(front.asked) == 1 else passing_on)(handler, body)  # noqa: PLW0108 - it is asked anew
            status, copied, err = told(capsys, "--from", source.url, "--to", front.url)
        finally:
            front.close()
        assert (status, err) == (0, "")
        assert total(copied, "written") == total(copied, "points")
        assert everything(server) == everything(source)

    def test_one_that_stays_away_is_told_with_how_to_go_on(self, source, server, capsys):
        front = Front(server.url)

        def once_there(handler, body):
            (passing_on if len(front.asked) < 2 else replying(503, b"{}", Retry_After="1"))(handler, body)

        try:
            front.answer = once_there
            status, out, err = said(capsys, "--from", source.url, "--to", front.url, "--timeout", "2")
        finally:
            front.close()
        assert (status, out) == (1, "")
        assert err.count("\n") == 1
        assert "503" in err
        assert err.endswith("run the same command again to go on\n")
        status, copied, _ = told(capsys, "--from", source.url, "--to", server.url)
        assert status == 0
        assert total(copied, "written") < total(copied, "points")
        assert everything(server) == everything(source)

    @pytest.mark.parametrize(
        ("url", "problem"),
        [
            ("sqlite:///none.db", "sqlite:///none.db does not exist; name the store to copy with --from"),
            ("sqlite:///rubbish.db", "not a sound SQLite file"),
            ("sqlite:///others.db", "a SQLite file of another program"),
            ("nonsense", "'nonsense' is not the address of a store"),
        ],
    )
    def test_a_source_that_is_none_is_told(self, url, problem, server, capsys, tmp_path):
        (tmp_path / "rubbish.db").write_bytes(b"rubbish" * 1_000)
        with closing(sqlite3.connect("others.db")) as other:
            other.execute("CREATE TABLE t (x)")
            other.execute("PRAGMA application_id = 7")
        status, _, err = said(capsys, "--from", url, "--to", server.url)
        assert status == 2
        assert problem in err
        assert err.count("\n") == 1
        assert not (tmp_path / "none.db").exists()

    def test_a_locked_source_is_told(self, source, server, capsys, monkeypatch):
        monkeypatch.setattr("gatewatch.collector.store.sqlite.file.BUSY_TIMEOUT_S", 0.1)
        source.close()
        with closing(sqlite3.connect(source.path, isolation_level=None)) as other:
            other.execute("PRAGMA locking_mode = EXCLUSIVE")
            other.execute("BEGIN EXCLUSIVE")
            other.execute("CREATE TABLE t (x)")
            status, _, err = said(capsys, "--from", source.url, "--to", server.url)
        assert status == 1
        assert "locked" in err
        assert err.endswith("run the same command again to go on\n")

    def test_one_store_is_not_two(self, source, server, capsys, tmp_path):
        (tmp_path / "link.db").symlink_to(source.path)
        for one, other in ((source.url, source.url), (source.url, "sqlite:///link.db"), (server.url, f"{server.url}/")):
            status, _, err = said(capsys, "--from", one, "--to", other)
            assert status == 2
            assert "are the same store" in err
            assert ("with --from-bucket" in err) == (one == server.url)

    def test_two_buckets_are(self, source, influxd, capsys, monkeypatch, tmp_path):
        old = named(influxd, monkeypatch)
        assert said(capsys, "--from", source.url, "--to", old.url)[0] == 0
        (tmp_path / "token").write_text(influxd.token_for("read") + "\n")
        new = named(influxd, monkeypatch)
        options = ("--from-bucket", old.destination["bucket"], "--from-token-file", "token")
        status, copied, _ = told(capsys, "--from", old.url, "--to", new.url, *options)
        assert (status, total(copied, "written")) == (0, len(everything(source)))
        assert everything(new) == everything(source)
        assert os.environ["INFLUXDB_V2_BUCKET"] == new.destination["bucket"]
        status, _, err = said(capsys, "--from", source.url, "--to", new.url, *options)
        assert status == 2
        assert "is a file, which has no organisation, bucket or token" in err

    @pytest.mark.parametrize(
        ("options", "problem"),
        [
            (["--from", "sqlite:///points.db"], "--to"),
            (["--to", "sqlite:///points.db"], "--from"),
            (["--from", "sqlite:///points.db", "--to", "sqlite:///b.db", "--since", "soon"], "'soon' is no time"),
            (["--from", "sqlite:///points.db", "--to", "sqlite:///b.db", "--again", "--verify"], "not allowed with"),
        ],
    )
    def test_wrong_options_are_told(self, options, problem, source, capsys):
        with pytest.raises(SystemExit) as end:
            main(["copy", *options])
        assert end.value.code == 2
        assert problem in capsys.readouterr().err

    def test_a_run_that_is_not_there_is_told(self, source, capsys):
        status, _, err = said(capsys, "--from", source.url, "--to", "sqlite:///b.db", "--run", "r3")
        assert status == 2
        assert "--run 'r3': the source has no points of it" in err


class TestBreakingOff:
    COPY = """
import sys
from gatewatch.jobs.cli import main
from gatewatch.jobs.copying.batches import batches

batches.__defaults__ = (250,)  # so that it takes a while, and is killed within a batch too
print(flush=True)
sys.exit(main())
"""

    def begin(self, *arguments):
        """A process that is about to copy, in small writes."""
        command = [sys.executable, "-c", self.COPY, "copy", *arguments]
        child = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert child.stdout.readline() == "\n"
        return child

    @pytest.mark.parametrize("direction", ["to the server", "from the server"])
    def test_killed_at_random_moments_it_goes_on(self, direction, server, tmp_path, influxd):
        source, destination = SqliteStore(tmp_path / "many.db"), server
        if direction == "from the server":
            source, destination = server, SqliteStore(tmp_path / "many.db")
        source.write(
            Point("gate_stats", {"run": f"r{i % 2}", "gate": "input"}, {"mean": i / 7, "p50": 1.0, "step": i}, NOON + i)
            for i in range(40_000)
        )
        moments = random.Random(direction)
        arguments = ("--from", source.url, "--to", destination.url, "--json")
        ends = []
        for target in sorted(moments.sample(range(1, 25_000), 3)):
            child = self.begin(*arguments)
            while child.poll() is None and count(destination) < target:
                time.sleep(0.01)
            time.sleep(moments.uniform(0, 0.05))
            child.kill()
            child.communicate()
            ends.append(child.returncode)
        assert ends[0] == -signal.SIGKILL
        before = count(destination)
        child = self.begin(*arguments)
        out, err = child.communicate(timeout=120)
        assert (child.returncode, err) == (0, "")
        (copied,) = json.loads(out)
        assert copied["points"] == 40_000
        assert copied["already_there"] > 0
        assert copied["already_there"] >= before - 2 * 5_000  # the slices that it was at when it was killed
        assert copied["found"] == copied["values"] == 120_000
        assert everything(destination) == everything(source)

    def test_ctrl_c_says_how_to_go_on(self, source, server):
        front = Front(server.url)
        try:
            front.answer = lambda handler, body: (holding if front.asked else passing_on)(handler, body)  # noqa: PLW0108 - as above
            child = self.begin("--from", source.url, "--to", front.url)
            deadline = time.monotonic() + 30
            while not front.held and time.monotonic() < deadline:
                time.sleep(0.02)
            child.send_signal(signal.SIGINT)
            time.sleep(0.2)
        finally:
            front.close()
        out, err = child.communicate(timeout=60)
        assert child.returncode == 130
        assert out == ""
        assert err.startswith("gatewatch: interrupted; ")
        assert err.endswith("run the same command again to go on\n")
        assert err.count("\n") == 1


def count(store):
    with closing(store.history()) as held:
        return sum(each["mean"] for run in ("r0", "r1") for each in held.counts("gate_stats", run).values())

"""The commands that look after a store: what they do, what they print, and how they fail."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress

import pytest
from aiosmtpd.controller import Controller
from playwright.sync_api import Error as PlaywrightError

from gatewatch.collector.line_protocol import encode
from gatewatch.collector.schema import GATE_DERIVED, GATE_SCORES, RUNS, Point
from gatewatch.collector.spool.queue import Spool, spool_root
from gatewatch.collector.store import open_store
from gatewatch.collector.store.influxdb import client
from gatewatch.jobs.cli import main
from gatewatch.jobs.scoring.scoring_pass import run_pass
from tests.conftest import ROOT, free_port
from tests.servers import Front, holding
from tests.soak import captures, differences, moment, results, until, wrong


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWATCH_STATE", str(tmp_path / "state"))


@pytest.fixture
def store(tmp_path, monkeypatch):
    store = open_store(f"sqlite:///{tmp_path / 'points.db'}")
    monkeypatch.setenv("GATEWATCH_STORE", store.url)
    return store


def fill(store, count, first=0, run="r"):
    store.write(point for capture in captures(run, count, first) for point in capture)


def said(capsys, *arguments):
    status = main(list(arguments))
    out, err = capsys.readouterr()
    return status, out, err


def test_help_is_quick_and_needs_none_of_the_extras():
    heavy = ("numpy", "pandas", "pydantic", "sklearn", "plotly", "distributed", "influxdb_client")
    code = f"""
import sys
from gatewatch.jobs.cli import main
try:
    main(["--help"])
except SystemExit as end:
    assert end.code == 0
assert not {set(heavy)!r} & set(sys.modules), {set(heavy)!r} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "backfill" in done.stdout


@pytest.mark.parametrize(
    "module",
    [
        "argparse",
        "gatewatch.collector.errors",
        "gatewatch.jobs.commands",
        "gatewatch.jobs.findings.run_state",
        "pandas",
    ],
)
def test_ctrl_c_while_it_loads_is_one_line(module, store):
    fill(store, 1)
    code = f"""
import os, signal, sys
class Finder:
    def find_spec(self, name, *_):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
from gatewatch.jobs.cli import main
sys.exit(main(["runs"]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "gatewatch: interrupted\n")


def test_the_version(capsys):
    from importlib import metadata

    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"gatewatch {metadata.version('gatewatch')}\n"


def test_runs_of_a_store_that_does_not_answer(capsys, monkeypatch):
    front = Front()
    front.answer = holding
    for name, value in (("ORG", "o"), ("BUCKET", "b"), ("TOKEN", "t")):
        monkeypatch.setenv(f"INFLUXDB_V2_{name}", value)
    monkeypatch.setattr(client, "ANSWER_TIMEOUT_S", 0.3)
    try:
        assert said(capsys, "runs", "--store", front.url) == (
            1,
            "",
            f"gatewatch: {front.url}: no answer within 0.3 s; see that InfluxDB runs there\n",
        )
    finally:
        front.close()


@pytest.fixture(params=["sqlite", "influxdb"])
def either(request, monkeypatch, tmp_path):
    """A store of each kind, which the commands find too."""
    if request.param == "sqlite":
        store = open_store(f"sqlite:///{tmp_path / 'points.db'}")
    else:
        influxd = request.getfixturevalue("influxd")
        store = influxd.store()
        for name, value in (("ORG", influxd.org), ("BUCKET", store.influxdb.bucket), ("TOKEN", influxd.token)):
            monkeypatch.setenv(f"INFLUXDB_V2_{name}", value)
    monkeypatch.setenv("GATEWATCH_STORE", store.url)
    fill(store, 3)
    return store


NAMES = ("\udcff", "a\x1b[31mb", "a\0b", "a\nb", "\u202ea", "x" * 65536, "", " ", "../r", "r\\", "<b>", "R", "'", '"')


class TestNames:
    @pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name[:9]))
    def test_a_name_that_no_run_has_is_one_line_for_every_command(self, either, capsys, name):
        for command in (
            ["report", "--output=r.html", "--", name],
            ["backfill", name],
            ["verdict", name],
            ["jobs", "--once", "--run", name],
            ["baseline", "add", name],
            ["baseline", "remove", name],
            ["copy", "--from", either.url, "--to", "sqlite:///copy.db", "--run", name or "r "],  # "" is: of no run
            ["copy", "--from", either.url, "--to", "sqlite:///copy.db", "--measurement", name],
        ):
            status, out, err = said(capsys, *command)
            assert (status, out) == (2, ""), command
            assert err.removesuffix("\n").isprintable(), command
            assert 10 < len(err) <= 1012, command

    def test_a_run_is_found_by_either_normal_form_of_its_name(self, either, capsys):
        fill(either, 3, run="caf\u00e9")
        for form in ("caf\u00e9", "cafe\u0301"):
            assert said(capsys, "report", form, "-o", "r.html")[:2] == (0, "r.html\n")
            assert said(capsys, "backfill", form)[0] == 0
            assert said(capsys, "baseline", "add", form)[0] == 0
        assert said(capsys, "baseline", "list")[1].splitlines()[1].split()[0] == "caf\u00e9"


class TestBackfill:
    def test_a_past_run_is_scored_as_if_it_were_live(self, store, capsys, tmp_path):
        fill(store, 60)
        fill(store, 40, run="another")
        status, out, _ = said(capsys, "backfill", "r")
        assert status == 0
        assert re.search(r"^r +60 ", out, re.M)
        assert set(store.read(GATE_SCORES)["run"]) == {"r"}
        run_pass(store)
        assert wrong(store, tmp_path) == {}

    def test_from_scratch_writes_again_what_is_there(self, store, capsys):
        fill(store, 40)
        said(capsys, "backfill", "r")
        before = results(store)
        assert "no new captures" in said(capsys, "backfill", "r")[1]
        tags = {"run": "r", "phase": "train", "layer": "lstm", "gate": "input"}
        store.write([Point(GATE_DERIVED, tags, {"drift": 7.0}, moment(39))])
        assert "no new captures" in said(capsys, "backfill", "r")[1]
        (entry,) = json.loads(said(capsys, "backfill", "r", "--from-scratch", "--json")[1])
        assert entry["derived"] >= 80
        assert all(sum(counts.values()) == counts["wanted"] for counts in differences(results(store), before).values())

    def test_as_json(self, store, capsys):
        fill(store, 40)
        (entry,) = json.loads(said(capsys, "backfill", "r", "--json")[1])
        assert (entry["run"], entry["captures"], entry["failed"]) == ("r", 40, None)
        assert entry["scored"] == len(store.read(GATE_SCORES))

    def test_a_run_that_is_not_there(self, store, capsys):
        fill(store, 3)
        status, out, err = said(capsys, "backfill", "nobody")
        assert (status, out) == (2, "")
        assert re.fullmatch(r"gatewatch: no run 'nobody' in .*\n", err)


class TestBaseline:
    def test_runs_are_added_and_removed(self, store, capsys):
        for run in ("a", "b \x7e"):
            fill(store, 40, run=run)
        assert said(capsys, "baseline", "list")[1].startswith(f"{store.url} has no baseline: ")
        assert said(capsys, "baseline", "add", "a") == (0, "", "")
        assert said(capsys, "baseline", "add", "b \x7e") == (0, "", "")
        listed = json.loads(said(capsys, "baseline", "list", "--json")[1])
        assert {entry["run"] for entry in listed} == {"a", "b \x7e"}
        assert said(capsys, "baseline", "remove", "a") == (0, "", "")
        assert said(capsys, "baseline", "list")[1].splitlines()[1].startswith("b \x7e")

    @pytest.mark.parametrize("action", ["add", "remove"])
    def test_a_run_that_is_none(self, store, capsys, action):
        fill(store, 3)
        status, out, err = said(capsys, "baseline", action, "nobody")
        assert (status, out) == (2, "")
        assert re.fullmatch(r"gatewatch: (?:no )?run 'nobody' .*\n", err)


class TestCheck:
    def findings(self, capsys, *arguments, status=0):
        found, out, err = said(capsys, "check", *arguments)
        assert (found, err) == (status, "")
        return {
            what.strip(): (ok, detail) for ok, what, detail in re.findall(r"^(ok|problem) +(.{14}) (.*)$", out, re.M)
        }

    def test_what_works(self, store, capsys, tmp_path):
        fill(store, 3)
        found = self.findings(capsys)
        assert list(found) == ["configuration", "store", "spool", "state folder", "mail"]
        assert {ok for ok, _ in found.values()} == {"ok"}
        assert found["store"][1] == f"{store.url}, 1 run"
        assert found["spool"][1] == str(spool_root())
        assert found["state folder"][1].startswith(str(tmp_path / "state"))
        assert "not configured" in found["mail"][1]

    def test_nothing_is_there_yet_and_nothing_is_made(self, store, capsys):
        found = self.findings(capsys)
        assert found["store"] == ("ok", f"{store.url} does not exist yet: the first training makes it")
        assert not store.path.exists()

    def test_as_json(self, store, capsys):
        fill(store, 3)
        entries = json.loads(said(capsys, "check", "--json")[1])
        assert [entry["ok"] for entry in entries] == [True] * 5
        assert set(entries[0]) == {"what", "ok", "detail", "warning"}

    def test_what_waits_is_told(self, store, capsys):
        fill(store, 3)
        spool = Spool(spool_root(), store.destination, 2**20)
        spool.append(encode([Point("m", {"run": "r"}, {"f": 1.0}, 1)]), 1)
        spool.reject([(b'm f="x" 1', "wrong")])
        assert self.findings(capsys)["spool"][1].endswith(
            "1 points wait, 1 were refused (see `gatewatch spool status`)"
        )

    @pytest.mark.parametrize(
        ("store", "what"),
        [
            ("ftp://x", "ftp://x"),
            ("sqlite:////nowhere/at/all.db", "/nowhere/at"),
            (f"http://127.0.0.1:{free_port()}", "InfluxDB"),
        ],
        ids=["scheme", "folder", "nobody"],
    )
    def test_a_store_that_cannot_be(self, capsys, monkeypatch, store, what):
        for name in ("ORG", "BUCKET", "TOKEN"):
            monkeypatch.setenv(f"INFLUXDB_V2_{name}", "x")
        found = self.findings(capsys, "--store", store, status=1)
        assert found["store"][0] == "problem"
        assert what in found["store"][1]
        assert {ok for what, (ok, _) in found.items() if what != "store"} == {"ok"}

    def test_a_token_that_is_refused(self, capsys, monkeypatch, influxd):
        for name, value in {"ORG": influxd.org, "BUCKET": influxd.bucket(), "TOKEN": "wrong"}.items():
            monkeypatch.setenv(f"INFLUXDB_V2_{name}", value)
        assert "INFLUXDB_V2_TOKEN" in self.findings(capsys, "--store", influxd.url, status=1)["store"][1]

    def test_the_configuration_and_the_folders(self, store, capsys, monkeypatch, tmp_path):
        (tmp_path / "gatewatch.toml").write_text("[jobs]\nworker = 3\n")
        (tmp_path / "file").touch()
        monkeypatch.setenv("GATEWATCH_SPOOL", str(tmp_path / "file" / "spool"))
        monkeypatch.setenv("GATEWATCH_STATE", str(tmp_path / "file" / "state"))
        found = self.findings(capsys, status=1)
        assert "unknown key 'worker'" in found["configuration"][1]
        assert "GATEWATCH_SPOOL" in found["spool"][1]
        assert "GATEWATCH_STATE" in found["state folder"][1]

    def test_mail(self, store, capsys, tmp_path):
        assert "[mail]" in self.findings(capsys, "--mail", status=1)["mail"][1]
        inbox = []

        class Handler:
            async def handle_DATA(self, server, session, envelope):  # noqa: N802 - aiosmtpd's name
                inbox.append(envelope.rcpt_tos)
                return "250 OK"

        server = Controller(Handler(), hostname="127.0.0.1", port=free_port())
        mail = {"host": "127.0.0.1", "port": server.port, "security": "none", "sender": "g@example.org"}
        lines = [f"{name} = {json.dumps(value)}" for name, value in (mail | {"to": ["you@example.org"]}).items()]
        (tmp_path / "gatewatch.toml").write_text("\n".join(["[mail]", *lines]))
        assert self.findings(capsys, "--mail", status=1)["mail"][0] == "problem"  # nobody listens there
        server.start()
        try:
            assert self.findings(capsys, "--mail")["mail"][1].endswith("a test was sent")
        finally:
            server.stop()
        assert inbox == [["you@example.org"]]
        assert "sends a test" in self.findings(capsys)["mail"][1]


class TestWatch:
    """`gatewatch report --watch`."""

    @pytest.fixture
    def watching(self, store, tmp_path):
        fill(store, 40)
        store.write([Point(RUNS, {"run": "r", "phase": "train"}, {"event": "heartbeat", "step": 40}, 2**62 - 1)])
        output = (tmp_path / "out").open("wb"), (tmp_path / "err").open("wb")
        process = subprocess.Popen(
            [sys.executable, "-m", "gatewatch.jobs.cli", "report", "--watch", "1", "-o", "page.html"],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=output[0],
            stderr=output[1],
        )
        yield process
        process.kill()
        process.wait()
        for file in output:
            file.close()
        assert (tmp_path / "err").read_text() == ""

    def test_the_page_grows_until_the_run_has_ended_and_is_scored(self, store, watching, tmp_path):
        page = tmp_path / "page.html"
        until(page.exists, "the page is written")
        assert '<meta http-equiv="refresh" content="1">' in page.read_text()
        before = page.stat().st_ino
        until(lambda: page.stat().st_ino != before, "it is written again")
        store.write([Point(RUNS, {"run": "r", "phase": "train"}, {"event": "completed", "step": 40}, 2**62)])
        before = page.stat().st_ino
        until(lambda: page.stat().st_ino != before, "it is written again")
        assert watching.poll() is None  # it is not scored yet
        run_pass(store)
        assert watching.wait(30) == 0
        assert "refresh" not in page.read_text()[:2000]
        assert (tmp_path / "out").read_text() == "page.html\n"

    def test_ctrl_c_ends_it(self, watching, tmp_path):
        until((tmp_path / "page.html").exists, "the page is written")
        watching.send_signal(signal.SIGINT)
        assert watching.wait(30) == 0

    def test_the_browser_shows_the_new_page_by_itself(self, watching, visit, store, tmp_path):
        page = tmp_path / "page.html"
        until(page.exists, "the page is written")
        visit.open(page)
        run_pass(store)
        count = 0
        while not count:
            with suppress(PlaywrightError):  # it asked while the page was loaded anew
                count = visit.page.evaluate("document.querySelectorAll('#scores figure').length")
        assert visit.complaints == visit.requests == []

    @pytest.mark.parametrize("seconds", ["0", "r", "1.5"])
    def test_what_is_no_number_of_seconds(self, capsys, seconds):
        with pytest.raises(SystemExit) as end:
            main(["report", "--watch", seconds])
        assert end.value.code == 2
        assert f"{seconds!r} is no number of seconds; name the run before --watch" in capsys.readouterr().err

    def test_a_run_that_has_not_begun_is_waited_for(self, store, tmp_path):
        with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
            command = ["report", "goog-1", "--watch", "1", "-o", "page.html"]
            process = subprocess.Popen(
                [sys.executable, "-m", "gatewatch.jobs.cli", *command],
                cwd=tmp_path,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdout=out,
                stderr=err,
            )
        try:
            lines = (tmp_path / "err").read_text
            until(lambda: lines().count("\n") == 1, "it says that there is no store")
            assert store.path is not None
            assert not store.path.exists()
            fill(store, 3, run="goog-2")
            until(lambda: lines().count("\n") == 2, "it says that there is another run")
            fill(store, 3, run="goog-1")
            until((tmp_path / "page.html").exists, "the page is written")
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()
        first, second = lines().splitlines()
        assert first.startswith(f"gatewatch: {store.url} holds no run yet")
        assert second.startswith(f"gatewatch: no run 'goog-1' in {store.url}: did you mean 'goog-2'?; trying on")

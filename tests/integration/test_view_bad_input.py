"""What is wrong with a store while its page is looked at: a sentence each time, and all is well when it is mended."""

from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import closing
from functools import partial

import pytest

from gatewatch.collector.store import open_store
from gatewatch.jobs.view.server import _Handler
from gatewatch.jobs.view.site import Site
from gatewatch.jobs.view.trend import update_trend
from gatewatch.jobs.view.trends import Trends
from tests.integration.test_view import SECOND, now, serving, training, visit  # noqa: F401 - a fixture


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/gatewatch.db"


def page(url):
    """A page of a store that nobody serves."""
    return Site(open_store(url), Trends(partial(update_trend, open_store(url))))


def ask(site, path="/api/runs", **query):
    answer = site.respond(path, query)
    text = answer.body.decode()
    return answer.status, json.loads(text) if text.startswith("{") else text


def test_an_empty_store_has_no_runs_and_no_problem(url):
    open_store(url).check()
    status, answer = ask(page(url))
    assert (status, answer["runs"]) == (200, [])
    status, answer = ask(page(url), "/api/run", run="r", part="answer")
    assert status == 503
    assert "r" in answer["problem"]


def test_a_store_that_appears_later_is_shown_then(url):
    site = page(url)
    status, answer = ask(site)
    assert (status, "does not exist yet" in answer["problem"]) == (503, True)
    open_store(url).write(training("first", begin=now() - 60 * SECOND))
    status, answer = ask(site)
    assert (status, [row["run"] for row in answer["runs"]]) == (200, ["first"])
    assert "40 of its 40 captures" in ask(site, "/api/run", run="first", part="answer")[1]


def test_a_store_that_another_takes_the_place_of_is_read_anew(url, tmp_path):
    open_store(url).write(training("old", begin=now() - 60 * SECOND))
    site = page(url)
    assert ask(site, "/api/run", run="old", part="answer")[0] == 200
    for file in tmp_path.glob("gatewatch.db*"):
        file.unlink()
    assert ask(site)[0] == 503
    open_store(url).write(training("new", begin=now() - 60 * SECOND))
    assert [row["run"] for row in ask(site)[1]["runs"]] == ["new"]
    status, answer = ask(site, "/api/run", run="old", part="answer")
    assert status == 503
    assert "old" in answer["problem"]
    assert ask(site, "/api/run", run="new", part="answer")[0] == 200


def test_a_store_that_is_locked_for_writing_is_read(url):
    open_store(url).write(training("r", begin=now() - 60 * SECOND))
    site = page(url)
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert ask(site)[0] == 200
        assert ask(site, "/api/run", run="r", part="scores")[0] == 200


def test_a_store_that_is_damaged_is_a_sentence_for_the_run_too(url, tmp_path):
    open_store(url).write(training("r", begin=now() - 60 * SECOND))
    open_store(url).close()
    site, file = page(url), tmp_path / "gatewatch.db"
    with closing(sqlite3.connect(file)) as whole:
        whole.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    sound = file.read_bytes()
    for other in tmp_path.glob("gatewatch.db-*"):
        other.unlink()
    file.write_bytes(b"no database" * 1000)
    for path, query in (("/api/runs", {}), ("/api/run", {"run": "r", "part": "answer"})):
        status, answer = ask(site, path, **query)
        assert status == 503
        assert "not a sound SQLite file" in answer["problem"]
    file.write_bytes(sound)
    assert ask(site, "/api/run", run="r", part="answer")[0] == 200


def test_two_thousand_runs_are_all_listed(url):
    begin = now() - 9000 * SECOND
    runs = (training(f"run-{i:04d}", begin=begin + i * SECOND, captures=1) for i in range(2000))
    open_store(url).write(point for run in runs for point in run)
    status, answer = ask(page(url))
    assert (status, len(answer["runs"])) == (200, 2000)
    assert answer["runs"][0]["run"] == "run-1999"


def test_two_pages_of_one_store_show_the_same_while_it_grows(url):
    store = open_store(url)
    store.write(training("r", begin=now() - 60 * SECOND, captures=10, end=None))
    sites = [page(url), page(url)]
    steps = []
    for captures in (10, 20, 30):
        store.write(training("r", begin=now() - 60 * SECOND, captures=captures, end=None))
        steps.append([ask(site)[1]["runs"][0]["step"] for site in sites])
    assert steps == [[90, 90], [190, 190], [290, 290]]


def test_requests_at_once_are_all_answered(url):
    open_store(url).write(training("r", begin=now() - 60 * SECOND))
    site, found = page(url), []
    parts = ["answer", "gates", "metrics", "scores", "ranges"] * 3

    def look(part):
        found.append(ask(site, "/api/run", run="r", part=part)[0])

    threads = [threading.Thread(target=look, args=(part,)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [200] * len(parts)


def test_a_browser_that_sleeps_until_its_connection_is_closed_catches_up(visit, url, monkeypatch):  # noqa: F811
    monkeypatch.setattr(_Handler, "timeout", 0.2)
    store = open_store(url)
    store.write(training("before", begin=now() - 4000 * SECOND))
    hide = (
        "Object.defineProperty(document, 'hidden', {configurable: true, value: %s});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    with serving(store) as server:
        visit.page.goto(server.url)
        visit.until("document.querySelector('#runs').innerText.includes('before')")
        visit.page.evaluate(hide % "true")
        visit.page.wait_for_timeout(1000)
        store.write(training("meanwhile", begin=now() - 60 * SECOND))
        visit.page.evaluate(hide % "false")
        visit.until("document.querySelector('#runs').innerText.includes('meanwhile')")
    assert visit.complaints == []

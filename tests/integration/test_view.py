"""The local page in a real browser: the list of runs, live."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager
from functools import partial
from urllib.error import HTTPError

import pytest

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.schema import Point
from gatewatch.collector.store import open_store
from gatewatch.jobs.view.server import ViewServer
from gatewatch.jobs.view.site import Site
from gatewatch.jobs.view.trend import update_trend
from gatewatch.jobs.view.trends import Trends
from tests.integration.conftest import Visit

SECOND = 10**9
HOSTILE_RUN = """it's "<b>mine</b>" </script><img src=x onerror=alert(2)> ../..?a=1#b %2e"""


def training(name, *, begin, captures=40, fault=None, end="completed", tags=None, metrics=None):
    """The points of a run with one layer; from the capture `fault` on its forget gate scores 4."""
    named = {"run": name, "phase": "train", **(tags or {})}
    about = {"event": "started", "step": 0, "framework": "keras/jax", "model": "policy", "config": "{}"}
    yield Point("runs", named, about, begin)
    for i in range(captures):
        at, step = begin + i * SECOND, i * 10
        for gate in ("forget", "input"):
            of_gate = {**named, "layer": "lstm", "gate": gate}
            yield Point("gate_stats", of_gate, {"mean": 0.5, "step": step}, at)
            bad = fault is not None and gate == "forget" and i >= fault
            score = {"anomaly_score": 4.0 if bad else 0.4, "step": step}
            yield Point("gate_scores", {**of_gate, "detector": "consensus"}, score, at)
        yield Point("train_metrics", named, {**(metrics or {"loss": 1 / (1 + i)}), "step": step, "epoch": i // 10}, at)
    if end:
        yield Point("runs", named, {"event": end, "step": captures * 10}, begin + captures * SECOND)


@contextmanager
def serving(store, **options):
    """The page of a store, on a port of its own."""
    trends = Trends(partial(update_trend, open_store(store.url)))
    server = ViewServer(options.get("host", "127.0.0.1"), 0, Site(open_store(store.url), trends).respond)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    trends.start()
    yield server
    server.shutdown()
    server.server_close()
    trends.close()


def now():
    return time.time_ns()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = open_store(f"sqlite:///{tmp_path_factory.mktemp('view')}/gatewatch.db")
    store.write(training("healthy", begin=now() - 3000 * SECOND, tags={"symbol": "GOOG"}))
    store.write(training("bad", begin=now() - 2000 * SECOND, fault=25, tags={"symbol": "EURUSD"}))
    store.write(training("gone", begin=now() - 1000 * SECOND, end=None))
    store.write(training("young", begin=now() - 40 * SECOND, end=None, captures=35))
    store.write(training(HOSTILE_RUN, begin=now() - 5000 * SECOND, tags={"<i>tag</i>": "<img src=x onerror=alert(1)>"}))
    yield store
    store.close()


@pytest.fixture(scope="module")
def served(store):
    with serving(store) as server:
        yield server


@pytest.fixture
def visit(chromium):
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_navigation_timeout(120_000)  # Plotly is large, for a machine that is busy
    yield Visit(context)
    context.close()


def to_list(visit, server, query=""):
    visit.page.goto(server.url + query)
    visit.until("document.querySelectorAll('#runs tbody tr').length > 0")
    visit.until("!document.querySelector('#runs').innerText.includes('reading')")
    return visit.page


def names(page):
    return page.locator("#runs .name").all_inner_texts()


def row(page, name):
    return page.locator("#runs tbody tr", has=page.get_by_text(name, exact=True))


def get(server, path="/api/runs", **headers):
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", headers=headers)
    with urllib.request.urlopen(request, timeout=10) as response:
        return response, response.read()


def test_the_list_shows_state_worst_score_and_since_when(visit, served):
    page = to_list(visit, served)
    assert names(page) == ["young", "gone", "bad", "healthy", HOSTILE_RUN]
    bad = row(page, "bad").inner_text()
    for text in ("completed", "▲ 4", "since step 250", "forget of lstm", "loss", "epoch 3", "400"):
        assert text in bad
    assert "died" in row(page, "gone").inner_text()
    assert "live" in row(page, "young").inner_text()
    assert page.locator("#runs .bad-run .name").all_inner_texts() == ["gone", "bad"]
    assert page.title() == "(1 above 1) Runs · Gatewatch"
    labels = row(page, "bad").locator("svg").evaluate_all("all => all.map(e => e.getAttribute('aria-label'))")
    assert labels == ["Scores over time: largest 4, newest 4", "loss over time: 0.025 to 1"]
    assert visit.complaints == []
    assert {url.split("/")[2] for url in visit.requests} == {f"127.0.0.1:{served.port}"}


def test_hostile_names_stay_text(visit, served):
    page = to_list(visit, served)
    assert HOSTILE_RUN in names(page)
    assert page.get_by_text("<i>tag</i>=<img src=x onerror=alert(1)>", exact=True).count() == 1
    assert page.locator("main img, main b, main i").count() == 0
    assert visit.complaints == []


def test_sorting_and_filtering_are_in_the_address(visit, served):
    page = to_list(visit, served)
    page.get_by_role("button", name="Worst score").click()
    assert names(page)[0] == "bad"
    assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "descending"
    page.get_by_role("button", name="Run", exact=True).click()
    assert names(page)[:2] == ["bad", "gone"]
    page.get_by_role("button", name="symbol=GOOG").click()
    assert names(page) == ["healthy"]
    assert "1 of 5 runs" in page.locator("#count").inner_text()
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    visit.until("document.querySelectorAll('#runs tbody tr').length === 1")
    assert names(page) == ["healthy"]
    page.locator("#text").fill("nothing is so called")
    assert "No run fits the filter" in page.locator("#empty").inner_text()
    page.keyboard.press("Escape")
    page.locator("#state").select_option("above 1")
    assert names(page) == ["bad"]
    assert visit.complaints == []


def test_the_keyboard_is_enough(visit, served):
    page = to_list(visit, served)
    focused = "document.activeElement.innerText || document.activeElement.id"
    page.keyboard.press("j")
    page.keyboard.press("j")
    assert page.evaluate(focused) == "gone"
    page.keyboard.press("k")
    assert page.evaluate(focused) == "young"
    page.keyboard.press("/")
    assert page.evaluate(focused) == "text"
    page.keyboard.type("bad")
    assert names(page) == ["bad"]
    page.keyboard.press("Escape")
    assert len(names(page)) == 5
    assert visit.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_sees_no_sideways_scrolling(visit, served, scheme):
    visit.page.emulate_media(color_scheme=scheme)
    visit.page.set_viewport_size({"width": 360, "height": 740})
    page = to_list(visit, served)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    ink, paper = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    assert (sum(eval(ink[3:])) > sum(eval(paper[3:]))) is (scheme == "dark")
    assert visit.complaints == []


def test_a_run_appears_and_grows_without_a_reload(visit, tmp_path):
    store = open_store(f"sqlite:///{tmp_path}/later.db")
    with serving(store) as server:
        page = visit.page
        page.goto(server.url)
        visit.until("document.querySelector('#problem').innerText.includes('does not exist yet')")
        visit.complaints.clear()  # of the answer 503
        page.evaluate("window.same = true")
        store.check()
        visit.until("document.querySelector('#empty').innerText.includes('no run yet')")
        begin = now() - 30 * SECOND
        store.write(training("new", begin=begin, captures=10, end=None))
        visit.until("document.querySelector('#runs').innerText.includes('0.4')")
        row(page, "new").locator(".name").focus()
        store.write(training("new", begin=begin, captures=30, fault=20, end=None))
        visit.until("document.querySelector('#runs').innerText.includes('since step 200')")
        assert page.evaluate("[window.same, document.activeElement.innerText]") == [True, "new"]
        page.context.set_offline(True)
        visit.until("document.querySelector('#problem').innerText.includes('does not answer')")
        assert names(page) == ["new"]
    store.close()


def test_a_store_that_is_deleted_or_damaged_is_a_sentence_and_the_rows_stay(visit, tmp_path):
    path = tmp_path / "gatewatch.db"
    store = open_store(f"sqlite:///{path}")
    store.write(training("here", begin=now() - 30 * SECOND))
    store.close()
    with serving(store) as server:
        page = to_list(visit, server)
        for file in tmp_path.iterdir():
            file.unlink()
        visit.until("document.querySelector('#problem').innerText.includes('does not exist yet')")
        assert names(page) == ["here"]
        path.write_bytes(b"no database at all" * 400)
        visit.until("document.querySelector('#problem').innerText.includes('not a sound SQLite file')")
        assert "Traceback" not in page.inner_text("body")
        path.unlink()
        store.write(training("anew", begin=now() - 30 * SECOND))
        visit.until("document.querySelector('#problem').hidden")
        assert names(page) == ["anew"]
    store.close()


def test_a_page_that_nobody_sees_asks_for_nothing_and_catches_up(visit, tmp_path):
    store = open_store(f"sqlite:///{tmp_path}/gatewatch.db")
    store.write(training("one", begin=now() - 3000 * SECOND))
    with serving(store) as server:
        page = to_list(visit, server)
        hide = (
            "Object.defineProperty(document, 'hidden', {configurable: true, value: %s});"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )
        page.evaluate(hide % "true")
        page.wait_for_timeout(2300)
        asked = len(visit.requests)
        store.write(training("two", begin=now() - 30 * SECOND))
        page.wait_for_timeout(2300)
        assert len(visit.requests) == asked
        page.evaluate(hide % "false")
        visit.until("document.querySelector('#runs').innerText.includes('two')")
    assert visit.complaints == []
    store.close()


def test_only_get_requests_of_this_machine_are_answered(served):
    for headers, path, status in (
        ({"Host": "evil.example"}, "/", 403),
        ({"Host": f"evil.example:{served.port}"}, "/api/runs", 403),
        ({}, "/etc/passwd", 404),
        ({}, "/static/../site.py", 404),
        ({}, "/%2e%2e/site.py", 404),
    ):
        with pytest.raises(HTTPError) as refused:
            get(served, path, **headers)
        assert refused.value.code == status
        assert set(json.loads(refused.value.read())) == {"problem"}
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        request = urllib.request.Request(served.url, data=b"x", method=method)
        with pytest.raises(HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10)
        assert refused.value.code == 405
    response, _ = get(served, "/")
    assert "script-src 'self';" in response.headers["Content-Security-Policy"]
    assert response.headers["Access-Control-Allow-Origin"] is None
    assert (response.headers["X-Content-Type-Options"], response.headers["Server"]) == ("nosniff", "Gatewatch")


def test_an_address_that_others_can_reach_needs_the_token(visit, store):
    with serving(store, host="0.0.0.0") as server:
        address = f"http://127.0.0.1:{server.port}/"
        with pytest.raises(HTTPError) as refused:
            get(server, "/api/runs")
        assert "needs the token" in json.loads(refused.value.read())["problem"]
        visit.page.goto(f"{address}?state=live&token={server.token}")
        assert visit.page.url == f"{address}?state=live"
        visit.until("document.querySelectorAll('#runs tbody tr').length === 1")
        assert visit.page.evaluate("document.cookie") == ""
        assert visit.complaints == []


def test_the_list_reads_no_captures_and_nothing_anew_where_nothing_changed(store, monkeypatch):
    asked = []
    for name in ("_read", "_newest", "_extremes", "_run_events", "_revisions", "_tallies", "_count"):
        method = getattr(type(store), name)
        monkeypatch.setattr(
            type(store),
            name,
            lambda self, *a, n=name, m=method: (
                asked.append((n, getattr(a[0], "measurement", "") if a else "")) or m(self, *a)
            ),
        )
    with serving(store) as server:
        deadline = time.monotonic() + 20
        while json.loads(get(server)[1])["waiting"] and time.monotonic() < deadline:
            time.sleep(0.02)
        assert "gate_units" not in {measurement for _, measurement in asked}
        assert "gate_stats" not in {measurement for _, measurement in asked}
        assert len([each for each in asked if each[0] == "_run_events"]) == 1
        asked.clear()
        response, body = get(server)
        assert asked == [("_revisions", "")]
        assert len(json.loads(body)["runs"]) == 5
        with pytest.raises(HTTPError) as same:
            get(server, **{"If-None-Match": response.headers["ETag"]})
        assert same.value.code == 304


def test_a_port_in_use_is_one_line_with_the_remedy(served):
    with pytest.raises(ConfigError, match=rf"port {served.port} is in use.*choose another with --port"):
        ViewServer("127.0.0.1", served.port, lambda path, query, known: None)
    with pytest.raises(ConfigError, match=r"--host nowhere\.invalid: cannot listen there"):
        ViewServer("nowhere.invalid", 0, lambda path, query, known: None)


def test_the_command_serves_and_ctrl_c_ends_it_in_order(tmp_path):
    command = [
        sys.executable,
        "-m",
        "gatewatch.jobs.cli",
        "view",
        "--store",
        f"sqlite:///{tmp_path}/none.db",
        "--port",
        "0",
    ]
    environment = os.environ | {"GATEWATCH_STATE": str(tmp_path / "state")}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    line = process.stdout.readline()
    assert line.startswith(f"gatewatch view: sqlite:///{tmp_path}/none.db at http://127.0.0.1:")
    address = line.split(" at ")[1].split(";")[0]
    with pytest.raises(HTTPError) as away:
        urllib.request.urlopen(f"{address}api/runs", timeout=10)
    assert "does not exist yet" in json.loads(away.value.read())["problem"]
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=20)
    assert (process.returncode, output, errors) == (0, "", "")
    assert not (tmp_path / "none.db").exists()

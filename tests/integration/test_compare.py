"""Runs beside each other: in a file, by the command, and on the live page in a real browser."""

from __future__ import annotations

import re
from urllib.parse import urlencode

import pytest

from gatewatch.collector.cells import GRU
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.schema import Point
from gatewatch.collector.store import open_store
from gatewatch.jobs.cli import main
from gatewatch.jobs.report.page import write_comparison
from tests.integration.test_report import HOSTILE_LAYER, START, charts, seed
from tests.integration.test_report import numbers as values
from tests.integration.test_view import HOSTILE_RUN, SECOND, now, serving, visit  # noqa: F401 - a fixture

SENTENCE = (
    "bad is anomalous since step 250, the forget gate of lstm: the gate opens further than its trend. "
    "good is not anomalous. What was set differs in learning_rate (0.3 in bad, 0.001 in good)."
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = open_store(f"sqlite:///{tmp_path_factory.mktemp('compare')}/gatewatch.db")
    begin = now() - 3000 * SECOND
    seed(store, "good", fault=1000, start=begin, config={"config": {"learning_rate": 0.001, "units": 24}})
    seed(store, "bad", start=begin, config={"config": {"learning_rate": 0.3, "units": 24}})
    seed(store, "gru", ("memory",), GRU.gate_names, fault=1000, start=begin)
    seed(store, HOSTILE_RUN, (HOSTILE_LAYER,), start=begin, config={"config": {"<b>x</b>": "<img src=x>"}})
    store.write([Point("runs", {"run": "empty", "phase": "train"}, {"event": "started", "step": 0}, begin)])
    yield store
    store.close()


@pytest.fixture(scope="module")
def served(store):
    with serving(store) as server:
        yield server


def compared(store, folder, *runs):
    return write_comparison(store, runs, folder / "both.html").read_text()


def sentence(page):
    return re.search(r'<p class="verdict">(.*?)</p>', page, re.DOTALL)[1]


def test_the_first_sentence_says_which_is_anomalous_since_when_and_what_was_set(store, tmp_path):
    page = compared(store, tmp_path, "bad", "good")
    assert sentence(page) == SENTENCE
    settings = re.search(r'<section id="settings">(.*?)</section>', page, re.DOTALL)[1]
    assert re.findall(r'<tr><td class="layer">(.*?)</td><td>(.*?)</td>', settings) == [("learning_rate", "config=")]
    assert re.findall(r'<td class="long">(.*?)</td>', settings) == ["0.3", "0.001"]


def test_a_chart_has_a_line_for_each_run(store, tmp_path):
    page = compared(store, tmp_path, "bad", "good")
    for label in ("Metric loss", "Scores: largest score of all", "Mean of forget of lstm"):
        (figure,) = charts(page, label)
        assert [trace["name"] for trace in figure["data"]] == ["bad", "good"]


def test_metrics_that_few_points_have_are_lines_and_a_constant_has_an_axis_around_it(store, tmp_path):
    own = open_store(f"sqlite:///{tmp_path}/metrics.db")
    for run in ("a", "b"):
        seed(own, run, captures=10, fault=99)
        for i in range(10):
            tags = {"run": run, "symbol": "GOOG", "phase": "train"}
            rate = {"learning_rate": 0.001, **({"val_score": 0.1 * i} if i % 5 == 0 else {})}
            own.write([Point("train_metrics", tags, rate, START + i * SECOND)])
    page = compared(own, tmp_path, "a", "b")
    own.close()
    (score,), (rate,) = charts(page, "Metric val_score"), charts(page, "Metric learning_rate")
    assert [len(values(trace["x"])) for trace in score["data"]] == [2, 2]
    assert rate["layout"]["yaxis"]["range"] == [0, pytest.approx(0.002)]


def test_different_networks_are_said_and_each_layer_is_drawn(store, tmp_path):
    page = compared(store, tmp_path, "good", "gru")
    assert "Their networks differ: no layer has the same name in all of them" in page
    assert sentence(page).startswith("Nothing is anomalous in good and gru.")
    assert [trace["name"] for trace in charts(page, "Mean of update of memory")[0]["data"]] == ["gru"]


def test_a_run_without_points_is_named(store, tmp_path):
    page = compared(store, tmp_path, "good", "empty")
    assert "empty recorded nothing that can be drawn." in page
    assert "empty cannot be judged." in sentence(page)


@pytest.mark.parametrize(
    ("runs", "problem"),
    [
        (("bad", "goot"), "no run 'goot' in .*: did you mean 'good'"),
        (("bad", "bad"), "a comparison needs two different runs: name two or more"),
        ([f"run-{i}" for i in range(9)], "9 runs are more than can be told apart: compare 8 at most"),
    ],
)
def test_what_cannot_be_compared_is_a_sentence(store, tmp_path, runs, problem):
    with pytest.raises(ConfigError, match=problem):
        compared(store, tmp_path, *runs)


def test_the_command_writes_a_file_named_after_both(store, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["report", "bad", "good", "--store", store.url]) == 0
    assert capsys.readouterr().out == "gatewatch-bad-and-good.html\n"
    assert (tmp_path / "gatewatch-bad-and-good.html").exists()
    assert main(["report", "bad", "good", "--watch", "--store", store.url]) == 2


def to_compare(visit, server, *runs, more=()):  # noqa: F811
    visit.page.goto(f"{server.url}compare?{urlencode([('run', run) for run in runs] + [*more])}")
    visit.until("document.querySelector('#answer .verdict') !== null")
    return visit.page


def drawn(visit, part):  # noqa: F811
    visit.page.locator(f"#{part}").scroll_into_view_if_needed()
    visit.until(f"document.querySelector('#{part} .js-plotly-plot .main-svg') !== null")


def test_runs_are_chosen_in_the_list_and_compared_by_a_link_that_can_be_sent(visit, served):  # noqa: F811
    page = visit.page
    page.goto(served.url)
    visit.until("document.querySelectorAll('#runs tbody tr').length === 5")
    page.get_by_label("compare bad", exact=True).check()
    assert page.locator("#compare").inner_text() == "Choose another run to compare"
    page.get_by_role("link", name="good", exact=True).focus()
    page.keyboard.press("x")
    assert page.locator("#compare").inner_text() == "Compare 2 runs"
    page.keyboard.press("c")
    page.wait_for_url("**/compare?run=bad&run=good")
    visit.until("document.querySelector('#answer .verdict') !== null")
    assert page.locator(".verdict").inner_text() == SENTENCE
    assert page.title() == "▲ bad and good · Gatewatch"
    for part in ("metrics", "scores", "gates"):
        drawn(visit, part)
    page.locator("#axis").select_option("epoch")
    visit.until("document.querySelector('#metrics .js-plotly-plot')._fullLayout.xaxis.title.text === 'epoch'")
    assert page.url.endswith("/compare?run=bad&run=good&x=epoch")
    page.locator("#answer").get_by_role("link", name="bad", exact=True).click()
    page.wait_for_url("**/run?run=bad")
    assert visit.complaints == []


def test_hostile_names_stay_text_on_a_phone_too(visit, served):  # noqa: F811
    visit.page.set_viewport_size({"width": 360, "height": 740})
    page = to_compare(visit, served, HOSTILE_RUN, "good")
    drawn(visit, "gates")
    assert HOSTILE_RUN in page.locator("h1").inner_text()
    assert page.locator("header img, header b, main img, main b").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert visit.complaints == []


def test_a_run_that_is_not_there_is_a_sentence_of_the_page(visit, served):  # noqa: F811
    visit.page.goto(f"{served.url}compare?run=bad&run=goot")
    visit.until("document.querySelector('#problem').innerText.includes(\"did you mean 'good'\")")
    visit.page.goto(f"{served.url}compare?run=bad")
    visit.until("document.querySelector('#problem').innerText.includes('name two or more')")


def test_a_run_that_goes_on_is_drawn_on_without_a_reload(visit, tmp_path):  # noqa: F811
    store = open_store(f"sqlite:///{tmp_path}/gatewatch.db")
    begin = now() - 60 * SECOND
    seed(store, "old", fault=1000, start=begin)
    seed(store, "new", captures=20, fault=25, start=begin)
    with serving(store) as server:
        page = to_compare(visit, server, "old", "new")
        drawn(visit, "metrics")
        plot = "document.querySelector('#metrics .js-plotly-plot')"
        page.evaluate(f"window.plot = {plot}")
        assert "anomalous since" not in page.locator(".verdict").inner_text()
        seed(store, "new", captures=40, fault=25, start=begin)
        visit.until("document.querySelector('.verdict').innerText.includes('new is anomalous since step 250')")
        visit.until(f"Math.max(...{plot}._fullData[1].x) === 390")
        assert page.evaluate(f"window.plot === {plot}")
    assert visit.complaints == []
    store.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_tab_reaches_what_can_be_used(visit, served, scheme):  # noqa: F811
    visit.page.emulate_media(color_scheme=scheme)
    page = to_compare(visit, served, "bad", "good")
    reached = set()
    for _ in range(14):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.innerText || document.activeElement.id"))
    assert {"Runs", "bad", "good", "Settings", "Updates"} <= reached
    page.keyboard.press("2")
    visit.until("location.hash === '#metrics'")
    page.keyboard.press("b")
    page.wait_for_url(served.url)
    assert visit.complaints == []


def test_no_more_than_eight_runs_can_be_chosen(visit, tmp_path):  # noqa: F811
    store = open_store(f"sqlite:///{tmp_path}/gatewatch.db")
    for i in range(9):
        store.write([Point("runs", {"run": f"r{i}", "phase": "train"}, {"event": "started", "step": 0}, now())])
    with serving(store) as server:
        page = visit.page
        page.goto(server.url)
        visit.until("document.querySelectorAll('#runs tbody tr').length === 9")
        for box in page.locator(".pick").all():
            box.check()
        assert page.locator("#compare").inner_text() == "At most 8 runs can be compared"
        page.locator(".pick").first.uncheck()
        assert page.locator("#compare").inner_text() == "Compare 8 runs"
    assert visit.complaints == []
    store.close()

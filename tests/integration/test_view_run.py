"""The page of a run in a real browser: the report's sections, live."""

from __future__ import annotations

import pytest

from gatewatch.collector.cells import LSTM
from gatewatch.collector.schema import Point
from gatewatch.collector.store import open_store
from tests.integration.test_report import HOSTILE_LAYER, seed
from tests.integration.test_view import HOSTILE_RUN, SECOND, get, now, serving, visit  # noqa: F401 - a fixture

FIRST_PLOT = "document.querySelector('#scores .js-plotly-plot')"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = open_store(f"sqlite:///{tmp_path_factory.mktemp('view-run')}/gatewatch.db")
    seed(store, "bad", ("lstm",), start=now() - 3000 * SECOND)
    seed(store, HOSTILE_RUN, (HOSTILE_LAYER,), LSTM.gate_names[:2], start=now() - 2000 * SECOND)
    yield store
    store.close()


@pytest.fixture(scope="module")
def served(store):
    with serving(store) as server:
        yield server


def to_run(visit, server, run="bad", more="", fragment=""):  # noqa: F811
    page = visit.page
    page.goto(
        f"{server.url}run?{page.evaluate('name => new URLSearchParams({run: name}).toString()', run)}{more}{fragment}"
    )
    visit.until("document.querySelector('#answer .verdict') !== null")
    return page


def drawn(visit, part):  # noqa: F811
    visit.page.locator(f"#{part}").scroll_into_view_if_needed()
    visit.until(f"document.querySelector('#{part} .js-plotly-plot .main-svg') !== null")


def test_the_answer_comes_first_and_every_section_follows(visit, served):  # noqa: F811
    visit.page.goto(served.url)
    page = visit.page
    page.get_by_role("link", name="bad", exact=True).click()
    page.wait_for_url("**/run?run=bad")
    visit.until("document.querySelector('#answer .verdict') !== null")
    assert page.locator("h1").inner_text() == "bad"
    assert "forget gate of lstm" in page.locator(".alarm > .verdict").inner_text()
    assert page.title() == "▲ bad · Gatewatch"
    for part in ("metrics", "scores", "ranges", "heatmaps"):
        drawn(visit, part)
    page.keyboard.press("1")
    visit.until("location.hash === '#gates'")
    assert page.locator("#gates tbody tr").count() == 6
    page.keyboard.press("b")
    page.wait_for_url(served.url)
    visit.until("document.querySelectorAll('#runs tbody tr').length === 2")
    assert visit.complaints == []


def test_new_points_are_drawn_without_a_reload_and_what_was_closed_stays_so(visit, tmp_path):  # noqa: F811
    store = open_store(f"sqlite:///{tmp_path}/gatewatch.db")
    begin = now() - 60 * SECOND
    seed(store, "live", captures=20, start=begin)
    with serving(store) as server:
        page = to_run(visit, server, "live")
        drawn(visit, "scores")
        visit.until("document.querySelector('#ranges details') !== null")
        page.evaluate(f"window.plot = {FIRST_PLOT}; document.querySelector('#ranges details').open = false")
        seed(store, "live", captures=40, start=begin)
        visit.until(f"Math.max(...{FIRST_PLOT}._fullData[0].x) === 390")
        assert page.evaluate(f"window.plot === {FIRST_PLOT}")
        visit.until("document.querySelector('#answer .facts').innerText.includes('400')")
        assert page.evaluate("document.querySelector('#ranges details').open") is False
    assert visit.complaints == []
    store.close()


def test_the_axis_is_in_the_address(visit, served):  # noqa: F811
    page = to_run(visit, served, more="&x=epoch", fragment="#scores")
    drawn(visit, "scores")
    assert page.evaluate(f"{FIRST_PLOT}._fullLayout.xaxis.title.text") == "epoch"
    page.locator("#axis").select_option("time")
    visit.until(f"{FIRST_PLOT}._fullLayout.xaxis.title.text === 'time (UTC)'")
    assert "x=time" in page.url
    assert page.evaluate(f"{FIRST_PLOT}._fullLayout.xaxis.type") == "date"
    page.locator("#axis").select_option("step")
    visit.until(f"{FIRST_PLOT}._fullLayout.xaxis.title.text === 'step'")
    assert visit.complaints == []


def test_play_moves_the_heatmap(visit, served):  # noqa: F811
    page = to_run(visit, served, fragment="#heatmaps")
    drawn(visit, "heatmaps")
    heatmap = "document.querySelector('#heatmaps .js-plotly-plot')"
    last = page.evaluate(f"{heatmap}._fullLayout.sliders[0].active")
    page.locator("#heatmaps .updatemenu-button", has_text="Play").first.click()
    visit.until(f"0 < {heatmap}._fullLayout.sliders[0].active && {heatmap}._fullLayout.sliders[0].active < {last}")
    page.locator("#heatmaps .updatemenu-button", has_text="Pause").first.click()
    assert visit.complaints == []


def test_keys_move_the_heatmap(visit, served):  # noqa: F811
    page = to_run(visit, served, fragment="#heatmaps")
    drawn(visit, "heatmaps")
    heatmap = "document.querySelector('#heatmaps .js-plotly-plot')"
    last = page.evaluate(f"{heatmap}._fullLayout.sliders[0].active")
    page.locator("#heatmaps .js-plotly-plot").first.focus()
    page.keyboard.press("ArrowLeft")
    visit.until(f"{heatmap}._fullLayout.sliders[0].active === {last - 1}")
    page.keyboard.press("ArrowRight")
    visit.until(f"{heatmap}._fullLayout.sliders[0].active === {last}")
    page.keyboard.press(" ")
    visit.until(f"0 < {heatmap}._fullLayout.sliders[0].active && {heatmap}._fullLayout.sliders[0].active < {last}")
    page.keyboard.press(" ")
    visit.until(f"!{heatmap}._transitionData._animationRaf")
    assert visit.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_sees_all_of_a_run(visit, served, scheme):  # noqa: F811
    visit.page.emulate_media(color_scheme=scheme)
    visit.page.set_viewport_size({"width": 360, "height": 740})
    page = to_run(visit, served, HOSTILE_RUN)
    for part in ("gates", "scores", "ranges"):
        page.locator(f"#{part}").scroll_into_view_if_needed()
        visit.until(f"document.querySelector('#{part}[data-shown]') !== null")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert visit.complaints == []


def test_hostile_names_of_a_run_stay_text(visit, served):  # noqa: F811
    page = to_run(visit, served, HOSTILE_RUN)
    assert page.locator("h1").inner_text() == HOSTILE_RUN
    drawn(visit, "scores")
    assert HOSTILE_LAYER in page.locator("#scores figcaption").first.inner_text()
    assert page.locator("header img, header b, main img, main b").count() == 0
    assert len(page.context.pages) == 1
    assert visit.complaints == []


def test_a_run_that_is_not_there_is_a_sentence(visit, served):  # noqa: F811
    visit.page.goto(f"{served.url}run?run=bat")
    visit.until("document.querySelector('#problem').innerText.includes(\"did you mean 'bad'\")")
    assert visit.page.locator("h1").inner_text() == "bat"


def test_a_section_of_a_run_that_has_not_changed_is_not_made_again(store, served, monkeypatch):
    import urllib.error

    response, body = get(served, "/api/run?run=bad&part=gates")
    assert b"forget" in body
    monkeypatch.setattr(type(store), "_read", lambda *_: pytest.fail("points were read"))
    with pytest.raises(urllib.error.HTTPError) as same:
        get(served, "/api/run?run=bad&part=gates", **{"If-None-Match": response.headers["ETag"]})
    assert same.value.code == 304
    assert get(served, "/api/run?run=bad&part=metrics")[0].status == 200  # of the points that were read before
    monkeypatch.undo()
    store.write([Point("train_metrics", {"run": "bad", "phase": "train"}, {"loss": 0.5, "step": 401}, now())])
    assert get(served, "/api/run?run=bad&part=gates")[0].headers["ETag"] != response.headers["ETag"]

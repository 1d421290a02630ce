"""What holds of every page of the view: axe-core, the keyboard, a phone, the console, hostile names."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest
from axe_playwright_python.sync_playwright import Axe

from gatewatch.collector.schema import Point
from gatewatch.collector.store import open_store
from tests.integration.conftest import Visit
from tests.integration.test_report import HOSTILE_LAYER, seed
from tests.integration.test_view import HOSTILE_RUN, SECOND, now, serving

ADDRESSES = {
    "runs": "",
    "run": f"run?{urlencode({'run': HOSTILE_RUN})}",
    "compare": f"compare?{urlencode([('run', 'good'), ('run', HOSTILE_RUN)])}",
    "alerts": "alerts",
}
FOCUSABLE = "a[href], button, input, select, summary, [tabindex='0']"
IS_SHOWN = "e => e.checkVisibility() && !e.closest('.js-plotly-plot')"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    store = open_store(f"sqlite:///{tmp_path_factory.mktemp('every-page')}/gatewatch.db")
    begin = now() - 3000 * SECOND
    seed(store, "good", fault=1000, start=begin, captures=36)
    seed(store, HOSTILE_RUN, (HOSTILE_LAYER,), start=begin, config={"config": {"<b>x</b>": "<img src=x>"}})
    tags = {"run": HOSTILE_RUN, "phase": "train"}
    fired = {"state": "firing", "value": 4.0, "threshold": 1.0}
    store.write(
        [
            Point("alert_events", {**tags, "rule": "anomaly", "layer": HOSTILE_LAYER}, fired, now()),
            Point("collector_health", tags, {"captured": 40, "dropped": 7}, now()),
            Point("jobs_health", {"job": "score"}, {"duration_s": 1.0, "failures": 1}, now()),
        ]
    )
    with serving(store) as server:
        yield server
    store.close()


@pytest.fixture(scope="module", params=[*ADDRESSES])
def opened(request, served, chromium):
    """Each page with all of its sections, in one browser."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    context.set_default_navigation_timeout(120_000)
    visit = Visit(context)
    visit.page.goto(served.url + ADDRESSES[request.param])
    visit.until("document.querySelector('#runs tbody tr, #answer[data-shown], #alerts[data-shown]') !== null")
    for part in visit.page.locator("section[data-part]").all():
        part.scroll_into_view_if_needed()
        visit.until(f"document.querySelector('#{part.get_attribute('id')}[data-shown]') !== null")
    visit.page.evaluate("scrollTo(0, 0)")
    yield visit
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_violation(opened, scheme):
    opened.page.emulate_media(color_scheme=scheme)
    found = Axe().run(opened.page).response["violations"]
    assert [(each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in ("serious", "critical")] == []


def test_tab_reaches_everything_that_can_be_used(opened):
    page = opened.page
    page.evaluate("document.activeElement.blur()")
    page.evaluate(f"window.wanted = [...document.querySelectorAll(`{FOCUSABLE}`)].filter({IS_SHOWN})")
    page.evaluate("addEventListener('focusin', e => { wanted = wanted.filter(each => each !== e.target); })")
    for _ in range(250):
        if not page.evaluate("wanted.filter(e => e.isConnected).length"):
            break
        page.keyboard.press("Tab")
    assert page.evaluate("wanted.filter(e => e.isConnected).map(e => e.outerHTML)") == []


def test_a_phone_needs_no_sideways_scrolling(opened):
    opened.page.set_viewport_size({"width": 360, "height": 740})
    opened.until("document.documentElement.scrollWidth === 360")  # charts are drawn anew, one after the other
    opened.page.set_viewport_size({"width": 1280, "height": 900})


def test_hostile_names_are_text_and_the_console_is_silent(opened):
    page = opened.page
    assert HOSTILE_RUN in page.locator("body").inner_text()
    assert page.locator("header img, header b, main img, main b").count() == 0
    assert len(page.context.pages) == 1
    assert opened.complaints == []

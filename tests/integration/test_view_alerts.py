"""The page of alerts in a real browser: what fired, and what the collector lost or refused, live."""

from __future__ import annotations

import pytest

from gatewatch.collector.schema import Point
from gatewatch.collector.store import open_store
from tests.integration.test_view import HOSTILE_RUN, SECOND, now, serving, training, visit  # noqa: F401 - a fixture

HOSTILE_LAYER = "<img src=x onerror=alert(3)>"


def event(run, rule, state, *, ago, **tags):
    named = {"run": run, "phase": "train", "rule": rule, **tags}
    fields = {"value": 4.0, "threshold": 1.0, "state": state, "delivered": False}
    return Point("alert_events", named, fields, now() - ago * SECOND)


def health(run, **fields):
    return Point("collector_health", {"run": run, "phase": "train"}, {"captured": 40, "shipped": 900, **fields}, now())


@pytest.fixture
def store(tmp_path):
    store = open_store(f"sqlite:///{tmp_path}/gatewatch.db")
    yield store
    store.close()


def to_alerts(visit, server):  # noqa: F811
    visit.page.goto(f"{server.url}alerts")
    visit.until("document.querySelector('#alerts[data-shown]') !== null")
    return visit.page


def cells(page):
    """The table of what fired, without what is folded."""
    rows = page.locator("#fired tbody tr")
    return [
        [cell.split("\n")[0] for cell in rows.nth(i).locator("th, td").all_inner_texts()] for i in range(rows.count())
    ]


def test_what_fires_comes_first_then_what_ended_with_its_run_then_what_is_over(visit, store):  # noqa: F811
    store.write(training("young", begin=now() - 40 * SECOND, end=None, captures=35))
    store.write(training("ended", begin=now() - 900 * SECOND))
    store.write(
        [
            event("ended", "units_dead", "firing", ago=880, layer="lstm", gate="output"),
            event("ended", "units_dead", "recovered", ago=870, layer="lstm", gate="output"),
            event("ended", "gate_not_finite", "firing", ago=800, layer="lstm", gate="cell"),
            event("ended", "gate_not_finite", "ended", ago=700, layer="lstm", gate="cell"),
            event("young", "forget_gate_shut", "firing", ago=20, layer="lstm", gate="forget"),
            event("young", "forget_gate_shut", "firing", ago=10, layer="lstm_1", gate="forget"),
        ]
    )
    with serving(store) as server:
        page = to_alerts(visit, server)
        assert [row[1:4] for row in cells(page)] == [
            ["▲ fires", "young", "lstm forget"],
            ["its run ended while it fired", "ended", "lstm cell"],
            ["over", "ended", "lstm output"],
        ]
        assert "and 1 more" in page.locator("#fired tbody tr").first.inner_text()
        assert page.locator(".verdict").inner_text() == (
            "1 alert fires, in young. 1 fired until the run ended. 1 is over."
        )
        assert page.title() == "(1 firing) Alerts and health · Gatewatch"
        page.get_by_text("What to do").first.click()
        assert "Look at" in page.locator("#fired details[open]").first.inner_text()
        page.get_by_role("link", name="young").click()
        page.wait_for_url("**/run?run=young#scores")
    assert visit.complaints == []


def test_scores_and_deaths_are_listed_where_nobody_evaluates_alerts(visit, store):  # noqa: F811
    store.write(training("bad", begin=now() - 900 * SECOND, fault=25))
    store.write(training("gone", begin=now() - 1000 * SECOND, end=None))
    with serving(store) as server:
        page = to_alerts(visit, server)
        visit.until("document.querySelector('#fired').innerText.includes('score up to 4, since step 250')")
        assert [row[1:3] for row in cells(page)] == [["▲ fires", "gone"], ["its run ended while it fired", "bad"]]
        assert "a run fell silent without an end" in cells(page)[0][0]
    assert visit.complaints == []


def test_what_was_lost_and_refused_is_told_with_the_remedy(visit, store):  # noqa: F811
    for run in ("full", "refused", "sound"):
        store.write(training(run, begin=now() - 900 * SECOND))
    unreplayed = {"unreplayed_layers": 1, "unreplayed": f"{HOSTILE_LAYER}: its cell is not known"}
    store.write([health("full", dropped=1200), health("refused", rejected=3, **unreplayed), health("sound")])
    with serving(store) as server:
        page = to_alerts(visit, server)
        rows = page.locator("#recording .bad-run").all_inner_texts()
        assert len(rows) == 2
        told = "\n".join(rows)
        assert "Points lost: 1,200. The spool of its machine was full" in told
        assert "Points refused by the store: 3. gatewatch spool status" in told
        assert f"Layers that are not recorded: 1 ({HOSTILE_LAYER}: its cell is not known)." in told
        assert (
            page.locator(".verdict").inner_text().startswith("Nothing fires. Something was lost, refused or left out")
        )
        assert page.locator("main img").count() == 0
    assert visit.complaints == []


def test_a_sound_store_says_that_nothing_fires_and_an_alert_appears_without_a_reload(visit, store):  # noqa: F811
    store.write(training(HOSTILE_RUN, begin=now() - 40 * SECOND, end=None, captures=35))
    store.write([health(HOSTILE_RUN)])
    with serving(store) as server:
        page = to_alerts(visit, server)
        assert page.locator(".verdict").inner_text() == "Nothing fires."
        assert "Nothing fired." in page.locator("#fired").inner_text()
        assert "Nothing: every point of the run arrived" in page.locator("#recording").inner_text()
        page.evaluate("window.same = true; document.querySelector('#recording summary').click()")
        store.write([event(HOSTILE_RUN, "mine", "firing", ago=0, layer=HOSTILE_LAYER)])
        visit.until("document.querySelector('.verdict').innerText.startsWith('1 alert fires')")
        assert page.evaluate("[window.same, document.querySelector('#recording details').open]") == [True, True]
        assert cells(page)[0][:4] == ["mine", "▲ fires", HOSTILE_RUN, HOSTILE_LAYER]
        assert page.locator("main img").count() == 0
        page.get_by_role("link", name=HOSTILE_RUN).first.click()
        visit.until("document.querySelector('h1').innerText !== ''")
        assert page.locator("h1").inner_text() == HOSTILE_RUN
    assert visit.complaints == []


def test_the_jobs_are_listed_and_a_silent_one_stands_out(visit, store):  # noqa: F811
    fields = {"duration_s": 1.5, "lag_s": 75.0, "failures": 2, "missed": 0}
    store.write(
        [
            Point("jobs_health", {"job": job}, fields, now() - ago * SECOND)
            for job, ago in (("alert", 900), ("score", 5))
        ]
    )
    with serving(store) as server:
        page = to_alerts(visit, server)
        alert, score = page.locator("#jobs tbody tr").all_inner_texts()
        assert "silent since" in alert
        assert "silent since" not in score
        assert score.split("\t")[2:] == ["1.5 s", "1 min 15 s", "2", "0"]
    assert visit.complaints == []

"""Against a real Grafana, where one is given.

No Grafana can be installed where the tests usually run, so without these variables the tests are skipped, on CI too:

- GRAFANA_URL and GRAFANA_TOKEN: a Grafana of 11 or newer for tests alone, on this machine, so that it reaches the
  InfluxDB that the tests start; the token of a service account with the role Admin. What is there under our names is
  overwritten.
- GRAFANA_SMTP: `127.0.0.1:port`, where that Grafana sends its mails (GF_SMTP_HOST, GF_SMTP_ENABLED=true); the tests
  listen there. Without it the mail alone is skipped. The alerts take up to 25 minutes: one ends with its run.
"""

from __future__ import annotations

import email
import email.policy
import json
import os
import queue
import time

import pytest
from aiosmtpd.controller import Controller

from gatewatch.collector.schema import Point
from gatewatch.jobs.cli import main
from gatewatch.jobs.grafana.artifacts import dashboards, folder
from gatewatch.jobs.grafana.connection import Grafana
from grafana.emulator.interpolate import Variable, fill_variables
from tests.seeded import COLLAPSED, LAYERS, seed

URL, TOKEN, SMTP = (os.environ.get(name, "") for name in ("GRAFANA_URL", "GRAFANA_TOKEN", "GRAFANA_SMTP"))
SECOND = 10**9

pytestmark = pytest.mark.skipif(
    not (URL and TOKEN), reason="no Grafana is given: see the head of this file for GRAFANA_URL and GRAFANA_TOKEN"
)


@pytest.fixture(scope="module")
def grafana():
    return Grafana(URL, TOKEN)


@pytest.fixture(scope="module")
def store(influxd):
    store = influxd.store()
    seed(store, time.time_ns())
    return store


@pytest.fixture(autouse=True)
def environment(monkeypatch, influxd, store, tmp_path):
    for name, value in {
        **{"GRAFANA_URL": URL, "GRAFANA_TOKEN": TOKEN, "GATEWATCH_ALERT_TO": "desk@example.org"},
        **{"INFLUXDB_V2_URL": influxd.url, "INFLUXDB_V2_ORG": influxd.org},
        **{"INFLUXDB_V2_BUCKET": store.destination["bucket"], "INFLUXDB_V2_TOKEN": influxd.token},
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)


def push(capsys, *arguments):
    status = main(["grafana", "push", "--json", *arguments])
    out, err = capsys.readouterr()
    return status, json.loads(out), err


@pytest.fixture
def pushed(capsys):
    status, entries, err = push(capsys, "--overwrite")
    assert status == 0, err
    return entries


def test_everything_is_accepted_and_a_second_push_changes_nothing(pushed, capsys):
    assert {one["result"] for one in pushed} <= {"created", "updated", "unchanged"}
    assert {one["kind"] for one in pushed} == {
        *("datasource", "folder", "dashboard", "template", "contact point", "policy", "rule")
    }
    status, again, _ = push(capsys)
    assert (status, {one["result"] for one in again}) == (0, {"unchanged"})


def test_what_is_pushed_can_be_edited_and_is_kept_then(pushed, grafana, capsys):
    entries = push(capsys)[1]
    for rules in grafana.get("/ruler/grafana/api/v1/rules").values():
        alerts = [node["grafana_alert"] for group in rules for node in group["rules"]]
        assert not [
            one["uid"] for one in alerts if one["namespace_uid"] == "gatewatch-alerts" and one.get("provenance")
        ]
    points = [one for one in grafana.get("/v1/provisioning/contact-points") if one["name"].startswith("Gatewatch")]
    assert [one.get("provenance", "") for one in points] == [""]
    assert not grafana.get("/v1/provisioning/policies").get("provenance")
    held = grafana.get("/dashboards/uid/gatewatch-runs")
    grafana.write(
        "POST", "/dashboards/db", {"dashboard": {**held["dashboard"], "title": "Mine"}, "folderUid": "gatewatch"}
    )
    status, entries, _ = push(capsys)
    assert (status, [one["why"][:15] for one in entries if one["result"] == "kept"]) == (0, ["changed by you;"])
    assert grafana.get("/dashboards/uid/gatewatch-runs")["dashboard"]["title"] == "Mine"
    assert push(capsys, "--overwrite")[0] == 0
    assert {one["result"] for one in push(capsys)[1]} == {"unchanged"}


def panels_of(dashboard):
    for panel in dashboard["panels"]:
        yield from panel.get("panels", ()) if panel["type"] == "row" else (panel,)


def test_every_query_of_every_panel_is_answered(pushed, grafana):
    chosen = {
        **{"run": COLLAPSED, "phase": "train", "layer": [*LAYERS], "gate": ["forget", "input"]},
    }
    failed, asked, answered = [], 0, 0
    for resource in dashboards(folder("dashboards")):
        variables = {
            one["name"]: Variable(chosen.get(one["name"], "$__all"), all_value=one.get("allValue") or ".*")
            for one in resource.content.get("templating", {}).get("list", ())
        }
        for panel in panels_of(resource.content):
            queries = [target for target in panel.get("targets", ()) if target.get("query")]
            for target in queries:
                body = {
                    "from": "now-2h",
                    "to": "now",
                    "queries": [
                        {
                            "refId": target.get("refId", "A"),
                            "datasource": {"type": "influxdb", "uid": "gatewatch"},
                            "query": fill_variables(target["query"], variables),
                            "intervalMs": 10_000,
                            "maxDataPoints": 800,
                        }
                    ],
                }
                asked += 1
                try:
                    (result,) = grafana.write("POST", "/ds/query", body)["results"].values()
                    problem = result.get("error")
                    answered += any(frame["data"]["values"] for frame in result.get("frames", ()))
                except Exception as error:
                    problem = error
                if problem:
                    failed.append(f"{resource.name} / {panel.get('title')}: {problem}")
    assert failed == []
    assert asked > 20
    assert answered > asked / 2


def text_of(mail):
    """What it says: as plain text, or as HTML where it has no other part."""
    return mail.get_body(("plain", "html")).get_content()


class Inbox:
    """What arrives where Grafana sends its mails."""

    def __init__(self):
        self.mails = queue.Queue()

    async def handle_DATA(self, server, session, envelope):  # noqa: N802 - aiosmtpd's name
        self.mails.put((envelope.rcpt_tos, email.message_from_bytes(envelope.content, policy=email.policy.default)))
        return "250 OK"

    def about(self, words, seconds):
        """The first mail to our recipients that has all of these words in its subject or its text."""
        deadline, seen = time.monotonic() + seconds, []
        while time.monotonic() < deadline:
            try:
                recipients, mail = self.mails.get(timeout=1)
            except queue.Empty:
                continue
            seen.append(mail["Subject"])
            if "desk@example.org" in recipients and all(
                word in f"{mail['Subject']}\n{text_of(mail)}" for word in words
            ):
                return mail
        pytest.fail(f"no mail about {words}; there came {seen}")
        return None


@pytest.fixture
def inbox():
    if not SMTP:
        pytest.skip("GRAFANA_SMTP is not given: where this Grafana sends its mails")
    inbox, (host, port) = Inbox(), SMTP.rsplit(":", 1)
    server = Controller(inbox, hostname=host, port=int(port))
    server.start()
    yield inbox
    server.stop()


def state_of(grafana, uid, run):
    """The state of a rule for a run: Normal, Pending or Alerting; None where it has none."""
    for group in grafana.get("/prometheus/grafana/api/v1/rules")["data"]["groups"]:
        for rule in group["rules"]:
            if rule["name"] == uid:
                return next((a["state"] for a in rule.get("alerts", ()) if a["labels"].get("run") == run), None)
    return None


@pytest.mark.timeout(2400)
def test_an_alert_fires_and_recovers_or_its_run_ends_and_both_are_mailed(pushed, grafana, store, inbox):
    """NaN in a gate of two runs: one of them ends with it, the other one goes on without."""
    run, ended = (f"{name}-{int(time.time())}" for name in ("nan", "ended"))

    def write(nans):
        now = time.time_ns()
        fields = {"mean": 0.7, "nan_count": nans, "inf_count": 0, "step": int(now / SECOND) % 10**6}
        for name in (run, ended) if nans else (run,):
            tags = {"run": name, "phase": "train", "layer": "lstm", "gate": "forget"}
            store.write([Point("gate_stats", tags, fields, now)])

    def until(state, nans, seconds):
        deadline = time.monotonic() + seconds
        while (seen := state_of(grafana, "gate_not_finite", run)) not in state:
            assert time.monotonic() < deadline, f"waited for {state}, and it is {seen}"
            write(nans)
            time.sleep(10)

    until((None, "Normal"), 0, 60)
    until(("Alerting",), 3, 300)
    assert run in inbox.about([run, "lstm"], 180)["Subject"]
    until((None, "Normal"), 0, 600)
    assert "this is no recovery" not in text_of(inbox.about(["Over: ", run], 400))
    assert "this is no recovery" in text_of(inbox.about(["No more data: ", ended], 1300))

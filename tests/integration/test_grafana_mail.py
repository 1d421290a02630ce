"""What a mail of Grafana's says, by Go's own templates."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from gatewatch.jobs.alerts.rules import BUILT_IN
from grafana.source.mail_templates import MOST, TEMPLATES
from tests.seeded import HOSTILE, HOSTILE_LAYER

PROGRAM = Path(__file__).parents[1] / "mail_template.go"
BOARD, TIME = "http://g:3000/x/d/gatewatch-gates", "from=1795795230000&orgId=1&to=1795802700000&viewPanel=7"
SINCE, UNTIL = "2026-11-27T17:00:30Z", "2026-11-27T18:05:00Z"


@pytest.fixture(scope="session")
def mail(tmp_path_factory):
    """Gives the subject and the text of a mail about alerts."""
    if shutil.which("go") is None:
        on_ci = os.environ.get("CI", "").lower() not in ("", "0", "false")
        (pytest.fail if on_ci else pytest.skip)("Go is missing: https://go.dev/doc/install says how to get it")
    binary = tmp_path_factory.mktemp("mail") / "mail"
    subprocess.run(["go", "build", "-o", binary, PROGRAM], check=True, timeout=300)

    def told(*alerts):
        labels = [set(one["Labels"].items()) for one in alerts]
        data = {"Alerts": alerts, "CommonLabels": dict(set.intersection(*labels)), "ExternalURL": "http://g:3000/x/"}
        given = json.dumps({"Template": TEMPLATES, "Data": data})
        done = subprocess.run([binary], input=given, capture_output=True, text=True, check=True, timeout=60)
        found = json.loads(done.stdout)
        assert "<no value>" not in found["subject"] + found["text"]
        assert "\n" not in found["subject"]
        return found["subject"], found["text"].strip()

    return told


def alert(name, status="firing", severity="warning", reason="", **labels):
    """An alert as Grafana 12 gives it to a template; `reason` is why it was resolved without a recovery."""
    return {
        "Status": status,
        "Labels": {"alertname": name, "severity": severity, "service": "gatewatch", **labels},
        "Annotations": {
            "summary": "the gate has collapsed",
            "value": "mean activation: 0.03",
            "description": "Do this.",
            "runbook_url": "d/book?viewPanel=2",
            **({"grafana_state_reason": reason} if reason else {}),
        },
        "StartsAt": SINCE,
        "EndsAt": UNTIL,
        "PanelURL": f"{BOARD}?{TIME}",
    }


def test_one_alert(mail):
    given = alert("forget_gate_shut", severity="critical", run="r1", phase="train", layer="lstm", gate="forget")
    subject, text = mail(given)
    assert subject == "Critical: r1: forget_gate_shut in lstm"
    assert text.splitlines() == [
        "● forget_gate_shut (critical)",
        "r1 (train) lstm forget: the gate has collapsed; mean activation: 0.03",
        "since 27 Nov 17:00 UTC",
        "Do this.",
        f"See: {BOARD}?var-run=r1&var-phase=train&var-layer=lstm&var-gate=forget&{TIME}",
        "Runbook: http://g:3000/x/d/book?viewPanel=2",
    ]


def test_a_panel_without_a_time_is_opened_from_an_hour_before(mail):
    """Older versions of Grafana give no time."""
    given = alert("anomaly", run="r1") | {"PanelURL": "http://g:3000/d/gatewatch-gates?orgId=1&viewPanel=7"}
    (see,) = [line for line in mail(given)[1].splitlines() if line.startswith("See: ")]
    assert see == "See: http://g:3000/d/gatewatch-gates?var-run=r1&orgId=1&viewPanel=7&from=1795795230000&to=now"


def test_a_runbook_with_an_address_of_its_own(mail):
    given = alert("anomaly", run="r1")
    given["Annotations"]["runbook_url"] = "https://grafana.example.org/d/book?viewPanel=2"
    assert mail(given)[1].splitlines()[-1] == "Runbook: https://grafana.example.org/d/book?viewPanel=2"


def test_what_is_over(mail):
    subject, text = mail(alert("jobs_late", "resolved", job="score"))
    assert subject == "Over: Gatewatch: jobs_late"
    assert text.splitlines() == [
        "○ over: jobs_late",
        "job score: the gate has collapsed",
        "since 27 Nov 17:00 UTC",
        "until 27 Nov 18:05 UTC",
    ]


def test_what_is_over_says_since_when_only_where_grafana_knows(mail):
    """Of an alert that it resolves, Grafana may give the time of the recovery as its beginning."""
    _, text = mail(alert("jobs_late", "resolved", job="score") | {"StartsAt": UNTIL})
    assert text.splitlines()[2:] == ["until 27 Nov 18:05 UTC"]


@pytest.mark.parametrize("reason", ["MissingSeries", "NoData"])
def test_a_run_that_ended_while_it_fired_is_no_recovery(mail, reason):
    labels = {"run": "r1", "phase": "train", "layer": "lstm", "gate": "forget"}
    subject, text = mail(alert("forget_gate_shut", "resolved", "critical", reason, **labels))
    assert subject == "No more data: r1: forget_gate_shut in lstm"
    assert text.splitlines() == [
        "○ no more data: forget_gate_shut",
        "r1 (train) lstm forget: the gate has collapsed",
        "since 27 Nov 17:00 UTC",
        "It still fired with the last data: this is no recovery.",
        "The run ended or died, or the store was away.",
        f"See: {BOARD}?var-run=r1&var-phase=train&var-layer=lstm&var-gate=forget&{TIME}",
        "Runbook: http://g:3000/x/d/book?viewPanel=2",
    ]


def test_a_job_whose_data_ended_is_no_recovery_either(mail):
    subject, text = mail(alert("jobs_late", "resolved", reason="NoData", job="score"))
    assert subject == "No more data: Gatewatch: jobs_late"
    assert "Its data ended, or the store was away." in text.splitlines()


def test_a_rule_that_was_paused_while_it_fired_is_no_recovery(mail):
    subject, text = mail(alert("anomaly", "resolved", reason="Paused", run="r1", phase="train"))
    assert subject == "No longer evaluated: r1: anomaly"
    assert text.splitlines() == [
        "○ no longer evaluated: anomaly",
        "r1 (train): the gate has collapsed",
        "since 27 Nov 17:00 UTC",
        "It still fired when the rule was paused, changed or deleted in Grafana.",
    ]


def test_the_subject_names_the_worst_end(mail):
    ends = [alert(name, "resolved", reason=reason, run="r") for name, reason in (("a", ""), ("b", "MissingSeries"))]
    assert mail(*ends)[0] == "No more data: r: a, b"
    assert mail(*ends[::-1])[0] == "No more data: r: b, a"


def test_several_of_a_run_are_named_in_the_subject(mail):
    names = ["anomaly", "units_dead", "layer_frozen", "generalisation_gap"]
    assert mail(*(alert(name, run="r") for name in names[:2]))[0] == "r: anomaly, units_dead"
    assert mail(*(alert(name, run="r") for name in names))[0] == (
        "r: anomaly, units_dead, layer_frozen and others, 4 in all"
    )
    assert mail(alert("anomaly", run="r", layer="a"), alert("anomaly", run="r", layer="b"))[0] == "r: anomaly (2)"


def test_a_rule_that_fires_for_several_gates_is_named_once_in_the_subject(mail):
    names = ["anomaly", "anomaly", "units_dead", "anomaly", "layer_frozen"]
    assert mail(*(alert(name, run="r") for name in names[:3]))[0] == "r: anomaly, units_dead, 3 in all"
    assert mail(*(alert(name, run="r") for name in names))[0] == "r: anomaly, units_dead, layer_frozen, 5 in all"
    of_user = [alert(name, run="r") for name in ("a+(b", "a", "a+(b")]
    assert mail(*of_user)[0] == "r: a+(b, a, 3 in all"


def test_a_run_with_spaces_is_found_from_the_plain_part_where_grafana_writes_a_plus_otherwise(mail):
    text = mail(alert("anomaly", run="my run +1", layer="a b"))[1]
    assert "?var-run=my%20run%20%2B1&var-layer=a%20b&" in text


def test_what_fires_comes_before_what_is_over(mail):
    subject, text = mail(alert("anomaly", "resolved", run="r"), alert("units_dead", run="r"))
    assert subject == "r: units_dead"
    assert text.index("● units_dead") < text.index("○ over: anomaly\nr: ")


def test_rules_that_cannot_be_evaluated_are_told_of_together(mail):
    failed = [alert("DatasourceError", rulename=name) for name in ("anomaly", "run_died")]
    for one in failed:
        one["Annotations"]["Error"] = "connection refused"
    subject, text = mail(*failed)
    assert subject == "Gatewatch: rules cannot be evaluated"
    assert text.splitlines() == [
        "● cannot be evaluated since 27 Nov 17:00 UTC: anomaly, run_died",
        "connection refused",
        "`gatewatch check` says what is wrong. Trainings go on meanwhile, their points wait on their machines.",
    ]
    for one in failed:  # that series which it had while it failed is gone once the query is answered
        one["Annotations"]["grafana_state_reason"] = "MissingSeries"
    subject, text = mail(*(one | {"Status": "resolved"} for one in failed))
    assert subject == "Over: Gatewatch: rules cannot be evaluated"
    assert text == "○ evaluated again: anomaly, run_died"


def test_one_that_cannot_be_among_others(mail):
    failed = alert("DatasourceError", rulename="anomaly")
    failed["Annotations"]["Error"] = "connection refused"
    _, text = mail(failed, alert("run_died", run="r"))
    assert "● anomaly cannot be evaluated: connection refused\nsince 27 Nov 17:00 UTC" in text
    assert "● run_died" in text
    _, text = mail(failed | {"Status": "resolved"}, alert("run_died", run="r"))
    assert "○ evaluated again: anomaly" in text.splitlines()


def test_more_than_anybody_reads(mail):
    _, text = mail(*(alert("run_died", run=f"r{k}") for k in range(MOST + 5)))
    assert text.count("● run_died") == MOST
    assert text.endswith(f"{MOST + 5} fire, 0 do no more. All of them:\nhttp://g:3000/x/alerting/list")


@pytest.mark.parametrize("rule", BUILT_IN, ids=lambda rule: rule.name)
def test_a_mail_names_every_label_of_a_series(mail, rule):
    labels = {label: f"the-{label}" for label in rule.quantity.series}
    for status, reason in (("firing", ""), ("resolved", ""), ("resolved", "MissingSeries")):
        _, text = mail(alert(rule.name, status, reason=reason, **labels))
        line = text.splitlines()[1]
        assert line.endswith("the gate has collapsed" if status == "resolved" else "; mean activation: 0.03")
        assert all(line.count(value) == 1 for value in labels.values())


def test_names_are_data_and_escaped_in_addresses(mail):
    evil = '{{ .X }}" </a> &var-run=other'
    for run, layer in ((HOSTILE, HOSTILE_LAYER), (evil, evil)):
        subject, text = mail(alert("anomaly", run=run, layer=layer))
        assert subject == f"{run}: anomaly in {layer}"
        address = next(line for line in text.splitlines() if line.startswith("See: "))
        assert address.count("var-run=") == 1
        assert not set(address.removeprefix("See: ")) & set(' "<>{}|\\^`')

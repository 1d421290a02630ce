"""What a mail of Grafana's says, by Go's own templates."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from grafana.source.mail_templates import MOST, TEMPLATES
from tests.seeded import HOSTILE, HOSTILE_LAYER

PROGRAM = Path(__file__).parents[1] / "mail_template.go"
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


def alert(name, status="firing", severity="warning", **labels):
    return {
        "Status": status,
        "Labels": {"alertname": name, "severity": severity, "service": "gatewatch", **labels},
        "Annotations": {
            "summary": f"{name} of {labels}",
            "description": "Do this.",
            "runbook_url": "d/book?viewPanel=2",
        },
        "StartsAt": SINCE,
        "EndsAt": UNTIL,
        "PanelURL": "http://g:3000/x/d/gatewatch-gates?orgId=1&viewPanel=7",
    }


def test_one_alert(mail):
    given = alert("forget_gate_shut", severity="critical", run="r1", phase="train", layer="lstm", gate="forget")
    subject, text = mail(given)
    assert subject == "Critical: r1: forget_gate_shut in lstm"
    chosen = "from=1795795230000&to=now&var-run=r1&var-phase=train&var-layer=lstm&var-gate=forget"
    assert text.splitlines() == [
        "● forget_gate_shut (critical)",
        given["Annotations"]["summary"],
        "since 27 Nov 17:00 UTC",
        "Do this.",
        f"See: http://g:3000/x/d/gatewatch-gates?orgId=1&viewPanel=7&{chosen}",
        "Runbook: http://g:3000/x/d/book?viewPanel=2",
    ]


def test_what_is_over(mail):
    subject, text = mail(alert("jobs_late", "resolved", job="score"))
    assert subject == "Over: Gatewatch: jobs_late"
    assert text.splitlines() == [
        "○ over: jobs_late, job score",
        "since 27 Nov 17:00 UTC, until 27 Nov 18:05 UTC",
    ]


def test_several_of_a_run_are_named_in_the_subject(mail):
    names = ["anomaly", "units_dead", "layer_frozen", "generalisation_gap"]
    assert mail(*(alert(name, run="r") for name in names[:2]))[0] == "r: anomaly, units_dead"
    assert mail(*(alert(name, run="r") for name in names))[0] == (
        "r: anomaly, units_dead, layer_frozen and others, 4 in all"
    )
    assert mail(alert("anomaly", run="r", layer="a"), alert("anomaly", run="r", layer="b"))[0] == "r: anomaly (2)"


def test_what_fires_comes_before_what_is_over(mail):
    subject, text = mail(alert("anomaly", "resolved", run="r"), alert("units_dead", run="r"))
    assert subject == "r: units_dead"
    assert text.index("● units_dead") < text.index("○ over: anomaly, r")


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
    subject, text = mail(*(one | {"Status": "resolved"} for one in failed))
    assert subject == "Over: Gatewatch: rules cannot be evaluated"
    assert text == "○ evaluated again: anomaly, run_died"


def test_one_that_cannot_be_among_others(mail):
    failed = alert("DatasourceError", rulename="anomaly")
    failed["Annotations"]["Error"] = "connection refused"
    _, text = mail(failed, alert("run_died", run="r"))
    assert "● anomaly cannot be evaluated: connection refused\nsince 27 Nov 17:00 UTC" in text
    assert "● run_died" in text


def test_more_than_anybody_reads(mail):
    _, text = mail(*(alert("run_died", run=f"r{k}") for k in range(MOST + 5)))
    assert text.count("● run_died") == MOST
    assert text.endswith(f"{MOST + 5} fire, 0 are over. All of them:\nhttp://g:3000/x/alerting/list")


def test_names_are_data_and_escaped_in_addresses(mail):
    evil = '{{ .X }}" </a> &var-run=other'
    for run, layer in ((HOSTILE, HOSTILE_LAYER), (evil, evil)):
        subject, text = mail(alert("anomaly", run=run, layer=layer))
        assert subject == f"{run}: anomaly in {layer}"
        address = next(line for line in text.splitlines() if line.startswith("See: "))
        assert address.count("var-run=") == 1
        assert not set(address.removeprefix("See: ")) & set(' "<>{}|\\^`')

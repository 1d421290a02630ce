"""What Grafana's alerting is provisioned with: one bad word in these files, and Grafana does not start."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from gatewatch.jobs.alerts.rules import BUILT_IN
from gatewatch.jobs.findings.run_state import current_state
from gatewatch.jobs.grafana.artifacts import ALERT_FOLDER, DASHBOARD_FOLDER, FOLDERS, MATCHER
from grafana.emulator.check import panels
from grafana.emulator.interpolate import references
from grafana.source import alerting_files, build, dashboards
from grafana.source.flux import DATASOURCE_UID
from grafana.source.rules import FOLDER
from grafana.source.rules_flux import MOST_SERIES

ROOT = Path(__file__).parents[2]
PROVISIONED = ROOT / "grafana/provisioning/alerting"
BOARDS = dashboards()
FILES = alerting_files(BOARDS)
GROUPS = FILES["rules.json"]["groups"]
RULES = {rule["title"]: rule for group in GROUPS for rule in group["rules"]}
DECLARED = {rule.name: rule for rule in BUILT_IN}
SECTIONS = re.findall(r"^## ([a-z_]+)$", (ROOT / "docs/runbook.md").read_text(), re.M)
DURATION = re.compile(r"(?:0s|[1-9]\d*[smh])")
PANEL = "d/gatewatch-runbook?viewPanel="
each_rule = pytest.mark.parametrize("name", RULES)


def seconds(duration):
    return int(duration[:-1]) * {"s": 1, "m": 60, "h": 3600}[duration[-1]]


class TestFiles:
    def test_what_lies_there_is_what_is_built(self, tmp_path):
        build(tmp_path)
        built = {path.name: path.read_bytes() for path in (tmp_path / "provisioning/alerting").iterdir()}
        assert {path.name: path.read_bytes() for path in PROVISIONED.iterdir()} == built
        assert set(built) == set(FILES)

    def test_every_file_says_its_version_and_organisation(self):
        for content in FILES.values():
            assert content["apiVersion"] == 1
            assert all(one["orgId"] == 1 for name, many in content.items() if name != "apiVersion" for one in many)

    def test_dollars_are_those_that_grafana_leaves_or_fills_in(self):
        """It fills the environment into whatever is no annotation, query or template."""
        filled = json.dumps([FILES["contact-points.json"], FILES["policies.json"]])
        assert re.findall(r"\$+\w*", filled) == ["$GATEWATCH_ALERT_TO"]
        for rule in RULES.values():
            rest = {name: value for name, value in rule.items() if name not in ("annotations", "data")}
            assert "$" not in json.dumps([rest, rule["data"][1:]])
            assert "$$" not in json.dumps([rule["annotations"], rule["data"][0]])
        assert "$$" not in FILES["templates.json"]["templates"][0]["template"]


class TestRules:
    def test_every_declared_rule_is_here_in_the_order_of_the_runbook(self):
        assert list(DECLARED) == SECTIONS
        assert set(RULES) == set(SECTIONS)

    def test_uids_are_unique_and_can_be_ones(self):
        uids = [rule["uid"] for rule in RULES.values()]
        assert len(set(uids)) == len(uids)
        assert all(re.fullmatch(r"gatewatch-[a-z-]+", uid) and len(uid) <= 40 for uid in uids)

    def test_the_folder_is_no_other_and_groups_are_evaluated_at_times_that_grafana_knows(self):
        assert FOLDERS[ALERT_FOLDER] == FOLDER != FOLDERS[DASHBOARD_FOLDER]
        assert {group["folder"] for group in GROUPS} == {FOLDER}
        assert len({group["name"] for group in GROUPS}) == len(GROUPS)
        assert all(seconds(group["interval"]) % 10 == 0 for group in GROUPS)

    @each_rule
    def test_threshold_and_severity_are_those_of_the_declaration(self, name):
        declared, rule = DECLARED[name], RULES[name]
        (condition,) = rule["data"][2]["model"]["conditions"]
        expected = {"type": "lt", "params": [declared.condition.below]}
        if declared.condition.above is not None:
            expected = {"type": "gt", "params": [declared.condition.above]}
        assert condition["evaluator"] == expected
        assert "unloadEvaluator" not in condition, "the query counts how long it takes to be resolved"
        severity = {} if declared.critical_for else {"severity": declared.condition.severity}
        assert rule["labels"] == {"service": "gatewatch", **severity}

    @each_rule
    def test_words_are_those_that_grafana_knows(self, name):
        rule = RULES[name]
        assert DURATION.fullmatch(rule["for"])
        assert rule["noDataState"] == ("Alerting" if name == "nothing_written" else "OK")
        assert rule["execErrState"] == ("Alerting" if name == "store_away" else "Error")
        assert rule["condition"] == "C"

    @each_rule
    def test_what_is_queried_reduced_and_compared(self, name):
        query, reduce, threshold = RULES[name]["data"]
        assert (query["refId"], query["datasourceUid"]) == ("A", DATASOURCE_UID)
        assert query["relativeTimeRange"]["to"] == 0 < query["relativeTimeRange"]["from"] <= 86400
        assert query["model"]["maxDataPoints"] > MOST_SERIES
        assert (reduce["datasourceUid"], threshold["datasourceUid"]) == ("__expr__", "__expr__")
        assert reduce["model"] == {"refId": "B", "type": "reduce", "expression": "A", "reducer": "last"}
        assert {name: threshold["model"][name] for name in ("refId", "type", "expression")} == {
            "refId": "C",
            "type": "threshold",
            "expression": "B",
        }

    def test_the_datasource_is_the_one_that_is_provisioned(self):
        given = yaml.safe_load((ROOT / "grafana/provisioning/datasources/gatewatch.yaml").read_text())
        assert [one["uid"] for one in given["datasources"]] == [DATASOURCE_UID]

    @each_rule
    def test_its_query_reads_the_datasources_bucket_within_bounds(self, name):
        flux = RULES[name]["data"][0]["model"]["query"]
        assert (
            flux.count("from(bucket: v.defaultBucket)") == flux.count("from(bucket:") == flux.count("|> range(start: ")
        )
        assert "v.windowPeriod" not in flux
        assert [*references(flux)] == [], "a rule knows no variables"
        for source in flux.split("from(bucket: v.defaultBucket)")[1:]:
            lines = source.strip().splitlines()
            assert lines[0].startswith("|> range(start: ")
            assert lines[1].startswith("  |> filter(fn: (r) => r._measurement == "), "what has an index comes first"
        assert "aggregateWindow(" not in flux, "captures are counted, not spans of time"

    @each_rule
    def test_it_leads_to_a_panel_and_to_its_section(self, name):
        annotations = RULES[name]["annotations"]
        there = {str(panel["id"]): panel["title"] for panel in panels(BOARDS[annotations["__dashboardUid__"]])}
        assert there[annotations["__panelId__"]] == DECLARED[name].grafana.panel
        sections = {panel["id"]: panel["title"] for panel in panels(BOARDS["gatewatch-runbook"])}
        assert annotations["runbook_url"].startswith(PANEL)
        assert sections[int(annotations["runbook_url"].removeprefix(PANEL))] == name

    @each_rule
    def test_the_summary_is_in_plain_words_and_the_value_beside_it(self, name):
        """Grafana's list shows the summary without filling it in."""
        annotations = RULES[name]["annotations"]
        assert annotations["summary"] == DECLARED[name].summary
        assert "{{" not in annotations["description"] + annotations["summary"]
        assert annotations["value"].startswith(f"{{{{ with $values.B }}}}{DECLARED[name].quantity.text}: {{{{ ")
        assert annotations["value"].count("{{ with ") == annotations["value"].count("{{ end }}") == 1

    def test_an_empty_table_of_alerts_does_not_claim_that_rules_were_evaluated(self):
        tables = [
            panel["fieldConfig"]["defaults"]["noValue"]
            for board in BOARDS.values()
            for panel in board["panels"]
            if any('"alert_events"' in target.get("query", "") for target in panel.get("targets", ()))
        ]
        assert len(tables) == 3
        assert all(text.startswith("No rule fired in this time range, if the jobs run") for text in tables)

    def test_a_run_goes_on_after_the_events_that_the_death_counts_from(self):
        assert all(current_state(event, 1e9) == "died" for event in ("started", "heartbeat"))


class TestMail:
    def test_the_policy_takes_our_alerts_by_their_label_and_no_others(self):
        (tree,) = FILES["policies.json"]["policies"]
        (ours,) = tree["routes"]
        assert ours["object_matchers"] == [MATCHER]
        assert all(rule["labels"][MATCHER[0]] == MATCHER[2] for rule in RULES.values())
        assert "continue" not in ours

    def test_a_mail_a_run(self):
        ours = FILES["policies.json"]["policies"][0]["routes"][0]
        timing = {name: ours[name] for name in ("group_by", "group_wait", "group_interval", "repeat_interval")}
        assert timing == {"group_by": ["run"], "group_wait": "30s", "group_interval": "5m", "repeat_interval": "4h"}
        errors, critical = ours["routes"]
        assert critical["object_matchers"] == [["severity", "=", "critical"]]
        assert seconds(critical["group_wait"]) < seconds(ours["group_wait"])
        assert re.fullmatch(errors["object_matchers"][0][2], "DatasourceError")

    def test_receivers_and_templates_that_are_named_are_there(self):
        def receivers(route):
            return {route["receiver"]}.union(*map(receivers, route.get("routes", ())))

        points = FILES["contact-points.json"]["contactPoints"]
        assert receivers(FILES["policies.json"]["policies"][0]) == {point["name"] for point in points}
        (receiver,) = points[0]["receivers"]
        assert receiver["type"] == "email"
        assert receiver["settings"]["addresses"] == "$GATEWATCH_ALERT_TO"
        (template,) = FILES["templates.json"]["templates"]
        defined = re.findall(r'\{\{ define "([a-z.]+)"', template["template"])
        used = re.findall(r'template "([a-z.]+)"', json.dumps(receiver).replace('\\"', '"') + template["template"])
        assert len(set(defined)) == len(defined)
        assert set(used) == set(defined)

    def test_blocks_of_the_template_end(self):
        text = FILES["templates.json"]["templates"][0]["template"]
        words = re.findall(r"\{\{-? ?(define|if|with|range|end)\b", text)
        assert words.count("end") * 2 == len(words)

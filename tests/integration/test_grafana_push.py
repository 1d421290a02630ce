"""`gatewatch grafana push` against the stand-in of `tests/fake_grafana.py`."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from gatewatch.collector.store.influxdb import client
from gatewatch.jobs.cli import main
from gatewatch.jobs.grafana import artifacts
from gatewatch.jobs.grafana import push as grafana_push
from tests.conftest import free_port
from tests.fake_grafana import EMAIL, TOKEN, FakeGrafana, Refusal
from tests.servers import Front, holding
from tests.tokens import token_of

VERSIONS = ["11.0.0", "12.1.0"]


def dashboard(uid, title, **more):
    return {"id": None, "uid": uid, "title": title, "panels": [], "schemaVersion": 37, "tags": ["gatewatch"], **more}


def rule(name, **more):
    flux = "from(bucket: v.defaultBucket) |> range(start: -5m) |> filter(fn: (r) => r.run =~ /^a$/) // $x $$y"
    query = {"refId": "A", "datasourceUid": "gatewatch", "relativeTimeRange": {"from": 300, "to": 0}}
    return {
        "uid": f"gatewatch-{name}",
        "title": name,
        "condition": "B",
        "data": [
            {**query, "model": {"refId": "A", "query": flux}},
            {**query, "refId": "B", "datasourceUid": "__expr__", "model": {"refId": "B", "type": "threshold"}},
        ],
        "for": "2m",
        "noDataState": "OK",
        "execErrState": "Error",
        "labels": {"service": "gatewatch", "cost": "$$5"},
        "annotations": {"summary": "{{ $labels.run }}", "__dashboardUid__": "gatewatch-runs"},
        **more,
    }


def alerting(**more):
    rules = [rule("one"), rule("two", **{"for": "0s"})]
    return {
        "templates": {
            "templates": [{"orgId": 1, "name": "gatewatch", "template": '{{ define "gatewatch" }}{{ end }}'}]
        },
        "contact-points": {
            "contactPoints": [
                {
                    "orgId": 1,
                    "name": "Gatewatch mail",
                    "receivers": [
                        {
                            "uid": "gatewatch-mail",
                            "type": "email",
                            "settings": {
                                "addresses": "$GATEWATCH_ALERT_TO",
                                "message": "{{ $$x }}",
                                "singleEmail": False,
                            },
                        }
                    ],
                }
            ]
        },
        "policies": {
            "policies": [
                {
                    "orgId": 1,
                    "receiver": "Gatewatch mail",
                    "routes": [
                        {
                            "receiver": "Gatewatch mail",
                            "object_matchers": [["service", "=", "gatewatch"]],
                            "group_by": ["run"],
                            "group_wait": "30s",
                            "repeat_interval": "4h",
                        }
                    ],
                }
            ]
        },
        "rules": {
            "groups": [
                {"orgId": 1, "name": "network", "folder": "Gatewatch alerts", "interval": "1m", "rules": rules},
                {
                    "orgId": 1,
                    "name": "service",
                    "folder": "Gatewatch alerts",
                    "interval": "30s",
                    "rules": [rule("three")],
                },
            ]
        },
    } | more


DASHBOARDS = [dashboard("gatewatch-runs", "Runs"), dashboard("gatewatch-gates", "Gates")]
ALL = 1 + 2 + 2 + 1 + 1 + 1 + 3
"""Datasource, folders, dashboards, template, contact point, policy, rules."""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """What is pushed: small, and changed by tests as another version of Gatewatch would."""
    for name in ("dashboards", "alerting"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(artifacts, "folder", lambda name: tmp_path / name.removeprefix("provisioning/"))
    lay(tmp_path)
    return tmp_path


def lay(folder, dashboards=DASHBOARDS, **files):
    for one in dashboards:
        (folder / "dashboards" / f"{one['uid']}.json").write_text(json.dumps(one))
    for name, content in alerting(**files).items():
        (folder / "alerting" / f"{name}.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def store(influxd):
    """What the environment says of a bucket, with a token as Grafana should have it."""
    bucket = influxd.bucket()
    token = token_of(influxd, "read", buckets=(bucket,))
    return {"URL": influxd.url, "ORG": influxd.org, "BUCKET": bucket, "TOKEN": token}


def grafana_of(version, monkeypatch, store):
    server = FakeGrafana(version)
    for name, value in store.items():
        monkeypatch.setenv(f"INFLUXDB_V2_{name}", value)
    monkeypatch.setenv("GRAFANA_URL", server.url)
    monkeypatch.setenv("GRAFANA_TOKEN", TOKEN)
    monkeypatch.setenv("GATEWATCH_ALERT_TO", "a@example.org;b@example.org")
    monkeypatch.setattr(grafana_push, "CACHE_S", 0.3)
    monkeypatch.chdir("/")
    return server


@pytest.fixture(params=VERSIONS)
def grafana(request, monkeypatch, folder, store):
    server = grafana_of(request.param, monkeypatch, store)
    yield server
    server.close()


@pytest.fixture
def latest(monkeypatch, folder, store):
    """Where the version makes no difference."""
    server = grafana_of("12.1.0", monkeypatch, store)
    yield server
    server.close()


def push(capsys, *arguments, status=0):
    """The result and the reason of each thing, by its name."""
    found = main(["grafana", "push", "--json", *arguments])
    out, err = capsys.readouterr()
    assert found == status, err
    assert os.environ.get("INFLUXDB_V2_TOKEN", TOKEN) not in out + err
    assert TOKEN not in out + err
    entries = json.loads(out) if out else []
    return {f"{one['kind']} {one['name']}": (one["result"], one["why"]) for one in entries}, err


def refused(capsys, *arguments, status=2):
    results, err = push(capsys, *arguments, status=status)
    assert results == {}
    assert err.count("\n") == 1
    return err


def results(found):
    return [result for result, _ in found.values()]


@pytest.mark.parametrize("command", [["grafana"], ["grafana", "push"], ["check"]])
def test_help_says_what_a_command_does(capsys, command):
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    assert re.search(r"\n\n[A-Z][^\n]{30,}", capsys.readouterr().out)


class TestAFreshGrafana:
    def test_everything_is_created_and_stays_editable(self, grafana, capsys, store):
        found, err = push(capsys)
        assert results(found) == ["created"] * ALL
        assert err == ""
        source = grafana.datasources["gatewatch"]
        assert (source["name"], source["type"], source["url"]) == ("Gatewatch", "influxdb", store["URL"])
        assert source["secureJsonData"] == {"token": store["TOKEN"]}
        assert store["TOKEN"] not in str(source["jsonData"])
        assert source["jsonData"]["defaultBucket"] == store["BUCKET"]
        assert grafana.folders == {"gatewatch": "Gatewatch", "gatewatch-alerts": "Gatewatch alerts"}
        assert {one["meta"]["folderUid"] for one in grafana.dashboards.values()} == {"gatewatch"}
        assert {rule["folderUID"] for rule in grafana.rules.values()} == {"gatewatch-alerts"}
        assert {rule["provenance"] for rule in grafana.rules.values()} == {""}
        assert set(grafana.provenances.values()) <= {""}
        assert "provenance" not in grafana.tree
        assert not grafana.receivers["Gatewatch mail"].get("provenance")

    def test_variables_and_doubled_dollars_are_expanded_as_in_provisioning_files(self, grafana, capsys):
        push(capsys)
        one = grafana.rules["gatewatch-one"]
        assert one["labels"] == {"service": "gatewatch", "cost": "$5"}
        assert one["annotations"]["summary"] == "{{ $labels.run }}"
        assert one["data"][0]["model"]["query"].endswith("// $x $$y")
        settings = grafana.receivers["Gatewatch mail"]["settings"]
        assert settings["addresses"] == "a@example.org;b@example.org"
        assert settings["message"].startswith("{{ $x }}")

    def test_a_runbook_gets_the_address_under_which_people_see_grafana(self, grafana, capsys, folder):
        written = rule("one", annotations={"runbook_url": "d/gatewatch-runbook?viewPanel=2"})
        own = rule("two", annotations={"runbook_url": "https://wiki.example.org/two"})
        group = {"name": "network", "interval": "1m", "folder": "Gatewatch alerts", "rules": [written, own]}
        lay(folder, rules={"groups": [group]})
        push(capsys)
        assert {uid: one["annotations"]["runbook_url"] for uid, one in grafana.rules.items()} == {
            "gatewatch-one": "https://grafana.example.org/sub/d/gatewatch-runbook?viewPanel=2",
            "gatewatch-two": "https://wiki.example.org/two",
        }

    def test_each_rule_group_gets_its_interval(self, grafana, capsys):
        push(capsys)
        alerts = "gatewatch-alerts"
        assert grafana.intervals == {(alerts, "network"): 60, (alerts, "service"): 30}

    def test_a_dry_run_writes_nothing(self, grafana, capsys):
        found, _ = push(capsys, "--dry-run")
        assert results(found) == ["create"] * ALL
        assert grafana.writes == []

    def test_a_second_push_writes_nothing(self, grafana, capsys):
        push(capsys)
        grafana.writes.clear()
        found, _ = push(capsys)
        assert results(found) == ["unchanged"] * ALL
        assert grafana.writes == []

    def test_the_next_push_finishes_one_that_was_interrupted(self, grafana, capsys):
        def breaks(method, path):
            if method == "POST" and len(grafana.writes) > 6:
                raise Refusal(502, "Bad Gateway")

        grafana.failing = breaks
        found, err = push(capsys, status=1)
        assert {"created", "failed"} == set(results(found))
        assert "502" in err
        grafana.failing = lambda method, path: None
        found, _ = push(capsys)
        assert {"created", "unchanged"} == set(results(found))
        assert results(push(capsys)[0]) == ["unchanged"] * ALL

    def test_it_prints_a_table_and_the_counts(self, latest, capsys):
        assert main(["grafana", "push"]) == 0
        out = capsys.readouterr().out
        assert re.search(r"^what +name +result +why$", out, re.M)
        assert re.search(r"^rule +three +created$", out, re.M)
        assert out.endswith(f"{latest.url}: {ALL} created\n")


class TestAnUpdateOfGatewatch:
    def test_what_the_user_left_alone_is_updated(self, grafana, capsys, folder):
        push(capsys)
        changed = [rule("one", title="first", **{"for": "5m"})]
        lay(
            folder,
            dashboards=[dashboard("gatewatch-runs", "All runs")],
            templates={"templates": [{"name": "gatewatch", "template": '{{ define "gatewatch" }}more{{ end }}'}]},
            rules={"groups": [{"name": "network", "interval": "1m", "folder": "Gatewatch alerts", "rules": changed}]},
        )
        found, _ = push(capsys)
        assert [name for name, (result, _) in found.items() if result == "updated"] == [
            "dashboard All runs",
            "template gatewatch",
            "rule first",
        ]
        assert grafana.dashboards["gatewatch-runs"]["dashboard"]["title"] == "All runs"
        assert grafana.rules["gatewatch-one"]["for"] == "5m"
        assert "more" in grafana.configuration["template_files"]["gatewatch"]
        assert "updated" not in results(push(capsys)[0])

    def test_recipients_are_updated(self, grafana, capsys, monkeypatch):
        push(capsys)
        monkeypatch.setenv("GATEWATCH_ALERT_TO", "c@example.org")
        assert push(capsys)[0]["contact point Gatewatch mail"] == ("updated", "")
        assert grafana.receivers["Gatewatch mail"]["settings"]["addresses"] == "c@example.org"

    def test_the_interval_of_a_group_is_updated(self, grafana, capsys, folder):
        push(capsys)
        groups = alerting()["rules"]["groups"]
        groups[1]["interval"] = "50s"
        lay(folder, rules={"groups": groups})
        assert push(capsys)[0]["rule three"][0] == "updated"
        assert grafana.intervals["gatewatch-alerts", "service"] == 50
        assert results(push(capsys)[0]) == ["unchanged"] * ALL


def edit_dashboard(grafana):
    grafana.save_dashboard({**grafana.dashboards["gatewatch-runs"]["dashboard"], "title": "Mine"}, "my own")


def edit_over_newer_api(grafana):
    grafana.save_over_newer_api({**grafana.dashboards["gatewatch-runs"]["dashboard"], "title": "Mine"})


def edit_as_v2(grafana):
    """What Grafana gives of a dashboard that was saved in a form which it cannot turn into the former one."""
    held = grafana.dashboards["gatewatch-runs"]["dashboard"]
    grafana.save_over_newer_api(
        {"uid": held["uid"], "title": held["title"], "elements": {}, "layout": {"kind": "Grid"}}
    )


def edit_rule(grafana):
    grafana.rules["gatewatch-one"]["for"] = "10m"


def pause_and_label(grafana):
    grafana.rules["gatewatch-one"]["labels"] = {"team": "desk"}


def edit_template(grafana):
    files = grafana.configuration["template_files"]
    files["gatewatch"] = files["gatewatch"].replace("{{ end }}", "mine{{ end }}")


def edit_recipients(grafana):
    grafana.receivers["Gatewatch mail"]["settings"]["addresses"] = "me@example.org"


def edit_route(grafana):
    grafana.tree["routes"][0]["group_wait"] = "10m"


def edit_source(grafana):
    grafana.datasources["gatewatch"]["jsonData"]["timeInterval"] = "1m"
    grafana.datasources["gatewatch"]["url"] = "http://proxy:80"


def edit_interval(grafana):
    grafana.intervals["gatewatch-alerts", "service"] = 120


EDITS = {
    "dashboard": (edit_dashboard, "dashboard Runs"),
    "dashboard over a newer API": (edit_over_newer_api, "dashboard Runs"),
    "dashboard in another form": (edit_as_v2, "dashboard Runs"),
    "rule": (edit_rule, "rule one"),
    "label": (pause_and_label, "rule one"),
    "template": (edit_template, "template gatewatch"),
    "recipients": (edit_recipients, "contact point Gatewatch mail"),
    "route": (edit_route, "policy Gatewatch mail"),
    "datasource": (edit_source, "datasource Gatewatch"),
    "interval": (edit_interval, "rule three"),
}


class TestWhatAUserChanged:
    @pytest.mark.parametrize(("edit", "name"), EDITS.values(), ids=EDITS)
    def test_a_change_of_the_user_is_kept_until_overwrite(self, grafana, capsys, edit, name):
        push(capsys)
        edit(grafana)
        grafana.writes.clear()
        found, _ = push(capsys)
        assert found[name] == (
            "kept",
            f"{'yours' if 'policy' in name else 'changed by you'};"
            " --overwrite replaces it, or delete it and push again",
        )
        assert results(found).count("unchanged") == ALL - 1
        assert grafana.writes == []
        assert push(capsys, "--overwrite")[0][name][0] == "updated"
        assert results(push(capsys)[0]) == ["unchanged"] * ALL

    def test_a_change_of_the_user_is_kept_when_ours_changes_too(self, grafana, capsys, folder):
        push(capsys)
        edit_dashboard(grafana)
        lay(folder, dashboards=[dashboard("gatewatch-runs", "All runs")])
        assert push(capsys)[0]["dashboard All runs"][0] == "kept"

    def test_saving_a_dashboard_unchanged_is_no_change(self, grafana, capsys):
        push(capsys)
        held = grafana.dashboards["gatewatch-runs"]["dashboard"]
        grafana.save_dashboard(held)
        assert results(push(capsys)[0]) == ["unchanged"] * ALL

    def test_a_change_over_a_newer_api_that_is_taken_back_is_no_change(self, grafana, capsys):
        push(capsys)
        held = grafana.dashboards["gatewatch-runs"]["dashboard"]
        edit_over_newer_api(grafana)
        grafana.save_over_newer_api(held)
        assert results(push(capsys)[0]) == ["unchanged"] * ALL

    def test_what_grafana_adds_to_a_dashboard_is_no_change(self, grafana, capsys, folder):
        push(capsys)
        for board in grafana.dashboards.values():
            board["dashboard"] |= {"schemaVersion": 42}
        lay(folder, dashboards=[dashboard("gatewatch-runs", "All runs")])
        assert push(capsys)[0]["dashboard All runs"][0] == "updated"

    def test_a_moved_dashboard_is_updated_where_it_is(self, grafana, capsys, folder):
        push(capsys)
        grafana.folders["mine"] = "Mine"
        grafana.dashboards["gatewatch-runs"]["meta"]["folderUid"] = "mine"
        lay(folder, dashboards=[dashboard("gatewatch-runs", "All runs")])
        assert push(capsys)[0]["dashboard All runs"][0] == "updated"
        assert grafana.dashboards["gatewatch-runs"]["meta"]["folderUid"] == "mine"

    @pytest.mark.parametrize("place", [{"folderUID": "mine"}, {"ruleGroup": "mine"}])
    def test_a_moved_rule_is_kept_where_it_is(self, grafana, capsys, place):
        push(capsys)
        grafana.folders["mine"] = "Mine"
        grafana.rules["gatewatch-one"] |= place
        rule = grafana.rules["gatewatch-one"]
        grafana.intervals.setdefault((rule["folderUID"], rule["ruleGroup"]), 60)
        assert push(capsys)[0]["rule one"][1].startswith("changed by you; ")
        assert push(capsys, "--overwrite")[0]["rule one"] == ("updated", "over your change")
        assert results(push(capsys)[0]) == ["unchanged"] * ALL

    def test_a_dashboard_saved_between_reading_and_writing_is_not_overwritten(self, grafana, capsys, folder):
        push(capsys)
        lay(folder, dashboards=[dashboard("gatewatch-runs", "All runs")])

        def saved_meanwhile(method, path):
            if (method, path) == ("POST", "/dashboards/db"):
                grafana.failing = lambda method, path: None
                edit_dashboard(grafana)

        grafana.failing = saved_meanwhile
        found, err = push(capsys, status=1)
        assert found["dashboard All runs"][0] == "failed"
        assert "changed by someone else" in err
        assert grafana.dashboards["gatewatch-runs"]["dashboard"]["title"] == "Mine"

    def test_a_deleted_rule_is_created_again(self, grafana, capsys):
        push(capsys)
        del grafana.rules["gatewatch-two"]
        found, _ = push(capsys)
        assert found["rule two"][0] == "created"


class TestResourcesOfTheUser:
    def test_other_policies_contact_points_and_secrets_stay(self, grafana, capsys):
        slack = {"uid": "s", "name": "desk", "type": "slack", "settings": {}, "secureFields": {"token": True}}
        alertmanager = grafana.configuration["alertmanager_config"]
        alertmanager["receivers"].append({"name": "desk", "grafana_managed_receiver_configs": [slack]})
        alertmanager["mute_time_intervals"] = [{"name": "night"}]
        mine = {"receiver": "desk", "object_matchers": [["team", "=", "desk"]], "mute_time_intervals": ["night"]}
        grafana.tree["routes"] = [mine]
        push(capsys)
        assert grafana.tree["receiver"] == EMAIL["name"]
        assert grafana.tree["routes"][1:] == [mine]
        assert grafana.tree["routes"][0]["receiver"] == "Gatewatch mail"
        assert grafana.receivers["desk"]["secureFields"] == {"token": True}
        assert grafana.configuration["alertmanager_config"]["mute_time_intervals"] == [{"name": "night"}]

    def test_a_contact_point_of_the_user_with_our_name_is_kept(self, grafana, capsys):
        point = {**EMAIL, "uid": "m", "name": "Gatewatch mail", "settings": {"addresses": "me@example.org"}}
        listed = grafana.configuration["alertmanager_config"]["receivers"]
        listed.append({"name": "Gatewatch mail", "grafana_managed_receiver_configs": [point]})
        assert push(capsys)[0]["contact point Gatewatch mail"][1].startswith("yours; ")
        assert grafana.receivers["Gatewatch mail"]["settings"] == {"addresses": "me@example.org"}


class TestOwnedByFiles:
    def test_nothing_that_files_own_is_written(self, grafana, capsys):
        push(capsys)
        grafana.datasources["gatewatch"]["readOnly"] = True
        for one in grafana.dashboards.values():
            one["meta"]["provisioned"] = True
        for one in grafana.rules.values():
            one["provenance"] = "file"
        grafana.tree["provenance"] = grafana.receivers["Gatewatch mail"]["provenance"] = "file"
        grafana.provenances["gatewatch"] = "file"
        grafana.writes.clear()
        for arguments in ([], ["--overwrite"]):
            found, _ = push(capsys, *arguments)
            assert grafana.writes == []
            assert sorted(set(found.values())) == [
                ("kept", "file provisioning owns it; change it there"),
                ("unchanged", ""),
            ]
            assert results(found).count("unchanged") == 2  # the folders

    def test_a_provisioned_policy_tree_blocks_our_route(self, grafana, capsys):
        grafana.tree["provenance"] = "file"
        found, _ = push(capsys, status=1)
        assert found["policy Gatewatch mail"] == ("blocked", "file provisioning owns it; change it there")
        assert results(found).count("created") == ALL - 1


class TestTheDatasource:
    def another_token(self, influxd, store, monkeypatch):
        token = token_of(influxd, "read", buckets=(store["BUCKET"],))
        monkeypatch.setenv("INFLUXDB_V2_TOKEN", token)
        return token

    def test_another_token_replaces_the_former_one(self, grafana, capsys, monkeypatch, influxd, store):
        push(capsys)
        token = self.another_token(influxd, store, monkeypatch)
        assert push(capsys, "--dry-run")[0]["datasource Gatewatch"] == ("update", "another token")
        found, _ = push(capsys)
        assert found["datasource Gatewatch"] == ("updated", "another token")
        assert results(found).count("unchanged") == ALL - 1
        assert grafana.datasources["gatewatch"]["secureJsonData"] == {"token": token}
        assert results(push(capsys)[0]) == ["unchanged"] * ALL

    def test_another_token_is_not_set_over_a_change_of_the_user(self, latest, capsys, monkeypatch, influxd, store):
        push(capsys)
        edit_source(latest)
        token = self.another_token(influxd, store, monkeypatch)
        assert push(capsys)[0]["datasource Gatewatch"][0] == "kept"
        assert latest.datasources["gatewatch"]["secureJsonData"] == {"token": store["TOKEN"]}
        assert push(capsys, "--overwrite")[0]["datasource Gatewatch"][0] == "updated"
        assert latest.datasources["gatewatch"]["secureJsonData"] == {"token": token}

    def test_the_token_of_the_jobs_does_not_make_grafanas_out_of_date(
        self, latest, capsys, monkeypatch, influxd, store
    ):
        push(capsys)
        self.another_token(influxd, store, monkeypatch)
        main(["check", "--json"])
        found = {one["what"]: one["detail"] for one in json.loads(capsys.readouterr().out)}
        assert found["grafana"].endswith(f"all {ALL} are there")

    def test_a_token_that_stopped_working_is_replaced(self, grafana, capsys, monkeypatch, influxd, store):
        push(capsys)
        good = {"token": self.another_token(influxd, store, monkeypatch)}
        grafana.asks = lambda source: "" if source["secureJsonData"] == good else "unauthorized access"
        assert push(capsys)[0]["datasource Gatewatch"] == (
            "updated",
            "it does not answer (unauthorized access): its token is set again",
        )
        assert results(push(capsys)[0]) == ["unchanged"] * ALL

    def test_a_store_that_grafana_cannot_reach_fails_the_push(self, latest, capsys):
        latest.asks = lambda source: "connection refused"
        found, err = push(capsys, status=1)
        assert results(found) == ["created"] * ALL
        assert re.search(r"connection refused\b.*--influxdb-url", err)

    def test_a_new_address_that_grafana_cannot_reach_fails_the_push(self, latest, capsys):
        push(capsys)
        latest.asks = lambda source: "connection refused" if source["url"].endswith(":1") else ""
        found, err = push(capsys, "--influxdb-url", "http://127.0.0.1:1", status=1)
        assert found["datasource Gatewatch"] == ("updated", "")
        assert "connection refused" in err

    def test_influxdb_url_is_the_address_in_the_datasource(self, latest, capsys):
        push(capsys, "--influxdb-url", "http://influxdb:8086")
        assert latest.datasources["gatewatch"]["url"] == "http://influxdb:8086"

    def test_an_existing_datasource_needs_no_store(self, latest, capsys, monkeypatch):
        push(capsys)
        for name in ("URL", "ORG", "BUCKET", "TOKEN"):
            monkeypatch.delenv(f"INFLUXDB_V2_{name}")
        assert "datasource Gatewatch" not in push(capsys)[0]

    def test_without_a_datasource_the_store_must_be_an_influxdb(self, latest, capsys, monkeypatch):
        for name in ("URL", "ORG", "BUCKET", "TOKEN"):
            monkeypatch.delenv(f"INFLUXDB_V2_{name}")
        assert "gatewatch copy" in refused(capsys)
        monkeypatch.setenv("INFLUXDB_V2_URL", "http://127.0.0.1:9")
        assert "INFLUXDB_V2_ORG" in refused(capsys)

    def unusable(self, latest, capsys, *arguments, status=2):
        """Is said before anything is done, in a dry run as well."""
        for more in ([], ["--dry-run"], ["--influxdb-url", "http://influxdb:8086"]):
            err = refused(capsys, *arguments, *more, status=status)
        assert latest.writes == []
        return err

    def test_a_missing_bucket_is_an_error(self, latest, capsys, monkeypatch, store):
        monkeypatch.setenv("INFLUXDB_V2_BUCKET", "nono")
        assert f"{store['URL']}: this token cannot read the bucket 'nono' of {store['ORG']!r}; see " in self.unusable(
            latest, capsys
        )

    def test_a_token_that_cannot_read_is_an_error(self, latest, capsys, monkeypatch, influxd, store):
        monkeypatch.setenv("INFLUXDB_V2_TOKEN", token_of(influxd, "write", buckets=(store["BUCKET"],)))
        assert "this token cannot read the bucket" in self.unusable(latest, capsys)

    def test_a_token_that_the_store_refuses_is_an_error(self, latest, capsys, monkeypatch):
        monkeypatch.setenv("INFLUXDB_V2_TOKEN", "garbage")
        assert "unauthorized access; see INFLUXDB_V2_TOKEN" in self.unusable(latest, capsys)

    def test_no_connection_to_the_store_is_an_error(self, latest, capsys):
        url = f"http://127.0.0.1:{free_port()}"
        err = self.unusable(latest, capsys, "--store", url, status=1)
        assert f"{url}: no connection; see that InfluxDB runs there" in err

    def test_a_store_that_hangs_is_an_error(self, latest, capsys, monkeypatch):
        monkeypatch.setattr(client, "ANSWER_TIMEOUT_S", 0.3)
        front = Front()
        front.answer = holding
        try:
            err = self.unusable(latest, capsys, "--store", front.url, status=1)
        finally:
            front.close()
        assert "no answer within 0.3 s" in err

    def test_a_store_that_hangs_for_grafana_fails_the_push(self, latest, capsys, monkeypatch):
        push(capsys)
        monkeypatch.setattr(grafana_push, "ANSWER_S", 0.3)
        latest.asks = lambda source: time.sleep(1) or ""
        found, err = push(capsys, status=1)
        assert found["datasource Gatewatch"][1].startswith("it does not answer (no answer within 0.3 s): ")
        assert "Grafana cannot read the store: no answer within 0.3 s; give the address" in err

    @pytest.mark.parametrize("url", ["foo", "sqlite:///x.db", "http://[::1", "http://u:s3cret@h", "http://h?a=s3cret"])
    def test_a_wrong_influxdb_url_is_an_error_without_secrets(self, latest, capsys, url):
        err = refused(capsys, "--influxdb-url", url)
        assert err.startswith("gatewatch: --influxdb-url: ")
        assert "s3cret" not in err
        assert "sqlite:///r" not in err

    def test_a_token_that_may_do_too_much_is_a_warning(self, latest, capsys, monkeypatch, influxd):
        bucket = influxd.bucket()
        for name, value in {"URL": influxd.url, "ORG": influxd.org, "BUCKET": bucket}.items():
            monkeypatch.setenv(f"INFLUXDB_V2_{name}", value)
        monkeypatch.setenv("INFLUXDB_V2_TOKEN", influxd.token_for("read", "write"))
        err = push(capsys)[1]
        assert re.match(
            r"gatewatch: warning: Grafana needs to read .* writes it, reads .*docker compose cp setup:", err
        )

    def test_the_token_of_the_stack_for_grafana_is_no_warning(self, latest, capsys, monkeypatch, influxd):
        buckets = (bucket := influxd.bucket(), influxd.bucket(f"{bucket}_hourly"))
        monkeypatch.setenv("INFLUXDB_V2_BUCKET", bucket)
        monkeypatch.setenv("INFLUXDB_V2_TOKEN", token_of(influxd, "read", buckets=buckets))
        assert push(capsys)[1] == ""


class TestRecipients:
    def test_none_is_a_warning(self, latest, capsys, monkeypatch):
        monkeypatch.delenv("GATEWATCH_ALERT_TO")
        found, err = push(capsys)
        assert "GATEWATCH_ALERT_TO" in err
        assert "Gatewatch mail" not in str(found)

    @pytest.mark.parametrize("to", ["not an address", "a@example.org; b", "a@example.org,ü@example.org"])
    def test_an_address_that_is_none(self, latest, capsys, monkeypatch, to):
        monkeypatch.setenv("GATEWATCH_ALERT_TO", to)
        assert re.search(r"GATEWATCH_ALERT_TO: '.*' is no mail address; write it as", refused(capsys))
        assert latest.writes == []

    @pytest.mark.parametrize("to", ["a@example.org,b@example.org", " a@example.org ;\n b@example.org;"])
    def test_commas_semicolons_and_lines_separate_them(self, latest, capsys, monkeypatch, to):
        monkeypatch.setenv("GATEWATCH_ALERT_TO", to)
        push(capsys)
        assert latest.receivers["Gatewatch mail"]["settings"]["addresses"] == "a@example.org;b@example.org"

    def test_those_of_the_configuration_are_the_default(self, latest, capsys, monkeypatch, tmp_path):
        monkeypatch.delenv("GATEWATCH_ALERT_TO")
        monkeypatch.chdir(tmp_path)
        mail = '[mail]\nhost = "h"\nsender = "g@example.org"\nto = ["x@example.org", "y@example.org"]\n'
        (tmp_path / "gatewatch.toml").write_text(mail)
        push(capsys)
        assert latest.receivers["Gatewatch mail"]["settings"]["addresses"] == "x@example.org;y@example.org"


class TestConflictingNames:
    def test_another_datasource_with_our_name_is_an_error(self, latest, capsys):
        latest.datasources["x"] = {"uid": "x", "name": "gatewatch", "type": "prometheus"}
        assert re.search(r"'gatewatch' of type prometheus with uid 'x' .*: rename or delete it", refused(capsys))
        assert latest.writes == []

    def test_a_datasource_of_another_type_with_our_uid_is_an_error(self, latest, capsys):
        latest.datasources["gatewatch"] = {"uid": "gatewatch", "name": "Mine", "type": "loki"}
        assert re.search(r"'Mine' of type loki .* type influxdb", refused(capsys))

    def test_a_folder_with_our_title_is_used(self, grafana, capsys):
        grafana.folders |= {"abc": "Gatewatch alerts", "def": "Gatewatch"}
        found, _ = push(capsys)
        assert results(found).count("created") == ALL - 2
        assert {rule["folderUID"] for rule in grafana.rules.values()} == {"abc"}
        assert {one["meta"]["folderUid"] for one in grafana.dashboards.values()} == {"def"}
        assert grafana.intervals["abc", "service"] == 30
        assert results(push(capsys)[0]) == ["unchanged"] * ALL

    def test_a_folder_that_the_user_renamed_is_used(self, grafana, capsys):
        push(capsys)
        grafana.folders["gatewatch-alerts"] = "Alarms"
        assert results(push(capsys)[0]) == ["unchanged"] * ALL

    def test_a_dashboard_with_our_title_fails_alone(self, latest, capsys):
        latest.folders["gatewatch"] = "Gatewatch"
        latest.save_dashboard(dashboard("other", "Runs"))
        found, err = push(capsys, status=1)
        assert found["dashboard Runs"][0] == "failed"
        assert "same name" in err
        assert results(found).count("created") == ALL - 2


class TestErrors:
    @pytest.mark.parametrize("name", ["GRAFANA_URL", "GRAFANA_TOKEN"])
    def test_a_missing_variable_is_named(self, latest, capsys, monkeypatch, name):
        monkeypatch.delenv(name)
        assert name in refused(capsys)

    @pytest.mark.parametrize(
        "url",
        [
            "{}?token=s3cret",
            "{}#s3cret",
            "http://u:s3cret@127.0.0.1:1",
            "ftp://s3cret@h",
            "grafana:3000",
            "http://[::1",
        ],
    )
    def test_an_address_that_is_none(self, latest, capsys, monkeypatch, url):
        monkeypatch.setenv("GRAFANA_URL", url.format(latest.url))
        err = refused(capsys)
        assert "GRAFANA_URL" in err
        assert "s3cret" not in err

    @pytest.mark.parametrize("url", ["foo", "http://u:s3cret@127.0.0.1:1", "http://[::1"])
    def test_a_wrong_url_option_is_named(self, latest, capsys, url):
        err = refused(capsys, "--url", url)
        assert err.startswith("gatewatch: --url: ")
        assert "s3cret" not in err

    def test_a_refused_token_is_an_error(self, latest, capsys, monkeypatch):
        monkeypatch.setenv("GRAFANA_TOKEN", "wrong")
        assert re.search(r"the token is refused .*service account with the role Admin", refused(capsys))

    def test_missing_permissions_are_named_before_anything_is_written(self, latest, capsys):
        for name in ("datasources:create", "alert.provisioning:write"):
            del latest.permissions[name]
        for arguments in ([], ["--dry-run"]):
            err = refused(capsys, *arguments)
            assert "lacks datasources:create, alert.provisioning:write; make a service account" in err
        assert latest.writes == []

    @pytest.mark.parametrize("version", ["9.5.1", "10.4.19"])
    def test_grafana_before_11_is_refused_in_one_line(self, capsys, monkeypatch, folder, store, version):
        server = grafana_of(version, monkeypatch, store)
        try:
            assert re.search(rf"is Grafana {re.escape(version)}, and 11 or newer is needed", refused(capsys))
        finally:
            server.close()

    def test_no_connection_is_an_error(self, latest, capsys, monkeypatch):
        monkeypatch.setenv("GRAFANA_URL", "http://127.0.0.1:9")
        assert "no connection; see that Grafana runs there" in refused(capsys, status=1)

    def test_another_server_is_no_grafana(self, latest, capsys, monkeypatch, influxd):
        monkeypatch.setenv("GRAFANA_URL", influxd.url)
        assert "is no Grafana; see GRAFANA_URL" in refused(capsys)

    def test_a_redirect_is_named_without_secrets(self, latest, capsys, monkeypatch):
        def leads(handler):
            handler.send_response(301)
            handler.send_header("Location", f"{latest.url}{handler.path}?token=s3cret")
            handler.end_headers()

        server = ThreadingHTTPServer(
            ("127.0.0.1", 0),
            type("Leads", (BaseHTTPRequestHandler,), {"do_GET": leads, "log_message": lambda *_: None}),
        )
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        monkeypatch.setenv("GRAFANA_URL", f"http://127.0.0.1:{server.server_port}")
        try:
            err = refused(capsys)
        finally:
            server.shutdown()
            server.server_close()
        assert f"leads to {latest.url}/api/health; name that in GRAFANA_URL" in err
        assert "s3cret" not in err

    def test_failed_tls_is_an_error(self, latest, capsys, monkeypatch):
        monkeypatch.setenv("GRAFANA_URL", latest.url.replace("http:", "https:"))
        assert re.search(r"TLS failed \(.*\); see its certificate", refused(capsys))

    def test_without_its_folder_no_rule_is_created(self, latest, capsys):
        def no_folders(method, path):
            if (method, path) == ("POST", "/folders"):
                raise Refusal(500, "database is locked")

        latest.failing = no_folders
        assert main(["grafana", "push"]) == 1
        assert "POST /folders: database is locked (500)" in capsys.readouterr().err
        assert (latest.rules, latest.dashboards) == ({}, {})

    def test_a_rule_that_is_deleted_during_the_push_fails_alone(self, grafana, capsys, folder):
        push(capsys)
        lay(folder, rules={"groups": [{"name": "network", "interval": "1m", "rules": [rule("one", title="first")]}]})

        def deleted(method, path):
            if method == "PUT":
                grafana.rules.clear()

        grafana.failing = deleted
        found, err = push(capsys, status=1)
        assert found["rule first"][0] == "failed"
        assert "there is nothing (404)" in err

    def test_an_interrupted_push_says_how_far_it_came(self, latest, capsys):
        def goes(method, path):
            if len(latest.writes) > 4:
                raise Refusal(403, "You'll need additional permissions")

        latest.failing = goes
        assert main(["grafana", "push"]) == 2
        err = capsys.readouterr().err
        assert re.search(r"stopped after \d+ of \d+: what is done stays, and another push goes on from there\n", err)
        assert "may not do this" in err


class TestTheCheckCommand:
    def finding(self, capsys):
        main(["check", "--json"])
        return next((one for one in json.loads(capsys.readouterr().out) if one["what"] == "grafana"), None)

    def test_without_a_url_grafana_is_not_checked(self, capsys):
        assert self.finding(capsys) is None

    def test_it_counts_what_is_missing_out_of_date_and_kept(self, latest, capsys, monkeypatch, store):
        found = self.finding(capsys)
        assert (found["ok"], found["warning"]) == (True, True)
        assert re.search(
            rf"Grafana 12\.1\.0: {ALL} missing of {ALL}; `gatewatch grafana push --dry-run`", found["detail"]
        )
        push(capsys)
        assert self.finding(capsys)["detail"].endswith(f"all {ALL} are there")
        edit_rule(latest)
        assert self.finding(capsys)["detail"].endswith(f"all {ALL} are there, 1 of them kept as you have them")
        latest.asks = lambda source: "unauthorized"
        found = self.finding(capsys)
        assert (found["ok"], "does not answer (unauthorized)" in found["detail"]) == (False, True)
        latest.asks = lambda source: ""
        monkeypatch.delenv("GRAFANA_TOKEN")
        found = self.finding(capsys)
        assert (found["ok"], found["warning"]) == (True, False)
        assert found["detail"] == f"{latest.url} answers; GRAFANA_TOKEN is not set, so what is in it was not looked at"
        monkeypatch.setenv("GRAFANA_URL", store["URL"])
        assert "is no Grafana" in self.finding(capsys)["detail"]
        monkeypatch.setenv("GRAFANA_URL", latest.url)
        monkeypatch.setenv("GRAFANA_TOKEN", TOKEN)
        del latest.permissions["folders:create"]
        assert "lacks folders:create" in self.finding(capsys)["detail"]

"""The dashboards as files: what lies in the repository is what is built, and refers to nothing that is not there."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest
import yaml
from grafana_foundation_sdk.models import units

from gatewatch.collector.cells import GATES
from gatewatch.jobs.queries.flux_values import literal
from grafana.emulator.check import panels, time_range
from grafana.emulator.references import problems
from grafana.source import DASHBOARDS, build, dashboards, differing, files, panel_id
from grafana.source.__main__ import main
from grafana.source.flux import DATASOURCE_UID, pattern
from grafana.source.variables import SIGMOID, TITLES

ROOT = Path(__file__).parents[2]
GRAFANA = ROOT / "grafana"
UNITS = {value for name, value in vars(units).items() if isinstance(value, str) and not name.startswith("_")}
PANEL_TYPES = {"bargauge", "heatmap", "stat", "state-timeline", "table", "text", "timeseries", "trend"}
"""The types of panels that we use; Grafana 11 has them all."""


@pytest.fixture(scope="module")
def boards():
    return dashboards()


def all_panels(boards):
    return [(uid, panel) for uid, board in boards.items() for panel in panels(board)]


class TestFiles:
    def test_what_lies_here_is_what_is_built(self, tmp_path):
        """Where this fails after a change of the source, `python -m grafana.source` writes the files anew."""
        written = build(tmp_path)
        assert {path.relative_to(tmp_path).as_posix() for path in written} == set(files())
        assert differing(GRAFANA) == []

    def test_nothing_else_lies_here(self):
        kept = {path.relative_to(GRAFANA).as_posix() for path in GRAFANA.rglob("*.json")}
        assert kept == set(files())

    def test_it_is_built_alike_each_time(self, tmp_path):
        first = [path.read_bytes() for path in build(tmp_path / "a")]
        assert first == [path.read_bytes() for path in build(tmp_path / "b")]

    def test_a_file_that_was_edited_by_hand_or_is_missing_is_named(self, tmp_path, capsys):
        assert main([], tmp_path) == 0
        assert f"{tmp_path}/dashboards/runs.json" in capsys.readouterr().out.split()
        assert main(["--check"], tmp_path) == 0
        (tmp_path / "dashboards/gates.json").unlink()
        edited = tmp_path / "dashboards/runs.json"
        edited.write_text(edited.read_text().replace("Runs", "Races"))
        assert main(["--check"], tmp_path) == 1
        assert capsys.readouterr() == (
            "",
            "grafana/dashboards/gates.json differs from its source; run `python -m grafana.source`\n"
            "grafana/dashboards/runs.json differs from its source; run `python -m grafana.source`\n",
        )
        assert "Races" in edited.read_text()

    def test_a_folder_that_cannot_be_written(self, tmp_path, capsys):
        (tmp_path / "dashboards").touch()
        assert main([], tmp_path) == 1
        assert capsys.readouterr().err == f"{tmp_path}/dashboards cannot be written: File exists\n"


class TestReferences:
    def test_nothing_dangles(self, boards):
        assert problems(list(boards.values()), DATASOURCE_UID) == []

    @pytest.mark.parametrize(
        ("change", "problem"),
        [
            (
                lambda b: b["panels"][1]["targets"][0].update(query="r.run =~ /^${runn:regex}$/"),
                "${runn} is no variable",
            ),
            (lambda b: b["panels"][1]["targets"][0].update(query="${run:csv}"), "${run:csv} is not one of the formats"),
            (lambda b: b["panels"][1].update(id=b["panels"][2]["id"]), "2 panels have the id"),
            (lambda b: b["panels"][1].update(title="Run"), "2 panels are called 'Run'"),
            (lambda b: b["panels"][1].update(description=" "), "has no description"),
            (lambda b: b["panels"][1].update(repeat="layers"), "is repeated by layers, which is no variable"),
            (lambda b: b["panels"][1]["datasource"].update(uid="other"), "asks the datasource other"),
            (lambda b: b["panels"][1]["targets"].clear(), "has no query"),
            (lambda b: b["panels"][1].update(links=[{"url": "/d/nowhere"}]), "links to /d/nowhere"),
            (lambda b: b["panels"][1].update(links=[{"url": "/d/gatewatch-runs?var-gate=x"}]), "the variable gate"),
            (lambda b: b["links"][-1].update(tags=["other"]), "the tag other: there is none"),
            (lambda b: b["links"][0].update(url="/d/gatewatch-gates?from=${x}"), "link Whole run: ${x} is no variable"),
            (
                lambda b: b["templating"]["list"][0].update(query="${phase:regex}"),
                "variable run: ${phase} is no variable",
            ),
            (lambda b: b["templating"]["list"][0].update(id="0000"), "takes those of one id for one variable"),
            (lambda b: b["annotations"]["list"][0]["target"].update(query="$x"), "annotation Run events: ${x}"),
            (lambda b: b.update(uid="gatewatch-runs"), "gatewatch-runs: the uid of 2 dashboards"),
        ],
    )
    def test_what_dangles_is_found(self, boards, change, problem):
        changed = copy.deepcopy(boards)
        change(changed["gatewatch-gates"])
        found = problems(list(changed.values()), DATASOURCE_UID)
        assert any(problem in line for line in found), found

    def test_a_panel_is_found_by_its_title(self, boards):
        gates = boards["gatewatch-gates"]
        number = panel_id(gates, "Saturation")
        assert [panel["title"] for panel in gates["panels"] if panel["id"] == number] == ["Saturation"]
        with pytest.raises(KeyError, match="gatewatch-gates has 0 panels called 'Nothing'"):
            panel_id(gates, "Nothing")


class TestPanels:
    def test_each_says_what_is_healthy(self, boards):
        silent = [
            (uid, panel["title"])
            for uid, panel in all_panels(boards)
            if panel["type"] != "text"
            and not re.search(r"[Hh]ealthy|Ended as they should|two minutes", panel["description"])
        ]
        assert silent == []

    def test_each_is_of_a_kind_that_grafana_had_and_has(self, boards):
        assert {panel["type"] for _, panel in all_panels(boards)} <= PANEL_TYPES

    def test_each_unit_is_one_of_grafana(self, boards):
        for uid, panel in all_panels(boards):
            config = panel.get("fieldConfig", {})
            found = [config.get("defaults", {}).get("unit")]
            found += [p["value"] for o in config.get("overrides", ()) for p in o["properties"] if p["id"] == "unit"]
            for unit in filter(None, found):
                assert unit in UNITS or unit.startswith("suffix:"), (uid, panel["title"], unit)

    def test_each_gate_has_its_colour_everywhere(self, boards):
        def colour(uid, title, name):
            (panel,) = (panel for panel in panels(boards[uid]) if panel["title"] == title)
            found = [
                one["properties"][0]["value"]["fixedColor"]
                for one in panel["fieldConfig"]["overrides"]
                if one["matcher"]["id"] == "byRegexp"
                and re.fullmatch(one["matcher"]["options"], name)
                and one["properties"][0]["id"] == "color"
            ]
            return found[-1] if found else None

        assert colour("gatewatch-gates", "Drift", "forget") == "#d55e00"
        assert colour("gatewatch-gates", "Drift", "input") == "#0072b2"
        assert colour("gatewatch-anomalies", "Anomaly score", "lstm_0 forget") == "#d55e00"
        assert colour("gatewatch-anomalies", "Anomaly score", "forget kernel") is None
        assert colour("gatewatch-learning", "Dead units", "a forget b hidden") == "#56b4e9"
        assert colour("gatewatch-backtest", "Stuck", "update") == "#0072b2"
        assert colour("gatewatch-gates", "Gates, mean and band", "forget") == "#d55e00"
        assert colour("gatewatch-gates", "Gates, mean and band", "forget, 5 %") == "#d55e00"
        assert colour("gatewatch-gates", "Saturation", "cell, at its low end") == "#009e73"
        assert colour("gatewatch-backtest", "Gates against price and position", "forget gate") == "#d55e00"

    def test_scores_that_never_come_near_an_alarm_are_grey(self, boards):
        for uid in ("gatewatch-anomalies", "gatewatch-backtest"):
            (panel,) = (panel for panel in panels(boards[uid]) if panel["title"] == "Anomaly score")
            last = panel["fieldConfig"]["overrides"][-1]  # which goes before the colours of gates
            assert last["matcher"] == {"id": "byValue", "options": {"reducer": "max", "op": "lt", "value": 0.8}}
            assert last["properties"] == [{"id": "color", "value": {"mode": "fixed", "fixedColor": "#8e8e8e"}}]

    def test_a_band_is_filled_and_only_its_mean_is_in_the_legend(self, boards):
        (panel,) = (one for one in panels(boards["gatewatch-gates"]) if one["title"] == "Gates, mean and band")
        by_name = {one["matcher"]["options"]: one["properties"] for one in panel["fieldConfig"]["overrides"]}
        assert {"id": "custom.fillBelowTo", "value": "forget, 5 %"} in by_name["forget, 95 %"]
        assert {
            "id": "custom.hideFrom",
            "value": {"legend": True, "tooltip": False, "viz": False},
        } in by_name[".+, .+"]

    def test_gates_open_with_a_screen_or_two_and_keep_the_rest_in_closed_rows(self, boards):
        shown = [panel["title"] for panel in boards["gatewatch-gates"]["panels"]]
        assert shown == [
            "Run",
            "Worst score, limit 1",
            "First anomalous",
            "What is wrong with its units",
            "Memory kept",
            "${gate:text}",
            "${state:text}",
            "Gates, mean and band",
            "States, mean and band",
            "Saturation",
            "Memory timescale",
            "Position in the sequence",
            "Distribution of the activations",
            "Drift and rank",
        ]
        rows = {p["title"]: len(p["panels"]) for p in boards["gatewatch-gates"]["panels"] if p["type"] == "row"}
        assert rows == {"Position in the sequence": 2, "Distribution of the activations": 2, "Drift and rank": 2}

    def test_anomalies_say_first_what_is_wrong(self, boards):
        shown = [panel["title"] for panel in boards["gatewatch-anomalies"]["panels"]]
        assert shown[:5] == ["Run", "Anomalous", "Worst score, limit 1", "First anomalous", "What is wrong, and why"]

    def test_the_causes_do_not_depend_on_the_width_of_the_screen(self, boards):
        tables = {
            p["title"]: p.get("maxDataPoints") for p in panels(boards["gatewatch-anomalies"]) if p["type"] == "table"
        }
        assert (tables["What is wrong, and why"], tables["Causes"]) == (1000, 1000)

    def test_a_text_has_the_colour_of_the_pattern_that_it_matches(self, boards):
        (panel,) = (one for one in panels(boards["gatewatch-gates"]) if one["title"] == "What is wrong with its units")
        mappings = [one["options"] for one in panel["fieldConfig"]["defaults"]["mappings"]]
        assert [(one["pattern"], one["result"]["color"], one["result"]["text"]) for one in mappings] == [
            ("^wrong: (.*)$", "red", "$1"),
            ("^nearly: (.*)$", "yellow", "$1"),
            ("^(nothing)$", "green", "$1"),
        ]

    def test_no_text_calls_it_healthy_where_nothing_was_evaluated(self, boards):
        texts = [
            f"{panel.get('description')} {panel.get('fieldConfig', {}).get('defaults', {}).get('noValue')}"
            for uid, panel in all_panels(boards)
            if panel["type"] != "text"
        ]
        assert [text for text in texts if "mpty is healthy" in text] == []

    def test_legends_are_tables_of_the_last_and_the_worst_values(self, boards):
        legends = {
            panel["title"]: panel["options"]["legend"]
            for _, panel in all_panels(boards)
            if panel["type"] == "timeseries"
        }
        assert len(legends) > 20
        assert {legend["displayMode"] for legend in legends.values()} == {"table"}
        score = legends["Anomaly score"]
        assert (score["calcs"], score["sortBy"], score["sortDesc"]) == (["lastNotNull", "max"], "Max", True)

    def test_an_empty_range_says_so(self, boards):
        for uid, panel in all_panels(boards):
            if panel["type"] == "text":
                continue
            defaults = panel["fieldConfig"]["defaults"]
            logarithmic = defaults.get("custom", {}).get("scaleDistribution", {}).get("type") == "log"
            assert bool(defaults.get("noValue")) != logarithmic, (uid, panel["title"])

    def test_the_frame_that_stands_for_no_data_is_left_out_where_grafana_would_fail_on_it(self, boards):
        for uid, panel in all_panels(boards):
            if panel["type"] in ("heatmap", "state-timeline", "trend"):
                first = panel["transformations"][0]
                assert (first["id"], first["options"]) == ("filterFieldsByName", {"include": {"pattern": ".*"}}), uid

    def test_heatmaps_have_one_scale_and_hide_no_zero(self, boards):
        maps = [panel["options"] for _, panel in all_panels(boards) if panel["type"] == "heatmap"]
        assert len(maps) >= 6
        for options in maps:
            assert options["color"]["min"] < options["color"]["max"]
            assert options["filterValues"]["le"] < -100
            assert options["calculate"] is False

    def test_a_query_reads_the_bucket_of_the_datasource_and_bounds_its_time(self, boards):
        for uid, panel in all_panels(boards):
            for target in panel.get("targets", ()):
                reads = re.findall(r"from\(bucket: ([^)]*)\)\s*\|> range", target["query"])
                assert reads, (uid, panel["title"])
                assert set(reads) == {"v.defaultBucket"}


class TestDashboards:
    def test_every_supported_grafana_opens_them(self, boards):
        for board in boards.values():
            assert board["schemaVersion"] == 37
            assert board["timezone"] == "browser"
            begin, end = time_range(board, 10**18)
            assert begin < end == 10**18

    def test_each_shows_runs_and_alerts_as_annotations(self, boards):
        for board in boards.values():
            assert [one["name"] for one in board["annotations"]["list"]] == ["Run events", "Alerts"]

    def test_the_names_of_the_files(self):
        expected = {"runs", "gates", "learning", "feed", "anomalies", "compare", "backtest", "health", "runbook"}
        assert set(DASHBOARDS) == expected

    def test_their_variables(self, boards):
        """What is hidden takes no room, and no value of it stays in the URL when another run is chosen."""
        shown = {
            uid.removeprefix("gatewatch-"): " ".join(v["name"] for v in board["templating"]["list"] if v["hide"] != 2)
            for uid, board in boards.items()
        }
        assert shown == {
            "runs": "tag value",
            "gates": "run phase layer",
            "learning": "run phase layer",
            "feed": "run phase",
            "anomalies": "run phase layer gate",
            "compare": "run other phase layer gate",
            "backtest": "run phase layer",
            "health": "",
            "runbook": "",
        }
        for board in boards.values():
            hidden = [v["name"] for v in board["templating"]["list"] if v["hide"] == 2]
            assert hidden[2:] in ([], ["gate", "state"], ["metric"])
            assert hidden[:2] in ([], ["begin", "end"])
            assert hidden == [v["name"] for v in board["templating"]["list"] if v["skipUrlSync"]]

    def test_those_of_one_run_have_a_link_to_its_whole_time(self, boards):
        links = {
            uid: [link["url"] for link in board["links"] if link["title"] == "Whole run"]
            for uid, board in boards.items()
        }
        assert {uid for uid, urls in links.items() if urls} == {
            "gatewatch-gates",
            "gatewatch-learning",
            "gatewatch-feed",
            "gatewatch-anomalies",
            "gatewatch-backtest",
        }
        assert links["gatewatch-gates"] == ["/d/gatewatch-gates?from=${begin}&to=${end}"]
        (link,) = (link for link in boards["gatewatch-gates"]["links"] if link["title"] == "Whole run")
        assert (link["includeVars"], link["keepTime"]) == (True, False)

    def test_what_to_press_next_is_at_the_top(self, boards):
        shown = {
            uid.removeprefix("gatewatch-"): [link["title"] for link in board["links"][:-1]]
            for uid, board in boards.items()
        }
        of_run = ["Whole run", "Since when, and why", "What to do"]
        assert shown == {
            "runs": ["What to do"],
            "gates": of_run,
            "learning": of_run,
            "feed": of_run,
            "anomalies": ["Whole run", "Its gates", "What to do"],
            "compare": of_run[1:],
            "backtest": of_run,
            "health": ["What to do"],
            "runbook": [],
        }
        (causes,) = (link for link in boards["gatewatch-gates"]["links"] if link["title"] == "Since when, and why")
        assert (causes["url"], causes["includeVars"], causes["keepTime"]) == ("/d/gatewatch-anomalies", True, True)

    def test_what_is_pressed_seldom_takes_no_room(self, boards):
        for board in boards.values():
            assert {one["placement"] for one in board["annotations"]["list"]} == {"inControlsMenu"}
            (others,) = (link for link in board["links"] if link["type"] == "dashboards")
            assert (others["title"], others["asDropdown"]) == ("Other dashboards", True)

    def test_no_panel_lies_on_another_or_beyond_the_edge(self, boards):
        for uid, board in boards.items():
            for group in (board["panels"], *(row["panels"] for row in board["panels"] if row.get("panels"))):
                cells = set()
                for panel in group:
                    place = panel["gridPos"]
                    width = 24 if "repeat" in panel else place["w"]  # it is repeated to the right
                    covered = {
                        (x, y)
                        for x in range(place["x"], place["x"] + width)
                        for y in range(place["y"], place["y"] + place["h"])
                    }
                    assert not covered & cells, (uid, panel["title"])
                    assert place["x"] + width <= 24, (uid, panel["title"])
                    cells |= covered

    def test_the_columns_of_tables(self, boards):
        """The first ones are what matters; what has no width of its own shares what is left of 1250 pixels."""
        shown = {}
        for title in ("What is wrong, and why", "Causes", "Choose a backtest"):
            ((_, panel),) = ((uid, panel) for uid, panel in all_panels(boards) if panel["title"] == title)
            order = panel["transformations"][-1]["options"]["indexByName"]
            settings = {one["matcher"]["options"]: one["properties"] for one in panel["fieldConfig"]["overrides"]}
            widths = {
                name: {one["id"]: one["value"] for one in settings.get(name, ())}
                for name in sorted(order, key=order.get)
            }
            shown[title] = {
                name: found.get("custom.width") for name, found in widths.items() if not found.get("custom.hidden")
            }
        assert shown == {
            "What is wrong, and why": {
                "where": 170, "source": 90, "why": None, "since": 170, "at step": 90, "worst": 80, "now": 80,
            },
            "Causes": {"layer": 160, "gate": 110, "cause": None, "size": 80, "times seen": 110},
            "Choose a backtest": {"run": None, "phase": 85, "bars": 80, "first bar": 170, "last bar": 170},
        }  # fmt: skip

    def test_where_there_is_no_data_they_say_what_to_press(self, boards):
        said = {
            (uid, panel["fieldConfig"]["defaults"].get("noValue"))
            for uid, panel in all_panels(boards)
            if panel["title"] in ("Anomaly score", "Lag")
        }
        assert said == {
            ("gatewatch-anomalies", "Nothing in this time range: press “Whole run” above"),
            ("gatewatch-backtest", "Nothing in this time range: press “Whole run” above"),
            ("gatewatch-health", "Nothing in this time range: choose a longer one"),
        }

    def test_every_gate_has_a_title(self):
        assert set(TITLES) == set(GATES)
        assert set(SIGMOID) == {"input", "forget", "output", "update", "reset"}

    def test_the_list_of_runs_fits_a_screen_and_a_score_leads_straight_to_what_is_wrong(self, boards):
        (table,) = (panel for panel in panels(boards["gatewatch-runs"]) if panel["title"] == "Runs")
        settings: dict[str, dict[str, object]] = {}
        for one in table["fieldConfig"]["overrides"]:
            if one["matcher"]["id"] == "byName":
                found = settings.setdefault(one["matcher"]["options"], {})
                found.update({property["id"]: property["value"] for property in one["properties"]})
        widths = {name: found["custom.width"] for name, found in settings.items() if "custom.width" in found}
        assert sum(widths.values()) < 1250  # of 1600 pixels, with the menu open, and the error gets the rest
        # 9 pixels a letter, and the arrow of the sorting.
        assert [name for name, width in widths.items() if width < 9 * len(name) + 20] == []
        steps = [(step["value"], step["color"]) for step in settings["worst score"]["thresholds"]["steps"]]
        # Grey where a run has no score yet.
        assert steps == [(None, "#8e8e8e"), (0, "green"), (0.8, "yellow"), (1, "red")]
        assert settings["above 1 since"]["unit"] == settings["last heard of"]["unit"] == "dateTimeAsIso"
        for column in ("worst score", "where"):
            (link,) = settings[column]["links"]
            assert link["url"].startswith("/d/gatewatch-anomalies?from=${__data.fields.from}&to=${__data.fields.to}&")
            assert link["url"].endswith("&var-layer=${__data.fields.layer:percentencode}")
        assert len(settings["run"]["links"]) == 6
        (bars,) = (panel for panel in panels(boards["gatewatch-runs"]) if panel["title"] == "Worst scores")
        # With a unit of all columns, the times in its links would be 1.80.
        assert not {"unit", "decimals"} & set(bars["fieldConfig"]["defaults"])

    def test_the_gradient_s_state_is_in_words(self, boards):
        (shown,) = (panel for panel in panels(boards["gatewatch-learning"]) if panel["title"] == "Gradient state")
        (mapping,) = shown["fieldConfig"]["defaults"]["mappings"]
        words = {text: found["color"] for text, found in mapping["options"].items()}
        assert words == {
            **{"vanished": "red", "usual": "green", "explodes": "red", "not finite": "red", "ended": "transparent"}
        }

    def test_what_is_not_logged_is_said_so(self, boards):
        empty = {
            (uid.removeprefix("gatewatch-"), panel["title"]): panel["fieldConfig"]["defaults"].get("noValue")
            for uid, panel in all_panels(boards)
            if panel["type"] != "text"
        }
        assert empty["learning", "Reward"] == "No reward is logged in this time range"
        gap = "No validation loss is logged beside a training loss in this time range, so overfitting would not show"
        assert empty["learning", "Generalisation gap"] == gap
        finite = "No NaN or Inf was captured in this time range"  # which is true where nothing was captured, too
        assert empty["learning", "Values that are not finite"] == finite

    def test_nothing_is_yellow_because_nobody_trains(self, boards):
        (shown,) = (panel for panel in panels(boards["gatewatch-health"]) if panel["title"] == "Last sign of a run")
        assert [step["color"] for step in shown["fieldConfig"]["defaults"]["thresholds"]["steps"]] == [
            "#8e8e8e"
        ]  # grey

    def test_a_line_over_steps_goes_on_over_the_steps_of_the_other_run(self, boards):
        """Where a run has no value at a step of the other there is a null, which is no zero and no gap."""
        charts = [panel for panel in panels(boards["gatewatch-compare"]) if panel["type"] == "trend"]
        assert len(charts) == 9
        for panel in charts:
            assert panel["options"]["xField"] == "step"
            assert panel["fieldConfig"]["defaults"]["custom"]["spanNulls"] is True
            # The axis of the steps would have these ends, too.
            assert not {"min", "max"} & set(panel["fieldConfig"]["defaults"])
        titles = [panel["title"] for panel in charts]
        assert titles[3:5] == ["Mean of ${gate:text} in ${layer:text}", "Spread of ${gate:text} in ${layer:text}"]

    def test_the_two_runs_have_colours_of_their_own(self, boards):
        for panel in panels(boards["gatewatch-compare"]):
            if panel["type"] == "trend":
                colours = {
                    one["matcher"]["options"]: one["properties"][0]["value"].get("fixedColor")
                    for one in panel["fieldConfig"]["overrides"]
                    if one["matcher"]["id"] == "byRegexp"
                }
                # Grafana puts ^ before an expression and $ behind it.
                assert colours == {"1: .*": "blue", "2: .*": "orange", "Neither.*": "#8e8e8e"}

    def test_the_runbook_has_every_section_of_the_file(self, boards):
        headings = re.findall(r"^## (.+)$", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE)
        titles = [panel["title"] for panel in panels(boards["gatewatch-runbook"])]
        assert titles[2:] == headings

    def test_the_runbook_opens_as_a_list_of_rules_each_with_its_section_whole(self, boards):
        fired, *rows = boards["gatewatch-runbook"]["panels"]
        assert fired["title"] == "What fired last: press a rule to read what to do"
        assert {(row["type"], row["collapsed"], len(row["panels"])) for row in rows} == {("row", True, 1)}
        titles = [row["title"] for row in rows]
        assert titles[:3] == [
            "When an alert comes",
            "anomaly: a gate behaves as it has not before",
            "gate_not_finite: NaN or Inf in a gate",
        ]
        (units_dead,) = (panel for row in rows for panel in row["panels"] if panel["title"] == "units_dead")
        assert units_dead["gridPos"]["w"] == 12
        assert units_dead["gridPos"]["h"] == 20

    def test_a_number_of_the_runbook_stays_that_of_its_rule(self, boards):
        """Mails that lie in a mailbox link to it."""
        numbers = {title: panel_id(boards["gatewatch-runbook"], title) for title in ("anomaly", "backtest_alert")}
        assert numbers == {"anomaly": 2, "backtest_alert": 26}

    def test_a_section_of_the_runbook_leads_to_another(self, boards):
        sections = [panel for panel in panels(boards["gatewatch-runbook"]) if panel["type"] == "text"]
        texts = {panel["title"]: panel["options"]["content"] for panel in sections}
        assert "see [gradient_vanishing](./d/gatewatch-runbook?viewPanel=7)" in texts["layer_frozen"]
        assert "The sample has every key" in texts["When an alert comes"]
        assert not re.search(r"\]\((?!\./d/|https?://)", "".join(texts.values()))


class TestProvisioning:
    def test_the_datasource_is_the_one_that_the_dashboards_ask(self):
        content = yaml.safe_load((GRAFANA / "provisioning/datasources/gatewatch.yaml").read_text())
        (source,) = content["datasources"]
        assert (source["uid"], source["type"]) == (DATASOURCE_UID, "influxdb")
        assert source["jsonData"]["version"] == "Flux"
        assert source["secureJsonData"] == {"token": "$__file{/run/gatewatch/grafana.token}"}

    def test_the_folder_of_the_dashboards(self):
        content = yaml.safe_load((GRAFANA / "provisioning/dashboards/gatewatch.yaml").read_text())
        (provider,) = content["providers"]
        assert (provider["folder"], provider["folderUid"]) == ("Gatewatch", "gatewatch")

    def test_the_rules_lead_to_panels_that_are_there(self, boards):
        rules = json.loads((GRAFANA / "provisioning/alerting/rules.json").read_text())
        for group in rules["groups"]:
            for rule in group["rules"]:
                board = boards[rule["annotations"]["__dashboardUid__"]]
                numbers = {str(panel["id"]) for panel in panels(board)}
                assert rule["annotations"]["__panelId__"] in numbers, rule["uid"]


class TestText:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [("a", '"a"'), ('a"b\\c', '"a\\"b\\\\c"'), ("${x}", '"\\${x}"'), ("$x{", '"$x{"')],
    )
    def test_a_string(self, value, expected):
        assert literal(value) == expected

    def test_a_pattern_matches_its_values_alone(self):
        values = ["a.b", "a/b", "x(y", "${z}"]
        expression = pattern(*values).removeprefix("/").removesuffix("/")
        assert all(re.fullmatch(expression.replace("\\/", "/"), value) for value in values)
        assert not re.fullmatch(expression, "aXb")

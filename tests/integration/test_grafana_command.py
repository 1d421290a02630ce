"""`gatewatch grafana build` and `gatewatch grafana check`."""

from __future__ import annotations

import json
import re
import time

import pytest

from gatewatch.jobs.cli import main
from gatewatch.jobs.grafana import artifacts
from tests.seeded import COLLAPSED, seed

COLUMNS = {"dashboard", "panel", "queries", "rows", "milliseconds", "problem"}


def said(capsys, *arguments):
    status = main(["grafana", *arguments])
    out, err = capsys.readouterr()
    return status, out, err


class TestBuild:
    @pytest.fixture
    def root(self, monkeypatch, tmp_path):
        monkeypatch.setattr(artifacts, "checkout", lambda: tmp_path)
        return tmp_path

    def test_it_writes_what_check_then_finds_in_order(self, root, capsys):
        status, out, _ = said(capsys, "build")
        assert status == 0
        assert {"grafana/dashboards/runs.json", "grafana/provisioning/alerting/rules.json"} <= set(out.split())
        assert said(capsys, "build", "--check") == (0, "", "")

    def test_a_file_that_was_edited_by_hand_or_is_missing(self, root, capsys):
        said(capsys, "build")
        edited, missing = root / "grafana/dashboards/runs.json", root / "grafana/dashboards/gates.json"
        edited.write_text(edited.read_text().replace("Runs", "Races"))
        missing.unlink()
        status, out, err = said(capsys, "build", "--check")
        assert (status, out) == (1, "")
        assert re.findall(r"grafana/(\S+) differs from its source; run `gatewatch grafana build`", err) == [
            "dashboards/gates.json",
            "dashboards/runs.json",
        ]
        assert "Races" in edited.read_text()

    def test_a_checkout_that_cannot_be_written(self, root, capsys):
        (root / "grafana").touch()
        status, out, err = said(capsys, "build")
        assert (status, out) == (1, "")
        assert re.fullmatch(
            rf"gatewatch: {root}/grafana\S* cannot be written: .*; the checkout must be yours .*\n", err
        )

    @pytest.mark.parametrize("command", [["grafana"], ["grafana", "build"], ["grafana", "check"], ["check"]])
    def test_help_says_what_it_does(self, capsys, command):
        with pytest.raises(SystemExit):
            main([*command, "--help"])
        assert re.search(r"\n\n[A-Z][^\n]{30,}", capsys.readouterr().out)

    def test_where_there_is_no_source(self, monkeypatch, capsys):
        monkeypatch.setattr(artifacts, "checkout", lambda: None)
        status, out, err = said(capsys, "build")
        assert (status, out) == (2, "")
        assert re.fullmatch(r"gatewatch: .* of a checkout\n", err)


@pytest.fixture(scope="module")
def store(influxd):
    store = influxd.store()
    seed(store, time.time_ns(), (COLLAPSED,))
    return store


class TestCheck:
    @pytest.fixture(autouse=True)
    def environment(self, monkeypatch, store, influxd):
        values = {"URL": store.url, "ORG": influxd.org, "BUCKET": store.destination["bucket"], "TOKEN": influxd.token}
        for name, value in values.items():
            monkeypatch.setenv(f"INFLUXDB_V2_{name}", value)

    def test_every_query_is_run(self, capsys):
        status, out, err = said(capsys, "check")
        assert (status, err) == (0, "")
        header, *rows = out.splitlines()
        assert header.split() == ["dashboard", "panel", "queries", "rows", "ms", "problem"]
        assert len(rows) > 40

    def test_as_json(self, capsys):
        status, out, _ = said(capsys, "check", "--json")
        rows = json.loads(out)
        assert status == 0
        assert {name for row in rows for name in row} == COLUMNS
        assert sum(row["rows"] for row in rows) > 1000

    def test_a_query_that_fails(self, capsys, monkeypatch, tmp_path):
        source = artifacts.dashboards_folder() / "runs.json"
        (tmp_path / "runs.json").write_text(source.read_text().replace("|> range(", "|> rage("))
        monkeypatch.setattr(artifacts, "dashboards_folder", lambda: tmp_path)
        status, out, err = said(capsys, "check")
        assert status == 1
        assert "undefined identifier rage" in out
        assert re.fullmatch(r"gatewatch: \d+ of \d+ fail\n", err)

    def test_a_bucket_without_data_is_no_error(self, capsys, monkeypatch, influxd):
        monkeypatch.setenv("INFLUXDB_V2_BUCKET", influxd.bucket())
        status, _, err = said(capsys, "check")
        assert (status, err) == (0, "")

    def test_a_token_that_may_only_write(self, capsys, monkeypatch, influxd):
        monkeypatch.setenv("INFLUXDB_V2_TOKEN", influxd.token_for("write"))
        status, out, err = said(capsys, "check")
        assert (status, out, err.count("\n")) == (2, "", 1)

    def test_a_store_that_grafana_cannot_read(self, capsys, tmp_path):
        (tmp_path / "a.db").touch()
        status, out, err = said(capsys, "check", "--store", f"sqlite:///{tmp_path}/a.db")
        assert (status, out) == (2, "")
        assert re.fullmatch(r"gatewatch: Grafana reads an InfluxDB, .*\n", err)

"""How a dashboard is opened: its time range, and what is chosen of its variables."""

from __future__ import annotations

import pytest

from gatewatch.collector.errors import ConfigError
from grafana.emulator.check import choice, panels, time_range
from grafana.emulator.interpolate import ALL

NOW = 1_700_000_000 * 10**9
HOUR = 3600 * 10**9
EVERYTHING = {"includeAll": True, "current": {"value": [ALL]}}


class TestTimeRange:
    @pytest.mark.parametrize(
        ("since", "ago"), [("now-6h", 6), ("now-30d", 720), ("now-5y", 43_800), ("now-2w", 336), ("now-1M", 720)]
    )
    def test_until_now(self, since, ago):
        assert time_range({"time": {"from": since, "to": "now"}}, NOW) == (NOW - ago * HOUR, NOW)

    def test_the_default_is_six_hours(self):
        assert time_range({}, NOW) == (NOW - 6 * HOUR, NOW)

    @pytest.mark.parametrize("end", ["now/d", "2026-01-01", "now-h", ""])
    def test_another_form_raises(self, end):
        with pytest.raises(ConfigError, match=r"dashboard 'Mine': the time '.*' is not of the form now-6h"):
            time_range({"title": "Mine", "time": {"from": end, "to": "now"}}, NOW)


class TestChoice:
    OPTIONS = (("A", "a"), ("B", "b"))

    def test_the_first_option_is_the_default(self):
        assert choice({}, self.OPTIONS).value == "a"
        assert choice({"current": {}}, self.OPTIONS).value == "a"

    def test_all_where_the_dashboard_says_so(self):
        found = choice({**EVERYTHING, "allValue": ".*"}, self.OPTIONS)
        assert found.all
        assert (found.options, found.all_value) == (["a", "b"], ".*")

    def test_a_given_value_is_chosen(self):
        assert choice(EVERYTHING, self.OPTIONS, ["b"]).value == ["b"]
        assert choice({}, self.OPTIONS, "c").value == "c"

    def test_without_options_the_value_is_empty(self):
        assert choice({}, ()).value == ""


def test_the_panels_of_a_collapsed_row_are_panels_too():
    inner = {"type": "stat", "title": "in"}
    board = {"panels": [{"type": "row", "panels": [inner]}, {"type": "text", "title": "out"}]}
    assert [panel["title"] for panel in panels(board)] == ["in", "out"]

"""What Grafana makes of a query: variables in their formats, then macros."""

from __future__ import annotations

import json
import re
from urllib.parse import parse_qs, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewatch.collector.names import name_problem
from grafana.emulator.interpolate import (
    ALL,
    Moment,
    Variable,
    fill_macros,
    fill_variables,
    go_duration,
    interpolate,
    interval_ms,
    references,
)

NAMES = st.text(min_size=1, max_size=30).filter(lambda name: name_problem(name) is None)
SECOND = 10**9
NOON = 1_700_049_600 * SECOND
MOMENT = Moment(NOON - 3600 * SECOND, NOON, "points", "us", 15_000)


def matched(pattern: str, name: str) -> bool:
    return re.fullmatch(pattern, name) is not None


class TestVariables:
    @given(NAMES, NAMES)
    def test_the_regex_of_a_value_matches_it_alone(self, name, other):
        pattern = fill_variables("${run:regex}", {"run": name})
        assert matched(pattern, name)
        assert matched(pattern, other) == (name == other)
        assert "/" not in re.sub(r"\\.", "", pattern)  # it would end the literal
        assert "${" not in pattern

    @given(st.lists(NAMES, min_size=1, max_size=5), NAMES)
    def test_the_regex_of_several_matches_each_of_them(self, names, other):
        pattern = fill_variables("^${run:regex}$", {"run": names})
        assert all(matched(pattern, name) for name in names)
        assert matched(pattern, other) == (other in names)

    @given(st.lists(NAMES, min_size=1, max_size=5))
    def test_all_is_every_option(self, names):
        everything = Variable([ALL], names)
        assert fill_variables("${run:regex}", {"run": everything}) == fill_variables("${run:regex}", {"run": names})

    def test_the_value_for_all_is_inserted_as_it_is(self):
        assert fill_variables("/^${run:regex}$/", {"run": Variable(ALL, ["a", "b"], ".*")}) == "/^.*$/"

    @given(NAMES)
    def test_inserted_text_is_not_expanded_again(self, name):
        assert fill_variables("${a:raw}", {"a": "${b}", "b": name}) == "${b}"

    def test_a_reference_that_is_no_variable_stays(self):
        text = "$x ${y} ${z:regex} [[w]] /^a$/"
        assert fill_variables(text, {}) == text

    @pytest.mark.parametrize("written", ["$run", "${run}", "[[run]]", "${run:raw}", "[[run:raw]]"])
    def test_all_notations_of_a_reference(self, written):
        assert fill_variables(f"<{written}>", {"run": "a/b"}) == "<a/b>"

    @pytest.mark.parametrize(
        ("form", "one", "several"),
        [
            ("raw", "a", "a,b"),
            ("csv", "a", "a,b"),
            ("glob", "a", "{a,b}"),
            ("pipe", "a", "a|b"),
            ("text", "a", "a + b"),
            ("json", '"a"', '["a","b"]'),
            ("singlequote", "'a'", "'a','b'"),
            ("doublequote", '"a"', '"a","b"'),
            ("sqlstring", "'a'", "'a','b'"),
            ("queryparam", "var-x=a", "var-x=a&var-x=b"),
        ],
    )
    def test_formats(self, form, one, several):
        assert fill_variables(f"${{x:{form}}}", {"x": "a"}) == one
        assert fill_variables(f"${{x:{form}}}", {"x": ["a", "b"]}) == several

    @given(NAMES)
    def test_percent_encoding_can_be_decoded(self, name):
        assert unquote(fill_variables("${x:percentencode}", {"x": name})) == name
        assert parse_qs(fill_variables("${x:queryparam}", {"x": name}))["var-x"] == [name]
        assert json.loads(fill_variables("${x:json}", {"x": name})) == name

    def test_an_unknown_format_raises(self):
        with pytest.raises(ValueError, match=r"variable x: there is no format 'regexp'; use one of regex"):
            fill_variables("${x:regexp}", {"x": "a"})

    def test_references(self):
        found = [*references("${a:regex} $b [[c:csv]] ${d.field:text} $ /^x$/")]
        assert found == [("a", "regex"), ("b", None), ("c", "csv"), ("d", "text")]


class TestMacros:
    def test_range_window_and_bucket_are_filled_in(self):
        flux = (
            "from(bucket: v.defaultBucket) |> range(start: v.timeRangeStart, stop: v.timeRangeStop) // v.windowPeriod"
        )
        assert fill_macros(flux, MOMENT) == (
            'from(bucket: "points") |> range(start: 2023-11-15T11:00:00Z, stop: 2023-11-15T12:00:00Z) // 15s'
        )
        assert fill_macros("v.bucket v.organization", MOMENT) == '"points" "us"'

    def test_what_is_not_a_macro_stays(self):
        assert fill_macros("r.run r.bucket_ v.other 1.5", MOMENT) == 'r.run "points"_ v.other 1.5'

    def test_fractions_of_a_second(self):
        assert "11:00:00.5Z" in fill_macros("v.timeRangeStart", Moment(MOMENT.start + SECOND // 2, NOON, "b"))

    @given(NAMES)
    def test_a_value_is_not_taken_for_a_macro(self, name):
        """The dot of a name is escaped when Grafana's server looks for macros."""
        hostile = f"v.bucket{name}v.timeRangeStart"
        filled = interpolate("/^${run:regex}$/", {"run": hostile}, MOMENT)
        assert matched(filled[2:-2], hostile)

    @pytest.mark.parametrize(
        ("milliseconds", "shown"),
        [(0, "0s"), (1, "1ms"), (1500, "1.5s"), (15_000, "15s"), (60_000, "1m0s"), (3_600_000, "1h0m0s")],
    )
    def test_durations(self, milliseconds, shown):
        assert go_duration(milliseconds) == shown

    @pytest.mark.parametrize(
        ("hours", "points", "expected"),
        [(1, 1000, 5_000), (6, 600, 30_000), (24, 250, 300_000), (24 * 365, 600, 43_200_000), (1 / 3600, 1000, 1)],
    )
    def test_the_window_is_a_round_number(self, hours, points, expected):
        assert interval_ms(0, int(hours * 3600e9), points) == expected

    def test_a_panel_has_a_least_window(self):
        assert interval_ms(0, 3600 * SECOND, 1000, least_ms=60_000) == 60_000

"""What the set-up of InfluxDB reads from the environment, and what its tokens may do."""

from __future__ import annotations

import pytest

from gatewatch.collector.errors import ConfigError
from gatewatch.jobs.stack.desired_state import desired_state
from gatewatch.jobs.stack.server import token_permissions

ENOUGH = {"INFLUXDB_V2_URL": "http://influxdb:8086", "GATEWATCH_INFLUXDB_PASSWORD": "correct horse"}


class TestWanted:
    def test_what_is_not_said_has_a_default(self):
        found = desired_state(ENOUGH)
        assert (found.user, found.org, found.bucket, found.history) == (
            "gatewatch",
            "gatewatch",
            "gatewatch",
            "gatewatch_hourly",
        )
        assert found.retentions == {"gatewatch": 0, "gatewatch_hourly": 0}

    def test_an_empty_variable_is_one_that_is_not_set(self):
        blank = dict.fromkeys(
            ["GATEWATCH_INFLUXDB_USER", "INFLUXDB_V2_ORG", "INFLUXDB_V2_BUCKET", "GATEWATCH_RETENTION"], ""
        )
        assert desired_state(ENOUGH | blank) == desired_state(ENOUGH)

    def test_the_password_is_taken_as_it_is_and_not_shown(self):
        found = desired_state(ENOUGH | {"GATEWATCH_INFLUXDB_PASSWORD": " correct horse "})
        assert found.password == " correct horse "
        assert "horse" not in repr(found)

    @pytest.mark.parametrize("password", ["${HOME}", "100%", "50%(off)", "$$a$", ""])
    def test_any_other_password_goes_to_grafana(self, password):
        assert desired_state(ENOUGH | {"GATEWATCH_SMTP_PASSWORD": password}) == desired_state(ENOUGH)

    @pytest.mark.parametrize(
        ("text", "seconds"),
        [("72h", 259_200), ("90d", 7_776_000), ("26w", 15_724_800), ("2y", 63_072_000), ("0", 0), (" 1h ", 3_600)],
    )
    def test_how_long_points_are_kept(self, text, seconds):
        assert desired_state(ENOUGH | {"GATEWATCH_RETENTION": text}).retention_s == seconds
        assert desired_state(ENOUGH | {"GATEWATCH_HISTORY_RETENTION": text}).history_retention_s == seconds

    @pytest.mark.parametrize(
        ("variable", "value", "said"),
        [
            ("INFLUXDB_V2_URL", "", "is not set"),
            ("INFLUXDB_V2_URL", "influxdb:8086", "write it as http://host:8086"),
            ("INFLUXDB_V2_URL", "http://[", "write it as http://host:8086"),
            ("INFLUXDB_V2_URL", "http://me:secret@host", "write it as http://host:8086"),
            ("GATEWATCH_INFLUXDB_PASSWORD", "", "is not set"),
            ("GATEWATCH_INFLUXDB_PASSWORD", "short", "must be 8 to 72 bytes long"),
            ("GATEWATCH_INFLUXDB_PASSWORD", "ü" * 37, "must be 8 to 72 bytes long"),
            ("GATEWATCH_INFLUXDB_PASSWORD", "with\nnewline", "has a character"),
            ("GATEWATCH_INFLUXDB_USER", "a\tb", "has a character"),
            ("GATEWATCH_GRAFANA_PASSWORD", "secret%(user)s", "Grafana would replace"),
            ("GATEWATCH_SMTP_PASSWORD", "secret$__file{/etc/passwd}", "Grafana would replace"),
            ("INFLUXDB_V2_BUCKET", "_monitoring", "start with an underscore"),
            ("INFLUXDB_V2_BUCKET", 'a"b', "without a quote"),
            ("GATEWATCH_RETENTION", "30m", "such as 72h, 90d, 26w or 2y"),
            ("GATEWATCH_RETENTION", "-1d", "such as 72h"),
            ("GATEWATCH_RETENTION", "0d", "such as 72h"),
            ("GATEWATCH_HISTORY_RETENTION", "for ever", "or 0 for ever"),
            ("GATEWATCH_HISTORY_RETENTION", "101y", "or 0 for ever"),
        ],
    )
    def test_what_cannot_be_is_named_with_its_remedy(self, variable, value, said):
        with pytest.raises(ConfigError, match=said) as caught:
            desired_state(ENOUGH | {variable: value})
        assert variable in str(caught.value)
        assert "secret" not in str(caught.value)


class TestTokens:
    def test_no_token_may_more_than_it_needs(self):
        assert token_permissions("b1", "b2") == {
            "collector": {("read", "b1"), ("write", "b1")},
            "jobs": {("read", "b1"), ("write", "b1")},
            "grafana": {("read", "b1"), ("read", "b2")},
        }

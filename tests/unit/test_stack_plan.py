"""What the set-up of InfluxDB wants and plans: pure functions, beside what a server does with it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewatch.collector.errors import ConfigError
from gatewatch.jobs.stack.desired_state import desired_state
from gatewatch.jobs.stack.plan import (
    Bucket,
    Grant,
    KeepFor,
    MakeBucket,
    MakeTask,
    Task,
    bucket_steps,
    task_steps,
    token_permissions,
    token_steps,
)

ENOUGH = {"INFLUXDB_V2_URL": "http://influxdb:8086", "GATEWATCH_INFLUXDB_PASSWORD": "correct horse"}
PERMISSIONS = token_permissions("b1", "b2")

ids = st.text("0123456789abcdef", min_size=16, max_size=16)
permissions = st.frozensets(st.tuples(st.sampled_from(["read", "write"]), st.sampled_from(["b1", "b2", "every"])))
grants = st.lists(
    st.builds(Grant, ids, permissions | st.sampled_from(list(PERMISSIONS.values())), st.booleans()), max_size=3
)


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


class TestPlan:
    def test_a_bucket_is_made_changed_or_left(self):
        there = {"left": Bucket("1", 60), "changed": Bucket("2", 60)}
        assert bucket_steps({"left": 60, "changed": 0, "new": 5}, there) == [
            KeepFor("changed", "2", 60, 0),
            MakeBucket("new", 5),
        ]

    def test_a_task_is_made_changed_or_left(self):
        assert task_steps("flux", []) == [MakeTask("flux")]
        assert task_steps("flux", [Task("1", "other")]) == [MakeTask("flux", "1")]
        assert task_steps("flux\n", [Task("1", "flux")]) == []

    @given(
        st.dictionaries(st.sampled_from([*PERMISSIONS, "another"]), grants),
        st.frozensets(st.sampled_from([*PERMISSIONS])),
    )
    def test_tokens_settle_in_one_run(self, there, accepted):
        steps = token_steps(PERMISSIONS, there, accepted)
        after = {**there}
        for step in steps:
            assert set(step.stale) == {grant.id for grant in there.get(step.name, ())}
            after[step.name] = [Grant("new", step.permissions, True)]
        assert token_steps(PERMISSIONS, after, frozenset(PERMISSIONS)) == []
        made = {step.name for step in steps}
        for name in set(PERMISSIONS) - made:  # one that is left alone is whole, and the only one of its purpose
            assert name in accepted
            assert there[name] == [Grant(there[name][0].id, PERMISSIONS[name], True)]

    def test_no_token_may_more_than_it_needs(self):
        assert {
            "collector": {("write", "b1")},
            "jobs": {("read", "b1"), ("write", "b1")},
            "grafana": {("read", "b1"), ("read", "b2")},
        } == PERMISSIONS

"""Names, paths and points: what the schema lets through."""

from __future__ import annotations

import math
from pathlib import PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gatewatch.collector.cells import gate_scale
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.names import (
    MAX_USER_TAGS,
    RESERVED_NAMES,
    backslash_problem,
    check_phase,
    check_run,
    check_tags,
    clean_name,
    name_problem,
    new_name_problem,
    path_name,
)
from gatewatch.collector.schema import FieldValue, Point, hourly_fields, point_problem
from tests.declared_fields import undeclared

text = st.text() | st.text(st.characters())


@given(text)
@example("")
@example("   ")
@example("\\\\")
@example("time")
@example('a\\"b')
@example("é" * 400)
@example("\\" * 600)
@example("\ud800")
@example("\n" * 300)
def test_a_cleaned_name_is_a_name(name: str) -> None:
    assert name_problem(clean_name(name)) is None
    assert clean_name(name) not in RESERVED_NAMES


@given(text)
def test_a_name_without_problem_stays_as_it_is(name: str) -> None:
    if new_name_problem(name) is None and backslash_problem(name) is None and name not in RESERVED_NAMES:
        assert clean_name(name) == name


def test_long_names_that_differ_stay_apart() -> None:
    assert clean_name("a" * 600) != clean_name("a" * 601)


@given(st.text())
@example("")
@example("..")
@example("../../etc/passwd")
@example("CON/../x")
@example("/absolute")
@example("a\\b")
def test_a_path_name_is_one_safe_component(name: str) -> None:
    component = path_name(name)
    assert PurePosixPath(component).name == component
    assert component not in (".", "..", "")
    assert len(component) <= 100
    assert set(component) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")


@given(st.sets(st.text(max_size=6), max_size=30))
def test_different_names_are_different_paths(names: set[str]) -> None:
    assert len({path_name(name) for name in names}) == len(names)


def test_a_plain_name_is_its_own_path() -> None:
    assert path_name("goog-lstm_1.2") == "goog-lstm_1.2"


def test_a_runs_folder_is_never_named_like_a_file_of_gates() -> None:
    assert not path_name("gate_epoch_0.npz").endswith(".npz")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (3, "must be text, not int"),
        ("", "must not be empty"),
        (" ", "must not be empty"),
        ("a\nb", "control character"),
        ("a\u2028b", "control character"),
        ("a\\", "backslash"),
        ("é" * 257, "512 bytes"),
    ],
)
def test_a_run_that_is_no_name_is_refused_with_the_reason(name: object, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        check_run(name)


@pytest.mark.parametrize(
    "name",
    ["a\x1b[31m", "a\rb", "a\x9b", "a\u202eb", "\u2066a", "a\u200b", "\ufeffa", "a\u2028b", "a\ud800", "x" * 65536],
)
def test_a_new_name_holds_nothing_that_nobody_can_see(name):
    with pytest.raises(ConfigError, match=r"run=.* a run's name must") as caught:
        check_run(name)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500
    for tags in ({"symbol": name}, {name: "GOOG"}):
        with pytest.raises(ConfigError, match=r"tags: .* must"):
            check_tags(tags)
    assert len(clean_name(name).encode()) <= 512
    assert clean_name(name).isprintable()


@pytest.mark.parametrize(
    "name", ["👩\u200d👧", "می\u200cخواهم", "a\u00a0b", "e\u0301", "../..", "<script>", "--help", "a,b=c"]
)
def test_a_new_name_may_be_written_in_any_script(name):
    assert check_run(name) == clean_name(name) == check_tags({"symbol": name})["symbol"] == name


class _Odd:
    def __str__(self):
        raise ValueError


def test_a_metric_may_have_a_name_of_any_class():
    assert clean_name(_Odd()) == "a _Odd that cannot be shown"
    assert clean_name(("a", 1)) == "('a', 1)"


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({f"t{i}": "x" for i in range(MAX_USER_TAGS + 1)}, "at most 8"),
        ({"run": "x"}, "'run' is taken"),
        ({"time": "x"}, "'time' is taken"),
        ({"_hidden": "x"}, "'_hidden' is taken"),
        ({"a\tb": "x"}, "control character"),
        ({"symbol": ""}, "must not be empty"),
        ({"symbol": 3}, "must be text"),
    ],
)
def test_tags_that_cannot_be_are_refused_by_name(tags: dict[str, str], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        check_tags(tags)


@pytest.mark.parametrize(
    "name",
    ["mean", "loss", "step", "epoch", "drift", "hist_00", "u000", "why_entropy", "anomaly_score", "event", "x" * 512],
)
def test_a_users_tag_may_be_named_like_any_field(name: str) -> None:
    assert check_tags({name: "x"}) == {name: "x"}


@pytest.mark.parametrize(
    "name",
    [
        "run",
        "phase",
        "layer",
        "gate",
        "param",
        "detector",
        "job",
        "rule",
        "statistic",
        "look",
        "_field",
        "_value",
        "_measurement",
    ],
)
def test_the_points_own_tags_are_taken(name: str) -> None:
    with pytest.raises(ConfigError, match=f"'{name}' is taken"):
        check_tags({name: "x"})


def test_good_tags_run_and_phase_pass() -> None:
    assert check_tags({"symbol": "GOOG"}) == {"symbol": "GOOG"}
    assert check_tags(None) == {}
    assert check_run('run 1; it\'s "fine" ../..') == 'run 1; it\'s "fine" ../..'
    assert check_phase("live") == "live"


def test_an_unknown_phase_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="train, validation, backtest, live"):
        check_phase("test")


def test_an_unknown_gate_has_the_scale_of_tanh() -> None:
    assert gate_scale("mine") == gate_scale("candidate")


@pytest.mark.parametrize(
    ("point", "reason"),
    [
        (Point("", {}, {"f": 1}, 0), "must not be empty"),
        (Point("#m", {}, {"f": 1}, 0), "must not start with #"),
        (Point("m", {"a": "b\n"}, {"f": 1}, 0), "control character"),
        (Point("m", {"_field": "b"}, {"f": 1}, 0), "keeps for itself"),
        (Point("m", {}, {}, 0), "at least one field"),
        (Point("m", {}, {"time": 1}, 0), "keeps for itself"),
        (Point("m", {}, {"a\\": 1}, 0), "backslash"),
        (Point("m", {}, {"f": math.inf}, 0), "is inf"),
        (Point("m", {}, {"f": 2**63}, 0), "beyond 64 bits"),
        (Point("m", {}, {"f": "\udfff"}, 0), "lone surrogate"),
        (Point("m", {}, {"f": "é" * 2**19 + "!"}, 0), "1048577 bytes"),
        (Point("m", {}, {"f": 1}, 2**63 - 1), "beyond nanoseconds"),
    ],
)
def test_a_point_that_no_store_can_hold_is_named_with_the_reason(point: Point, reason: str) -> None:
    problem = point_problem(point)
    assert problem is not None
    assert reason in problem
    assert "\n" not in problem


@pytest.mark.parametrize("value", [[1], None, b"x", 1 + 2j])
def test_a_field_of_another_type_is_refused(value: FieldValue) -> None:
    assert "use float, int, bool or str" in (point_problem(Point("m", {}, {"f": value}, 0)) or "")


def test_a_point_with_every_type_passes() -> None:
    assert point_problem(Point("m", {"a": "b", "none": ""}, {"f": 1.0, "i": 1, "b": True, "s": ""}, 0)) is None


@pytest.mark.parametrize(
    ("measurement", "field", "value", "problem"),
    [
        ("gate_stats", "kurtosis", 1.0, "no row of gate_stats declares the field 'kurtosis'"),
        ("gate_stats", "mean", 1, "gate_stats.mean is declared as float, not as int"),
        ("gate_stats", "dead_units", True, "gate_stats.dead_units is declared as int, not as bool"),
        ("gate_units", "u64", 1.0, "no row of gate_units declares the field 'u64'"),
        ("train_metrics", "nan_count", 1.0, "train_metrics.nan_count is declared as int, not as float"),
        ("gate_statistics", "mean", 1.0, "no row declares the measurement 'gate_statistics'"),
    ],
)
def test_a_field_that_no_row_declares_is_named(measurement: str, field: str, value: FieldValue, problem: str) -> None:
    assert undeclared(Point(measurement, {}, {field: value}, 0)) == problem


@pytest.mark.parametrize(
    ("measurement", "field", "value"),
    [
        ("gate_stats", "hist_19", 0.5),
        ("gate_units", "u063", 0.5),
        ("gate_time", "t000", 0.5),
        ("gate_scores", "why_gradient_norm", 0.0),
        ("train_metrics", "whatever the framework\nlogs", 0.5),
        ("alert_events", "delivered", True),
    ],
)
def test_families_of_fields_are_declared_by_a_pattern(measurement: str, field: str, value: FieldValue) -> None:
    assert undeclared(Point(measurement, {}, {field: value}, 0)) is None


def test_an_hour_keeps_one_value_of_a_field_whatever_measurement_it_is_in() -> None:
    kept = [*hourly_fields("mean"), *hourly_fields("max"), *hourly_fields("last")]
    assert len(kept) == len(set(kept))


def test_an_hour_keeps_the_worst_score_and_the_last_step() -> None:
    counted = {"nan_count", "inf_count", "dead_units", "constant_features", "starts", "starts_not_reset", "resets"}
    counted |= {"sequences_begun", "rounded_share"}
    assert set(hourly_fields("max")) == {"anomaly_score", "anomalous", "logprob_difference", *counted}
    assert set(hourly_fields("last")) == {"step", "epoch", "step_count"}

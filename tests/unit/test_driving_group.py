"""Which symbol or environment drives a change of the feed is said, and only where one stands out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from gatewatch.jobs.findings.finding import Finding
from gatewatch.jobs.findings.groups import driver, with_drivers
from gatewatch.jobs.findings.series import Key

START = np.datetime64("2026-01-01T00:00:00", "ns")
CHANGE = 20


def at(capture):
    return START + np.timedelta64(capture, "s")


def fed(**after):
    """Thirty captures of each group, whose distance is 0.02 give or take 0.01, and from the 20th on this more."""
    rows = [
        {
            "time": pd.Timestamp(at(capture), tz="UTC"),
            "phase": "train",
            "group": group,
            "distance": 0.02 + 0.01 * (-1) ** capture + (rise if capture >= CHANGE else 0),
        }
        for capture in range(30)
        for group, rise in after.items()
    ]
    return pd.DataFrame(rows)


def notice(layer="_data", source="data"):
    key = Key("train", layer, "feed")
    return Finding(sentence="The feed changed.", level="notice", source=source, key=key, time=at(CHANGE))


def test_the_group_that_moved_is_named_with_its_distance_and_those_of_the_others():
    groups = fed(GOOG=0.28, AAPL=0.0, MSFT=0.01)
    (said,) = with_drivers([notice()], groups)
    assert said.sentence == "The feed changed; mostly GOOG: its distance is 0.31, the others' 0.03 to 0.04."
    assert said.evidence["group"] == "GOOG"
    assert said.evidence["group_distance"] == pytest.approx(0.31)


@pytest.mark.parametrize(
    "after",
    [{"a": 0.3, "b": 0.3}, {"a": 0.3, "b": 0.2, "c": 0.0}, {"a": 0.0, "b": 0.0}, {"a": 0.3}, {"a": 0.09, "b": 0.055}],
    ids=["all-moved", "two-moved", "none-moved", "only-one-group", "another-rose-by-more-than-a-third"],
)
def test_where_none_stands_out_none_is_named(after):
    assert driver(fed(**after), "train", at(CHANGE)) is None


def test_a_group_that_is_always_far_drives_nothing():
    groups = fed(EURUSD=0.0, GOOG=0.28, AAPL=0.0)
    groups.loc[groups["group"] == "EURUSD", "distance"] += 0.6
    assert driver(groups, "train", at(CHANGE)).group == "GOOG"


def test_without_enough_captures_before_none_is_named():
    groups = fed(GOOG=0.28, AAPL=0.0)
    assert driver(groups[groups["time"] >= pd.Timestamp(at(13), tz="UTC")], "train", at(CHANGE)) is None


def test_findings_of_the_network_and_runs_without_groups_stay_as_they_are():
    of_layer, of_feed = notice("lstm", "network"), notice()
    assert with_drivers([of_layer], fed(GOOG=0.28, AAPL=0.0)) == [of_layer]
    assert with_drivers([of_feed], pd.DataFrame()) == [of_feed]


def test_what_a_hostile_label_holds_is_shown_as_escapes_and_cut():
    (said,) = with_drivers([notice()], fed(**{"\x1b[31m" + 99 * "x": 0.28, "b": 0.0}))
    assert "\x1b" not in said.sentence
    assert len(said.sentence) < 160

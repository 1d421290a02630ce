"""What the report says of a run in words."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from jobs.report.series import by_series, table
from jobs.report.verdict import causes, onset, verdict


def scores(**gates):
    rows = [
        {"phase": "train", "layer": "lstm", "gate": gate, "anomaly_score": value, "step": 10 * i}
        for gate, values in gates.items()
        for i, value in enumerate(values)
    ]
    return by_series(pd.DataFrame(rows))


def said(**gates):
    found = scores(**gates)
    return " ".join(verdict(table({}, {}, found), {}, found, pd.DataFrame()))


def test_a_jump_is_found_where_it_is():
    assert onset(np.array([0.7] * 20 + [1.8] * 10)) == 20


def test_a_slow_rise_begins_where_it_first_passed_one():
    assert onset(np.concatenate([np.full(20, 0.7), np.linspace(0.75, 3, 40)])) == 25


@pytest.mark.parametrize(
    "values", [[0.7] * 30, [1.8] * 10 + [0.7] * 20, [0.7] * 14 + [9.0] + [0.7] * 15, [0.5] * 15 + [0.9] * 15, [3.0] * 5]
)
def test_calm_falling_lone_low_or_short_series_have_no_onset(values):
    assert onset(np.array(values)) is None


def test_a_few_lone_spikes_do_not_stand_out():
    assert said(forget=[0.7] * 50 + [1.2] + [0.7] * 49).startswith("No gate stands out: at most 1 %")


def test_scores_above_one_everywhere_are_called_drift():
    everywhere = said(input=[0.7] * 9 + [1.5] * 30, forget=[0.7] * 9 + [1.6] * 30)
    assert "ordinary training" in everywhere
    assert "ordinary training" not in said(input=[0.7] * 39, output=[0.7] * 39, forget=[0.7] * 9 + [1.6] * 30)


def test_the_largest_causes_over_the_captures_above_one_come_first():
    frame = pd.DataFrame(
        {
            "anomaly_score": [0.5, 2.0, 2.0],
            "why_entropy": [90, 1, 1],
            "why_mean_activation": [0, -4, -3],
            "why_x": [0, 0, 0],
        }
    )
    assert causes(frame) == ["mean activation fell", "entropy rose"]

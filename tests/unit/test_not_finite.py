"""Values that are not finite are told once, where they began: next to the inputs, or before the gates."""

from __future__ import annotations

import pandas as pd

from gatewatch.jobs.findings.not_finite import not_finite
from gatewatch.jobs.findings.series import broken_values, by_series

BEGIN = pd.Timestamp("2026-01-01", tz="UTC")


def points(part="gate", **broken_at):
    """Six captures of each series, named `layer__gate`, one every 10 steps; from which capture on it is broken."""
    return pd.DataFrame(
        [
            {
                "time": BEGIN + pd.Timedelta(seconds=k),
                "step": 10 * k,
                "phase": "train",
                "layer": name.split("__")[0],
                part: name.split("__")[1],
                "nan_count": 4 * (k >= first),
                "inf_count": 0,
            }
            for name, first in broken_at.items()
            for k in range(6)
        ]
    )


def told(gates, updates=None, metrics=None, layers=("trend", "carry")):
    stats = by_series(points(**gates), layers=layers)
    params = by_series(points("param", **(updates or {})), "param", layers)
    return not_finite(stats, pd.DataFrame() if metrics is None else metrics, params, layers=layers)


def test_of_gates_that_break_at_once_the_layer_next_to_the_inputs_comes_first():
    (one,) = told({"carry__forget": 4, "carry__input": 4, "trend__forget": 4, "trend__input": 4})
    assert one.sentence == (
        "Values that are not finite appeared in 4 gates, first at step 40 in all 4 gates of 2 layers at once: begin "
        "with trend, of these next to the inputs."
    )
    assert one.key.layer == "trend"


def test_where_the_order_of_layers_is_not_known_nothing_is_said_of_it():
    (one,) = told({"b__forget": 4, "a__forget": 4}, layers=())
    assert one.sentence.endswith("in all 2 gates of 2 layers at once: begin with a.")


def test_the_one_that_broke_earlier_comes_first_wherever_it_lies():
    (one,) = told({"carry__forget": 3, "carry__input": 4, "trend__forget": 4, "trend__input": 9})
    assert one.sentence.endswith("appeared in 3 gates, first at step 30 in the forget gate of carry: begin there.")


def test_of_a_layer_that_breaks_in_part_it_is_said_how_many():
    (one,) = told({"carry__forget": 9, "trend__forget": 4, "trend__input": 4, "trend__output": 9})
    assert one.sentence.endswith("first at step 40 in 2 of 3 gates of trend at once: begin there.")


def test_parameters_are_told_where_they_broke_before_the_gates():
    gates, updates = {"trend__forget": 4}, {"carry__kernel": 3, "carry__bias": 4}
    of_gates, of_updates = told(gates, updates)
    assert of_updates.sentence == (
        "Learning went wrong in carry: Values that are not finite in the kernel and bias, first at step 30."
    )
    assert of_updates.time < of_gates.time
    assert len(told(gates, {"carry__kernel": 4})) == 1


def logged(**broken_at):
    """Six points of metrics, and from which on each is not finite."""
    rows = [
        {"time": BEGIN + pd.Timedelta(seconds=k), "step": 10 * k, "phase": "train", "inf_count": 0} for k in range(6)
    ]
    for k, row in enumerate(rows):
        row |= {name: 1.0 for name, first in broken_at.items() if k < first}
        row["nan_count"] = sum(k >= first for first in broken_at.values())
    return pd.DataFrame(rows)


def test_a_loss_is_told_where_it_broke_before_the_gates():
    metrics = logged(loss=2, accuracy=9)
    (of_loss,) = told({"trend__forget": 9}, metrics=metrics)
    assert of_loss.sentence == "NaN or infinite values in the metric loss, first at step 20."
    assert of_loss.level == "alarm"
    assert len(told({"trend__forget": 2}, metrics=metrics)) == 1
    assert len(told({"trend__forget": 3}, metrics=metrics)) == 2


def test_any_other_metric_may_be_meant_to_be_nan():
    (notice,) = told({"trend__forget": 9}, metrics=logged(loss=9, sharpe=3))
    assert (notice.level, notice.what) == ("notice", "NaN or infinite values in the metric sharpe")


def test_of_metrics_that_are_logged_at_times_the_others_are_not_taken_for_nan():
    metrics = logged(loss=3)
    metrics["val_loss"] = [1.0, None, 1.0, None, None, None]
    assert broken_values(metrics, "loss").tolist() == [False] * 3 + [True] * 3
    (of_loss,) = told({"trend__forget": 9}, metrics=metrics.assign(val_loss=[None, 1.0, None, None, 1.0, None]))
    assert of_loss.what.endswith("the metric loss")


def test_a_run_without_such_values_has_no_sentence():
    assert told({"trend__forget": 9}) == []

"""What the report says of a run in words."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from gatewatch.jobs.findings.explanations import in_words, phrase
from gatewatch.jobs.findings.finding import Finding, in_order
from gatewatch.jobs.findings.findings import run_findings
from gatewatch.jobs.findings.onset import onset
from gatewatch.jobs.findings.outliers import causes, count_series
from gatewatch.jobs.findings.overfit import overfit
from gatewatch.jobs.findings.series import Key, alarm_begins, by_series, table


def scores(**gates):
    begin = pd.Timestamp("2026-01-01", tz="UTC")
    rows = [
        {
            "time": begin + pd.Timedelta(minutes=i),
            "phase": "train",
            "layer": "lstm",
            "gate": gate,
            "anomaly_score": value,
            "step": 10 * i,
        }
        for gate, values in gates.items()
        for i, value in enumerate(values)
    ]
    return by_series(pd.DataFrame(rows))


def found_in(**gates):
    by_gate = scores(**gates)
    return run_findings({}, by_gate, pd.DataFrame())


def findings(**gates):
    return " ".join(each.sentence for each in found_in(**gates))


def test_a_jump_is_found_where_it_is():
    assert onset(np.array([0.7] * 20 + [1.8] * 10)) == 20


def test_a_slow_rise_begins_where_it_first_passed_one():
    assert onset(np.concatenate([np.full(20, 0.7), np.linspace(0.75, 3, 40)])) == 25


def test_a_jump_begins_at_its_foot_and_not_where_an_earlier_plateau_passed_one():
    scores = [0.5] * 42 + [3.0] * 31 + [6.0, 15.0, 22.0] + [27.0] * 70
    assert onset(np.array(scores)) == 74  # the first that is nearer to 27 than to 3, as ratios are
    found = findings(forget=scores)
    assert "Its scores rose at step 740, from a median of 3 to 27; they had been above 1 since step 420" in found


def test_a_large_jump_stands_out_before_a_long_stay_just_above_one():
    found = findings(input=[0.7] * 20 + [1.4] * 100, forget=[0.7] * 90 + [27.0] * 30)
    assert found.startswith("What stands out is the forget gate of lstm")


@pytest.mark.parametrize(
    "values", [[0.7] * 30, [1.8] * 10 + [0.7] * 20, [0.7] * 14 + [9.0] + [0.7] * 15, [0.5] * 15 + [0.9] * 15, [3.0] * 5]
)
def test_calm_falling_lone_low_or_short_series_have_no_onset(values):
    assert onset(np.array(values)) is None


@pytest.mark.parametrize("factor", [1.05, 1.2, 1.5])
def test_a_slow_rise_to_any_height_is_no_jump(factor):
    rise = 0.5 * factor ** np.arange(40)
    assert onset(np.concatenate([np.full(20, 0.5), rise])) == 20 + int(np.argmax(rise > 1))


def test_a_few_lone_spikes_do_not_stand_out():
    assert findings(forget=[0.7] * 50 + [1.2] + [0.7] * 49).startswith("Nothing stands out: at most 1 %")


@pytest.mark.parametrize(
    ("values", "begin"),
    [
        ([], None),
        ([2.0], None),
        ([0.5, 2.0, 1.0, 1.0, 1.0, 1.0, 2.0], None),  # of five in a row only one
        ([0.5, 2.0, 1.0, 1.0, 1.0, 2.0], 1),
        ([2.0, 0.5, 0.5, 0.5, 0.5, 0.5, 2.0, 2.0], 6),
    ],
)
def test_scores_alarm_where_two_of_five_in_a_row_are_above_one(values, begin):
    assert alarm_begins(np.array(values)) == begin


def test_a_long_run_whose_scores_alarm_for_a_few_captures_is_not_called_calm():
    (alarm,) = found_in(forget=[0.7] * 900 + [9.0] * 6 + [0.7] * 94, input=[0.7] * 1000)
    assert alarm.level == "alarm"
    assert alarm.sentence.startswith("What stands out is the forget gate of lstm: <1 % of its scored captures")


def test_an_alarm_says_for_programs_what_where_and_since_when():
    (alarm,) = found_in(input=[0.7] * 40, forget=[0.7] * 20 + [2.0] * 20)
    assert (alarm.level, alarm.key, alarm.step) == ("alarm", Key("train", "lstm", "forget"), 200)
    assert alarm.time == np.datetime64("2026-01-01T00:20")
    assert alarm.evidence == {"phase": "train", "share_above_1": 0.5, "largest_score": 2.0, "series": 1}


def test_what_is_wrong_comes_first_and_what_is_as_it_should_be_last():
    levels = ["fact", "notice", "undecided", "alarm", "notice"]
    found = in_order(Finding(sentence=str(i), level=level) for i, level in enumerate(levels))
    assert [each.sentence for each in found] == ["3", "2", "1", "4", "0"]


def test_scores_above_one_everywhere_send_the_reader_to_the_jump():
    everywhere = findings(input=[0.7] * 9 + [1.5] * 30, forget=[0.7] * 9 + [1.6] * 30)
    assert "look for the jump" in everywhere
    assert "look for the jump" not in findings(input=[0.7] * 39, output=[0.7] * 39, forget=[0.7] * 9 + [1.6] * 30)


def test_the_largest_causes_over_the_captures_above_one_come_first():
    frame = pd.DataFrame(
        {
            "anomaly_score": [0.5, 2.0, 2.0],
            "why_entropy": [90, 1, 1],
            "why_mean_activation": [0, -4, -3],
            "why_x": [0, 0, 0],
            "why_frozen": [0, 2, 2],
            "why_something_new": [0, -1, -2],
        }
    )
    assert causes(frame, 9) == [
        "the weights stand still while the run goes on",
        "the gate closes further than its trend",
        "something new fell",
        "its activations spread over more of the scale",
    ]


def losses(train, validation):
    rows = [{"phase": "train", "loss": value, "step": i} for i, value in enumerate(train)]
    rows += [{"phase": "train", "val_loss": value, "step": i} for i, value in enumerate(validation)]
    return pd.DataFrame(rows)


FALLING = np.linspace(1.0, 0.1, 40)
RISING_AGAIN = np.concatenate([np.linspace(1.0, 0.4, 10), np.linspace(0.42, 0.9, 15)])


@pytest.mark.parametrize("shift", [0.0, -0.5, -1.0, -100.0, 100.0])
@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e4])
def test_a_validation_loss_that_rises_for_good_is_overfitting_whatever_its_sign_and_size(shift, scale):
    (found,) = overfit(losses(scale * (FALLING + shift), scale * (RISING_AGAIN + shift)))
    assert "the network overfits" in found.sentence
    assert found.level == "notice"


@pytest.mark.parametrize("shift", [0.0, -1.0])
@pytest.mark.parametrize(
    ("train", "validation"),
    [
        (FALLING, np.linspace(1.0, 0.3, 20)),  # both fall
        (FALLING, np.linspace(1.0, 0.3, 20) + 0.02 * np.tile([1, -1], 10)),  # noise
        (FALLING, np.append(np.linspace(1.0, 0.3, 20), 0.9)),  # one bad epoch, the last
        (FALLING[::-1], RISING_AGAIN),  # training rises too: it diverges
        (FALLING, [0.5, 0.4, 0.9]),  # too few
        (FALLING, []),
    ],
)
def test_falling_noisy_or_few_validation_losses_are_no_overfitting(train, validation, shift):
    assert overfit(losses(np.asarray(train) + shift, np.asarray(validation) + shift)) == []


def test_the_loss_of_the_phase_validation_is_a_validation_loss():
    rows = [{"phase": "train", "loss": value} for value in FALLING]
    rows += [{"phase": "validation", "loss": value} for value in RISING_AGAIN]
    assert "overfits" in overfit(pd.DataFrame(rows))[0].sentence


def test_a_row_has_the_source_of_its_largest_score():
    values = [0.5, 1.2, 3.0, 0.6]
    frame = pd.DataFrame(
        {"phase": "train", "layer": "lstm", "gate": "forget", "anomaly_score": values, "step": range(4)}
    )

    def source(**columns):
        (row,) = table({}, {}, by_series(frame.assign(**columns)))
        return row.source

    assert source(source=["network", "network", "optimizer", "network"]) == "optimizer"
    assert source(source=["network", "network", None, "network"]) == ""
    assert source() == ""
    assert source(source="network", anomaly_score=[0.5, 1.0, 0.7, float("nan")]) == ""
    assert source(source=["network", "data", "network", "state"], anomaly_score=[float("nan"), 2.0, 1.5, 0.1]) == "data"


@pytest.mark.parametrize("gate", ["cell", "hidden", "candidate"])
def test_a_state_neither_opens_nor_shuts(gate):
    words = [phrase(name, by, gate) for name in ("mean_activation", "saturation", "saturated") for by in (1.0, -1.0)]
    assert not any(word in " ".join(words) for word in ("open", "shut", "close"))
    assert phrase("mean_activation", -3.0, gate) == "its mean falls below its trend"
    assert phrase("mean_activation", -3.0, "forget") == "the gate closes further than its trend"
    assert in_words({"saturated": 2.0}, gate) == [
        "at once a large part of it lies at the ends of its range (saturated)"
    ]


def test_what_is_scored_is_counted_by_what_it_is():
    keys = [Key(phase, "lstm", gate) for phase in ("train", "live") for gate in ("input", "forget", "kernel")]
    assert count_series([*keys, Key("train", "_model", "loss")]) == "2 gates, 1 parameter and 1 more series"
    assert count_series(keys[:1]) == "1 gate"

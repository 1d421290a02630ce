"""Starts of episodes and the states that sequences begin with, in numbers that can be checked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.recurrent_state import Begin, read_starts, state_points
from gatewatch.collector.state_recorder import StateRecorder

ZERO, KEPT, OTHER = [0.0, 0.0], [3.0, 4.0], [6.0, 8.0]


def begin(*rows, learned=()):
    return Begin(len(rows), (np.array(rows, np.float32),), learned)


def flags(*values):
    return np.array(values, bool)


@pytest.fixture
def warnings():
    return []


@pytest.fixture
def recorder(warnings):
    return StateRecorder(warnings.append)


# What a sequence begins with.


def test_the_norm_is_the_mean_over_the_sequences():
    assert begin(ZERO, KEPT, OTHER).norm() == 5


def test_all_parts_of_a_state_make_one_norm():
    assert Begin(1, (np.array([[3.0]]), np.array([[4.0]]))).norm() == 5


def test_a_layer_that_was_given_no_state_begins_with_zeros():
    assert Begin(3, None).norm() == 0
    assert Begin(3, None).is_initial().tolist() == [True] * 3
    assert Begin(2, None).not_initial(flags(True, True)) == 0


def test_a_norm_is_taken_over_the_sequences_that_are_finite():
    assert begin(KEPT, [math.nan, 0]).norm() == 5
    assert begin([math.inf, 0]).norm() is None


def test_a_state_of_nan_is_none_that_a_sequence_begins_anew_with():
    assert begin([math.nan, 0], ZERO).is_initial().tolist() == [False, True]


def test_a_parameter_of_the_model_is_an_initial_state():
    learned = [[np.array(KEPT)]]
    assert begin(KEPT, OTHER, ZERO, learned=learned).is_initial().tolist() == [True, False, True]


def test_each_part_of_a_state_has_its_own_parameters():
    parts = np.array([[1.0], [1.0]]), np.array([[0.0], [1.0]])
    assert Begin(2, parts, [[np.array([1.0])], []]).is_initial().tolist() == [True, False]


def test_only_flagged_sequences_can_be_at_fault():
    assert begin(KEPT, OTHER, ZERO).not_initial(flags(False, False, True)) == 0
    assert begin(KEPT, OTHER, ZERO).not_initial(flags(True, False, True)) == 1
    assert begin(KEPT, OTHER, ZERO).not_initial(flags(True, True, True)) == 2


def test_what_all_flagged_sequences_have_in_common_is_an_initial_state():
    assert begin(KEPT, OTHER, KEPT).not_initial(flags(True, False, True)) == 0
    assert begin(KEPT, OTHER).not_initial(flags(True, False)) == 1  # one alone has nothing in common with others


@given(
    arrays(np.int8, (5, 2), elements=st.integers(0, 2)),
    arrays(np.bool_, 5),
)
def test_no_sequence_is_counted_that_is_zero_or_not_flagged(rows, starts):
    flagged = [tuple(row) for row, start in zip(rows.tolist(), starts, strict=True) if start]
    kept = [row for row in flagged if any(row)]
    expected = 0 if len(flagged) > 1 and len(set(flagged)) == 1 else len(kept)
    assert begin(*rows).not_initial(starts) == expected


# Flags.


@pytest.mark.parametrize("given", [[True, False], [1, 0], [1.0, 0.0], (1, 0), np.array([1, 0], np.float32)])
def test_flags_are_booleans_or_numbers(given):
    assert read_starts(given).tolist() == [True, False]


def test_flags_of_torch():
    torch = pytest.importorskip("torch")
    assert read_starts(torch.tensor([1.0, 0.0], requires_grad=True)).tolist() == [True, False]


def test_one_flag_is_of_all_sequences():
    assert read_starts(True).shape == ()


class Odd:
    def __array__(self, *arguments, **options):
        raise RuntimeError("no array")


@pytest.mark.parametrize(
    "given", ["yes", [2, 0], [0.5], [[True], [False]], [math.nan], ["a"], {"a": 1}, [[1], []], Odd()]
)
def test_what_are_no_flags(given):
    with pytest.raises(ConfigError, match=r"^starts=.*one flag for each sequence") as caught:
        read_starts(given)
    assert "\n" not in str(caught.value)


# Counts from one capture to the next.


def test_starts_are_summed_over_the_steps_since_the_capture_before(recorder):
    recorder.note({"lstm": begin(ZERO, ZERO)}, flags(True, True))
    recorder.note({"lstm": begin(KEPT, OTHER)}, flags(False, True))
    assert recorder.fields() == {
        "lstm": {"initial_norm": 7.5, "starts": 3, "starts_not_reset": 1, "resets": 2, "sequences_begun": 4}
    }
    recorder.recorded()
    recorder.note({"lstm": begin(KEPT, KEPT)}, flags(False, False))
    assert recorder.fields()["lstm"] == {
        **{"initial_norm": 5, "starts": 0, "starts_not_reset": 0, "resets": 0, "sequences_begun": 2}
    }


def test_without_flags_there_are_no_starts(recorder):
    recorder.note({"lstm": begin(ZERO, KEPT)})
    assert recorder.fields() == {"lstm": {"initial_norm": 2.5, "resets": 1, "sequences_begun": 2}}


def test_resets_are_those_of_every_step_or_none(recorder):
    recorder.note({"lstm": begin(ZERO)})
    recorder.note({})
    recorder.note({"lstm": begin(KEPT)})
    assert recorder.fields() == {"lstm": {"initial_norm": 5}}
    recorder.recorded()
    recorder.note({"lstm": begin(KEPT)})
    assert recorder.fields()["lstm"]["resets"] == 0


def test_a_layer_that_never_began_anew_is_at_no_fault(recorder, warnings):
    recorder.note({"decoder": begin(KEPT, OTHER)}, flags(True, True))
    assert recorder.fields()["decoder"] == {"initial_norm": 7.5, "starts": 2, "resets": 0, "sequences_begun": 2}
    (line,) = warnings
    assert line.startswith("starts_not_reset of 'decoder' is not recorded: no sequence was seen to begin with zeros")


def test_zeros_that_were_ever_seen_are_the_initial_state(recorder):
    recorder.note({"lstm": begin(ZERO)})
    recorder.recorded()
    recorder.note({"lstm": begin(KEPT)}, flags(True))
    assert recorder.fields()["lstm"]["starts_not_reset"] == 1


def test_starts_of_a_state_that_was_not_seen_are_of_no_layer(recorder, warnings):
    recorder.note({}, flags(True, False, True))
    assert recorder.fields() == {"_model": {"starts": 2}}
    assert warnings[0].endswith("give it to step(state=...)")


def test_flags_of_another_number_are_refused_and_what_they_would_count_is_left_out(recorder):
    recorder.note({"lstm": begin(ZERO, ZERO)}, flags(True, True))
    recorder.recorded()
    with pytest.raises(ConfigError, match=r"^starts has 3 flags for 2 sequences"):
        recorder.note({"lstm": begin(KEPT, KEPT)}, flags(True, True, True))
    assert recorder.fields()["lstm"] == {"initial_norm": 5, "resets": 0, "sequences_begun": 2}
    recorder.recorded()
    recorder.note({"lstm": begin(ZERO, ZERO)}, flags(False, True))
    assert recorder.fields()["lstm"]["starts"] == 1


def test_flags_are_of_the_layers_that_have_so_many_sequences(recorder):
    recorder.note({"outer": begin(ZERO, ZERO), "inner": begin(ZERO, ZERO, ZERO)}, flags(True, False))
    assert recorder.fields()["outer"]["starts"] == 1
    assert "starts" not in recorder.fields()["inner"]


def test_one_flag_counts_every_sequence(recorder):
    recorder.note({"lstm": begin(ZERO, ZERO, ZERO)}, np.array(True))
    assert recorder.fields()["lstm"]["starts"] == 3


def test_a_loop_that_keeps_no_state_is_not_followed_for_long(recorder):
    for _ in range(63):
        recorder.note({"lstm": Begin(2, None)})
    assert recorder.follows
    recorder.note({"lstm": Begin(2, None)})
    assert not recorder.follows
    recorder.note({"lstm": begin(KEPT, KEPT)})
    assert recorder.follows


def test_what_an_adapter_measures_is_written_once(recorder):
    recorder.put("_model", logprob_difference=0.5)
    recorder.put("lstm", initial_norm=1.0)
    recorder.put("lstm", initial_norm=None)
    assert recorder.fields() == {"_model": {"logprob_difference": 0.5}, "lstm": {}}
    recorder.recorded()
    assert recorder.fields() == {}


def test_a_layer_without_fields_has_no_point():
    points = state_points({"a/l0": {"starts": 1}, "b": {}}, {"run": "r", "phase": "train"}, 7, 3)
    assert [(point.tags["layer"], point.fields, point.time) for point in points] == [
        ("a/l0", {"starts": 1, "step": 3}, 7)
    ]

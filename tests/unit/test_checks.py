"""Checks: what each says of captures that a person can work out, and that pieces of a run give the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewatch.collector.schema import LAYER_UPDATES_FIELDS, RECURRENT_STATE_FIELDS
from gatewatch.jobs.scoring.captures import Captures
from gatewatch.jobs.scoring.checks import CHECKS, generalisation, memory, optimizer, weights
from gatewatch.jobs.scoring.checks.base import WINDOW

KERNEL, STATE, STEPS = ("memory", "kernel"), ("memory", "state"), ("_optimizer", "steps")
NONE = np.nan


def of_updates(series=KERNEL, **fields):
    """Captures with these fields of `layer_updates` of one parameter."""
    count = len(next(iter(fields.values())))
    table = np.full((count, len(LAYER_UPDATES_FIELDS)), np.nan)
    for name, values in {"step": np.arange(count), **fields}.items():
        table[:, LAYER_UPDATES_FIELDS.index(name)] = values
    return some(count, updates={series: table})


def of_state(phase="train", **fields):
    """Captures with these fields of `recurrent_state` of one layer."""
    count = len(next(iter(fields.values())))
    table = np.full((count, len(RECURRENT_STATE_FIELDS)), np.nan)
    for name, values in fields.items():
        table[:, RECURRENT_STATE_FIELDS.index(name)] = values
    return some(count, {"phase": phase}, state={"memory": table})


def some(count, tags=None, step=None, **tables):
    step = np.arange(count) if step is None else np.array(step)
    given = {name: tables.get(name, {}) for name in ("updates", "metrics", "feed", "features", "state")}
    return Captures(
        tags or {},
        np.arange(count) * 10**9,
        step.astype(float),
        {},
        {},
        **given,
        feature_names=tables.get("feature_names", ()),
        reference=tables.get("reference", {}),
    )


def none_or(values):
    """The scores as a list, None for none."""
    return [None if np.isnan(value) else float(value) for value in values]


def test_each_check_is_declared_once_and_says_what_people_need():
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    for check in CHECKS:
        assert check.name.replace("_", "a").isalpha()
        assert check.look_back <= WINDOW
        assert check.sentence[0].islower()
        assert check.errors


def test_each_check_is_in_the_documentation():
    documented = (Path(__file__).parents[2] / "docs" / "detection.md").read_text()
    rows = [line.split("|")[1].strip(" `") for line in documented.split("## Checks")[1].splitlines() if "| `" in line]
    assert rows == [check.name for check in CHECKS]


# The optimizer.


def test_moments_may_fall_by_their_decay_and_no_further():
    captures = of_updates(
        # 0.9² of 100 is 81; 0.9³ of 81 is 59.05
        moment_sum=[100.0, 81.0, 59.0, 500.0],
        moment_decay=[0.9] * 4,
        travel_steps=[NONE, 2, 3, 1],
    )
    assert none_or(optimizer.moments_fell(captures)[KERNEL]) == [None, 0.0, 2.0, 0.0]


def test_moments_that_rounding_alone_made_smaller_have_not_fallen():
    value = np.float32(1.0)
    for _ in range(500):
        value = np.float32(value * np.float32(0.999))
    captures = of_updates(moment_sum=[1.0, float(value)], moment_decay=[0.999] * 2, travel_steps=[NONE, 500])
    assert none_or(optimizer.moments_fell(captures)[KERNEL]) == [None, 0.0]


def test_moments_are_compared_with_those_of_the_record_before_however_long_ago():
    captures = of_updates(
        step=[0, NONE, NONE, 3],
        moment_sum=[100.0, NONE, NONE, 80.0],
        moment_decay=[0.9, NONE, NONE, 0.9],
        travel_steps=[NONE, NONE, NONE, 2],
    )
    assert none_or(optimizer.moments_fell(captures)[KERNEL]) == [None, None, None, 2.0]


def test_the_optimizers_own_count_tells_the_steps_over_a_resume():
    lost = of_updates(moment_sum=[100.0, 1.0], moment_decay=[0.9] * 2, step_count=[70, 72])
    kept = of_updates(moment_sum=[100.0, 81.0], moment_decay=[0.9] * 2, step_count=[70, 72])
    earlier = of_updates(moment_sum=[100.0, 1.0], moment_decay=[0.9] * 2, step_count=[70, 60])
    assert none_or(optimizer.moments_fell(lost)[KERNEL]) == [None, 2.0]
    assert none_or(optimizer.moments_fell(kept)[KERNEL]) == [None, 0.0]
    assert optimizer.moments_fell(earlier) == {}


@pytest.mark.parametrize(
    "change", [{"moment_decay": [0.9, 0.8]}, {"travel_steps": [NONE, NONE]}, {"moment_sum": [NONE, 1.0]}]
)
def test_moments_are_not_compared_where_something_is_not_known(change):
    fields = {"moment_sum": [100.0, 1.0], "moment_decay": [0.9, 0.9], "travel_steps": [NONE, 1]} | change
    assert optimizer.moments_fell(of_updates(**fields)) == {}


def test_a_count_of_steps_that_goes_back_in_a_process():
    captures = of_updates(step_count=[5, 10, 9, 14], travel=[NONE, 1, 1, 1])
    assert none_or(optimizer.steps_went_back(captures)[STEPS]) == [None, 0.0, 2.0, 0.0]


@pytest.mark.parametrize(("count", "expected"), [(5, 2.0), (905, 0.0), (1005, 0.0)])
def test_a_resumed_run_may_go_on_from_an_earlier_checkpoint_but_not_begin_anew(count, expected):
    captures = of_updates(step=[1000, 1005], step_count=[1000, count], travel=[1, NONE])
    captures = some(2, step=[1000, 1005], updates=captures.updates)
    assert none_or(optimizer.steps_went_back(captures)[STEPS]) == [None, expected]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        ([10, 20, NONE, 10, 20], [None, 0.0, None, 2.0, 0.0]),
        ([10, 20, NONE, 40, 50], [None, 0.0, None, 0.0, 0.0]),  # a record without it, and the same optimizer
        ([10, 20, 10, 20, 30], [None, 0.0, 0.0, 0.0, 0.0]),  # its own count: `steps_went_back`
        ([NONE, NONE, NONE, 10, 20], [None, None, None, None, 0.0]),
    ],
)
def test_another_optimizer_that_counts_anew_is_a_warning(count, expected):
    captures = of_updates(step=range(5), step_count=count, travel=[1.0] * 5)
    assert none_or(optimizer.optimizer_exchanged(captures)[STEPS]) == expected
    assert not next(check for check in CHECKS if check.name == "optimizer_exchanged").alarms


def test_a_resumed_run_with_another_optimizer_is_none():
    captures = of_updates(step=range(4), step_count=[10, 20, NONE, 5], travel=[1.0, 1.0, 1.0, NONE])
    assert none_or(optimizer.optimizer_exchanged(captures)[STEPS]) == [None, 0.0, None, 0.0]


# The weights.


def test_a_travel_beyond_the_limit_counts_once():
    captures = of_updates(travel=[NONE, 1.0, 2.1, 2.1, 0.5], travel_limit=[NONE, 2.0, 2.0, 2.0, 2.0])
    assert none_or(weights.moved_too_far(captures)[KERNEL]) == [None, 0.0, 2.0, 0.0, 0.0]


@pytest.mark.parametrize(("jump", "expected"), [(4.9, 0.0), (5.1, 2.0)])
def test_a_travel_beyond_five_times_its_updates(jump, expected):
    # Ten steps of 0.1 reach 1, and five times that is 5.
    travel = [NONE, 0.9, 0.9, 0.9, 0.9, jump, 0.9]
    captures = of_updates(travel=travel, travel_steps=[NONE] + [10] * 6, update_norm=[0.1] * 7)
    scores = weights.moved_beyond_updates(captures)[KERNEL]
    assert none_or(scores) == [None, None, None, None, 0.0, expected, 0.0]


@pytest.mark.parametrize(
    ("norm", "warned"), [(0.0099**0.5, True), (0.0101**0.5, False), (3.1**0.5, True), (2.9**0.5, False)]
)
def test_gradients_that_are_far_from_the_second_moments_for_three_of_their_memories(norm, warned):
    # A decay of 0.9 remembers 10 steps: 30 are long, which lie between the sixth record and the first.
    count = 1000 + 7 * np.arange(12)
    captures = of_updates(
        gradient_norm_clipped=[norm] * 12, moment_sum=[1.0] * 12, moment_decay=[0.9] * 12, step_count=count
    )
    scores = optimizer.moments_astray(captures)[KERNEL]
    assert np.isnan(scores[:5]).all()
    # Eight records are needed too.
    assert scores[5:].tolist() == [0.0] * 2 + [2.0 if warned else 0.0] * 5


def test_one_gradient_in_between_that_is_as_the_moments_say_ends_it():
    norms = [0.01] * 9 + [1.0] + [0.01] * 9
    captures = of_updates(
        gradient_norm_clipped=norms,
        moment_sum=[1.0] * 19,
        moment_decay=[0.9] * 19,
        step_count=1000 + 5 * np.arange(19),
    )
    scores = optimizer.moments_astray(captures)[KERNEL]
    assert np.flatnonzero(scores > 1).tolist() == [7, 8, 17, 18]


def test_moments_of_a_few_steps_are_corrected_for_their_beginning():
    """After two steps with a gradient of norm 1, v is 0.1 + 0.09: a ratio of 5 is the beginning's."""
    count = np.arange(1, 41)
    captures = of_updates(
        gradient_norm_clipped=[1.0] * 40, moment_sum=1 - 0.9**count, moment_decay=[0.9] * 40, step_count=count
    )
    assert np.nanmax(optimizer.moments_astray(captures)[KERNEL]) == 0


def test_a_travel_that_is_always_beyond_its_updates_is_no_event():
    """As where captures fall into step with a cyclic learning rate, at its lowest."""
    captures = of_updates(travel=[NONE] + [9.0] * 11, travel_steps=[NONE] + [10] * 11, update_norm=[0.1] * 12)
    assert np.nanmax(weights.moved_beyond_updates(captures)[KERNEL]) == 0


def test_weights_that_were_exact_and_are_rounded_alarm_once():
    captures = of_updates(rounded_share=[0.0, 1e-4, 1.0, 1.0, 0.0, 1.0])
    assert none_or(weights.rounded(captures)[KERNEL]) == [None, 0.0, 2.0, 0.0, 0.0, 0.0]


def test_weights_that_are_of_half_precision_all_along_or_only_begin_so_are_no_fault():
    assert np.nanmax(weights.rounded(of_updates(rounded_share=[1.0] * 9))[KERNEL]) == 0
    assert np.nanmax(weights.rounded(of_updates(rounded_share=[1.0, 0.3, 0.0, 0.0]))[KERNEL]) == 0


# The memory and the policy.


def test_one_episode_that_was_not_reset_is_enough():
    captures = of_state(starts=[3, 3, NONE], starts_not_reset=[0, 1, NONE])
    assert none_or(memory.not_reset(captures)[STATE]) == [0.0, 2.0, None]


def test_resets_that_stay_away_for_three_times_their_longest_stretch():
    # A reset in every second capture, of 10 sequences each: a stretch is 20, and after 60 more it is none.
    resets, begun = [1, 0] * 18 + [0] * 8, [10] * 44
    scores = memory.resets_stay_away(of_state(resets=resets, sequences_begun=begun))[STATE]
    assert np.flatnonzero(scores > 1).tolist() == [41, 42, 43]
    assert np.isnan(scores[:30]).all()
    assert memory.resets_stay_away(of_state(resets=resets, sequences_begun=begun, starts=begun)) == {}


def test_a_backtest_that_carried_its_state_and_no_longer_does():
    carried = {"resets": [0] * 16 + [1] * 4, "sequences_begun": [1] * 20}
    scores = memory.state_dropped(of_state("backtest", **carried))[STATE]
    assert np.flatnonzero(scores > 1).tolist() == [18]
    assert memory.state_dropped(of_state("train", **carried)) == {}


def test_log_probabilities_differ_beyond_rounding():
    captures = of_state(logprob_difference=[1e-5, 3e-4, 0.02])
    assert none_or(memory.logprobs_differ(captures)["memory", "policy"]) == [0.0, 0.0, 2.0]


@pytest.mark.parametrize("name", ["logprob_difference", "losses/logprob_difference"])
def test_log_probabilities_that_a_loop_hands_over_are_judged_too(name):
    captures = some(4, metrics={name: np.array([1e-5, NONE, 0.02, -0.02])})
    assert none_or(memory.logprobs_differ(captures)["_model", "policy"]) == [0.0, None, 2.0, 2.0]
    assert memory.logprobs_differ(some(2, metrics={"loss": np.array([1.0, 1.0])})) == {}


# Generalisation.


def test_a_probe_that_gets_worse_while_the_batches_get_better():
    probe = [1.0] * 10 + [0.5] * 10 + [0.9] * 30
    scores = generalisation.probe_loss_rises(
        some(50, metrics={"probe_loss": np.array(probe), "loss": np.linspace(1, 0.2, 50)})
    )["_model", "probe_loss"]
    # Nine captures' median is lowest from the 15th on, and has risen at the 25th: 16 after the first lowest.
    assert np.flatnonzero(scores > 1)[0] == 30
    learning = some(50, metrics={"probe_loss": np.linspace(1, 0.2, 50), "loss": np.linspace(1, 0.2, 50)})
    assert np.nanmax(generalisation.probe_loss_rises(learning)["_model", "probe_loss"]) == 0


# Whatever the pieces.


@given(st.integers(0, 2**32), st.integers(1, 40))
@settings(max_examples=20, deadline=None)
def test_a_check_depends_on_no_more_captures_than_it_declares(seed, first):
    """A capture that is judged after `look_back` earlier ones has the same score as after all."""
    random = np.random.default_rng(seed)
    count = 110

    def table(fields):
        values = np.abs(random.choice([0.0, 1.0, 1.0, 2.0, 50.0], (count, fields)) + random.normal(0, 0.01))
        values[random.random(values.shape) < 0.1] = np.nan
        return values

    updates = table(len(LAYER_UPDATES_FIELDS))
    names = ("nan_share", "targets_not_finite", "distinct_share", "sequences", "positions", "target_correlation")
    whole = some(
        count,
        {"phase": "backtest"},
        updates={KERNEL: updates},
        state={"memory": table(len(RECURRENT_STATE_FIELDS))},
        metrics={name: table(1)[:, 0] for name in ("loss", "probe_loss")},
        feed={name: table(1)[:, 0] for name in names},
        features={name: table(3) for name in ("mean", "std", "nan_share", "lag1", "p01", "p99")},
        reference={name: np.array([1e-3, 1e-2, 1e3]) for name in ("largest", "smallest")},
    )
    for check in CHECKS:
        begin = max(0, count - first - check.look_back)
        late = check.judge(whole.part(begin))
        for series, scores in check.judge(whole).items():
            own = late.get(series, np.full(count - begin, np.nan))
            np.testing.assert_array_equal(own[-first:], scores[-first:], err_msg=check.name)

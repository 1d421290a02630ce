"""When the gates are looked at, by a clock that the test turns."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewatch.collector.capture_schedule import GRACE_SECONDS, CaptureSchedule
from gatewatch.collector.errors import ConfigError


class Clock:
    def __init__(self, now=1000.0):
        self.now = now

    def __call__(self):
        return self.now


def run(schedule, clock, steps):
    """Train through (seconds of a step, seconds of a capture); what each capture left spent, allowed and cost."""
    for step, (training, capture) in enumerate(steps):
        schedule.prepare(step - 1)
        clock.now += training
        if schedule.due(step):
            before = schedule.elapsed
            clock.now += capture
            schedule.charge("capture", capture)
            yield step, schedule.spent, schedule.overhead * before, capture


seconds = st.floats(0, 10)


@given(st.integers(1, 50), st.integers(0, 1000))
def test_a_number_of_steps_is_kept_to_whatever_it_costs(every, before):
    schedule = CaptureSchedule(every, 0.01, Clock())
    schedule.begin(before)
    schedule.charge("capture", 1e6)
    for step in range(before + 1, before + 120):
        assert schedule.prepare(step - 1) == schedule.due(step) == (step % every == 0)
    assert schedule.affordable(1e6)


@given(st.integers(1, 50), st.lists(st.integers(1, 70), min_size=1, max_size=60))
def test_steps_that_are_passed_over_are_caught_up_with_once(every, strides):
    schedule = CaptureSchedule(every, 0.01, Clock())
    steps = np.cumsum(strides).tolist()
    multiples = {step // every for step in steps if step // every > 0}
    assert sum(schedule.due(step) for step in steps) == len(multiples)


@given(st.lists(st.tuples(seconds, seconds), max_size=200), st.floats(1e-4, 1))
def test_auto_spends_no_more_than_the_budget_and_the_last_capture(steps, overhead):
    clock = Clock()
    for _, spent, allowed, last in run(CaptureSchedule("auto", overhead, clock), clock, steps):
        assert spent <= allowed + last + 1e-9


@given(st.floats(1e-4, 0.01), st.floats(1e-3, 0.1), st.floats(0.005, 0.05))
def test_auto_uses_the_budget_it_has(training, capture, overhead):
    """Where it could not pay for a look at every step."""
    clock = Clock()
    schedule = CaptureSchedule("auto", overhead, clock)
    list(run(schedule, clock, [(training, capture)] * 500))
    budget = overhead * schedule.elapsed
    assert schedule.spent >= budget - capture - overhead * (training + capture) - 1e-9
    assert schedule.spent <= max(budget, capture) + 1e-9


def test_auto_looks_at_the_first_step_then_waits_until_the_next_look_is_paid_for():
    clock = Clock()
    schedule = CaptureSchedule("auto", 0.01, clock)
    captured = [step for step, *_ in run(schedule, clock, [(1.0, 0.125)] * 60)]
    assert captured == [0, 25, 38, 50]


def test_a_dear_capture_makes_the_next_one_wait():
    clock = Clock()
    schedule = CaptureSchedule("auto", 0.1, clock)
    schedule.charge("capture", 5.0)
    clock.now += 99
    assert not schedule.prepare(1)
    assert not schedule.due(2)
    clock.now += 1
    assert schedule.prepare(2)
    assert schedule.due(3)


def test_what_a_capture_prepares_is_part_of_its_cost():
    clock = Clock()
    schedule = CaptureSchedule("auto", 0.1, clock)
    schedule.charge("prepare", 1.0)
    schedule.charge("capture", 4.0)
    assert schedule.capture_seconds == 5.0
    clock.now += 99
    assert not schedule.prepare(1)
    clock.now += 1
    assert schedule.prepare(2)


def test_a_capture_that_was_prepared_is_made_even_if_preparing_has_used_up_the_budget():
    clock = Clock()
    schedule = CaptureSchedule("auto", 0.1, clock)
    assert schedule.prepare(0)
    schedule.charge("prepare", 5.0)
    assert schedule.due(1)
    assert not schedule.prepare(1)


@given(st.integers(1, 20), st.integers(1, 20))
def test_steps_that_go_by_several_are_known_of_before(every, stride):
    schedule = CaptureSchedule(every, 0.01, Clock())
    schedule.prepare(0)
    schedule.due(stride)
    for step in range(stride, 200, stride):
        assert schedule.prepare(step) == schedule.due(step + stride)


def test_what_else_was_charged_counts_but_is_not_taken_for_a_capture():
    clock = Clock()
    schedule = CaptureSchedule("auto", 0.1, clock)
    schedule.charge("save", 5.0)
    clock.now += 49
    assert not schedule.prepare(1)
    assert not schedule.due(2)
    clock.now += 1
    assert schedule.prepare(2)
    assert schedule.due(3)


def test_files_of_epochs_have_a_grace_beyond_the_budget():
    clock = Clock()
    schedule = CaptureSchedule("auto", 0.01, clock)
    assert schedule.affordable(GRACE_SECONDS)
    assert not schedule.affordable(GRACE_SECONDS + 0.01)
    schedule.charge("save", GRACE_SECONDS)
    assert not schedule.affordable(0.01)
    clock.now += 2
    assert schedule.affordable(0.01)


def test_a_slow_first_capture_costs_a_small_training_no_file():
    schedule = CaptureSchedule("auto", 0.01, Clock())
    schedule.charge("prepare", 0.1)
    schedule.charge("capture", 5.0)
    assert schedule.affordable(GRACE_SECONDS)
    assert not schedule.affordable(GRACE_SECONDS + 0.01)
    schedule.charge("capture", 0.2)
    assert not schedule.affordable(GRACE_SECONDS - 0.1)


def test_the_ratio_is_a_share_of_the_time_since_the_first_capture():
    clock = Clock()
    schedule = CaptureSchedule("auto", 0.01, clock)
    schedule.begin()
    clock.now += 5
    schedule.charge("capture", 4.0)
    assert schedule.overhead_ratio is None
    clock.now += 10
    schedule.charge("prepare", 0.5)
    schedule.charge("capture", 1.5)
    assert schedule.overhead_ratio == pytest.approx(0.2)
    schedule.begin()
    assert schedule.overhead_ratio is None


@given(seconds, seconds)
def test_the_ratio_is_finite_even_when_a_clock_stands_still(passed, charged):
    clock = Clock()
    schedule = CaptureSchedule("auto", 0.01, clock)
    clock.now += passed
    for _ in range(2):
        schedule.charge("capture", charged)
    assert schedule.elapsed > 0
    assert math.isfinite(schedule.overhead_ratio)


@pytest.mark.parametrize("every", [0, -1, 1.0, 2.5, True, None, "often", "", "Auto", math.nan])
def test_steps_that_are_none_are_refused_by_name(every):
    with pytest.raises(ConfigError, match=r"^every=.*whole number of steps"):
        CaptureSchedule(every, 0.01, Clock())


@pytest.mark.parametrize("overhead", [0, -0.1, 1.001, 100, math.nan, math.inf, "1%", None])
def test_a_share_that_is_none_is_refused_by_name(overhead):
    with pytest.raises(ConfigError, match=r"^overhead=.*share of the training's time"):
        CaptureSchedule("auto", overhead, Clock())

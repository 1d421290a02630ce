"""Which of the batches that `fit` takes ahead of time is fed to which step."""

from __future__ import annotations

import threading
from contextlib import nullcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewatch.collector.capture_schedule import CaptureSchedule
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.keras.feed import line as lines
from gatewatch.collector.keras.feed.batch import inputs_and_targets
from gatewatch.collector.keras.feed.feeds import Feeds
from gatewatch.collector.keras.feed.generator import GeneratorLine, watch
from gatewatch.collector.keras.feed.line import FeedLine
from gatewatch.collector.run_session import RunSession


def line_of(needed=lambda ahead, step: True, kind=FeedLine):
    line = kind(needed, lambda activity: nullcontext())
    line.begin(0)
    return line


def take(line, *names):
    for name in names:
        line.take(lambda name=name: (name, None))


def fed(line, steps=1):
    batch = line.feed(steps, 0)
    return None if batch is None else batch[0]


def test_batches_are_fed_in_the_order_in_which_they_are_taken():
    line = line_of()
    take(line, "first", "second", "third")
    assert [fed(line), fed(line)] == ["first", "second"]
    take(line, "fourth")
    assert [fed(line), fed(line)] == ["third", "fourth"]
    assert line.ahead == 3


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 3)), max_size=30))
def test_a_step_is_fed_what_a_queue_would_give_it(turns):
    """In each turn some batches are read ahead, and as many steps are executed at once as there are batches for."""
    line, queue, number = line_of(), [], 0
    for read, steps in turns:
        for _ in range(read):
            number += 1
            queue.append(number)
            take(line, number)
        if queue:
            executed = queue[:steps]
            del queue[:steps]
            assert fed(line, steps) == executed[-1] or (len(executed) < steps and not queue)
    assert len(line._held) == len(queue)


def test_only_what_a_capture_may_need_is_copied():
    copied = []
    line = line_of(lambda ahead, step: ahead == 2)
    for name in "abc":
        line.take(lambda name=name: (copied.append(name), None))
    assert copied == ["b"]


def test_a_generator_may_use_its_arrays_again():
    line, array = line_of(), np.zeros(3)
    line.take(lambda: ([{"x": array}], array))
    array[:] = 7
    inputs, targets = line.feed(1, 0)
    assert (inputs[0]["x"].tolist(), targets.tolist()) == ([0, 0, 0], [0, 0, 0])


def test_the_memory_of_copies_is_bounded(monkeypatch):
    monkeypatch.setattr(lines, "MOST_BYTES", 100)
    line = line_of()
    for number in range(3):
        line.take(lambda number=number: (np.full(6, number, "float64"), None))  # 48 bytes
    seen = [line.feed(1, 0) for _ in range(3)]
    assert [None if batch is None else batch[0][0] for batch in seen] == [0, 1, None]
    monkeypatch.setattr(lines, "MOST_BATCHES", 2)
    take(line, "a", "b", "c")
    assert [fed(line), fed(line), fed(line)] == ["a", "b", None]


def test_a_batch_that_cannot_be_copied_is_passed_over():
    class Session(RunSession):
        def __init__(self):
            super().__init__(
                run=None, store="sqlite:///x.db", phase="train", tags=None, resume=False, all_ranks=False, log_dir=None,
                every=1, overhead=0.01,
            )  # fmt: skip

    session = Session()
    line = FeedLine(lambda ahead, step: True, session.guarded)
    line.begin(0)
    line.take(lambda: 1 / 0)
    take(line, "next")
    assert [fed(line), fed(line)] == [None, "next"]
    assert session.failures == {"a look at the feed": 1}


def test_before_and_after_a_fit_nothing_is_counted():
    line = FeedLine(lambda ahead, step: True, lambda activity: nullcontext())
    take(line, "before")
    line.begin(0)
    take(line, "first")
    line.end()
    take(line, "after")
    assert not line._held
    line.begin(0)
    take(line, "second fit")
    assert fed(line) == "second fit"


class TestGenerator:
    def taken(self, line, count):
        batches = watch(iter("abcdefgh"), line)
        return batches, [next(batches) for _ in range(count)]

    def line(self):
        return GeneratorLine(lambda ahead, step: True, lambda activity: nullcontext())

    def test_two_batches_that_were_taken_before_fit_begins_are_fed_first(self):
        line = self.line()
        batches, _ = self.taken(line, 2)
        line.begin(0)
        next(batches)
        assert [fed(line), fed(line), fed(line)] == ["a", "b", "c"]

    def test_more_than_two_went_into_a_call_that_builds_the_model(self):
        line = self.line()
        batches, _ = self.taken(line, 3)
        line.begin(0)
        next(batches)
        assert [fed(line), fed(line), fed(line)] == ["a", "b", "d"]

    def test_what_another_thread_still_read_for_the_fit_before_is_not_of_this_one(self):
        line = self.line()
        batches, _ = self.taken(line, 2)
        line.begin(0)
        fed(line)
        line.end()
        reader = threading.Thread(target=next, args=[batches])
        reader.start()
        reader.join()
        next(batches), next(batches)
        line.begin(0)
        assert [fed(line), fed(line)] == ["d", "e"]

    def test_a_step_that_failed_took_its_batch_with_it(self):
        line = self.line()
        batches, _ = self.taken(line, 2)
        line.begin(0)
        fed(line), fed(line)
        next(batches)
        line.begin_step(0)  # raises
        next(batches), next(batches)
        line.begin(0)
        assert [fed(line), fed(line)] == ["d", "e"]

    def test_without_a_fit_no_batch_is_held(self):
        line = self.line()
        batches = watch((np.zeros(1) for _ in range(20)), line)
        for _ in batches:
            pass
        assert (line._early, line._held) == ([], {})


class TestValidationWithTheSameData:
    def test_what_it_reads_is_not_of_the_training(self):
        line = line_of()
        take(line, "a")
        fed(line)
        line.mark()
        take(line, "looked at for its shape")
        assert line.begin_validation()
        take(line, "x", "y")
        line.end_validation()
        take(line, "b")
        assert fed(line) == "b"
        assert line.begin_validation()  # each later one too
        take(line, "x")
        line.end_validation()
        take(line, "c")
        assert fed(line) == "c"

    def test_the_order_is_lost_where_the_training_has_read_ahead(self):
        line = line_of()
        take(line, "a", "b")
        fed(line)
        line.mark()
        assert not line.begin_validation()

    def test_a_validation_with_other_data_changes_nothing(self):
        line = line_of()
        take(line, "a", "b")
        line.mark()
        line.begin_step(0)
        fed(line)
        assert line.begin_validation()
        take(line, "c")  # the training reads ahead meanwhile
        line.end_validation()
        assert [fed(line), fed(line)] == ["b", "c"]


@pytest.mark.parametrize(
    ("element", "inputs", "targets"),
    [
        ("x", "x", None),
        (("x",), "x", None),
        (("x", "y"), "x", "y"),
        (["x", "y", "w"], "x", "y"),
        ({"a": 1}, {"a": 1}, None),
    ],
)
def test_inputs_and_targets(element, inputs, targets):
    assert inputs_and_targets(element) == (inputs, targets)


class TestWhetherACaptureMayBeDue:
    def test_with_a_fixed_number_of_steps(self):
        schedule = CaptureSchedule(4, 0.01, lambda: 0.0)
        assert [ahead for ahead in range(1, 10) if schedule.may_be_due(ahead, 2)] == [2, 6]

    def test_at_the_end_of_several_steps_that_are_executed_at_once(self):
        """They end at 6, 9, 12, 15, 18; captures are due at 9 (8 was passed), 12, 18 (16 was passed)."""
        schedule = CaptureSchedule(4, 0.01, lambda: 0.0)
        schedule.prepare(3, 6)
        assert [3 + ahead for ahead in range(1, 16) if schedule.may_be_due(ahead, 3)] == [6, 9, 12, 18]

    def test_within_a_budget(self):
        """Steps of 1 s, a budget of 1 %, a capture of 0.5 s at the first step: the next is due after 100 s."""
        now = 0.0
        schedule = CaptureSchedule("auto", 0.01, lambda: now)
        schedule.charge("capture", 0.5)
        now = 80.0
        assert [schedule.may_be_due(ahead, 80) for ahead in (5, 9, 10, 20)] == [False, False, True, True]
        now = 101.0
        assert schedule.prepare(101)
        assert schedule.may_be_due(1, 101)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros(3), r"feed\(\) takes no arrays \(ndarray\): fit makes the batches of those itself"),
        ([1, 2], r"feed\(\) takes no arrays \(list\)"),
        ((np.zeros(3), np.zeros(3)), r"feed\(\) takes no arrays \(tuple\).*from_tensor_slices"),
        (None, r"feed\(None\): must be what fit takes batches from"),
        (7, r"feed\(7\): must be"),
        ("train.csv", r"feed\('train.csv'\): must be"),
    ],
)
def test_what_fit_takes_no_batches_from_is_refused(data, message):
    with pytest.raises(ConfigError, match=message) as caught:
        Feeds(None).wrap(data)  # refused before the session is asked anything
    assert "\n" not in str(caught.value)

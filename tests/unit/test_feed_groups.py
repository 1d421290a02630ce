"""Labels of groups may be anything: each is recorded as a name that every store can hold, or refused in one line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.feed.groups import group_points, read_labels
from gatewatch.collector.line_protocol import encode, parse, split_lines
from gatewatch.collector.schema import point_problem

TAGS = {"run": "r", "phase": "train"}


@given(st.lists(st.text() | st.integers(), min_size=1, max_size=8))
def test_whatever_a_label_is_every_store_can_hold_it(labels):
    names = read_labels(labels)
    assert len(names) == len(labels)
    points = group_points({name: {"sequences": 1} for name in names}, TAGS, 10**18, 1)
    assert [point_problem(point) for point in points] == [None] * len(points)
    assert [parse(line).tags["group"] for line in split_lines(encode(points))] == [
        point.tags["group"] for point in points
    ]


class Odd:
    def tolist(self):
        raise RuntimeError("no list\nof mine")


@given(
    st.none() | st.floats() | st.binary() | st.text() | st.lists(st.none() | st.floats() | st.booleans(), min_size=1)
)
def test_what_is_no_list_of_labels_is_refused_in_one_line(labels):
    with pytest.raises(ConfigError) as error:
        read_labels(labels)
    assert len(str(error.value).splitlines()) == 1


def test_labels_that_raise_when_they_are_read_are_refused():
    with pytest.raises(ConfigError, match="one label for each sequence"):
        read_labels(Odd())

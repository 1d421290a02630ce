"""The encoder against exact lines, and against influxdb-client's own."""

from __future__ import annotations

import math
import struct
from enum import IntEnum

import influxdb_client
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from collector.line_protocol import encode
from collector.schema import FieldValue, Point, point_problem

HOSTILE = "abé%,= \"\\'{}:;/.0e5🙂"
names = st.text(st.sampled_from(HOSTILE), min_size=1, max_size=6) | st.text(min_size=1, max_size=8)
floats = (
    st.floats(allow_nan=False, allow_infinity=False)
    | st.floats(-1e-3, 1e-3)
    | st.integers(-(10**18), 10**18).map(float)
    | st.builds(lambda digits, power: float(f"{digits}e{power}"), st.integers(-9999, 9999), st.integers(-12, 22))
)
values = floats | st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.text(max_size=8)
times = st.integers(-(2**63) + 2, 2**63 - 2)
tags = st.dictionaries(names, names | st.just(""), max_size=4)


def points_with(fields: st.SearchStrategy[FieldValue]) -> st.SearchStrategy[Point]:
    return st.builds(Point, names, tags, st.dictionaries(names, fields, min_size=1, max_size=6), times).filter(
        lambda point: point_problem(point) is None
    )


def oracle(point: Point) -> bytes:
    theirs = influxdb_client.Point(point.measurement)
    for key, text in point.tags.items():
        theirs.tag(key, text)
    for key, value in point.fields.items():
        theirs.field(key, value)
    return theirs.time(point.time).to_line_protocol().encode() + b"\n"


@given(st.lists(points_with(values), max_size=80))
def test_any_points_are_written_as_influxdb_client_writes_them(points: list[Point]) -> None:
    assert encode(points) == b"".join(map(oracle, points))


@given(st.lists(points_with(floats | st.integers(-(2**63), 2**63 - 1) | st.booleans()), max_size=80))
def test_numbers_are_written_as_influxdb_client_writes_them(points: list[Point]) -> None:
    assert encode(points) == b"".join(map(oracle, points))


@given(st.binary(min_size=8, max_size=8))
def test_every_pattern_of_bits_of_a_float_is_written_exactly(bits: bytes) -> None:
    value = struct.unpack("<d", bits)[0]
    assume(math.isfinite(value))
    point = Point("m", {}, {"f": value}, 0)
    assert encode([point]) == oracle(point)
    text = encode([point]).split()[1].removeprefix(b"f=")
    assert struct.pack("<d", float(text)) == bits


@pytest.mark.parametrize(
    ("point", "line"),
    [
        (Point("m", {}, {"f": 1.0}, 0), b"m f=1 0\n"),
        (Point("m", {}, {"f": -0.0}, -5), b"m f=-0 -5\n"),
        (Point("m", {"b": "2", "a": "1"}, {"y": 0.5, "x": 7}, 10), b"m,a=1,b=2 x=7i,y=0.5 10\n"),
        (Point("m", {"a": ""}, {"f": True, "g": False}, 1), b"m f=true,g=false 1\n"),
        (Point("m", {}, {"f": 1e-05, "g": 1.5e-05, "h": 10.00001}, 1), b"m f=1e-05,g=1.5e-05,h=10.00001 1\n"),
        (Point("m", {}, {"f": 1e16, "g": 1e15, "h": 5e-324}, 1), b"m f=1e+16,g=1000000000000000,h=5e-324 1\n"),
        (Point("m", {}, {"s": 'say "\\"\n, ok'}, 1), b'm s="say \\"\\\\\\"\n, ok" 1\n'),
        (Point("a b,c=d", {"k=,": "v =%b"}, {"f=": 1}, 1), b"a\\ b\\,c=d,k\\=\\,=v\\ \\=%b f\\==1i 1\n"),
        (Point("m", {}, {"i": -(2**63), "j": 2**63 - 1}, 1), b"m i=-9223372036854775808i,j=9223372036854775807i 1\n"),
        (Point("mü", {"é": "🙂"}, {"ß": 0.1}, 1), "mü,é=🙂 ß=0.1 1\n".encode()),
    ],
)
def test_a_point_is_this_line(point: Point, line: bytes) -> None:
    assert encode([point]) == line == oracle(point)


def test_no_points_are_no_bytes() -> None:
    assert encode([]) == b""


def test_points_may_come_from_an_iterator_and_stay_in_order() -> None:
    points = [Point("m", {"n": str(i % 3)}, {"f": i / 7}, i) for i in range(200)]
    assert encode(iter(points)) == b"".join(map(oracle, points))


def test_one_name_with_several_types_keeps_each() -> None:
    points = [Point("m", {}, {"f": value}, 1) for value in (1, 1.0, True, "1", 2, 2.5, False)]
    assert encode(points) == b'm f=1i 1\nm f=1 1\nm f=true 1\nm f="1" 1\nm f=2i 1\nm f=2.5 1\nm f=false 1\n'


def test_subclasses_of_numbers_are_written_as_numbers() -> None:
    class Level(IntEnum):
        HIGH = 3

    assert encode([Point("m", {}, {"f": np.float64(0.25), "i": Level.HIGH}, 1)]) == b"m f=0.25,i=3i 1\n"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"f": math.nan}, "'f' is nan"),
        ({"f": 1.0, "g": -math.inf}, "'g' is -inf"),
        ({"i": 2**64}, "beyond 64 bits"),
        ({}, "at least one field"),
        ({"s": "\ud800"}, "lone surrogate"),
    ],
)
def test_what_no_line_can_hold_is_refused(fields: dict[str, FieldValue], reason: str) -> None:
    good = Point("m", {}, {"f": 1.0}, 1)
    with pytest.raises(ValueError, match=reason):
        encode([good, Point("m", {}, fields, 1), good])

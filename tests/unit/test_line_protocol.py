"""The encoder against exact lines, and against influxdb-client's own; the parser against the encoder."""

from __future__ import annotations

import math
import struct
from enum import IntEnum

import influxdb_client
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gatewatch.collector.line_protocol import encode, parse, split_lines
from gatewatch.collector.schema import GATE_STATS_FIELDS, FieldValue, Point, point_problem

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


multiline = values | st.text(st.sampled_from('\n\r"\\ ,=a1'), max_size=8)


def decoded(lines: bytes) -> list[Point]:
    return [parse(line) for line in split_lines(lines)]


def typed(point: Point) -> tuple[object, ...]:
    """A point for comparison to the last bit and type, 0.0 unlike -0.0 and 1 unlike 1.0 and True."""
    fields = {name: (type(value), repr(value)) for name, value in point.fields.items()}
    return point.measurement, {name: value for name, value in point.tags.items() if value}, fields, point.time


@given(st.lists(points_with(multiline), max_size=20))
def test_any_points_are_read_back_as_they_were(points: list[Point]) -> None:
    lines = encode(points)
    assert list(map(typed, decoded(lines))) == list(map(typed, points))
    assert [line + b"\n" for line in split_lines(lines)] == [encode([point]) for point in points]


plain_names = st.text("abc_0é%:/", min_size=1, max_size=4)
numbers = floats | st.integers(-(2**63), 2**63 - 1) | st.just(-0.0)
plain_points = st.builds(
    Point, names, tags, st.dictionaries(plain_names, numbers, min_size=1, max_size=6), times
).filter(lambda point: point_problem(point) is None)


@given(st.lists(plain_points, max_size=20))
def test_numbers_under_plain_names_are_read_back_as_they_were(points: list[Point]) -> None:
    assert list(map(typed, decoded(encode(points)))) == list(map(typed, points))


def test_a_capture_is_read_back() -> None:
    fields: dict[str, FieldValue] = {name: i / 7 for i, name in enumerate(GATE_STATS_FIELDS)}
    fields |= {"mean": 1.0, "p05": -0.0, "p95": 1e-5, "dead_units": 0.25, "nan_count": 0, "step": 2**62 + 1, "epoch": 3}
    point = Point("gate_stats", {"run": "goog 1", "layer": "a/b,c", "gate": "forget"}, fields, 1_700_000_000 * 10**9)
    assert [typed(read) for read in decoded(encode([point, point]))] == [typed(point)] * 2


def test_points_that_are_read_do_not_share_their_tags() -> None:
    first, second = decoded(b"m,a=1 f=1 1\nm,a=1 f=1 2\n")
    assert isinstance(first.tags, dict)
    first.tags["a"] = "2"
    assert second.tags == {"a": "1"} == parse(b"m,a=1 f=1 3").tags


def test_no_bytes_are_no_lines() -> None:
    assert split_lines(b"") == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "three parts"),
        ("m", "three parts"),
        ("m f=1", "three parts"),
        ("m f=1 x", "time 'x'"),
        ("m f=1 ", "time ''"),
        ("m f=1 1.5", "time '1.5'"),
        ("m f=1 1e5", "time '1e5'"),
        ("m f=1 1_0", "time '1_0'"),
        ("m f=1 ٣", "time"),
        ("m f= 1", "no field at 'f='"),
        ("m =1 1", "no field at '=1'"),
        ("m f 1", "no field at 'f'"),
        ("m f=1, 1", "no field at ''"),
        ("m f=1,,g=1 1", "no field at ',g=1'"),
        ("m a=1=b,2 1", "neither a number"),
        ("m f=1,f=2 1", "field 'f' twice"),
        ("m f=1_0 1", "'1_0' is neither"),
        ("m f=٣ 1", "neither a number"),
        ("m f=nan 1", "'nan' is neither"),
        ("m f=1e999 1", "'1e999' is neither"),
        ("m f=1i5 1", "'1i5' is neither"),
        ("m f=1.5i 1", "'1.5i' is neither"),
        ("m f=i 1", "'i' is neither"),
        ("m f=01x 1", "'01x' is neither"),
        ("m f=[1] 1", "neither a number"),
        ("m f=truE 1", "'truE' is neither"),
        ('m f="a 1', "no field"),
        ('m f="a"b 1', "no field"),
        ('m f="a\\n" 1', "no field"),
        (" f=1 1", "no measurement"),
        (",a=1 f=1 1", "no measurement"),
        ("m,a f=1 1", "no tag at 'a'"),
        ("m,a= f=1 1", "no tag at 'a='"),
        ("m,a=1=2 f=1 1", "no tag at 'a=1=2'"),
        ("m,a=1,a=2 f=1 1", "tag twice"),
        ("m,a=1 b=1 f=1 1", "neither a number|no field"),
        ("m n f=1 1", "no field"),
    ],
)
def test_what_is_no_line_is_named(line: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        parse(line.encode())
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("line", [b"m,a=\xff f=1 1", b"m \xff=1 1"])
def test_a_line_that_is_not_utf_8_is_named(line: bytes) -> None:
    with pytest.raises(ValueError, match="not UTF-8"):
        parse(line)


def test_unsound_lines_end_at_their_newline() -> None:
    assert split_lines(b'm f="a 1\nm f=1 1\nm f="x\ny" 1\nm f="b') == [
        b'm f="a 1',
        b"m f=1 1",
        b'm f="x\ny" 1',
        b'm f="b',
    ]

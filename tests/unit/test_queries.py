"""The named queries' pure parts: what is typed, what a file's first comment says, and what a server answers."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from influxdb_client.client.flux_csv_parser import FluxCsvParser, FluxSerializationMode

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.schema import DIED_SECONDS
from gatewatch.collector.store.influxdb.annotated_csv import QueryFailed
from gatewatch.jobs.queries.client import placed, rows
from gatewatch.jobs.queries.flux_values import READERS, Duration, Instant, guess, literal, parse_typed_items, read
from gatewatch.jobs.queries.flux_values import parse_items as taken_apart
from gatewatch.jobs.queries.named_query import named, parse, queries, signature
from gatewatch.jobs.queries.output import BLOCK, as_csv, as_json, as_table, in_order, with_explanations
from gatewatch.jobs.thresholds import UPDATE_FAST, UPDATE_SLOW

DAY = 86_400 * 10**9


def nanoseconds(*parts):
    return int(datetime(*parts, tzinfo=UTC).timestamp()) * 10**9


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("string", "", ""),
        ("string", "12", "12"),
        ("int", "-7", -7),
        ("int", "9223372036854775807", 2**63 - 1),
        ("float", "1e-7", 1e-7),
        ("float", "3", 3.0),
        ("float", "-.5", -0.5),
        ("bool", "true", True),
        ("duration", "1y6mo", Duration("1y6mo")),
        ("duration", "-10ms", Duration("-10ms")),
        ("duration", "5µs", Duration("5us")),
        ("duration", "-0mo1d0h", Duration("-1d")),
        ("duration", "-0d", Duration("0s")),
        ("time", "now", Instant()),
        ("time", "-30d", Duration("-30d")),
        ("time", "2026-01-31", Instant(nanoseconds(2026, 1, 31))),
        ("time", "2026-01-31T09:30", Instant(nanoseconds(2026, 1, 31, 9, 30))),
        ("time", "2026-01-31 09:30:00", Instant(nanoseconds(2026, 1, 31, 9, 30))),
        ("time", "2026-01-31T09:30:00.000000001Z", Instant(nanoseconds(2026, 1, 31, 9, 30) + 1)),
        ("time", "2026-01-31T09:30:00+01:00", Instant(nanoseconds(2026, 1, 31, 8, 30))),
        ("time", "1969-12-31T23:59:59.5Z", Instant(-500_000_000)),
    ],
)
def test_what_is_typed_becomes_a_value(kind, text, value):
    assert read(kind, [text]) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("int", "abc"), ("int", ""), ("int", "1.5"), ("int", "9223372036854775808"), ("int", "٣"), ("int", "1_0"),
        ("float", "nan"), ("float", "inf"), ("float", "1e999"), ("float", ""), ("float", "1,5"),
        ("bool", "yes"), ("bool", "True"),
        ("duration", "30"), ("duration", "d"), ("duration", "1 d"), ("duration", "293y"), ("duration", "99999999999h"),
        ("time", "yesterday"), ("time", "2026-13-01"), ("time", "2026-02-30"), ("time", "1500-01-01"), ("time", "12"),
        ("time", "2026-01-31T25:00"), ("time", "9999-01-01"), ("time", "2026-01-31T09:30:00.0000000001Z"),
    ],
)  # fmt: skip
def test_what_is_none_of_the_type_is_told(kind, text):
    with pytest.raises(ValueError, match=r"^must be "):
        read(kind, [text])


@given(st.integers(-(2**63) + 10**9, 2**63 - 10**9))
def test_a_time_that_is_shown_is_read_again(time):
    assert read("time", [literal(Instant(time))]) == Instant(time)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_that_is_shown_is_read_again(number):
    assert read("float", [literal(number)]) == number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5), ("-5", -5), ("0.5", 0.5), ("true", True), ("5m", Duration("5m")), ("now", "now"),
        ("2026-01-31", Instant(nanoseconds(2026, 1, 31))), ("goog-1", "goog-1"), ("", ""), ("True", "True"),
    ],
)  # fmt: skip
def test_a_type_is_guessed(text, value):
    assert guess(text) == value
    assert type(guess(text)) is type(value)


class TestGiven:
    def test_once_each_or_again_for_a_list(self):
        assert taken_apart(["run=a=b", "layers=x", "layers=y,z", "empty="]) == {
            "run": ["a=b"], "layers": ["x", "y,z"], "empty": [""],
        }  # fmt: skip

    def test_types_of_queries_of_ones_own(self):
        found = parse_typed_items(["a=5", "b:string=5", "c:strings=x", "c:strings=y", "d:float=5", "e:time=now"])
        assert found == {"a": 5, "b": "5", "c": ["x", "y"], "d": 5.0, "e": Instant()}
        assert isinstance(found["d"], float)

    @pytest.mark.parametrize("item", ["run", "=a", "1a=b", "a b=c", "é=1", "", "a:b:c=d", "\x1b=x"])
    def test_what_has_another_form(self, item):
        for function in (taken_apart, parse_typed_items):
            with pytest.raises(ConfigError, match=r"^--param .*: must be NAME=VALUE, such as run=goog-1$"):
                function([item])

    def test_what_is_no_text(self):
        for function in (taken_apart, parse_typed_items):
            with pytest.raises(ConfigError, match=r"^--param run=\\udcff: is not UTF-8"):
                function(["run=\udcff"])

    @pytest.mark.parametrize(
        ("items", "problem"),
        [
            (["a:money=5"], "no type 'money'; there are string, int,"),
            (["a:int=x"], "must be a whole number"),
            (["a=1", "a=2"], "a was given before"),
            (["a:strings=1", "a=2"], "a was given before"),
            (["import=2"], "is a word of Flux itself"),
        ],
    )
    def test_what_cannot_be_a_value(self, items, problem):
        with pytest.raises(ConfigError, match=f"^--param .*{problem}"):
            parse_typed_items(items)

    def test_a_named_query_declares_its_types(self):
        with pytest.raises(ConfigError, match="a named query declares its types; give step=VALUE"):
            taken_apart(["step:int=5"])


FILE = """// A title
//
// What it is about,
// in two lines.
//
// param run: string                which run
// param step: int = 5              the step
// param layers: strings            only these
// columns: time, value

import "date"

from(bucket: bucket)
"""


class TestFile:
    def test_its_first_comment_says_what_it_is(self):
        query = parse("q", FILE)
        assert (query.title, query.about) == ("A title", "What it is about, in two lines.")
        assert [(p.name, p.kind, p.default, p.help, p.required) for p in query.parameters] == [
            ("run", "string", None, "which run", True),
            ("step", "int", "5", "the step", False),
            ("layers", "strings", None, "only these", False),
        ]
        assert query.columns == ("time", "value")
        assert signature(query.parameters) == "run [step=5] [layers…]"

    def test_its_values(self):
        assert parse("q", FILE).values({"run": ["a"], "layers": ["x", "y"]}, "b") == {
            "bucket": "b", "run": "a", "step": 5, "layers": ["x", "y"],
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("texts", "told"),
        [
            ({}, "query 'q' needs --param run=…: which run"),
            ({"run": ["a"], "stpe": ["5"]}, "--param stpe: query 'q' has no such parameter; it has run, step, layers;"
             " did you mean 'step'?"),
            ({"run": ["a"], "step": ["abc"]}, "--param step=abc: must be a whole number of at most 64 bits, such as 100"
             " (query 'q')"),
            ({"run": ["a", "b"]}, "--param run: was given more than once (query 'q')"),
            ({"bucket": ["x"]}, "--param bucket: query 'q' has no such parameter; it has run, step, layers"),
        ],
    )  # fmt: skip
    def test_values_that_cannot_be(self, texts, told):
        with pytest.raises(ConfigError) as caught:
            parse("q", FILE).values(texts, "b")
        assert str(caught.value) == told

    @pytest.mark.parametrize(
        ("declared", "good", "bad", "told"),
        [
            ("int > 0", ["1"], ["0", "-1"], "must be more than 0"),
            ("duration > 0", ["1m", "0h1ns"], ["-1m", "0h0s"], "must be more than 0"),
            ("string of gate_stats", ["p95", "hist_07"], ["nosuch", ""], "must be a statistic of a gate: mean, std,"
             " p05, p50, p95, saturated_low, saturated_high, entropy, zero_crossing_rate, dead_units, nan_count,"
             " inf_count, or hist_00 to hist_19"),
        ],
    )  # fmt: skip
    def test_values_beyond_what_is_declared(self, declared, good, bad, told):
        query = parse("q", f"// A title\n//\n// param x: {declared} = {good[0]}  help\n// columns: time\n")
        for text in good:
            assert query.values({"x": [text]}, "b")
        for text in bad:
            with pytest.raises(ConfigError) as caught:
                query.values({"x": [text]}, "b")
            assert str(caught.value) == f"--param x={text}: {told} (query 'q')"

    def test_it_is_shown_with_its_values(self):
        query = parse("q", FILE)
        assert query.filled(query.values({"run": ['a"b']}, "points")) == (
            '// A title\n\nimport "date"\n\nbucket = "points"\nrun = "a\\"b"\nstep = 5\nlayers = []\n\n'
            "from(bucket: bucket)"
        )

    @pytest.mark.parametrize("text", ["", "from(bucket: bucket)\n", "// A title\n"])
    def test_one_without_a_title_or_columns(self, text):
        with pytest.raises(ValueError, match=r"q\.flux"):
            parse("q", text)

    def test_every_query_can_be_found_and_its_defaults_are_of_their_types(self):
        assert len(queries()) >= 12
        for name, query in queries().items():
            assert named(name) is query
            assert query.title
            assert query.about
            assert query.text.count("\n// param ") == len(query.parameters)
            for parameter in query.parameters:
                assert parameter.kind in READERS
                assert re.search(rf"^(?!//).*\b{parameter.name}\b", query.text, re.MULTILINE), "it is used"
                if not parameter.required:
                    parameter.value(None)

    def test_a_name_of_none(self):
        with pytest.raises(ConfigError, match=r"^no query is named 'gate'; there are alerts, "):
            named("gate")


ANSWER = """#datatype,string,long,dateTime:RFC3339,double,string,boolean,long\r
#default,_result,,,,,,\r
,result,table,_time,_value,run,flag,step\r
,,0,2026-01-31T09:30:00.000000001Z,0.5,"a ""b"", \r
c",true,7\r
,,1,2026-01-31T09:30:00Z,,é漢,false,\r
\r
#datatype,string,long,unsignedLong\r
#default,other,,\r
,result,table,n\r
,,2,18446744073709551615\r
"""


def pieces(text, size=7):
    data = text.encode()
    return [data[i : i + size] for i in range(0, len(data), size)]


class TestAnswer:
    @pytest.mark.parametrize("size", [1, 7, 10_000])
    def test_rows_come_with_their_types(self, size):
        first, second, third = rows(pieces(ANSWER, size))
        assert list(first) == list(second) == ["_time", "_value", "run", "flag", "step"]
        assert list(first.values()) == ["2026-01-31T09:30:00.000000001Z", 0.5, 'a "b", \nc', True, 7]
        assert list(second.values()) == ["2026-01-31T09:30:00Z", None, "é漢", False, None]
        assert list(third.items()) == [("result", "other"), ("n", 2**64 - 1)]

    def test_a_long_text(self):
        text = 'x"' * 2**19
        answer = (
            f'#datatype,string,long,string\n,result,table,config\n,_result,0,"{text.replace(chr(34), chr(34) * 2)}"\n'
        )
        assert next(rows(pieces(answer, 2**16))) == {"config": text}

    @pytest.mark.parametrize("before", ["", ANSWER], ids=["at once", "in the middle"])
    def test_an_error_in_it(self, before):
        told = ',error,reference\r\n,"runtime error @1:2-1:9: ""x"" is no number",897\r\n'
        with pytest.raises(QueryFailed, match=r'^runtime error @1:2-1:9: "x" is no number$'):
            list(rows(pieces(f"{before}\r\n#datatype,string,string\r\n#default,,\r\n{told}")))

    def test_columns_that_a_user_named_so_are_no_error(self):
        answer = "#datatype,string,long,string,string\n,result,table,error,reference\n,_result,0,a,b\n"
        assert list(rows([answer.encode()])) == [{"error": "a", "reference": "b"}]

    @pytest.mark.parametrize("text", ["<html>no</html>\n", '#datatype,long\n,a\n,1,"', "#datatype,long,long\n,a\n,x\n"])
    def test_what_is_no_answer(self, text):
        with pytest.raises(ValueError, match=r"."):
            list(rows(pieces(text)))

    def test_nothing(self):
        assert list(rows([])) == list(rows([b"\r\n"])) == []

    @settings(deadline=None)
    @given(st.lists(st.tuples(st.floats(allow_nan=False), st.integers(-(2**63), 2**63 - 1), st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\x00")
    )), max_size=5), st.integers(1, 50))  # fmt: skip
    def test_influxdbs_own_client_reads_the_same(self, values, size):
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerows(
            [["#datatype", "string", "long", "double", "long", "string"], ["#group", *["false"] * 5],
                ["#default", "_result", "", "", "", ""],
             ["", "result", "table", "x", "n", "name"], *(["", "", 0, *map(str, value)] for value in values)]
        )  # fmt: skip

        class Response(io.BytesIO):
            def getheaders(self):
                return {}

        parser = FluxCsvParser(Response(text.getvalue().encode()), FluxSerializationMode.stream)
        oracle = [(record["x"], record["n"], record["name"]) for record in parser.generator()]
        found = [tuple(row.values()) for row in rows(pieces(text.getvalue(), size))]
        assert found == [(x, n, name or "") for x, n, name in oracle] == values


class TestPrinted:
    ROWS = (
        {"time": "2026-01-31T09:30:00Z", "run": "a\x1b[31m", "value": 0.73129, "n": 12000, "flag": True},
        {"time": "2026-01-31T09:30:00.5Z", "run": "b", "value": None, "n": 7, "flag": None},
    )

    def test_a_table(self):
        assert "".join(as_table(self.ROWS)) == (
            "time                   run        value      n  flag\n"
            "2026-01-31 09:30:00    a\\x1b[31m  0.731  12000  true\n"
            "2026-01-31 09:30:00.5  b                     7\n"
        )

    def test_small_numbers_keep_their_digits(self):
        assert "1.23e-08" in "".join(as_table([{"norm": 1.234e-8}]))

    def test_a_long_table_comes_in_blocks(self):
        def endless():
            n = 0
            while True:
                yield {"n": n}
                n += 1

        first, second = (block for block, _ in zip(as_table(endless()), range(2), strict=False))
        assert first.splitlines()[0] == "n".rjust(len(first.splitlines()[0]))
        assert len(first.splitlines()) == len(second.splitlines()) == BLOCK + 1

    def test_csv(self):
        other = {"x\n": float("nan")}
        assert "".join(as_csv([*self.ROWS, other])) == (
            "time,run,value,n,flag\n"
            "2026-01-31T09:30:00Z,a\x1b[31m,0.73129,12000,true\n"
            "2026-01-31T09:30:00.5Z,b,,7,\n"
            '\n"x\n"\nnan\n'
        )

    def test_json(self):
        assert json.loads("".join(as_json(self.ROWS))) == list(self.ROWS)
        assert json.loads("".join(as_json([]))) == []
        assert json.loads("".join(as_json([{"x": float("inf")}]))) == [{"x": None}]

    def test_columns_in_order(self):
        (row,) = in_order([{"b": 2, "c": 3, "a": 1}], ("a", "b", "d"))
        assert list(row.items()) == [("a", 1), ("b", 2), ("d", None)]

    def test_causes_in_words(self):
        told = [
            {"gate": "forget", "why_entropy": -9.0, "why_collapsed": 2.0, "why_x": None},
            {"gate": "input"},
        ]
        first, second = with_explanations(told, "why_")
        assert list(first)[-1] == list(second)[-1] == "why"
        assert first["why"] == (
            "the gate went fully open or shut (collapsed); its activations gather at few values (entropy, 9× its usual)"
        )
        assert second == {"gate": "input", "why": ""}


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("compilation failed: error @3:5-3:10: undefined identifier x\n\nerror @9:1-9:2: y", "q.flux:3:5: undefined"
         " identifier x (and 1 more)"),
        ("runtime error @1:2-1:9: filter: nothing", "q.flux:1:2: filter: nothing"),
        ("compilation failed: no place\nfor it", "q.flux: no place for it"),
    ],
)  # fmt: skip
def test_a_servers_complaint_begins_with_its_place(message, told):
    assert placed("q.flux", message) == told


def test_what_the_queries_call_dead_and_healthy_is_what_the_jobs_call_so():
    assert f"r.last_seen > {DIED_SECONDS:.0f} then" in queries()["runs"].text
    bounds = {each.name: each.value(None) for each in queries()["updates"].parameters if each.kind == "float"}
    assert bounds == {"slow": UPDATE_SLOW, "fast": UPDATE_FAST}

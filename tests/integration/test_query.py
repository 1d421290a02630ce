"""`gatewatch query` and its cookbook, on a real InfluxDB: what is asked, what is printed, and how it fails."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from influxdb_client.client._base import _BaseQueryApi
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.client.warnings import MissingPivotFunction

from gatewatch.collector.schema import GATE_STATS, Point
from gatewatch.collector.store import open_store
from gatewatch.jobs.cli import main
from gatewatch.jobs.queries.client import ask
from gatewatch.jobs.queries.flux_values import Instant, duration, extern, literal
from gatewatch.jobs.queries.named_query import queries
from gatewatch.jobs.queries.output import in_order
from gatewatch.jobs.scoring.scoring_pass import run_pass
from tests import cookbook, seeded
from tests.conftest import ROOT, free_port
from tests.servers import Front, holding, replying

TEXT = cookbook.PATH.read_text()
RECIPES = cookbook.recipes(TEXT)
HOSTILE = seeded.HOSTILE


def said(capsys, *arguments):
    status = main(["query", *arguments])
    out, err = capsys.readouterr()
    return status, out, err


@pytest.fixture(scope="module")
def filled(influxd):
    """The bucket that the cookbook is about."""
    bucket = influxd.bucket("cookbook")
    cookbook.seed(influxd.store(bucket))
    return bucket


@pytest.fixture
def here(influxd, monkeypatch, tmp_path):
    """Makes a bucket the one that the command asks."""
    monkeypatch.chdir(tmp_path)

    def choose(bucket, **others):
        for name, value in {**cookbook.environment(influxd, bucket), **others}.items():
            monkeypatch.setenv(name, value)

    return choose


class TestCookbook:
    @pytest.mark.parametrize("recipe", RECIPES, ids=[recipe.arguments[1].lstrip("-") for recipe in RECIPES])
    def test_a_recipe_prints_what_is_shown(self, recipe, filled, here, tmp_path):
        here(filled)
        assert cookbook.printed(recipe, tmp_path) == recipe.printed, "python -m tests.cookbook writes it anew"
        assert cookbook.flux(recipe) == recipe.flux
        if not recipe.file:
            query = queries()[recipe.arguments[1]]
            header = recipe.printed.partition("\n")[0].split()
            assert header == [*query.columns]

    def test_every_query_has_one(self):
        named = [recipe.arguments[1] for recipe in RECIPES if not recipe.file]
        assert sorted(named) == list(queries())
        assert re.findall(r"^### (\S+)$", TEXT, re.MULTILINE) == named

    def test_what_each_answers_is_what_its_file_says(self):
        assert cookbook.described(TEXT) == TEXT, "python -m tests.cookbook writes it anew"

    def test_the_other_commands_run(self, filled, here, capsys):
        here(filled)
        others = re.findall(r"^```\n(gatewatch query [^`]*)^```\n\n(?!```text)", TEXT, re.MULTILINE)
        assert len(others) == 2
        for command in others:
            assert main(cookbook.Recipe(command, "", "").arguments) == 0
            assert "lstm_0" in capsys.readouterr().out or "--show" in command

    @pytest.mark.filterwarnings(f"error::{MissingPivotFunction.__module__}.{MissingPivotFunction.__name__}")
    def test_the_notebook_runs(self, filled, here):
        here(filled)
        (block,) = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
        names = {}
        exec(block.replace('bucket="gatewatch"', f"bucket={filled!r}"), names)
        assert set(names["frame"]["gate"]) == {"forget"}
        assert len(names["frame"]) > 20

    @pytest.mark.parametrize("recipe", [r for r in RECIPES if not r.file], ids=lambda recipe: recipe.arguments[1])
    def test_what_is_shown_to_be_pasted_gives_the_same(self, recipe, filled, here, influxd, capsys):
        here(filled)
        arguments = [*recipe.arguments[1:]]
        if "--limit" in arguments:
            del arguments[arguments.index("--limit") :]
        query = queries()[arguments[0]]
        status, pasted, _ = said(capsys, *arguments, "--show")
        assert status == 0
        rows = json.loads(said(capsys, *arguments, "--json")[1])
        with InfluxDBClient(influxd.url, influxd.token, org=influxd.org) as client:
            records = [record for table in client.query_api().query(pasted) for record in table.records]
        assert len(records) == len(rows)
        for record, row in zip(records, rows, strict=True):
            names = [name for name in query.columns if name != "why"]  # which the command makes of the columns why_…
            assert [same(record.values.get(name)) for name in names] == [same(row[name]) for name in names]

    def test_the_links_lead_somewhere(self):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", TEXT):
            assert (cookbook.PATH.parent / target).exists(), target


def same(value):
    """A value of the client's, or of JSON, as one that compares: a time to the microsecond, nothing as no text."""
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT.*Z", value):
        return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", value))
    return "" if value is None else value


def asked(run, **values):
    """What a test gives to every query: its required parameters, and times that hold all."""
    fixed = {"run": run, "other": run, "layer": "encoder", "step": "50", "steps": "7", "curve": "loss", "every": "1m"}
    fixed |= {"phase": "train", "start": "1980-01-01", "stop": "2200-01-01"} | values
    for query in queries().values():
        names = {parameter.name for parameter in query.parameters}
        yield query, {name: [value] for name, value in fixed.items() if name in names}


@pytest.fixture(scope="module")
def whole(influxd):
    """A store with every measurement, in the bucket `whole`."""
    store = influxd.store(influxd.bucket("whole"))
    store.write(cookbook.sick())
    store.write([*seeded.jobs_points(cookbook.NOW, 2), *seeded.alert_points(cookbook.NOW)])
    health = {"captured": 1, "rejected": 0, "capture_ms": 1.5}
    store.write([Point("collector_health", {"run": cookbook.SICK, "phase": "train"}, health, cookbook.NOW)])
    run_pass(store)
    return store


@pytest.fixture(scope="module")
def store(influxd):
    """A store that holds nothing."""
    return influxd.store(influxd.bucket())


@pytest.fixture(scope="module")
def hostile(influxd):
    """A bucket with a run of a hostile name and one of a plain one."""
    bucket = influxd.bucket()
    tags = {"run": HOSTILE, "phase": "train", "layer": seeded.HOSTILE_LAYER, "gate": "forget", **seeded.HOSTILE_TAGS}
    plain = {**tags, "run": "plain", "layer": "l"}
    influxd.store(bucket).write([Point(GATE_STATS, t, {"mean": 0.5, "step": 1}, 10**18) for t in (tags, plain)])
    return bucket


class TestWhereLittleIsKnown:
    @pytest.mark.parametrize("name", list(queries()))
    def test_an_empty_bucket_is_said_to_be_in_one_line(self, name, influxd, here, capsys):
        bucket = influxd.bucket()
        here(bucket)
        texts = next(texts for query, texts in asked("r") if query.name == name)
        arguments = [item for key, (value,) in texts.items() for item in ("--param", f"{key}={value}")]
        status, out, err = said(capsys, name, *arguments)
        assert (status, err) == (0, "")
        assert re.fullmatch(rf"query '{name}' finds nothing, given bucket=\"{bucket}\", .*\n", out)
        assert said(capsys, name, *arguments, "--json") == (0, "[]\n", "")
        assert said(capsys, name, *arguments, "--csv") == (0, "", "")

    @pytest.mark.parametrize("but", [True, False], ids=["without", "alone"])
    @pytest.mark.parametrize(
        "part",
        ["_measurement:" + name for name in ("gate_stats", "gate_derived", "gate_scores", "train_metrics", "runs")]
        + ["_measurement:layer_updates", "_measurement:collector_health"]
        + ["_field:" + name for name in ("step", "event", "loss", "anomaly_score", "anomalous", "epoch", "mean")],
    )
    def test_no_query_fails_where_something_is_missing(self, part, but, whole, influxd):
        column, _, name = part.partition(":")
        bucket = influxd.bucket()
        copied = (
            f'from(bucket: "whole") |> range(start: 1980-01-01T00:00:00Z)'
            f' |> filter(fn: (r) => r.{column} {"!=" if but else "=="} "{name}") |> to(bucket: "{bucket}")'
            " |> count() |> filter(fn: (r) => false)"
        )
        assert list(ask(whole.influxdb, copied, {}, source="copy")) == []
        store, answered = influxd.store(bucket), 0
        for query, texts in asked(cookbook.SICK):
            values = query.values(texts, bucket)
            answered += bool(list(ask(store.influxdb, query.text, values, source=query.name)))
        assert answered >= (6 if but else 0)

    def test_a_tag_and_a_statistic_that_nobody_has(self, whole):
        for name, more in (("saturation-by", {"tag": "nobody"}), ("gates", {"statistic": "nobody"})):
            query, texts = next(found for found in asked(cookbook.SICK) if found[0].name == name)
            values = query.values(texts, "whole") | more
            assert list(ask(whole.influxdb, query.text, values, source=name)) == []

    def test_a_run_has_one_row_whatever_its_collector_told_when(self, influxd):
        store, tags = influxd.store(influxd.bucket()), {"run": "r", "phase": "train"}
        store.write([Point("collector_health", tags, {"captured": 1, "unreplayed_layers": "a", "rejected": 2}, 10**18)])
        store.write([Point("collector_health", tags, {"captured": 5, "replay_error": 0.5}, 10**18 + 1)])
        query = queries()["collector"]
        values = query.values({"start": ["2000-01-01"]}, store.destination["bucket"])
        (told,) = in_order(ask(store.influxdb, query.text, values, source="collector"), query.columns)
        assert (told["captured"], told["rejected"], told["replay_error"]) == (5, 2, 0.5)
        assert told["time"] == "2001-09-09T01:46:40.000000001Z"

    def test_a_curve_that_nobody_logged(self, whole, here, capsys):
        here("whole")
        status, out, err = said(capsys, "drawdown", "--param", f"run={cookbook.SICK}", "--param", "curve=nobody")
        assert (status, err) == (0, "")
        assert out.startswith("query 'drawdown' finds nothing")


# Values reach a query as they are: each is given beside it, and is equal there to what `--show` would write for it.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")) | st.sampled_from(
    ['"', "\\", "${x}", '${"', "\\${", "$", "${", "a\nb", "\t", "é漢𝔘", "'", '") |> drop()', "//", "\\n", "\u2028"]
)
UNITS = st.sampled_from(["mo", "w", "d", "h", "m", "s", "ms", "us", "ns"])
PARTS = st.lists(st.builds("{}{}".format, st.integers(0, 1000), UNITS), min_size=1, max_size=3)
DURATIONS = st.builds(lambda sign, parts: duration(sign + "".join(parts)), st.sampled_from(["", "-"]), PARTS)


class TestValues:
    def one(self, store, value, same="x == {}", shown="x"):
        query = (
            f'import "array"\nimport "date"\narray.from(rows: [{{same: {same.format(literal(value))}, x: {shown}}}])'
        )
        (row,) = ask(store.influxdb, query, {"x": value}, source="test")
        assert row["same"] is True
        return row["x"]

    @settings(max_examples=100, deadline=None)
    @given(TEXTS)
    @example('"} ${1 + 1} \\" \\${x} \\\\')
    @example('$\\ $" $$\\ $\n $${ $$${x} \\$\\ a$')
    def test_text(self, store, text):
        assert self.one(store, text) == re.sub(r"\r", "", text)  # which the server's CSV cannot tell

    @settings(max_examples=40, deadline=None)
    @given(st.integers(-(2**63) + 1, 2**63 - 1))
    @example(2**63 - 1)
    @example(-(2**63) + 1)
    def test_whole_numbers(self, store, number):
        assert self.one(store, number) == number

    @settings(max_examples=60, deadline=None)
    @given(st.floats(allow_nan=False, allow_infinity=False))
    @example(1e-7)
    @example(-1.7976931348623157e308)
    @example(5e-324)
    def test_numbers(self, store, number):
        assert self.one(store, number) == number

    @pytest.mark.parametrize("value", [True, False])
    def test_truth(self, store, value):
        assert self.one(store, value) is value

    @settings(max_examples=40, deadline=None)
    @given(st.integers(-(2**63) + 10**9, 2**63 - 10**9))
    def test_times(self, store, time):
        assert self.one(store, Instant(time)) == literal(Instant(time))

    def test_now(self, store):
        before = time.time()
        shown = self.one(store, Instant())
        assert abs(datetime.fromisoformat(shown[:19] + "Z").timestamp() - before) < 60

    @settings(max_examples=40, deadline=None)
    @given(DURATIONS)
    @example(duration("-1y6mo2d"))
    @example(duration("-0mo1d"))
    def test_durations(self, store, span):
        to = "to: 2020-02-29T00:00:00Z"
        self.one(store, span, f"date.add(d: x, {to}) == date.add(d: {{}}, {to})", "string(v: x)")

    @settings(max_examples=30, deadline=None)
    @given(st.lists(TEXTS, max_size=4))
    @example(["$\\", '$"', "$$\\"])
    def test_lists(self, store, texts):
        self.one(store, texts, "length(arr: x) == length(arr: {})", "length(arr: x)")
        for i, text in enumerate(texts):
            query = f'import "array"\narray.from(rows: [{{same: x[{i}] == {literal(texts)}[{i}], x: x[{i}]}}])'
            (row,) = ask(store.influxdb, query, {"x": texts}, source="test")
            assert row == {"same": True, "x": text.replace("\r", "")}

    def test_influxdbs_own_client_says_it_alike(self):
        values = {"a": 'x"${y}', "b": ["p", "q"]}
        tree = _BaseQueryApi._build_flux_ast(values)
        oracle = InfluxDBClient("http://localhost", "t").api_client.sanitize_for_serialization(tree)
        assert extern(values)["body"] == oracle["body"]


class TestNames:
    def test_a_run_of_any_name_is_found_and_no_other(self, hostile, here, capsys):
        here(hostile)
        for run, layer in ((HOSTILE, seeded.HOSTILE_LAYER), ("plain", "l")):
            arguments = ("gates", "--param", f"run={run}", "--param", f"layers={layer}")
            (row,) = json.loads(said(capsys, *arguments, "--json")[1])
            assert (row["layer"], row["value"]) == (layer, 0.5)
            _, line = csv.reader(io.StringIO(said(capsys, *arguments, "--csv")[1]))
            assert line[2] == layer
            assert "finds nothing" in said(capsys, *arguments[:3], "--param", f"layers={layer}x")[1]

    def test_what_would_speak_to_the_terminal_is_escaped(self, hostile, here, capsys):
        here(hostile)
        Path("q.flux").write_text(
            'import "array"\narray.from(rows: [{a: x, b: 1}]) |> rename(columns: {b: "c\\x1b[2J"})'
        )
        status, out, _ = said(capsys, "--flux", "q.flux", "--param", "x=\x1b[31mred\n\u202e")
        assert status == 0
        assert out == "a                    c\\x1b[2J\n\\x1b[31mred\\n\\u202e         1\n"
        status, _, err = said(capsys, "--flux", "q.flux", "--param", "x:int=\x1b[31m")
        assert (status, "\x1b" in err) == (2, False)
        status, _, err = said(capsys, "gates\x1b[31m")
        assert (status, "\x1b" in err) == (2, False)


class TestPrinting:
    @pytest.fixture(autouse=True)
    def asking(self, filled, here):
        here(filled)

    def test_the_list(self, capsys, monkeypatch):
        monkeypatch.setenv("GATEWATCH_STORE", "http://nobody.invalid")  # which it does not need
        status, out, _ = said(capsys)
        assert status == 0
        assert [line.split()[0] for line in out.splitlines()[1:]] == list(queries())
        listed = json.loads(said(capsys, "--json")[1])
        assert [entry["name"] for entry in listed] == list(queries())
        gates = next(entry for entry in listed if entry["name"] == "gates")
        assert gates["parameters"][0] == {
            "name": "run", "type": "string", "required": True, "default": None, "help": "which run",
        }  # fmt: skip

    def test_the_list_for_programs_without_json(self, capsys):
        status, out, _ = said(capsys, "--csv")
        header, *listed = csv.reader(io.StringIO(out))
        assert (status, header, [row[0] for row in listed]) == (0, ["query", "answers", "--param"], list(queries()))

    def test_what_a_query_needs_is_shown(self, capsys):
        assert said(capsys, "gates", "--show") == (0, queries()["gates"].text, "")

    def test_programs_get_everything(self, capsys):
        arguments = ("memory", "--param", "run=goog-lstm-1")
        rows = json.loads(said(capsys, *arguments, "--json")[1])
        assert [list(row) for row in rows] == [list(queries()["memory"].columns)] * 2
        assert len(str(rows[0]["first"])) > 10
        table = list(csv.DictReader(io.StringIO(said(capsys, *arguments, "--csv")[1])))
        assert [{name: str(value) for name, value in row.items()} for row in rows] == table

    def test_a_limit(self, capsys):
        arguments = ("gates", "--param", "run=goog-lstm-1")
        status, out, err = said(capsys, *arguments, "--limit", "3")
        assert (status, len(out.splitlines())) == (0, 4)
        assert err == "only the first 3 rows are shown: there are more, see --limit\n"
        assert len(json.loads(said(capsys, *arguments, "--limit", "3", "--json")[1])) == 3
        assert (
            said(capsys, *arguments, "--limit", "1")[2] == "only the first row is shown: there are more, see --limit\n"
        )
        assert said(capsys, "memory", "--param", "run=goog-lstm-1", "--limit", "2")[2] == ""

    def test_results_of_several_names(self, capsys):
        Path("q.flux").write_text(
            'import "array"\narray.from(rows: [{a: 1}]) |> yield(name: "one")\n'
            'array.from(rows: [{a: "x", b: 2.5}]) |> yield(name: "two")'
        )
        one, two = "result  a\none     1\n", "result  a    b\ntwo     x  2.5\n"
        assert said(capsys, "--flux", "q.flux")[1] in (one + two, two + one)  # the server answers in any order
        blocks = said(capsys, "--flux", "q.flux", "--csv")[1].split("\n\n")
        assert sorted(block.strip() for block in blocks) == ["result,a\none,1", "result,a,b\ntwo,x,2.5"]

    def test_a_bucket_of_its_own(self, capsys, influxd):
        other = influxd.bucket()
        Path("q.flux").write_text(f'bucket = "{other}"\nfrom(bucket: bucket) |> range(start: 0)')
        status, out, _ = said(capsys, "--flux", "q.flux")
        assert (status, out) == (0, "q.flux finds nothing, given nothing\n")

    def test_from_the_standard_input(self):
        command = [sys.executable, "-m", "gatewatch.jobs.cli", "query", "--flux", "-", "--param", "n=41"]
        text = 'import "array"\narray.from(rows: [{n: n + 1}])'
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, env=environment())
        assert (done.returncode, done.stdout, done.stderr) == (0, " n\n42\n", "")

    def test_a_closed_pipe(self):
        asking = f"{sys.executable} -m gatewatch.jobs.cli query gates --param run=goog-lstm-1 --csv"
        command = f"{asking} | head -n 1; echo ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, env=environment())
        assert (done.stdout, done.stderr) == ("time,phase,layer,gate,value\n0\n", "")


def environment():
    return os.environ | {"PYTHONPATH": str(ROOT)}


class TestFailing:
    @pytest.fixture(autouse=True)
    def asking(self, influxd, here):
        here(influxd.bucket())

    def fails(self, capsys, status, pattern, *arguments):
        found, out, err = said(capsys, *arguments)
        assert (found, out, err.count("\n")) == (status, "", 1), err
        assert re.fullmatch(f"gatewatch: {pattern}\n", err), err

    @pytest.mark.parametrize(
        ("arguments", "pattern"),
        [
            (("gate",), r"no query is named 'gate'; there are alerts, .*"),
            (("gates",), r"query 'gates' needs --param run=…: which run"),
            (("gates", "--param", "run=a", "--param", "every=abc"), r"--param every=abc: must be a duration, .*"),
            (("gates", "--param", "run=a", "--param", "nope=1"), r"--param nope: query 'gates' has no such .*"),
            (("gates", "--param", "run"), r"--param run: must be NAME=VALUE, .*"),
            (("gates", "--flux", "q.flux"), r"--flux is for a query of your own: .*"),
            (("--flux", "q.flux", "--show"), r"--flux is for a query of your own: .*"),
            (("gates", "--param", "run=a", "--param", "statistic=no"), r"--param statistic=no: must be a statistic .*"),
            (("gates", "--param", "run=a", "--param", "every=-1m"), r"--param every=-1m: must be more than 0 .*"),
            (("worst-layers", "--param", "top=-1"), r"--param top=-1: must be more than 0 .*"),
            (("runs", "--param", "start=now", "--param", "stop=-1d"), r".*: `start` must be before `stop`"),
            (("--flux", ""), r"--flux: name a file that holds a Flux query, or - for the standard input"),
            (("--limit", "3"), r"which query\? .*"),
            (("--flux", "nowhere.flux"), r"--flux nowhere\.flux: No such file or directory; .*"),
            (("--flux", "."), r"--flux \.: Is a directory; .*"),
        ],
    )  # fmt: skip
    def test_arguments_that_are_wrong(self, capsys, arguments, pattern):
        self.fails(capsys, 2, pattern, *arguments)

    @pytest.mark.parametrize("number", ["nan", "0", "1.5", "x"])
    def test_what_is_no_number(self, capsys, number):
        with pytest.raises(SystemExit, match="2"):
            main(["query", "runs", "--timeout", number])
        assert f"--timeout: '{number}' is not a positive whole number" in capsys.readouterr().err

    def test_a_store_that_knows_no_flux(self, capsys, tmp_path):
        url = f"sqlite:///{tmp_path}/points.db"
        pattern = rf"{re.escape(url)}: Flux needs InfluxDB 2: .* `gatewatch copy --from {re.escape(url)} --to http.*`"
        open_store(url).check()
        self.fails(capsys, 2, pattern, "runs", "--show", "--store", url)
        self.fails(capsys, 2, pattern, "compare", "--param", "run=a", "--param", "other=b", "--store", url)

    @pytest.mark.parametrize(
        ("text", "pattern"),
        [
            ("from(bucket: bucket)\n  |> range(start: -1h)\n  |> no()", r"q\.flux:3:6: undefined identifier no"),
            ("x = [1,, 2]\nfrom(", r"q\.flux:1:\d+: .*"),
            ('import "array"\narray.from(rows: [{a: 1 / x}])', r"q\.flux: .*divide by zero.*"),
            ('from(bucket: "nobody") |> range(start: -1h)', r'http\S+: could not find bucket "nobody": it .*'),
            ("x = 2", r"q\.flux:1:1: .*conflicts.*"),
            ("  \n", r"--flux q\.flux: it is empty; .*"),
        ],
    )  # fmt: skip
    def test_a_query_that_is_wrong(self, capsys, text, pattern):
        Path("q.flux").write_text(text)
        self.fails(capsys, 2, pattern, "--flux", "q.flux", "--param", "x=0")

    def test_a_query_that_is_no_text(self, capsys):
        Path("q.flux").write_bytes(b"\xff\xfe")
        self.fails(capsys, 2, r"--flux q\.flux: it is not UTF-8; .*", "--flux", "q.flux")

    def test_a_token_that_may_not_read(self, capsys, influxd, monkeypatch):
        monkeypatch.setenv("INFLUXDB_V2_TOKEN", influxd.token_for("write"))
        self.fails(capsys, 2, r"http\S+: could not find bucket .* the token may not read it; .*TOKEN", "runs")
        monkeypatch.setenv("INFLUXDB_V2_TOKEN", "wrong")
        self.fails(capsys, 2, r"http\S+: unauthorized access; see INFLUXDB_V2_TOKEN", "runs")

    def test_a_bucket_and_an_organisation_that_are_none(self, capsys, monkeypatch):
        monkeypatch.setenv("INFLUXDB_V2_BUCKET", 'no"body')
        self.fails(capsys, 2, r"http\S+: could not find bucket .* see INFLUXDB_V2_BUCKET and INFLUXDB_V2_TOKEN", "runs")
        monkeypatch.setenv("INFLUXDB_V2_ORG", "nobody")
        self.fails(capsys, 2, r"http\S+: no organisation 'nobody' .*; see INFLUXDB_V2_ORG", "runs")

    def test_a_server_that_is_away(self, capsys):
        url = f"http://127.0.0.1:{free_port()}"
        self.fails(capsys, 1, rf"{url}: no connection; see that InfluxDB runs there", "runs", "--store", url)

    @pytest.fixture
    def front(self):
        front = Front()
        yield front
        front.close()

    def test_one_that_does_not_answer_in_time(self, capsys, front):
        front.answer = holding
        self.fails(capsys, 1, r"\S+: no answer within 1 s; .*", "runs", "--store", front.url, "--timeout", "1")

    @pytest.mark.parametrize(
        "body", [b"<html>hello</html>\n", b'#datatype,long\n,x\n,1,"', b"#datatype,long\n,x\n,\xff"]
    )
    def test_one_that_is_no_influxdb(self, capsys, front, body):
        front.answer = replying(200, body)
        self.fails(capsys, 1, r"\S+: the answer is not InfluxDB's .*; see the address", "runs", "--store", front.url)

    def test_an_answer_that_ends_in_an_error(self, capsys, front):
        error = "#datatype,string,string\r\n,error,reference\r\n,runtime error @4:2-4:9: out of memory,\r\n"
        front.answer = replying(200, error.encode())
        Path("q.flux").write_text("x")
        self.fails(capsys, 1, r"q\.flux:4:2: out of memory", "--flux", "q.flux", "--store", front.url)

    def begun(self, front):
        """A command whose answer has begun, and is not at its end."""

        def beginning(handler, body):
            head = "#datatype,string,long,long\r\n#default,_result,,\r\n,result,table,n\r\n"
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\n\r\n")
            handler.wfile.write((head + "".join(f",,0,{n}\r\n" for n in range(70_000))).encode())
            holding(handler, body)

        front.answer = beginning
        Path("q.flux").write_text("x")
        command = [sys.executable, "-m", "gatewatch.jobs.cli", "query", "--flux", "q.flux", "--store", front.url]
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment() | {"PYTHONUNBUFFERED": "1"},
        )

    def test_rows_are_printed_as_they_come_and_ctrl_c_ends_it(self, front):
        process = self.begun(front)
        try:
            lines = [process.stdout.readline().strip() for _ in range(2_000)]
            assert lines[:3] == ["n", "0", "1"]
            assert lines[1001] == "n"  # the header of the next block
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
        finally:
            process.kill()
            process.wait()
        assert process.returncode == 130
        assert err == "gatewatch: interrupted\n"

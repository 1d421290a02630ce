"""Commands: a new one is its options and a function; and what they say of a pass."""

from __future__ import annotations

import io
import sys
from contextlib import suppress

import pytest

from gatewatch.collector.errors import ConfigError, GatewatchError
from gatewatch.jobs.command_line import run
from gatewatch.jobs.commands.jobs import _too_short
from gatewatch.jobs.commands.options import COMMANDS
from gatewatch.jobs.scoring.scoring_pass import PassResult


@pytest.mark.parametrize(
    ("phases", "told"),
    [
        ({"train": 33}, []),
        ({"train": 32}, ["r train has 32"]),
        ({}, ["r has 0"]),
        ({"live": 20}, ["r live has 20"]),
        ({"backtest": 20, "live": 20}, ["r backtest has 20", "r live has 20"]),
        ({"backtest": 40, "live": 20}, []),  # live goes on from the backtest
    ],
)
def test_phases_without_scores_are_named(phases, told):
    assert list(_too_short([PassResult("r", phases=phases)], 32)) == told


def add_toy(commands, with_store):
    """A command, added as a new one is."""
    toy = commands.add_parser("toy", parents=[with_store], help="print the store")
    toy.add_argument("--fail", choices=["arguments", "work", "unexpectedly"])
    toy.set_defaults(run_command=run_toy)


def run_toy(arguments):
    if arguments.fail == "unexpectedly":
        raise RuntimeError(arguments.store)
    if arguments.fail:
        raise (ConfigError if arguments.fail == "arguments" else GatewatchError)("no such\nstore")
    print(arguments.store)


def test_a_new_command_is_run_with_its_arguments(capsys):
    assert run(["toy", "--store", "sqlite:///g.db"], [*COMMANDS, add_toy]) == 0
    assert capsys.readouterr().out == "sqlite:///g.db\n"


@pytest.mark.parametrize(("fail", "status"), [("arguments", 2), ("work", 1)])
def test_the_error_of_a_command_is_one_line_and_an_exit_status(capsys, fail, status):
    assert run(["toy", "--fail", fail], [add_toy]) == status
    assert capsys.readouterr().err == "gatewatch: no such store\n"


def test_a_new_command_is_in_the_help(capsys):
    with pytest.raises(SystemExit):
        run(["--help"], [add_toy])
    assert "print the store" in capsys.readouterr().out


HOSTILE = "a\x1b]0;owned\x07\rb\x9b\u202e\udcff"


@pytest.mark.parametrize("arguments", [[], ["--fail", "unexpectedly"], ["--fail", HOSTILE], [HOSTILE]])
def test_nothing_that_a_terminal_obeys_is_printed(capsys, arguments):
    with suppress(SystemExit):
        run(["toy", "--store", HOSTILE, *arguments], [add_toy])
    printed = "".join(capsys.readouterr())
    assert r"a\x1b]0;owned\x07" in printed
    assert printed.removesuffix("\n").isprintable()


def test_a_stream_that_cannot_hold_a_character_shows_an_escape(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding="ascii"))
    assert run(["toy", "--store", "é – ∞"], [add_toy]) == 0
    sys.stdout.flush()
    assert written.getvalue() == rb"\xe9 \u2013 \u221e" + b"\n"


def test_an_option_may_have_two_hyphens_as_its_value(capsys):
    assert run(["toy", "--store=--"], [add_toy]) == 0
    assert capsys.readouterr().out == "--\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["ruuns"], "argument COMMAND: invalid choice: 'ruuns'; there are runs and report; did you mean 'runs'?"),
        (["report", "--wach", "5"], "unrecognized arguments: --wach; did you mean '--watch'?"),
        (["runs", "goog-1"], "unrecognized arguments: goog-1"),
        (["report", "--watch", "9" * 5001], "argument --watch: '999"),
        (["report", "--watch", "1000000001"], "argument --watch: '1000000001' is too large"),
        (["report", "x" * 65536, "--watch", "0"], "argument --watch: '0' is no number of seconds; name the run"),
        (["runs", "x" * 65536], "unrecognized arguments: xxx"),
        ([], "the following arguments are required: COMMAND"),
    ],
)
def test_wrong_arguments_are_one_line_that_names_the_nearest(capsys, arguments, line):
    with pytest.raises(SystemExit) as end:
        run(arguments, [each for each in COMMANDS if each.__name__ in ("_runs", "_report")])
    error = capsys.readouterr().err
    assert end.value.code == 2
    assert error.startswith(f"gatewatch: {line}")
    assert error.count("\n") == 1
    assert len(error) < 1100
    assert "--help`" in error

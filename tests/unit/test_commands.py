"""Commands: a new one is its options and a function; and what they say of a pass."""

from __future__ import annotations

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
    toy.add_argument("--fail", choices=["arguments", "work"])
    toy.set_defaults(run_command=run_toy)


def run_toy(arguments):
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

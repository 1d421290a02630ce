"""Commands: a new one is a module; and what they say of a pass."""

from __future__ import annotations

import pytest

from gatewatch.collector.errors import ConfigError, GatewatchError
from gatewatch.jobs.command_line import run
from gatewatch.jobs.commands import COMMANDS
from gatewatch.jobs.commands.jobs import _too_short
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


class Toy:
    """A command as the module of a new one has it."""

    @staticmethod
    def add(commands, with_store):
        toy = commands.add_parser("toy", parents=[with_store], help="print the store")
        toy.add_argument("--fail", choices=["arguments", "work"])
        toy.set_defaults(run_command=Toy.run)

    @staticmethod
    def run(arguments):
        if arguments.fail:
            raise (ConfigError if arguments.fail == "arguments" else GatewatchError)("no such\nstore")
        print(arguments.store)
        return 0


def test_a_new_command_is_run_with_its_arguments(capsys):
    assert run(["toy", "--store", "sqlite:///g.db"], [*COMMANDS, Toy]) == 0
    assert capsys.readouterr().out == "sqlite:///g.db\n"


@pytest.mark.parametrize(("fail", "status"), [("arguments", 2), ("work", 1)])
def test_the_error_of_a_command_is_one_line_and_an_exit_status(capsys, fail, status):
    assert run(["toy", "--fail", fail], [Toy]) == status
    assert capsys.readouterr().err == "gatewatch: no such store\n"


def test_a_new_command_is_in_the_help(capsys):
    with pytest.raises(SystemExit):
        run(["--help"], [Toy])
    assert "print the store" in capsys.readouterr().out

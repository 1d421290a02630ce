"""`gatewatch demo`."""

from __future__ import annotations

import argparse
from pathlib import Path

from gatewatch.jobs.commands.common import Commands, need, positive


def add(commands: Commands[argparse.ArgumentParser], with_store: argparse.ArgumentParser) -> None:
    """Add the command; its store is its own."""
    demo = commands.add_parser(
        "demo", help="train on real prices, healthy and with a fault, score both, write a report"
    )
    demo.add_argument(
        "--symbol", choices=["GOOG", "EURUSD", "BTCUSD"], default="GOOG", help="prices to train on (default: GOOG)"
    )
    demo.add_argument(
        "--epochs",
        type=positive,
        help="epochs of each of the two trainings (default: about 650 batches in all)",
    )
    demo.add_argument(
        "--folder", type=Path, default=Path("gatewatch-demo"), help="folder for all files (default: gatewatch-demo)"
    )
    demo.set_defaults(run_command=_run)


def _run(arguments: argparse.Namespace) -> int:
    need("demo", "keras", "backtesting", "sklearn", "plotly")
    from gatewatch.jobs.demo import run_demo  # noqa: PLC0415 - only this command needs it

    return run_demo(arguments.folder, arguments.symbol, arguments.epochs)

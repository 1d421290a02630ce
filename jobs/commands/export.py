"""`gatewatch export`."""

from __future__ import annotations

import argparse
from contextlib import closing
from typing import Final

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.files import checked_path
from gatewatch.collector.text import safe_repr
from gatewatch.jobs.commands.common import existing_store, points_waiting, print_list, say_waiting
from gatewatch.jobs.commands.options import need
from gatewatch.jobs.console import ProgressLine, show_progress
from gatewatch.jobs.exporting.exporter import Format, Progress, Target, export
from gatewatch.jobs.text import printable

_FORMATS: Final[dict[str, Format]] = {".parquet": "parquet", ".csv": "csv"}


def run(arguments: argparse.Namespace) -> None:
    """Export a run, and print which files were written."""
    target = _target(arguments)
    if target.form == "parquet":
        need("export", "pyarrow", otherwise="give --format csv")
    store, line = existing_store(arguments), ProgressLine()
    waiting = points_waiting(store)

    def show(progress: Progress) -> None:
        of = f"{progress.number:,} of {progress.tables:,}" if progress.tables > 1 else "1"
        line.show(f"  {of}: {progress.rows:,} rows of {printable(progress.table)}")

    store.ping()  # which answers soon, where reading may take long
    with closing(store), closing(store.history()) as history:
        try:
            exported = export(
                history, arguments.run, target, url=store.url, only=arguments.measurement, on_progress=show
            )
        finally:
            show_progress("")
    entries = [each._asdict() for each in exported]
    print_list(arguments, entries, ("table", "rows", "file"), [(each.table, each.rows, each.file) for each in exported])
    say_waiting(waiting, store, "export again")


def _target(arguments: argparse.Namespace) -> Target:
    """Return where the tables go, and in which format.

    Raises:
        ConfigError: the path cannot be one, or is a file where a folder is needed.
    """
    path, form = checked_path(arguments.to, "--to"), arguments.format
    ending = _FORMATS.get(path.suffix.lower())
    if ending is None or path.is_dir():
        return Target(path, form or "parquet", overwrite=arguments.overwrite)
    if arguments.measurement is None:
        raise ConfigError(
            f"--to {safe_repr(str(path))} names a file, and a run has several tables: name a folder, or one table with"
            " --measurement"
        )
    if form not in (None, ending):
        raise ConfigError(f"--to {safe_repr(str(path))} and --format {form} do not agree: leave one of them out")
    return Target(path, ending, is_file=True, overwrite=arguments.overwrite)

"""Exports a run: every table into a file beside its place, and in the end all of them into their places."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, NamedTuple, Protocol

from gatewatch.collector.errors import ConfigError, GatewatchError
from gatewatch.collector.files import check_writable, replace_file
from gatewatch.collector.names import path_name
from gatewatch.collector.store.runs import find_run
from gatewatch.collector.text import nearest, safe_repr
from gatewatch.jobs.exporting.csv_file import CsvFile
from gatewatch.jobs.exporting.tables import Table, measurements_of, tables_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gatewatch.collector.schema import Point
    from gatewatch.collector.store.history import History
    from gatewatch.jobs.exporting.tables import Column

Format = Literal["parquet", "csv"]


class TableFile(Protocol):
    """Writes the rows of a table into an open file, which it does not close."""

    def write(self, points: Sequence[Point]) -> None:
        """Write a row for each point."""

    def close(self) -> None:
        """Write what was kept back, and the end of the file."""

    def abandon(self) -> None:
        """Write nothing more, since something failed."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where tables go.

    Attributes:
        path: a folder, which is made where it is missing; a file where `is_file`.
        form: of the files.
        is_file: whether the path is the file of a single table.
        overwrite: whether files that are there are replaced.
    """

    path: Path
    form: Format
    is_file: bool = False
    overwrite: bool = False


class Exported(NamedTuple):
    """A file that was written: the name of its table, its path, and how many rows it has."""

    table: str
    file: str
    rows: int


class Progress(NamedTuple):
    """How far an export is: the table that is written, which one it is from 1, of how many, and its rows so far."""

    table: str
    number: int
    tables: int
    rows: int


def export(
    history: History,
    run: str,
    target: Target,
    *,
    url: str,
    only: str | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> list[Exported]:
    """Write the points of a run as tables. Where anything fails, no file is there that was not before.

    Args:
        history: of the store.
        run: the run.
        target: where the tables go.
        url: of the store, for errors.
        only: the name of one table; None: all that the run has.
        on_progress: is called after each piece of a table.

    Raises:
        ConfigError: there is no such run or table, a file is there already, or the folder cannot be written.
        GatewatchError: a file cannot be written, such as where the disk is full.
        WriteUnavailable: the store does not answer.
    """
    run = find_run(run, [name for name in history.runs() if name], url)
    tables = _tables(history, run, only)
    files = _files(tables, target)
    _check(target, files)
    exported = []
    with _named_errors(target.path), ExitStack() as replaced:
        for number, (table, path) in enumerate(zip(tables, files, strict=True), 1):
            rows = 0
            with _named_errors(path), _table_file(replaced.enter_context(replace_file(path)), table, target) as file:
                for points in table.rows(history, run):
                    file.write(points)
                    rows += len(points)
                    on_progress(Progress(table.name, number, len(tables), rows))
            exported.append(Exported(table.name, str(path), rows))
    return exported


def _tables(history: History, run: str, only: str | None) -> list[Table]:
    """Return the tables of a run, or the one of a name.

    Raises:
        ConfigError: the run has none of that name; says which it has.
    """
    measurements = measurements_of(history, run)
    if only is None:
        return [table for name in measurements for table in tables_of(history, run, name)]
    for measurement in measurements:
        if only.startswith(measurement):
            for table in tables_of(history, run, measurement):
                if table.name == only:
                    return [table]
    alike = nearest(only, measurements)
    raise ConfigError(
        f"run {safe_repr(run)} has no points of {safe_repr(only)}; it has {', '.join(measurements)}{alike}"
    )


def _files(tables: Sequence[Table], target: Target) -> list[Path]:
    """Return the file of each table, whatever the user's own measurements are called: no two are one file."""
    if target.is_file:
        return [target.path]
    stems: dict[str, str] = {}
    for table in tables:
        stem = path_name(table.name)
        while stem.casefold() in stems:  # some file systems do not tell capitals from small letters
            stem = f"{stem}-{hashlib.sha256(table.name.encode()).hexdigest()[:8]}"
        stems[stem.casefold()] = stem
    return [target.path / f"{stem}.{target.form}" for stem in stems.values()]


def _check(target: Target, files: Sequence[Path]) -> None:
    """Check before the work that the files can be written.

    Raises:
        ConfigError: they cannot, or some are there already.
    """
    folder = target.path.parent if target.is_file else target.path
    try:
        check_writable(folder)
        there = [file for file in files if file.exists()]
        odd = [file for file in there if not file.is_file()]
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be written ({error.strerror or error}): name another folder with --to"
        ) from None
    if odd:
        raise ConfigError(f"{odd[0]} is no file, so it is not replaced: name another place with --to")
    if there and not target.overwrite:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        be = "are" if more else "is"
        raise ConfigError(f"{there[0]}{more} {be} there already: give --overwrite to replace, or another --to")


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Turn an error of the disk in the block into one that names the file.

    Raises:
        GatewatchError: the file cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise GatewatchError(
            f"{path} cannot be written ({error.strerror or error}): make room, or name another place with --to"
        ) from None


@contextmanager
def _table_file(file: IO[bytes], table: Table, target: Target) -> Iterator[TableFile]:
    """Open a table in a file, which is closed at the end of the block, so that nothing of it is yet to be written."""
    writer = _writer(target.form)(file, table.columns)
    try:
        yield writer
        writer.close()
        file.close()
    except BaseException:
        writer.abandon()
        with suppress(OSError):  # the disk may have no room for what was kept back either
            file.close()
        raise


def _writer(form: Format) -> Callable[[IO[bytes], Sequence[Column]], TableFile]:
    if form == "csv":
        return CsvFile
    from gatewatch.jobs.exporting.parquet_file import ParquetFile  # noqa: PLC0415 - CSV needs no pyarrow

    return ParquetFile

"""One HTML file that tells a run's story, and works without a network."""

from __future__ import annotations

import difflib
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.schema import path_name
from gatewatch.jobs.report.content import content
from gatewatch.jobs.report.html import render

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gatewatch.collector.store.protocol import Store


def write_report(
    store: Store,
    run: str | None = None,
    output: Path | None = None,
    *,
    progress: Callable[[str], None] | None = None,
    refresh: int | None = None,
) -> Path:
    """Write the report of a run and return where it lies.

    The file appears whole or not at all: it is written beside its place and then renamed.

    Args:
        store: where the run's points are.
        run: which run; the one heard of last without.
        output: where to write; `gatewatch-<run>.html` in the working directory without.
        progress: told what is being done, a line each.
        refresh: seconds after which a browser loads the page anew; never where None.

    Raises:
        ConfigError: there is no such run, or no run at all; the output cannot be written.
        WriteUnavailable: the store does not answer.
    """
    say = progress or (lambda _: None)
    about = _find(store, run)
    name = str(about["run"])
    output = Path(f"gatewatch-{path_name(name)}.html") if output is None else Path(output)
    _check(output)
    html = render(content(store, about, say, datetime.now(UTC)), refresh)
    say(f"writing {output}")
    draft = output.with_name(f".{path_name(output.name)}.{os.getpid()}.tmp")
    try:
        try:
            draft.write_text(html, encoding="utf-8", newline="\n")
            draft.replace(output)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise _refused(output, error) from None
    return output


def _check(output: Path) -> None:
    """See before the work whether there is a place for the file."""
    try:
        taken, folder = output.is_dir(), output.parent.is_dir()
    except OSError as error:
        raise _refused(output, error) from None
    if taken:
        raise ConfigError(f"{output} is a folder: name a file with -o, such as {output / 'report.html'}")
    if not folder:
        raise ConfigError(f"{output}: the folder {output.parent} does not exist; make it, or name another file with -o")


def _refused(output: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{output} cannot be written ({error.strerror or error}): name another file with -o")


def _find(store: Store, run: str | None) -> Mapping[str, Any]:
    """The row of `store.runs()` that is meant."""
    runs = store.runs()
    if runs.empty:
        raise ConfigError(
            f"{store.url} has no runs yet: train with a GateMonitor that writes there, or `gatewatch demo`"
        )
    names = [str(name) for name in runs["run"]]
    if run is None:
        run = names[0]
    if run not in names:
        near = difflib.get_close_matches(run, names, n=3, cutoff=0.5)
        known = ", ".join(map(repr, near or names[:5]))
        more = "" if near or len(names) <= 5 else f" and {len(names) - 5} more (`gatewatch runs` lists them)"
        raise ConfigError(
            f"no run {run!r} in {store.url}: {'did you mean' if near else 'there is'} {known}{more}{'?' * bool(near)}"
        )
    return {str(name): value for name, value in runs.iloc[names.index(run)].items()}

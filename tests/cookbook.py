"""docs/flux.md: its commands run on seeded data, and what they print is what it shows.

    python -m tests.cookbook

writes the results and the Flux into it again, wherever a command stands; a new query needs a heading, a command and two
empty blocks, `text` and `flux`.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from collector.store import Store
from jobs.cli import main
from jobs.queries.query import queries
from tests import seeded
from tests.conftest import ROOT, Influxd, run_influxd

PATH = ROOT / "docs/flux.md"
NOW = 1_751_284_800 * 10**9
"""2025-06-30 12:00 UTC: when what is shown there was asked; past by any clock."""
RUNS = tuple(run for run in seeded.RUN_NAMES if run != seeded.HOSTILE)
_RECIPE = re.compile(
    r"^```\n(gatewatch query [^`]*)^```\n\n```text\n(.*?)^```\n\n```flux\n(.*?)^```", re.MULTILINE | re.DOTALL
)


class Recipe(NamedTuple):
    """A command of the cookbook, what it prints there, and the Flux beside it."""

    command: str
    printed: str
    flux: str

    @property
    def arguments(self) -> list[str]:
        """Those of `gatewatch`."""
        return shlex.split(self.command)[1:]

    @property
    def file(self) -> str | None:
        """The file that the Flux is to be in, where it is a query of one's own."""
        return self.arguments[self.arguments.index("--flux") + 1] if "--flux" in self.arguments else None


def recipes(text: str) -> list[Recipe]:
    """The recipes in a text, in order."""
    return [Recipe(*match.groups()) for match in _RECIPE.finditer(text)]


def seed(store: Store) -> None:
    """Fill a store with what the cookbook shows."""
    seeded.seed(store, NOW, RUNS)


def environment(server: Influxd, bucket: str) -> Mapping[str, str]:
    """What the command finds its store by."""
    names = {"URL": server.url, "ORG": server.org, "BUCKET": bucket, "TOKEN": server.token}
    return {f"INFLUXDB_V2_{name}": value for name, value in names.items()}


def printed(recipe: Recipe, folder: Path) -> str:
    """What a recipe's command prints; its environment is this process's.

    Args:
        recipe: which.
        folder: where its file is put, if it has one.
    """
    out = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out):
        if recipe.file:
            Path(recipe.file).write_text(recipe.flux)
        status = main(recipe.arguments)
    assert status == 0, recipe.command
    return out.getvalue()


def flux(recipe: Recipe) -> str:
    """The Flux that belongs beside a recipe: the file of a named query; of one's own it stands there alone."""
    return recipe.flux if recipe.file else queries()[recipe.arguments[1]].text


def updated(text: str, folder: Path) -> str:
    """The text with every result and every query as they are now."""

    def anew(match: re.Match[str]) -> str:
        recipe = Recipe(*match.groups())
        return f"```\n{recipe.command}```\n\n```text\n{printed(recipe, folder)}```\n\n```flux\n{flux(recipe)}```"

    return _RECIPE.sub(anew, text)


@contextlib.contextmanager
def _seeded(folder: Path) -> Iterator[None]:
    server: Influxd
    for server in run_influxd(folder):
        bucket = server.bucket("gatewatch")
        seed(server.store(bucket))
        os.environ.update(environment(server, bucket))
        yield


def _main() -> int:
    with tempfile.TemporaryDirectory() as folder, _seeded(Path(folder)):
        PATH.write_text(updated(PATH.read_text(), Path(folder)))
    return 0


if __name__ == "__main__":
    sys.exit(_main())

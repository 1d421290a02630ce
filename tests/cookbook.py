"""docs/flux.md: its commands run on seeded data, and what they print is what it shows.

    python -m tests.cookbook

writes what each query answers, the results and the Flux into it again; a new query needs a heading, a command and two
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
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from gatewatch.collector.schema import LAYER_UPDATES, RUNS, Point
from gatewatch.collector.store import Store
from gatewatch.jobs.cli import main
from gatewatch.jobs.queries.named_query import queries
from tests import seeded
from tests.conftest import ROOT, Influxd, run_influxd
from tests.recorded import SECOND, Array, recorded

PATH = ROOT / "docs/flux.md"
SICK = "btc-lstm-sick"
NOW = 1_751_284_800 * SECOND
"""2025-06-30 12:00 UTC: when what is shown there was asked; past by any clock."""
OTHERS = tuple(run for run in seeded.RUN_NAMES if run != seeded.HOSTILE)
_RECIPE = re.compile(
    r"^```\n(gatewatch query [^`]*)^```\n\n```text\n(.*?)^```\n\n```flux\n(.*?)^```", re.MULTILINE | re.DOTALL
)
_HEADING = re.compile(r"^### (\S+)\n\n.*?(?=^```$)", re.MULTILINE | re.DOTALL)


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
    store.write(sick())
    seeded.seed(store, NOW, OTHERS)


def sick() -> Iterator[Point]:
    """A run of which two units die, a gradient vanishes, another explodes, and the weights hardly move in the end."""

    def dying(k: int, gate: str, values: Array) -> Array:
        values[..., :2] *= k < 20
        return values

    since = NOW - 86_400 * SECOND
    tags = {"symbol": "BTCUSD"}
    captures = recorded(
        60, run=SICK, tags=tags, layers=("encoder",), change=dying, at=lambda k: since + 20 * k * SECOND
    )
    for k, points in enumerate(captures):
        for point in points:
            fields = dict(point.fields)
            if point.measurement == LAYER_UPDATES and k >= 40:
                slower = {"recurrent": (1e-8, 1e-4), "kernel": (30.0, 150.0) if k == 50 else (1.0, 1.0)}
                gradient, update = slower.get(point.tags["param"], (1.0, 1.0))
                fields["gradient_norm"] = float(fields["gradient_norm"]) * gradient
                fields["update_ratio"] = float(fields["update_ratio"]) * update
            yield Point(point.measurement, point.tags, fields, point.time)
    yield Point(
        RUNS, {"run": SICK, "phase": "train", **tags}, {"event": "interrupted", "step": 59}, since + 1200 * SECOND
    )


def environment(server: Influxd, bucket: str) -> Mapping[str, str]:
    """What the command finds its store by."""
    names = {"URL": server.url, "ORG": server.org, "BUCKET": bucket, "TOKEN": server.token}
    return {"GATEWATCH_STORE": server.url} | {f"INFLUXDB_V2_{name}": value for name, value in names.items()}


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


def described(text: str) -> str:
    """The text with what every query answers, as its file says."""

    def anew(match: re.Match[str]) -> str:
        query = queries()[match[1]]
        return f"### {query.name}\n\n{textwrap.fill(f'{query.title}. {query.about}', 120)}\n\n"

    return _HEADING.sub(anew, text)


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
        PATH.write_text(updated(described(PATH.read_text()), Path(folder)))
    return 0


if __name__ == "__main__":
    sys.exit(_main())

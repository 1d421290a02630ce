"""A run that shows itself in a notebook: `gatewatch.show`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from gatewatch.collector.errors import ConfigError, ReadRefused, WriteUnavailable
from gatewatch.collector.store import Store, open_store
from gatewatch.collector.verdict import Verdict, undecided
from gatewatch.jobs.findings.findings import findings_of
from gatewatch.jobs.findings.run_points import read_points
from gatewatch.jobs.findings.run_state import run_row, state_of
from gatewatch.jobs.findings.verdict import judge
from gatewatch.jobs.report.content import SECTIONS, Drawn
from gatewatch.jobs.report.page import render_template
from gatewatch.jobs.report.static_chart import WIDTH, as_picture, legend
from gatewatch.jobs.text import printable

_OTHERS: Final = 4
"""How many findings are listed below the first."""
_CHARTS: Final[Mapping[str, int]] = {"metrics": 2, "scores": 2, "ranges": 6}
"""Section of the report → how many of its charts are shown."""


class NotShown(ConfigError):  # noqa: N818 - its message says what is wrong
    """A run cannot be shown; in a notebook this is one line, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"ConfigError: {self}"]


@dataclass(frozen=True, slots=True)
class RunDisplay:
    """A run as a notebook shows it; its text is the verdict in one line.

    Attributes:
        verdict: on the run.
        html: the verdict, what else speaks against the run, and pictures of its losses, scores and gates.
    """

    verdict: Verdict
    html: str = field(repr=False)

    def __repr__(self) -> str:
        return printable(f"{self.verdict.run}: {self.verdict.verdict}: {self.verdict.sentence}")

    def _repr_html_(self) -> str:
        return self.html


def show(store: Store | str, run: str | None = None) -> RunDisplay:
    """Show a run in a notebook: whether it is healthy, why, and its losses, scores and gates in pictures.

    It reads the points and scores of the run as they are now, and computes no scores: `gatewatch jobs` does. What it
    shows holds no script and needs no network, so it stays in a notebook that is saved, sent or put on a page.

    Args:
        store: the store that holds the run, or its URL.
        run: name of the run; None: the run with the newest event.

    Raises:
        ConfigError: there is no such run, or the store cannot be opened.

    Example:
        >>> gatewatch.show(store, "goog-1")  # doctest: +SKIP
    """
    try:
        opened = store if isinstance(store, Store) else open_store(store)
        about = run_row(opened, run)
        points = read_points(opened, about)
    except (WriteUnavailable, ReadRefused) as error:
        verdict = undecided(run or "the newest run", str(error))
        return RunDisplay(verdict, _html(verdict))
    except ConfigError as error:
        raise NotShown(str(error)) from None
    shown = Drawn(about, state_of(about, datetime.now(UTC)), points)
    findings = findings_of(points)
    verdict = judge(str(about["run"]), shown.state, findings)
    others = [finding.sentence for finding in findings[1:] if finding.what]
    charts = {name: _captioned(name, SECTIONS[name](shown)) for name in _CHARTS}
    return RunDisplay(verdict, _html(verdict, others, charts))


def _html(
    verdict: Verdict, others: Sequence[str] = (), charts: Mapping[str, Sequence[tuple[str, Any]]] | None = None
) -> str:
    """Return what a notebook shows; every text is escaped.

    Args:
        verdict: comes first.
        others: further sentences against the run.
        charts: section → caption and figure of each of its charts.
    """
    of_sections = charts or {}
    shown = [chart for name, most in _CHARTS.items() for chart in of_sections.get(name, ())[:most]]
    return render_template(
        "notebook.html",
        {
            "verdict": verdict,
            "others": others[:_OTHERS],
            "more": len(others[_OTHERS:]),
            "charts": [
                {"caption": caption, "picture": as_picture(figure), "legend": legend(figure)}
                for caption, figure in shown
            ],
            "left_out": sum(map(len, of_sections.values())) - len(shown),
            "width": WIDTH,
        },
    )


def _captioned(section: str, values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the charts of a section of the report, each with its caption."""
    if section == "metrics":
        return [(chart["name"], chart["figure"]) for chart in values["metrics"]]
    if section == "scores":
        return [(f"Anomaly scores of {chart['name']}", chart["figure"]) for chart in values["scored"]]
    return [
        (f"Range of {band['gate']} of {layer['name']}, now {band['now']}", band["figure"])
        for layer in values["ranges"]
        for band in layer["bands"]
    ]

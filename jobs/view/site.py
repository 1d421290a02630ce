"""The pages of the server and their data: which address has what."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from plotly.offline import get_plotlyjs

from gatewatch.collector.errors import ConfigError, WriteUnavailable, reason_of
from gatewatch.collector.log import log
from gatewatch.jobs.report import comparison
from gatewatch.jobs.report.content import SECTIONS, shared_values
from gatewatch.jobs.report.page import COMPARISON, render_section
from gatewatch.jobs.view.alerts import alerts_html
from gatewatch.jobs.view.answers import Answer, json_answer, knows, problem, tag_of, unchanged
from gatewatch.jobs.view.page import PAGES, render_page
from gatewatch.jobs.view.query import Query
from gatewatch.jobs.view.run_list import RunList
from gatewatch.jobs.view.run_reader import RunReader, on_axis

if TYPE_CHECKING:
    from gatewatch.collector.store import Store
    from gatewatch.jobs.view.trends import Trends

_HERE: Final = Path(__file__).parent
_REPORT: Final = _HERE.parent / "report"
_KINDS: Final = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
}
FILES: Final = {
    **{f"/static/{path.name}": path for path in sorted((_HERE / "static").iterdir()) if path.suffix in _KINDS},
    **{f"/static/{name}": _REPORT / name for name in ("page.css", "charts.js")},
}
"""Address → file: what the pages load, with what the report is made of too."""
_OVER_TIME: Final = ("metrics", "scores", "ranges", "learning", "heatmaps")
"""The sections whose axis the reader chooses."""
PLOTLY: Final = "/static/plotly.js"


class Site:
    """Answers requests from what a store holds.

    Args:
        store: is read, one request at a time; no other thread may use it.
        trends: of its runs.
        scoring: says who scores the store, in a sentence.
    """

    def __init__(self, store: Store, trends: Trends, scoring: Callable[[], str] = lambda: "") -> None:
        self._store, self._scoring = store, scoring
        self._list = RunList(store, trends)
        self._reader = RunReader(store)
        self._data: dict[str, Callable[[Query, str | None], Answer]] = {
            "/api/runs": self._runs,
            "/api/run": self._section,
            "/api/compare": self._comparison,
            "/api/alerts": self._alerts,
        }

    def respond(self, path: str, query: Query, known: str | None = None) -> Answer:
        """Answer a request; what is wrong with the store is a sentence for the page to show.

        Args:
            path: of the address.
            query: its parameters.
            known: the header `If-None-Match`.
        """
        if path in PAGES:
            return Answer(render_page(path).encode(), _KINDS[".html"])
        if path in FILES:
            return _file(FILES[path])
        if path == PLOTLY:
            return _plotly()
        if path not in self._data:
            return problem("there is no such page; the list of runs is at /", 404)
        try:
            if not self._store.exists():
                return problem(
                    f"{self._store.url} does not exist yet: the first training that writes there makes it", 503
                )
            return self._data[path](query, known)
        except (ConfigError, WriteUnavailable) as error:
            return problem(str(error), 503)
        except Exception as error:
            log.warning("gatewatch view: %s failed: %s", path, reason_of(error))
            return problem(f"this cannot be shown: {reason_of(error)}; this is a bug, please report it", 500)

    def _runs(self, query: Query, known: str | None) -> Answer:
        rows = self._list.rows(datetime.now(UTC))
        return json_answer({"store": self._store.url, "scoring": self._scoring(), **rows})

    def _alerts(self, query: Query, known: str | None) -> Answer:
        """Return what fired lately and how the recording goes, as HTML."""
        now = datetime.now(UTC)
        rows = self._list.rows(now)["runs"]
        return Answer(alerts_html(self._store, rows, self._scoring(), now).encode(), _KINDS[".html"])

    def _section(self, query: Query, known: str | None) -> Answer:
        """Return a section of a run as HTML; nothing is read of a run that has not changed."""
        part, unit, frames = query.get("part", ""), query.get("x", "step"), query.get("frames", "epoch")
        if part not in SECTIONS:
            return problem(f"there is no such section; there are {', '.join(SECTIONS)}", 404)
        run = self._reader.current(query.get("run", ""), datetime.now(UTC))
        tag = tag_of(f"{run.about['run']} {run.revision} {run.state} {part} {unit} {frames}".encode())
        if knows(known, tag):
            return unchanged(tag)
        drawn = self._reader.drawn(run, units=part == "heatmaps", by_epoch=frames == "epoch")
        if part in _OVER_TIME:
            drawn = on_axis(drawn, unit)
        html = render_section(part, shared_values(drawn) | SECTIONS[part](drawn))
        return Answer(html.encode(), _KINDS[".html"], headers={"ETag": tag})

    def _comparison(self, query: Query, known: str | None) -> Answer:
        """Return a section of the comparison of some runs; nothing is read of runs that have not changed."""
        part, unit = query.get("part", ""), query.get("x", "step")
        if part not in comparison.SECTIONS:
            return problem(f"there is no such section; there are {', '.join(comparison.SECTIONS)}", 404)
        now = datetime.now(UTC)
        runs = [self._reader.current(run, now) for run in comparison.chosen_runs(query.every("run"))]
        content = [[str(run.about["run"]), run.revision, run.state] for run in runs]
        tag = tag_of(f"{content} {part} {unit}".encode())
        if knows(known, tag):
            return unchanged(tag)
        drawn = [on_axis(self._reader.drawn(run), unit) for run in runs]
        values = comparison.shared_values(drawn) | comparison.SECTIONS[part](drawn)
        for each in values["runs"]:
            each["href"] = f"/run?{urlencode({'run': each['name']})}"
        return Answer(render_section(part, values, COMPARISON).encode(), _KINDS[".html"], headers={"ETag": tag})


def _file(path: Path) -> Answer:
    return Answer(path.read_bytes(), _KINDS[path.suffix])


@cache
def _plotly() -> Answer:
    """Return the plotly.js that comes with Plotly's Python package, compressed once: every browser takes that."""
    return Answer(
        gzip.compress(get_plotlyjs().encode(), 6, mtime=0), _KINDS[".js"], headers={"Content-Encoding": "gzip"}
    )

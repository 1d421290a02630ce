"""The pages of the server and their data: which address has what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from plotly.offline import get_plotlyjs

from gatewatch.collector.errors import ConfigError, WriteUnavailable, reason_of
from gatewatch.collector.log import log
from gatewatch.jobs.view.answers import Answer, json_answer, problem
from gatewatch.jobs.view.run_list import RunList

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
PAGES: Final = {"/": "runs.html"}
"""Address → the page's file in `pages`."""
FILES: Final = {
    **{f"/static/{path.name}": path for path in sorted((_HERE / "static").iterdir()) if path.suffix in _KINDS},
    **{f"/static/{name}": _REPORT / name for name in ("page.css",)},
}
"""Address → file: what the pages load, with what the report is made of too."""
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
        self._data: dict[str, Callable[[Mapping[str, str]], Any]] = {"/api/runs": self._runs}

    def respond(self, path: str, query: Mapping[str, str]) -> Answer:
        """Answer a request for a path; what is wrong with the store is a sentence for the page to show."""
        if path in PAGES:
            return _file(_HERE / "pages" / PAGES[path])
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
            return json_answer(self._data[path](query))
        except (ConfigError, WriteUnavailable) as error:
            return problem(str(error), 503)
        except Exception as error:
            log.warning("gatewatch view: %s failed: %s", path, reason_of(error))
            return problem(f"this cannot be shown: {reason_of(error)}; this is a bug, please report it", 500)

    def _runs(self, query: Mapping[str, str]) -> dict[str, Any]:
        return {"store": self._store.url, "scoring": self._scoring(), **self._list.rows(datetime.now(UTC))}


def _file(path: Path) -> Answer:
    return Answer(path.read_bytes(), _KINDS[path.suffix])


@cache
def _plotly() -> Answer:
    """Return the plotly.js that comes with Plotly's Python package."""
    return Answer(get_plotlyjs().encode(), _KINDS[".js"])

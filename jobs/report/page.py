"""Write the report of a run: one HTML file that works without a network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

import jinja2
from markupsafe import Markup
from plotly.graph_objects import Figure
from plotly.offline import get_plotlyjs

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.files import checked_path, replace_file
from gatewatch.collector.names import path_name
from gatewatch.collector.store.base import Store
from gatewatch.collector.text import escape_controls
from gatewatch.jobs.findings.run_state import run_row
from gatewatch.jobs.report.comparison import chosen_runs, comparison
from gatewatch.jobs.report.content import content
from gatewatch.jobs.text import number, percent

_HERE: Final = Path(__file__).parent
REPORT: Final = "template.html"
COMPARISON: Final = "comparison.html"
"""The templates of the page: of one run, and of several."""
_FILES: Final = (("charts.js", "page.js"), ("page.css",))
"""The page's own script, and its style."""
_KEPT: Final = "\n\t\u00a0\u200c\u200d"
"""White space, and the joiners of Persian and of emoji, which a page shows as they are meant."""


def write_report(
    store: Store,
    run: str | None = None,
    output: Path | None = None,
    *,
    progress: Callable[[str], None] | None = None,
    refresh: int | None = None,
) -> Path:
    """Write the report of a run, and return its path.

    The file appears whole or not at all: it is written beside its place and then renamed.

    Args:
        store: where the run's points are.
        run: the name of the run; None: the run with the newest event.
        output: where to write; None: `gatewatch-<run>.html` in the working directory.
        progress: called with a line for each step of the work.
        refresh: seconds after which a browser loads the page again; None: never.

    Raises:
        ConfigError: there is no such run, or no run at all; the output cannot be written.
        WriteUnavailable: the store does not answer.
    """
    report_progress = progress or (lambda _: None)
    about = run_row(store, run)
    name = str(about["run"])
    output = Path(f"gatewatch-{path_name(name)}.html") if output is None else checked_path(output, "-o")
    _check(output)
    html = render(content(store, about, report_progress, datetime.now(UTC)), refresh)
    report_progress(f"writing {output}")
    return _written(output, html)


def write_comparison(
    store: Store, runs: Sequence[str], output: Path | None = None, progress: Callable[[str], None] | None = None
) -> Path:
    """Write the comparison of some runs, and return its path.

    Args:
        store: where the runs' points are.
        runs: their names, two to eight.
        output: where to write; None: `gatewatch-<run>-and-<run>.html`, of the first two, in the working directory.
        progress: called with a line for each step of the work.

    Raises:
        ConfigError: there is no such run, or too few or too many; the output cannot be written.
        WriteUnavailable: the store does not answer.
    """
    report_progress = progress or (lambda _: None)
    names = chosen_runs(runs)
    usual = Path(f"gatewatch-{'-and-'.join(path_name(name) for name in names[:2])}.html")
    output = usual if output is None else checked_path(output, "-o")
    _check(output)
    html = render(comparison(store, names, report_progress, datetime.now(UTC)), template=COMPARISON)
    report_progress(f"writing {output}")
    return _written(output, html)


def _written(output: Path, html: str) -> Path:
    try:
        with replace_file(output) as file:
            file.write(html.encode())
    except OSError as error:
        raise _refused(output, error) from None
    return output


def _check(output: Path) -> None:
    """Check before the work that the file can be written."""
    try:
        taken, folder = output.is_dir(), output.parent.is_dir()
        is_device = output.exists() and not (taken or output.is_file())
    except OSError as error:
        raise _refused(output, error) from None
    if taken:
        raise ConfigError(f"{output} is a folder: name a file with -o, such as {output / 'report.html'}")
    if is_device:
        raise ConfigError(f"{output} is a device or a pipe, which the report would replace: name a file with -o")
    if not folder:
        raise ConfigError(f"{output}: the folder {output.parent} does not exist; make it, or name another file with -o")


def _refused(output: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{output} cannot be written ({error.strerror or error}): name another file with -o")


def figure_json(figure: Figure) -> Markup:
    """Return the JSON of a figure without `<`, so that it can neither end its script element nor open another."""
    text = str(figure.to_json()).replace("\\u002f", "/").replace("<", "\\u003c")
    return Markup(text)  # noqa: S704 - escaped in the line above


def _legible(value: Any) -> Any:
    """Return text of unknown origin as a page can show it."""
    return escape_controls(value, keep=_KEPT) if type(value) is str else value


def render(content: Mapping[str, Any], refresh: int | None = None, template: str = REPORT) -> str:
    """Render the whole page. All content is escaped, except what `figure_json` made safe.

    The page's policy allows its own two scripts, no other, and no request off the page.

    Args:
        content: the values that the template names; figures as they are.
        refresh: seconds after which a browser loads the page again; None: never.
        template: `REPORT` or `COMPARISON`.
    """
    files = ["\n".join((_HERE / name).read_text(encoding="utf-8") for name in names) for names in _FILES]
    plotly_js, page_js, page_css = (Markup(text) for text in (get_plotlyjs(), *files))  # noqa: S704 - files of plotly and of this package
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()) for script in (plotly_js, page_js))
    hashes = " ".join(f"'sha256-{digest.decode()}'" for digest in digests)
    policy = (
        f"default-src 'none'; script-src {hashes}; "
        "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    own = {"plotly_js": plotly_js, "page_js": page_js, "page_css": page_css, "policy": policy, "refresh": refresh}
    return render_template(template, {**content, **own})


def render_template(name: str, values: Mapping[str, Any]) -> str:
    """Render a file of this folder; every value is escaped, except what `figure_json` made safe.

    Args:
        name: of the file.
        values: that it names.
    """
    return _template(name).render(**values)


def render_section(name: str, content: Mapping[str, Any], template: str = REPORT) -> str:
    """Render one section of the page, escaped as the whole page is.

    Args:
        name: a key of `SECTIONS` of `content` or `comparison`.
        content: the values that the section names.
        template: `REPORT` or `COMPARISON`.
    """
    page = _template(template)
    return "".join(page.blocks[name](page.new_context(dict(content))))


def _template(name: str) -> jinja2.Template:
    return environment().get_template(name)


@cache
def environment() -> jinja2.Environment:
    """Return what renders templates of this folder: every value is escaped, and legible whatever it holds."""
    made = jinja2.Environment(
        autoescape=True, loader=jinja2.FileSystemLoader(_HERE), undefined=jinja2.StrictUndefined, finalize=_legible
    )
    made.filters |= {"figure_json": figure_json, "number": number, "percent": percent}
    return made

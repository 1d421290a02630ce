"""Render the page: the template, the scripts that may run in it, and figures as text that is safe inside it."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gatewatch.jobs.text import number, percent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from markupsafe import Markup
    from plotly.graph_objects import Figure

_HERE: Final = Path(__file__).parent


def figure_json(figure: Figure) -> Markup:
    """Return the JSON of a figure without `<`, so that it can neither end its script element nor open another."""
    from markupsafe import Markup  # noqa: PLC0415 - comes with jinja2, loaded only for a report

    text = str(figure.to_json()).replace("\\u002f", "/").replace("<", "\\u003c")
    return Markup(text)  # noqa: S704 - escaped in the line above


def render(content: Mapping[str, Any], refresh: int | None = None) -> str:
    """Render the whole page. All content is escaped, except what `figure_json` made safe.

    Args:
        content: the values that the template names; figures as they are.
        refresh: seconds after which a browser loads the page again; None: never.
    """
    import jinja2  # noqa: PLC0415 - loaded only for a report

    environment = jinja2.Environment(
        autoescape=True, loader=jinja2.FileSystemLoader(_HERE), undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"figure_json": figure_json, "number": number, "percent": percent}
    return environment.get_template("template.html").render(**content, **_own_parts(), refresh=refresh)


def _own_parts() -> dict[str, Any]:
    """Return style and scripts, and the policy that allows these two scripts, no other, and no request off the page."""
    from markupsafe import Markup  # noqa: PLC0415 - as above
    from plotly.offline import get_plotlyjs  # noqa: PLC0415 - loaded only for a report

    texts = [get_plotlyjs(), *((_HERE / name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))]
    plotly, own, style = (Markup(text) for text in texts)  # noqa: S704 - files of plotly and of this package
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in (plotly, own)
    )
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    return {"plotly_js": plotly, "page_js": own, "page_css": style, "policy": policy}

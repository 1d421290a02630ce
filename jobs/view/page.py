"""The HTML of the pages, from the templates in `pages`: one head for all."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Final

import jinja2

from gatewatch.jobs.report.page import environment

PAGES: Final = {
    "/": ("runs.html", "Runs"),
    "/run": ("run.html", "Run"),
    "/compare": ("compare.html", "Compare"),
    "/alerts": ("alerts.html", "Alerts and health"),
}
"""Address → the page's template, and its title."""
MENU: Final = {address: PAGES[address][1] for address in ("/", "/alerts")}
"""Address → name of the pages that each page leads to."""


def render_page(address: str) -> str:
    """Render the page of an address, as it is before its data have come.

    Args:
        address: a key of `PAGES`.
    """
    template, title = PAGES[address]
    return render(template, title=title, here=address, menu=MENU)


def render(template: str, **values: Any) -> str:
    """Render a template; every value is escaped.

    Args:
        template: name of a file in `pages`.
        values: that it names.
    """
    return _environment().get_template(template).render(values)


@cache
def _environment() -> jinja2.Environment:
    """Return what renders the report's templates, with the pages beside them."""
    folder = jinja2.FileSystemLoader(Path(__file__).parent / "pages")
    return environment().overlay(loader=jinja2.ChoiceLoader([folder, environment().loader or folder]))

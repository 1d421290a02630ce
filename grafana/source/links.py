"""The dashboards' addresses, and links to them."""

from __future__ import annotations

from typing import Final

THIS_RUN: Final = {"run": "${__value.raw:percentencode}", "phase": "${__data.fields.phase:percentencode}"}
"""The variables that choose the run of a table's row, for links in its column `run`."""
CHOSEN_RUN: Final = {"run": "${run:percentencode}", "phase": "${phase:percentencode}"}
"""The variables that choose the run that a dashboard is of."""
ROWS_RUN: Final = {name: f"${{__data.fields.{name}:percentencode}}" for name in ("run", "phase")}
ROWS_LAYER: Final = {"layer": "${__data.fields.layer:percentencode}"}
"""The same for links in any column, and the layer of the row."""
THIS_TIME: Final = "from=${__data.fields.from}&to=${__data.fields.to}"
"""The time range that a table's row holds in its columns `from` and `to`."""


def uid(dashboard: str) -> str:
    """Return the uid of a dashboard from its name, which is its title in lower case."""
    return f"gatewatch-{dashboard}"


def link(title: str, dashboard: str, time: str = "${__url_time_range}", **variables: str) -> dict[str, object]:
    """Return a link from a value in a panel to a dashboard.

    Args:
        title: the text of the link.
        dashboard: the dashboard's name.
        time: the time range, as parameters of the URL.
        variables: name → value of the dashboard's variables, both as they stand in the URL.
    """
    parameters = [time, *(f"var-{name}={value}" for name, value in variables.items())]
    return {"title": title, "url": f"/d/{uid(dashboard)}?{'&'.join(parameters)}", "targetBlank": False}

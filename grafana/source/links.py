"""The dashboards' addresses, and links to them."""

from __future__ import annotations

from typing import Final

THIS_RUN: Final = {"run": "${__value.raw:percentencode}", "phase": "${__data.fields.phase:percentencode}"}
"""The variables that choose the run of a table's row, for links in its column `run`."""
THIS_TIME: Final = "from=${__data.fields.from}&to=${__data.fields.to}"
"""The time range that a table's row holds in its columns `from` and `to`."""


def uid(dashboard: str) -> str:
    """Return the uid of a dashboard, of which we call the title in small letters its name."""
    return f"gatewatch-{dashboard}"


def link(title: str, dashboard: str, time: str = "${__url_time_range}", **variables: str) -> dict[str, object]:
    """Return a link of a value to a dashboard.

    Args:
        title: what it says.
        dashboard: its name.
        time: the time range, as parameters.
        variables: name → value, both as an address has them.
    """
    parameters = [time, *(f"var-{name}={value}" for name, value in variables.items())]
    return {"title": title, "url": f"/d/{uid(dashboard)}?{'&'.join(parameters)}", "targetBlank": False}

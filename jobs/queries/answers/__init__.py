"""The answers to the named queries from the frames of any store, where no server computes them in Flux."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from gatewatch.jobs.queries.answers import gates, learning, market, runs, scores
from gatewatch.jobs.queries.answers.points import Points, rows_of

if TYPE_CHECKING:
    import pandas as pd

    from gatewatch.collector.store import Store
    from gatewatch.jobs.queries.client import Row
    from gatewatch.jobs.queries.flux_values import Value
    from gatewatch.jobs.queries.named_query import Query

Answer = Callable[[Points, Mapping[str, "Value"]], "pd.DataFrame"]

ANSWERS: Final[Mapping[str, Answer]] = MappingProxyType(
    {
        "alerts": runs.alerts,
        "anomalies": scores.anomalies,
        "collector": runs.collector,
        "dead-units": gates.dead_units,
        "drawdown": market.drawdown,
        "first-anomaly": scores.first_anomaly,
        "gates": gates.gates,
        "generalisation": learning.generalisation,
        "gradients": learning.gradients,
        "jobs": runs.jobs,
        "layer-at-step": gates.layer_at_step,
        "memory": gates.memory,
        "regimes": market.regimes,
        "runs": runs.runs,
        "saturation-by": gates.saturation_by,
        "updates": learning.updates,
        "worst-layers": scores.worst_layers,
    }
)
"""Name of a query → what answers it. `compare` averages windows of two runs, and is left to a server."""


def answer(query: Query, store: Store, values: Mapping[str, Value], now: int) -> list[Row]:
    """Return the rows of a named query, with the columns and in the order that its Flux gives.

    Args:
        query: one of `ANSWERS`.
        store: is read.
        values: of its parameters, by name.
        now: nanoseconds since the Unix epoch.
    """
    points = Points.between(store, values, now)
    return rows_of(ANSWERS[query.name](points, values))

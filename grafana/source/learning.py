"""Learning: whether the network learns, what moves it, and whether what it learns holds elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from grafana_foundation_sdk.builders.dashboard import Panel

from gatewatch.collector.schema import GATE_DERIVED, GATE_STATS, LAYER_UPDATES, TRAIN_METRICS
from gatewatch.jobs.thresholds import GRADIENT_VANISHED, UPDATE_FAST, UPDATE_HEALTHY, UPDATE_SLOW
from grafana.source import variables
from grafana.source.board import board
from grafana.source.flux import Series, keep_where, pipe, points, union
from grafana.source.flux_steps import aggregate_window, group, map_to
from grafana.source.panels import time_series
from grafana.source.queries import OF_LAYER, OF_RUN, derived, series
from grafana.source.values import CLEAR, GREEN, RED, SHARE, YELLOW, Values, limit

_LOSSES: Final = r"r._field =~ /(^|[\/_ ])loss$/"
_RATES: Final = r"r._field =~ /(^|[\/_ ])(learning_rate|lr)$/"
_OTHER: Final = r"r._field !~ /(^|[\/_ ])(loss|learning_rate|lr)$/ and r._field !~ /^(step|epoch|nan_count|inf_count)$/"


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    return board(
        "Learning",
        "Whether the network learns, what moves its weights, and whether what it learns holds elsewhere.",
        [*variables.of_run(), variables.layers()],
        ["Loss", *_losses(), "Gradients and steps", *_updates(), "Dead and frozen", *_still()],
    )


def _losses() -> list[Panel]:
    return [
        time_series("Loss", _metrics(_LOSSES)).description(
            "Training and validation loss. Healthy: both fall, then level off together. Training falls while "
            "validation rises: the network learns its prices by heart."
        ),
        time_series(
            "Generalisation gap",
            series(GATE_DERIVED, ["generalisation_gap"], *OF_RUN, 'r.layer == "_model"', by=["phase"]),
            Values("percentunit", bands=limit(0.5)),
        )
        .description(
            "How much larger the validation loss is than the training loss, relative to it. Healthy: below 0.5 and "
            "steady. It may look healthy in every gate and still overfit: this is where that shows."
        )
        .display_name("gap"),
        time_series("What else is logged", _metrics(_OTHER))
        .description(
            "Reward, accuracy and whatever the framework reports. Healthy: a reward that rises and does not collapse."
        )
        .no_value("Nothing else is logged in this time range"),
        time_series("Learning rate", _metrics(_RATES), Values("sci")).description(
            "As the optimizer had it. Healthy: as scheduled. A jump here explains a jump of gradients and gates."
        ),
    ]


def _metrics(where: str) -> Series:
    return series(TRAIN_METRICS, (), where, *OF_RUN, by=["_field"])


def _updates() -> list[Panel]:
    low, high = UPDATE_HEALTHY
    bands = ((None, RED), (UPDATE_SLOW, YELLOW), (low, GREEN), (high, YELLOW), (UPDATE_FAST, RED))
    return [
        time_series(
            "Gradient norm, before and after clipping",
            _by_param("gradient_norm", "gradient_norm_clipped", by=["layer", "param", "_field"]),
            Values("sci", bands=((None, RED), (GRADIENT_VANISHED, CLEAR)), logarithmic=True),
        ).description(
            f"Healthy: within a decade or two, not falling for ever. Below {GRADIENT_VANISHED:g} it has vanished; a "
            "hundred times its usual it explodes. Where clipped lies far below, clipping decides the step."
        ),
        time_series(
            "Update ratio", _by_param("update_ratio"), Values("sci", bands=bands, logarithmic=True)
        ).description(
            "How far a step moves the weights, relative to their size. Healthy: the green band, around 1e-3. "
            f"Below {UPDATE_SLOW:g} it hardly learns, above {UPDATE_FAST:g} it forgets what it learned."
        ),
        time_series("Share of the weights that move", _by_param("update_frequency"), SHARE).description(
            "Healthy: near 1 while training; falling to 0: the optimizer does not reach them, or no gradient comes."
        ),
        time_series("Weight norm", _by_param("weight_norm")).description(
            "Healthy: slow growth that levels off. Steady fast growth: no regularisation, or a rate that is too high."
        ),
    ]


def _by_param(*fields: str, by: Sequence[str] = ("layer", "param")) -> Series:
    return series(LAYER_UPDATES, fields, *OF_LAYER, by=by)


def _still() -> list[Panel]:
    at_most_half = Values("percentunit", low=0, high=1, bands=limit(0.5))
    return [
        time_series("Dead units", derived("dead_share", by=["layer", "gate"]), at_most_half).description(
            "Share of units that do nothing. Healthy: near 0; above half the layer works with a fraction of its size."
        ),
        time_series("Frozen units", derived("frozen_units", by=["layer", "gate"]), at_most_half).description(
            "Share of units whose activation stands still from capture to capture. Healthy: near 0 while training."
        ),
        time_series(
            "Gradient state", series(GATE_DERIVED, ["gradient_state"], *OF_LAYER, fn="last"), Values(low=-1, high=1)
        ).description("−1 vanished, 0 usual, 1 explodes (ten times its usual). Healthy: 0 throughout."),
        time_series("Values that are not finite", _not_finite(), Values(low=0))
        .description(
            "NaN and Inf in gates and weights. Healthy: 0. Anything else: stop the run; nothing after it is usable."
        )
        .no_value("Every value in this time range is finite"),
    ]


def _not_finite() -> Series:
    """Return the counts of values that are not finite, for the gates and parameters that have any."""

    def counts(measurement: str, tag: str) -> str:
        named = map_to(f"_time: r._time, _value: r._value, layer: r.layer, part: r.{tag}")
        read = points(measurement, ["nan_count", "inf_count"], *OF_LAYER)
        return read + pipe(aggregate_window("max"), keep_where("r._value > 0"), named)

    both = union(gates=counts(GATE_STATS, "gate"), params=counts(LAYER_UPDATES, "param"))
    return Series(both + pipe(group("layer", "part")), ["layer", "part"])

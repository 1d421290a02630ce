"""Learning: whether the network learns, what moves it, and whether what it learns holds elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from gatewatch.collector.schema import GATE_DERIVED, GATE_STATS, LAYER_UPDATES, TRAIN_METRICS
from gatewatch.jobs.thresholds import GRADIENT_VANISHED, UPDATE_FAST, UPDATE_HEALTHY, UPDATE_SLOW
from grafana.source import variables
from grafana.source.board import Section, board
from grafana.source.flux import chosen, flux, pipe, points
from grafana.source.links import LEARNING
from grafana.source.panels import CLEAR, GREEN, RED, YELLOW, limit, lines
from grafana.source.queries import OF_LAYER, derived, series

_RUN: Final = (chosen("run"), chosen("phase"))
_OF_PARAM: Final = "${__field.labels.layer} ${__field.labels.param}"
_OF_GATE: Final = "${__field.labels.layer} ${__field.labels.gate}"
_LOSSES: Final = r"r._field =~ /(^|[\/_ ])loss$/"
_RATES: Final = r"r._field =~ /(^|[\/_ ])(learning_rate|lr)$/"
_OTHER: Final = r"r._field !~ /(^|[\/_ ])(loss|learning_rate|lr)$/ and r._field !~ /^(step|epoch|nan_count|inf_count)$/"


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    return board(
        LEARNING,
        "Learning",
        "Whether the network learns, what moves its weights, and whether what it learns holds elsewhere.",
        [variables.tag(), variables.value(), variables.run(), variables.phase(), variables.layers()],
        [
            Section("Loss", _losses()),
            Section("Gradients and steps", _updates()),
            Section("Dead and frozen", _still()),
        ],
    )


def _losses() -> list[Any]:
    return [
        _metrics(
            "Loss",
            "Training and validation loss. Healthy: both fall, then level off together. Training falls while "
            "validation rises: the network learns its prices by heart.",
            _LOSSES,
        ),
        lines(
            "Generalisation gap",
            "How much larger the validation loss is than the training loss, relative to it. Healthy: below 0.5 and "
            "steady. It may look healthy in every gate and still overfit: this is where that shows.",
            derived("generalisation_gap", *_RUN, 'r.layer == "_model"', by=["phase"]),
            "gap",
            "percentunit",
            bands=limit(0.5),
        ),
        _metrics(
            "What else is logged",
            "Reward, accuracy and whatever the framework reports. Healthy: a reward that rises and does not collapse.",
            _OTHER,
        ).no_value("Nothing else is logged in this time range"),
        _metrics(
            "Learning rate",
            "As the optimizer had it. Healthy: as scheduled. A jump here explains a jump of gradients and gates.",
            _RATES,
            "sci",
        ),
    ]


def _metrics(title: str, description: str, where: str, unit: str = "short") -> Any:
    query = series(TRAIN_METRICS, (), where, *_RUN, by=["_field"])
    return lines(title, description, query, "${__field.name}", unit)


def _updates() -> list[Any]:
    steps = ((None, RED), (UPDATE_SLOW, YELLOW), (UPDATE_HEALTHY[0], GREEN), (UPDATE_HEALTHY[1], YELLOW))
    return [
        lines(
            "Gradient norm, before and after clipping",
            f"Healthy: within a decade or two, not falling for ever. Below {GRADIENT_VANISHED:g} it has vanished; a "
            "hundred times its usual it explodes. Where clipped lies far below, clipping decides the step.",
            _by_param("gradient_norm", "gradient_norm_clipped", by=["layer", "param", "_field"]),
            f"{_OF_PARAM} ${{__field.name}}",
            "sci",
            bands=((None, RED), (GRADIENT_VANISHED, CLEAR)),
            logarithmic=True,
        ),
        lines(
            "Update ratio",
            "How far a step moves the weights, relative to their size. Healthy: the green band, around 1e-3. "
            f"Below {UPDATE_SLOW:g} it hardly learns, above {UPDATE_FAST:g} it forgets what it learned.",
            _by_param("update_ratio"),
            _OF_PARAM,
            "sci",
            bands=(*steps, (UPDATE_FAST, RED)),
            logarithmic=True,
        ),
        lines(
            "Share of the weights that move",
            "Healthy: near 1 while training; falling to 0: the optimizer does not reach them, or no gradient comes.",
            _by_param("update_frequency"),
            _OF_PARAM,
            "percentunit",
            low=0,
            high=1,
        ),
        lines(
            "Weight norm",
            "Healthy: slow growth that levels off. Steady fast growth: no regularisation, or a rate that is too high.",
            _by_param("weight_norm"),
            _OF_PARAM,
        ),
    ]


def _by_param(*fields: str, by: Sequence[str] = ("layer", "param")) -> str:
    return series(LAYER_UPDATES, fields, *OF_LAYER, by=by)


def _still() -> list[Any]:
    return [
        _share(
            "Dead units",
            "Share of units that do nothing. Healthy: near 0; above half the layer works with a fraction of its size.",
            "dead_share",
        ),
        _share(
            "Frozen units",
            "Share of units whose activation stands still from capture to capture. Healthy: near 0 while training.",
            "frozen_units",
        ),
        lines(
            "Gradient state",
            "−1 vanished, 0 usual, 1 explodes (ten times its usual). Healthy: 0 throughout.",
            series(GATE_DERIVED, ["gradient_state"], *OF_LAYER, fn="last"),
            _OF_GATE,
            low=-1,
            high=1,
        ),
        lines(
            "Values that are not finite",
            "NaN and Inf in gates and weights. Healthy: 0. Anything else: stop the run; nothing after it is usable.",
            _not_finite(),
            "${__field.labels.layer} ${__field.labels.part}",
            low=0,
        ).no_value("Every value in this time range is finite"),
    ]


def _share(title: str, description: str, field: str) -> Any:
    query = derived(field, *OF_LAYER)
    return lines(title, description, query, _OF_GATE, "percentunit", low=0, high=1, bands=limit(0.5))


def _not_finite() -> str:
    """Return the counts of the gates and of the parameters, of those series that have any."""
    each = [
        flux(
            f"{name} = {points(measurement, ['nan_count', 'inf_count'], *OF_LAYER)}",
            pipe(
                "aggregateWindow(every: v.windowPeriod, fn: max, createEmpty: false)",
                "filter(fn: (r) => r._value > 0)",
                f"map(fn: (r) => ({{_time: r._time, _value: r._value, layer: r.layer, part: r.{tag}}}))",
            ),
        )
        for name, measurement, tag in (("gates", GATE_STATS, "gate"), ("params", LAYER_UPDATES, "param"))
    ]
    return flux(*each, "union(tables: [gates, params])", pipe('group(columns: ["layer", "part"])'))

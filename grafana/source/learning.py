"""Learning: whether the network learns, what moves it, and whether what it learns holds elsewhere."""

from __future__ import annotations

from typing import Any, Final

from gatewatch.collector.schema import GATE_DERIVED, LAYER_UPDATES, TRAIN_METRICS
from gatewatch.jobs.thresholds import GRADIENT_VANISHED, UPDATE_FAST, UPDATE_HEALTHY, UPDATE_SLOW
from grafana.source import variables
from grafana.source.board import Section, board
from grafana.source.flux import chosen, flux, points, window
from grafana.source.links import LEARNING
from grafana.source.panels import CLEAR, GREEN, RED, YELLOW, banded, lines, logarithmic
from grafana.source.queries import OF_LAYER, derived

_RUN: Final = (chosen("run"), chosen("phase"))
_OF_PARAM: Final = "${__field.labels.layer} ${__field.labels.param}"
_OF_GATE: Final = "${__field.labels.layer} ${__field.labels.gate}"
_LOSSES: Final = r"r._field =~ /(^|[\/_ ])loss$/"
_RATES: Final = r"r._field =~ /(^|[\/_ ])(learning_rate|lr)$/"
_GAP: Final = 0.5
_TOLD: Final = r"r._field !~ /(^|[\/_ ])(loss|learning_rate|lr)$/ and r._field !~ /^(step|epoch|nan_count|inf_count)$/"


def dashboard() -> dict[str, Any]:
    """The dashboard."""
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
        lines(
            "Loss",
            "Training and validation loss. Healthy: both fall, then level off together. Training falls while "
            "validation rises: the network learns its prices by heart.",
            _metrics(_LOSSES),
            "${__field.name}",
        ),
        banded(
            lines(
                "Generalisation gap",
                "How much larger the validation loss is than the training loss, relative to it. Healthy: below 0.5 and "
                "steady. It may look healthy in every gate and still overfit: this is where that shows.",
                derived("generalisation_gap", *_RUN, 'r.layer == "_model"', tags=["phase"]),
                "gap",
                "percentunit",
            ),
            (None, CLEAR),
            (_GAP, RED),
        ),
        lines(
            "What else is logged",
            "Reward, accuracy and whatever the framework reports. Healthy: a reward that rises and does not collapse.",
            _metrics(_TOLD),
            "${__field.name}",
        ).no_value("Nothing else is logged in this time range"),
        lines(
            "Learning rate",
            "As the optimizer had it. Healthy: as scheduled. A jump here explains a jump of gradients and gates.",
            _metrics(_RATES),
            "${__field.name}",
            "sci",
        ),
    ]


def _metrics(where: str) -> str:
    return flux(points(TRAIN_METRICS, (), where, *_RUN), window("mean", "_field"))


def _updates() -> list[Any]:
    norms = flux(
        points(LAYER_UPDATES, ["gradient_norm", "gradient_norm_clipped"], *OF_LAYER),
        window("mean", "layer", "param", "_field"),
    )
    return [
        logarithmic(
            banded(
                lines(
                    "Gradient norm, before and after clipping",
                    f"Healthy: within a decade or two, not falling for ever. Below {GRADIENT_VANISHED:g} it has "
                    "vanished; a hundred times its usual it explodes. Where clipped lies far "
                    "below, clipping decides the step.",
                    norms,
                    f"{_OF_PARAM} ${{__field.name}}",
                    "sci",
                ),
                (None, RED),
                (GRADIENT_VANISHED, CLEAR),
            )
        ),
        logarithmic(
            banded(
                lines(
                    "Update ratio",
                    "How far a step moves the weights, relative to their size. Healthy: the green band, around 1e-3. "
                    f"Below {UPDATE_SLOW:g} it hardly learns, above {UPDATE_FAST:g} it forgets what it learned.",
                    _of_params("update_ratio"),
                    _OF_PARAM,
                    "sci",
                ),
                (None, RED),
                (UPDATE_SLOW, YELLOW),
                (UPDATE_HEALTHY[0], GREEN),
                (UPDATE_HEALTHY[1], YELLOW),
                (UPDATE_FAST, RED),
            )
        ),
        lines(
            "Share of the weights that move",
            "Healthy: near 1 while training; falling to 0: the optimizer does not reach them, or no gradient comes.",
            _of_params("update_frequency"),
            _OF_PARAM,
            "percentunit",
        )
        .min(0)
        .max(1),
        lines(
            "Weight norm",
            "Healthy: slow growth that levels off. Steady fast growth: no regularisation, or a rate that is too high.",
            _of_params("weight_norm"),
            _OF_PARAM,
        ),
    ]


def _of_params(field: str) -> str:
    return flux(points(LAYER_UPDATES, [field], *OF_LAYER), window("mean", "layer", "param"))


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
            flux(points(GATE_DERIVED, ["gradient_state"], *OF_LAYER), window("last", "layer", "gate")),
            _OF_GATE,
        )
        .min(-1)
        .max(1),
        lines(
            "Values that are not finite",
            "NaN and Inf in gates and weights. Healthy: 0. Anything else: stop the run; nothing after it is usable.",
            _not_finite(),
            "${__field.labels.layer} ${__field.labels.part}",
        )
        .min(0)
        .no_value("Every value in this time range is finite"),
    ]


def _share(title: str, description: str, field: str) -> Any:
    panel = lines(title, description, derived(field, *OF_LAYER), _OF_GATE, "percentunit").min(0).max(1)
    return banded(panel, (None, CLEAR), (0.5, RED))


def _not_finite() -> str:
    """The gates' and the parameters' counts, of those series that have any."""
    fields = ["nan_count", "inf_count"]
    each = [
        flux(
            f"{name} = {points(measurement, fields, *OF_LAYER)}",
            "  |> aggregateWindow(every: v.windowPeriod, fn: max, createEmpty: false)",
            "  |> filter(fn: (r) => r._value > 0)",
            f"  |> map(fn: (r) => ({{_time: r._time, _value: r._value, layer: r.layer, part: r.{tag}}}))",
        )
        for name, measurement, tag in (("gates", "gate_stats", "gate"), ("params", "layer_updates", "param"))
    ]
    return flux(*each, "union(tables: [gates, params])", '  |> group(columns: ["layer", "part"])')

"""Learning: whether the network learns, what moves it, and whether what it learns holds elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from grafana_foundation_sdk.builders.dashboard import Panel

from gatewatch.collector.schema import GATE_DERIVED, GATE_STATS, LAYER_UPDATES, TRAIN_METRICS
from gatewatch.jobs.queries.flux_values import literal
from gatewatch.jobs.scoring.checks.policy import CLIP_LIMIT, KL_LIMIT
from gatewatch.jobs.thresholds import GRADIENT_VANISHED, UPDATE_FAST, UPDATE_HEALTHY, UPDATE_SLOW
from grafana.source import logged, variables
from grafana.source.board import board
from grafana.source.flux import Series, chosen, flux, inline_union, keep_where, pipe, points, union
from grafana.source.flux_steps import OLDEST_FIRST, aggregate_window, extend, group, keep, map_to
from grafana.source.panels import stat, state_timeline, text_stat, time_series
from grafana.source.queries import OF_LAYER, OF_RUN, derived, run_end, series, until_end
from grafana.source.summary import run_state
from grafana.source.values import CLEAR, GREEN, RED, SHARE, YELLOW, Values, limit, override

_NEVER: Final = 9223372036854775807
_EXTENT: Final = f"""reduce(identity: {{level: 2, since: {_NEVER}}}, fn: (r, accumulator) => ({{
      level: if r.level < accumulator.level then r.level else accumulator.level,
      since: if r.since < accumulator.since then r.since else accumulator.since,
    }}))"""
_GRADIENTS: Final = {"vanished": RED, "usual": GREEN, "explodes": RED, "not finite": RED, "ended": CLEAR}
_GRADIENT_STATE: Final = """_value: if r._value < -0.5 then "vanished" else if r._value > 1.5 then "not finite"
        else if r._value > 0.5 then "explodes" else "usual\""""


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    return board(
        "Learning",
        "Whether the network learns, what moves its weights, and whether what it learns holds elsewhere.",
        [*variables.of_run(), variables.layers(), variables.metrics(logged.OTHER)],
        [
            *_summary(),
            *_progress(),
            "Gradients and steps",
            _gradient_state(),
            *_updates(),
            "Dead and frozen",
            *_still(),
            "Policy",
            *_policy(),
            "What else is logged",
            _other(),
        ],
    )


def _summary() -> list[Panel]:
    colours = {"^wrong: (.*)$": RED, "^look at: (.*)$": YELLOW, "^(nothing)$": GREEN}
    # Without string() InfluxDB makes no row of a text that does not depend on one.
    begin = 'if r.level == 0 then "wrong: " else "look at: "'
    said = map_to(f'_value: string(v: if r.level == 2 then "nothing" else ({begin}) + r.what)')
    wrong = text_stat("What is wrong with its learning", _worst() + pipe(said), colours, patterns=True)
    seen = _worst() + pipe(keep_where("r.level < 2"), map_to("_value: r.since / 1000000"))
    return [
        run_state(),
        wrong.span(13).description(
            "The first that holds of: values that are not finite, a gradient that has vanished, a validation loss more "
            "than half above the training loss, more than half of the units dead (red); a gradient that exploded in "
            "the time range, weights that move too far or hardly (yellow). Healthy: nothing."
        ),
        stat("That was seen first", seen, Values("dateTimeAsIso", bands=((None, RED),)))
        .span(7)
        .description("When that was captured for the first time in the time range. Healthy: none.")
        .no_value("none"),
    ]


def _worst() -> str:
    """Return one row: what is most wrong with how the run learns, and when it was seen first.

    Its level is 0 where it is wrong, 1 where it is worth a look, and 2 where nothing is.
    """
    counts = ["nan_count", "inf_count"]
    gate, param = 'r.layer + " " + r.gate', 'r.layer + " " + r.param'
    found, large, small = "r._value > 0", "r._value > 0.5", "r._value < -0.5"
    candidates = (
        (0, "values that are not finite, ", gate, points(GATE_STATS, counts, *OF_LAYER), "max", found),
        (0, "values that are not finite, ", param, points(LAYER_UPDATES, counts, *OF_LAYER), "max", found),
        (0, "vanished gradient, ", gate, _derived("gradient_state"), "last", small),
        (0, "validation loss far above the training loss", '""', _gap(), "last", large),
        (0, "dead units, ", gate, _derived("dead_share"), "last", large),
        (1, "the gradient exploded, ", gate, _derived("gradient_state"), "max", large),
        (1, "steps too large, ", gate, _derived("update_band"), "last", large),
        (1, "weights hardly move, ", gate, _derived("update_band"), "last", small),
    )
    tables = []
    for rank, (level, what, where, read, fn, holds) in enumerate(candidates):
        # With the value in it: InfluxDB makes no row of columns that do not depend on one.
        named = f"rank: {rank} + 0 * int(v: r._value), what: {literal(what)} + {where}"
        is_now = map_to(f"{named}, level: if {holds} then {level} else 2, since: {_NEVER}")
        was_first = map_to(f"{named}, level: 2, since: int(v: r._time)")
        # Each reads for itself: what two steps share InfluxDB would not reduce while it reads.
        tables += [read + pipe(f"{fn}()", is_now), read + pipe(keep_where(holds), "first()", was_first)]
    return inline_union(*tables) + pipe(
        group("rank", "what"), _EXTENT, "group()", 'sort(columns: ["level", "rank", "since"])', "limit(n: 1)"
    )


def _derived(field: str) -> str:
    return points(GATE_DERIVED, [field], *OF_LAYER)


def _gap() -> str:
    return points(GATE_DERIVED, ["generalisation_gap"], *OF_RUN, 'r.layer == "_model"')


def _progress() -> list[Panel]:
    money = override(custom__axisPlacement="right")
    return [
        time_series("Loss", _metrics(logged.LOSSES))
        .description(
            "Training and validation loss. Healthy: both fall, then level off together. Training falls while "
            "validation rises: the network learns its prices by heart. In reinforcement learning it need not fall: "
            "look at the reward."
        )
        .no_value("No loss is logged in this time range"),
        time_series("Reward", _metrics(logged.REWARD), worst="min")
        .description(
            "Whatever the policy earns, by the names that are logged: reward, return, equity. Healthy: it rises and "
            "does not collapse. Equity and profit have the axis on the right."
        )
        .no_value("No reward is logged in this time range")
        .override_by_regexp("/equity|profit|pnl/i", money),
        time_series(
            "Generalisation gap",
            series(GATE_DERIVED, ["generalisation_gap"], *OF_RUN, 'r.layer == "_model"', by=["phase"]),
            Values("percentunit", bands=limit(0.5)),
        )
        .description(
            "How much larger the validation loss is than the training loss, relative to it. Healthy: below 0.5 and "
            "steady. It may look healthy in every gate and still overfit: this is where that shows."
        )
        .no_value(
            "No validation loss is logged beside a training loss in this time range, so overfitting would not show"
        )
        .display_name("gap"),
        time_series("Learning rate", _metrics(logged.RATE), Values("sci", decimals=1))
        .description(
            "As the optimizer had it. Healthy: as scheduled. A jump here explains a jump of gradients and gates."
        )
        .no_value("No learning rate is logged in this time range"),
    ]


def _policy() -> list[Panel]:
    return [
        time_series("Policy", _metrics(logged.POLICY))
        .description(
            "Healthy: the entropy (`entropy_loss` is its negative) or the standard deviation of the actions falls "
            "slowly, over the whole training; the explained variance rises above 0; the share of the most "
            "frequent action, or position, stays below 1. The entropy collapses within a few rollouts: the policy no "
            "longer tries anything. A share of 1: it always does the same."
        )
        .no_value("No policy logs its entropy, explained variance or actions in this time range"),
        time_series("How far the policy moves", _metrics(logged.POLICY_STEPS), Values(low=0, soft_high=0.01))
        .description(
            "Approximate KL divergence, and the share of samples that are clipped, of each training. Healthy: a "
            f"divergence around 0.01, a share below 0.3. Above {KL_LIMIT:g} or {CLIP_LIMIT:g} for three rollouts: the "
            "learning rate is too high, or there are too many epochs. The divergence has the axis on the right."
        )
        .no_value("No policy logs a KL divergence or clip fraction in this time range")
        .override_by_regexp("/kl$/i", override(custom__axisPlacement="right")),
    ]


def _other() -> Panel:
    """Return the panel that is repeated for each other metric: they differ in size, so each has an axis of its own."""
    return (
        time_series("${metric:text}", _metrics(chosen("_field", "metric")), size=(8, 6), legend=False)
        .description("Logged by the framework or by you. Healthy: what you expect of it. Counters are left out.")
        .no_value("Nothing else is logged in this time range")
        .repeat("metric")
    )


def _metrics(where: str) -> Series:
    return series(TRAIN_METRICS, (), where, *OF_RUN, by=["_field"])


def _gradient_state() -> Panel:
    """Return the timeline of the gradients in words. Of a window the worst is shown, however short it was."""
    labels = ("layer", "gate")
    # A window has the time of its begin, which lies before the end of the run.
    window = 'aggregateWindow(every: v.windowPeriod, fn: max, createEmpty: false, timeSrc: "_start")'
    states = points(GATE_DERIVED, ["gradient_state"], *OF_LAYER, stop="end") + pipe(
        window, keep("_time", "_value", *labels), group(*labels)
    )
    # A gradient with NaN has no norm, and so no state.
    counted = points(LAYER_UPDATES, ["nan_count", "inf_count"], *OF_LAYER, stop="end") + pipe(
        window,
        keep_where("r._value > 0"),
        map_to("_time: r._time, _value: 2.0, layer: r.layer, gate: r.param"),
        group(*labels),
    )
    of_window = ('sort(columns: ["_time", "_value"], desc: true)', 'unique(column: "_time")', OLDEST_FIRST)
    # Rows with a text in the place of a number are of a new type for Flux once their columns are chosen.
    words = (extend(_GRADIENT_STATE), keep("_time", "_value", *labels))
    either = inline_union(states, counted) + pipe(group(*labels), *of_window, *words)
    return (
        state_timeline("Gradient state", Series(flux(run_end(), until_end(either)), labels), _GRADIENTS)
        .description(
            f"Vanished: below {GRADIENT_VANISHED:g}. Explodes: ten times what it usually is in this run. Not finite: "
            "NaN or Inf. It ends where the run ended. Healthy: usual, throughout."
        )
        .height(6)
    )


def _updates() -> list[Panel]:
    low, high = UPDATE_HEALTHY
    bands = ((None, RED), (UPDATE_SLOW, YELLOW), (low, GREEN), (high, YELLOW), (UPDATE_FAST, RED))
    return [
        time_series(
            "Gradient norm, before and after clipping",
            _by_param("gradient_norm", "gradient_norm_clipped", by=["layer", "param", "_field"]),
            Values("sci", decimals=1, bands=((None, RED), (GRADIENT_VANISHED, CLEAR)), logarithmic=True),
        ).description(
            f"Healthy: within a decade or two, not falling for ever. Below {GRADIENT_VANISHED:g} it has vanished; a "
            "hundred times its usual it explodes. Where clipped lies far below, clipping decides the step."
        ),
        time_series(
            "Update ratio", _by_param("update_ratio"), Values("sci", decimals=1, bands=bands, logarithmic=True)
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
        time_series(
            "Dead units", derived("dead_share", by=["layer", "gate"], worst="max"), at_most_half, size=(8, 9)
        ).description(
            "Share of units that do nothing. Healthy: near 0; above half the layer works with a fraction of its size."
        ),
        time_series(
            "Frozen units", derived("frozen_units", by=["layer", "gate"], worst="max"), at_most_half, size=(8, 9)
        ).description(
            "Share of units whose activation stands still from capture to capture. Healthy: near 0 while training."
        ),
        time_series("Values that are not finite", _not_finite(), Values(low=0), size=(8, 9))
        .description(
            "NaN and Inf in gates and weights. Healthy: 0. Anything else: stop the run; nothing after it is usable."
        )
        .no_value("No NaN or Inf was captured in this time range"),
    ]


def _not_finite() -> Series:
    """Return the counts of values that are not finite, for the gates and parameters that have any."""

    def counts(measurement: str, tag: str) -> str:
        named = map_to(f"_time: r._time, _value: r._value, layer: r.layer, part: r.{tag}")
        read = points(measurement, ["nan_count", "inf_count"], *OF_LAYER)
        return read + pipe(aggregate_window("max"), keep_where("r._value > 0"), named)

    both = union(gates=counts(GATE_STATS, "gate"), params=counts(LAYER_UPDATES, "param"))
    return Series(both + pipe(group("layer", "part")), ["layer", "part"])

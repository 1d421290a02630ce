"""Feed: whether what is fed changed, since when and which feature, and with what state sequences begin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from grafana_foundation_sdk.builders.dashboard import Panel

from gatewatch.collector.schema import FEED_STATS, RECURRENT_STATE, TRAIN_METRICS
from grafana.source import logged, variables
from grafana.source.board import board, closed_row
from grafana.source.feature_rows import feature_doublings, feature_moves, feature_values
from grafana.source.feed_queries import changed_at, features, what_changed
from grafana.source.flux import Series
from grafana.source.links import CHOSEN_RUN, link
from grafana.source.panels import SIGNED, heatmap, stat, table, text_stat, time_series
from grafana.source.queries import OF_RUN, series
from grafana.source.summary import run_state
from grafana.source.values import GREEN, GREY, RED, SHARE, YELLOW, Values, override

_DEVIATIONS: Final = SIGNED | {"min": -3, "max": 3}
_DOUBLINGS: Final = SIGNED | {"min": -2, "max": 2}
_SHARES: Final = {"min": 0, "max": 1, "scheme": "Viridis", "reverse": False}
_COUNT: Final = Values("none", low=0, soft_high=4)
_CORRELATION: Final = Values(low=-1, high=1)
_ANOMALIES: Final = link("Since when, and why", "anomalies", **CHOSEN_RUN)
_ITSELF: Final = (
    "Each feature is compared with itself, or a large one would hide the others: with its mean over the first quarter "
    "of the captures that are shown, in standard deviations that it had then. From 3 on there is one colour. "
)
_NOT_FED: Final = "Nothing in this time range: press “Whole run” above. Or what is fed is not recorded"
_NO_STATE: Final = "Nothing in this time range: press “Whole run” above. Or "


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    return board(
        "Feed",
        "Whether what the network is fed changed, since when and which feature, or whether it is the network.",
        variables.of_run(),
        [
            *_summary(),
            *_heatmaps(),
            _features(),
            closed_row("Tails, order and gradient of each feature", *_more_heatmaps()),
            "The network or the data",
            *_network_or_data(),
            "The batch as a whole",
            *_batch(),
            "With what state sequences begin",
            *_state(),
        ],
    )


def _summary() -> list[Panel]:
    colours = {"^(Yes, a check failed.*)$": RED, "^(Yes.*)$": YELLOW, "^(No)$": GREEN, "^(Not .*)$": GREY}
    return [
        run_state(),
        text_stat("Did what is fed change?", what_changed(), colours, patterns=True, size=18)
        .span(15)
        .description(
            "What the jobs found in the time range: a check of the feed that failed (red), or a feed that changed "
            "while the network did not (yellow), at which step, and the feature that moved furthest since. Healthy: No."
        ),
        stat("It changed first", changed_at(), Values("dateTimeAsIso", bands=((None, RED),)), [_ANOMALIES])
        .span(5)
        .description(
            "The first capture in the time range with a score of the feed above 1. Healthy: none. A click leads to "
            "everything that was anomalous."
        )
        .no_value("none"),
    ]


def _heatmaps() -> list[Panel]:
    return [
        heatmap("Mean of each feature", feature_moves("mean"), _DEVIATIONS, "").description(
            f"{_ITSELF}Healthy: pale. A row in full colour: that feature moved; all rows at once: another market or "
            "another normaliser."
        ),
        heatmap("Spread of each feature", feature_doublings("std"), _DOUBLINGS, "").description(
            "How often the standard deviation of each feature has doubled since the first quarter of what is shown: 1 "
            "is twice as large, -1 half. From 2 on there is one colour. Healthy: pale. A row in full blue: the feature "
            "has become constant; all rows: a regime, or a normaliser that was lost."
        ),
        heatmap("99th percentile of each feature", feature_moves("p99"), _DEVIATIONS, "").description(
            f"{_ITSELF}Healthy: pale. Red rows while the mean stays pale: outliers, or bars that were not clipped."
        ),
    ]


def _more_heatmaps() -> list[Panel]:
    panels = [
        heatmap("1st percentile of each feature", feature_moves("p01"), _DEVIATIONS, "").description(
            f"{_ITSELF}Healthy: pale."
        ),
        heatmap("Lag-1 autocorrelation of each feature", feature_values("lag1"), SIGNED, "").description(
            "How alike neighbouring bars of a sequence are, by feature. Healthy: each row keeps its colour. All rows "
            "fall towards 0 at once: the order of the bars was lost."
        ),
        heatmap("Share of the gradient, if torch shows it", feature_values("gradient_share"), _SHARES, "").description(
            "Share of the gradient of the input weights that belongs to each feature. Healthy: several rows have some. "
            "One row takes all: the network looks at one feature, which may tell the target or be far too large. There "
            "is data in PyTorch alone, where a recurrent layer is given the batch as it is, and step() no batch=."
        ),
        heatmap("NaN share of each feature", feature_values("nan_share"), _SHARES, "").description(
            "Share of the values that are NaN. Healthy: 0 in every row."
        ),
    ]
    return [panel.span(12) for panel in panels]


def _features() -> Panel:
    columns = ("feature", "how", "mean before", "mean since", "spread before", "spread since")
    return (
        table("Which feature moved furthest", features(), columns=columns, names={"how": "what happened"}, height=7)
        .description(
            "Number and name (feature_names=) of each feature, or of the ends of a group of neighbours where there are "
            "more than 64; the one that moved furthest first. Before and since the change that the jobs found; where "
            "they found none, in the two halves of what is shown. Healthy: less than 1 standard deviation, and less "
            "than twice the spread."
        )
        .override_by_name("feature", override(custom__width=200))
        .override_by_name("how", override(custom__minWidth=320))
        .override_by_regexp("^(mean|spread) .*", override(custom__width=130, unit="short", decimals=4))
        .no_value(_NOT_FED)
    )


def _network_or_data() -> list[Panel]:
    losses = series(TRAIN_METRICS, (), f'({logged.LOSS} or r._field == "probe_loss")', *OF_RUN, by=["_field"])
    return [
        time_series("Loss of the batches and of the probe", losses)
        .description(
            "The probe is the same batch at every capture (probe_targets=). Healthy: both fall. The loss of the "
            "batches jumps and the probe's does not: the data changed. The probe's jumps while the feed is calm: the "
            "network changed."
        )
        .no_value("Neither a loss nor a probe loss was recorded in this time range"),
        time_series("Distance to what was fed before", _of_feed("distance"), Values(low=0))
        .description(
            "Between the newest batch and a reservoir of the run's earlier feed, all features together. Healthy: low "
            "and steady. It rises and stays: another regime, which mean and spread of scaled features may hide."
        )
        .no_value(_NOT_FED),
    ]


def _batch() -> list[Panel]:
    return [
        panel.span(8).description(text).no_value(_NOT_FED)
        for panel, text in (
            (
                time_series(
                    "NaN and Inf that are fed", _of_feed("nan_share", "inf_share", "targets_not_finite"), SHARE
                ),
                "Share of the values of a batch, and of its targets. Healthy: 0.",
            ),
            (
                time_series("Constant features", _of_feed("constant_features", fn="max"), _COUNT),
                "Features with a single value in the whole batch. Healthy: 0, or as many as are constant by design.",
            ),
            (
                time_series("Share at the clip", _of_feed("clipped_share"), SHARE),
                "Share of the values at the smallest or largest value of their feature. Healthy: near 0. It rises in a "
                "wild market, or where inputs are no longer scaled.",
            ),
            (
                time_series("Lag-1 autocorrelation", _of_feed("lag1"), _CORRELATION, worst="min"),
                "Median over the features, within sequences. Healthy: steady. It falls to 0: the order was lost.",
            ),
            (
                time_series("Distinct sequences", _of_feed("distinct_share"), SHARE, worst="min"),
                "Share of the batch's sequences that differ from all others. Healthy: near 1. Lower: a batch that "
                "repeats, or a pool of a few sequences.",
            ),
            (
                time_series("Correlation with the target", _of_feed("target_correlation"), _CORRELATION),
                "The largest of a feature's last bar with the target. Healthy: well below 1. Near 1 a feature tells "
                "the target: look-ahead.",
            ),
        )
    ]


def _state() -> list[Panel]:
    by_layer = ["layer"]

    def of_state(*fields: str, by: Sequence[str] = by_layer, fn: str = "max") -> Series:
        return series(RECURRENT_STATE, fields, *OF_RUN, fn=fn, by=by)

    return [
        panel.span(8).description(text).no_value(f"{_NO_STATE}{missing}")
        for panel, text, missing in (
            (
                time_series("Starts that were not reset", of_state("starts_not_reset", by=["layer"]), _COUNT),
                "Sequences that begin an episode with another state than the initial one. Healthy: 0.",
                "no starts of episodes are recorded (starts=)",
            ),
            (
                time_series("Norm of the first state", of_state("initial_norm", fn="mean"), Values(low=0, soft_high=1)),
                "Norm of the state with which a sequence begins. Healthy: 0 where it is reset, else steady.",
                "no states are recorded",
            ),
            (
                time_series("Log-probabilities, recomputed", of_state("logprob_difference"), Values("sci", decimals=1)),
                "The largest difference between log-probabilities of a rollout and the same recomputed before its "
                "first update. Healthy: about 1e-5. More: a stale state, a shifted mask, dropout, another normaliser.",
                "this is no PPO",
            ),
        )
    ]


def _of_feed(*fields: str, fn: str = "mean") -> Series:
    return series(FEED_STATS, fields, *OF_RUN, fn=fn, by=["_field"])

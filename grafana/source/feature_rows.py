"""The rows of the heatmaps of the feed: a table for each input feature, with its name where the run has recorded it.

Features differ in size by orders of magnitude, so that a common scale would show the largest alone. So each is compared
with itself: with what it was in the first quarter of the captures that are shown.
"""

from __future__ import annotations

from typing import Final

from gatewatch.collector.schema import FEED_FEATURES, FEED_STATS, MAX_PROFILE, RUNS
from gatewatch.jobs.queries.flux_values import literal
from grafana.source.flux import flux, inline_union, keep_where, one_of, pipe, points
from grafana.source.flux_steps import OLDEST_FIRST, column_values, extend, group, held, keep, map_to
from grafana.source.queries import OF_RUN, last_capture

IS_FEATURE: Final = "r._field =~ /^f[0-9]/"
NAMES_IMPORTS: Final = ("dict", "experimental/json", "regexp", "strings")
"""What a query with `feature_names` must import."""
SAME: Final = 1e-6
"""A number that moved by less, relative to itself, stayed the same: rounding differs from batch to batch."""
FURTHEST: Final = 99.0
"""What a feature is said to have moved by that was constant before, and so has no spread to compare with."""
_LETTERS: Final = 18
"""How much of a feature's name a row has room for: Grafana cuts off the beginning of a longer one, with its number."""
_BEFORE_ALL: Final = "1677-09-22T00:00:00Z"
_KEY: Final = '"feature_names": '
# The names are cut out before they are parsed: Flux cannot read JSON whose lists hold values of several types, and what
# else the configuration holds is the user's.
_LIST: Final = r'/"feature_names": \[("([^"\\]|\\.)*"(, )?)+\]/'


def feature_names(most: int = 0) -> str:
    """Return the lines that define `name`, which makes the text for a feature of its field: `03 close`, or `03`.

    Args:
        most: how many letters of a name are kept; 0: all.
    """
    long, cut = f"strings.strlen(v: v) > {most}", f'strings.substring(v: v, start: 0, end: {most - 1}) + "…"'
    config = points(RUNS, ["config"], *OF_RUN, start="0", stop="")
    labels = ", ".join(f'"f{i:03d}": "{i:02d}" + own(i: {i})' for i in range(MAX_PROFILE))
    return flux(
        f"configs = {config}" + pipe("last()", "group()", OLDEST_FIRST, "tail(n: 1)", column_values("_value")),
        'config = if length(arr: configs) > 0 then configs[0] else ""',
        f"listed = strings.trimPrefix(v: regexp.findString(r: {_LIST}, v: config), prefix: {literal(_KEY)})",
        'names = json.parse(data: bytes(v: if listed == "" then "[\\"\\"]" else listed))',
        f"fitted = (v) => if {long} then {cut} else v" if most else "fitted = (v) => v",
        'own = (i) => if i < length(arr: names) and names[i] != "" then " " + fitted(v: names[i]) else ""',
        # One text for each field: to make it anew in each row takes Flux five times as long.
        f"known = [{labels}]",
        "name = (field) => dict.get(dict: known, key: field, default: field)",
    )


def extent() -> str:
    """Return the lines that define `begin` and `end`: the first capture of the feed in the time range, and past it."""
    first = points(FEED_STATS, ["step"], *OF_RUN) + pipe(
        "first()", "group()", 'min(column: "_time")', column_values("_time")
    )
    return flux(
        f"oldest = {first}",
        f"captured = {last_capture(*OF_RUN, measurement=FEED_STATS)}",
        "begin = if length(arr: oldest) > 0 then oldest[0] else v.timeRangeStart",
        "end = if length(arr: captured) > 0 then time(v: int(v: captured[0]) + 1) else v.timeRangeStop",
    )


def feature_moves(statistic: str) -> str:
    """Return how far a statistic of each feature lies from its first quarter, in standard deviations of the feature.

    Both are means over the captures of that quarter. A feature that was constant there has no deviation: it is
    `FURTHEST` away as soon as it moves at all.

    Args:
        statistic: one in the feature's own unit: mean, p01, p99.
    """
    moved = "r._value - r.centre"
    away = f"if math.abs(x: {moved}) <= {literal(SAME)} * math.abs(x: r.centre) then 0.0 else "
    away += f"if r.spread > 0.0 then ({moved}) / r.spread else if {moved} > 0.0 then {FURTHEST} else {-FURTHEST}"
    return _rows(statistic, _compared({"centre": statistic, "spread": "std"}, away))


def feature_doublings(statistic: str) -> str:
    """Return how often a statistic of each feature, at least 0, has doubled since its first quarter; below 0: halved.

    Args:
        statistic: std.
    """
    ratio = "if r._value > 0.0 and r.centre > 0.0 then math.log2(x: r._value / r.centre) else "
    ratio += f"if r._value == r.centre then 0.0 else if r._value > r.centre then {FURTHEST} else {-FURTHEST}"
    return _rows(statistic, _compared({"centre": statistic}, ratio))


def feature_values(statistic: str) -> str:
    """Return a statistic of each feature as it is, for those whose scale is the same for all features."""
    return _rows(statistic, ("", (_named("r._value"),)))


def of_statistic(statistic: str) -> str:
    """Return the condition that leaves the points of one statistic."""
    return one_of("statistic", statistic)


def _compared(scales: dict[str, str], value: str) -> tuple[str, tuple[str, ...]]:
    """Return the lines that read what windows are compared with, and the steps that compare them.

    Args:
        scales: column → the statistic whose mean over the first quarter it holds.
        value: the expression for the compared value.
    """
    read = [
        points(FEED_FEATURES, (), IS_FEATURE, *OF_RUN, of_statistic(statistic), start="begin", stop="quarter")
        + pipe("mean()", keep("_value", "_field"), extend(f'part: "{column}"'))
        for column, statistic in scales.items()
    ]
    scale = (inline_union(*read) if read[1:] else read[0]) + pipe(
        group("_field"),
        'pivot(rowKey: ["_field"], columnKey: ["part"], valueColumn: "_value")',
        extend(f"_time: {_BEFORE_ALL}"),
    )
    lines = flux(
        "quarter = time(v: int(v: begin) + (int(v: end) - int(v: begin)) / 4 + 1)",
        f"scales = {scale}",
    )
    # The scale becomes a column of the windows after it: joining two streams takes Flux far longer.
    steps = (
        *(f'fill(column: "{column}", usePrevious: true)' for column in scales),
        keep_where(f"r._time > {_BEFORE_ALL} and exists r.centre"),
        _named(value),
    )
    return lines, steps


def _rows(statistic: str, compared: tuple[str, tuple[str, ...]]) -> str:
    """Return a query for a row per feature, up to the last capture; gaps are held, as in `heatmap_rows`."""
    lines, steps = compared
    windows = points(FEED_FEATURES, (), IS_FEATURE, *OF_RUN, of_statistic(statistic), stop="end") + pipe(
        held("mean"), keep("_time", "_value", "_field"), group("_field")
    )
    rows = "union(tables: [windows, scales])" + pipe(group("_field"), OLDEST_FIRST) if lines else "windows"
    return flux(
        *(f'import "{module}"' for module in (*NAMES_IMPORTS, "math")),
        extent(),
        feature_names(_LETTERS),
        *([lines] if lines else []),
        f"windows = {windows}",
        rows + pipe(*steps, group("_field")),
    )


def _named(value: str) -> str:
    """Return the step that leaves the time, this value, and the feature's name as the field."""
    return map_to(f"_time: r._time, _value: {value}, _field: name(field: r._field)")

"""The variables of a dashboard: run, phase, layer, gate. Each offers only what the ones before it select."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders.dashboard import QueryVariable
from grafana_foundation_sdk.models.dashboard import VariableHide, VariableOption, VariableRefresh, VariableSort

from gatewatch.collector.cells import CELLS, GATES, MEMORY_GATES
from gatewatch.collector.names import OWN_TAGS
from gatewatch.collector.schema import GATE_SCORES, GATE_STATS, RUNS, TRAIN_METRICS
from gatewatch.jobs.queries.flux_values import literal
from grafana.source.flux import DATASOURCE, chosen, dictionary, flux, keep_where, pattern, pipe, points, union
from grafana.source.flux_steps import column_values, extend, group, keep, largest, map_to
from grafana.source.queries import OF_LAYER, OF_RUN, own_time, scores

SIGMOID: Final = tuple(name for name, gate in GATES.items() if gate.scale.low == 0)
"""The gates with values between 0 and 1; other states lie between −1 and 1, and a cell state may lie beyond."""
TITLES: Final = {name: GATES[name].title for cell in CELLS for name in cell.pictured}
"""Gate → title of its panels, in the order in which they are shown."""
OF_CHOSEN_TAG: Final = keep_where('"" =~ /^${value:regex}$/ or r["${tag}"] =~ /^${value:regex}$/')
"""The step that keeps the runs whose tag has one of the chosen values."""
ANY: Final = "any"
"""The first of a user's tags to choose, which stands for none."""
BEGIN: Final = "begin"
END: Final = "end"
"""The names of the variables that hold when the run began and ended."""
_MEMORY_GATES: Final = pattern(*sorted(MEMORY_GATES))
KEEPS_MEMORY: Final = f"r.gate =~ {_MEMORY_GATES}"
"""The condition that a gate is the one that keeps the memory."""
MOST_METRICS: Final = 24
"""Maximum number of metrics with a panel of their own: the first by name."""
_TITLED: Final = r"/^\d\d (?<text>.*)\|(?<value>[^|]*)$/"
SCHEMA: Final = 'import "influxdata/influxdb/schema"'
_SHARED: Final = """reduce(identity: {at: 0, shared: 0}, fn: (r, accumulator) => ({
      at: if r.at > accumulator.at then r.at else accumulator.at,
      shared: accumulator.shared + r.shared,
    }))"""


def tag_and_value() -> list[QueryVariable]:
    """Return the variables for a user's own tag and for its values; at first any tag is chosen, which has no values.

    Tags whose names would have to be escaped in a query are left out.
    """
    of_runs = f"predicate: (r) => r._measurement == {literal(RUNS)}, start: 0)"
    own = f"schema.tagKeys(bucket: v.defaultBucket, {of_runs}" + pipe(
        keep_where(f"r._value !~ {pattern(*sorted(OWN_TAGS))} and r._value !~ /^_/"),
        keep_where(r'r._value !~ /["\\$]/'),
        extend("later: 1"),
    )
    names = union(any=f'array.from(rows: [{{_value: "{ANY}", later: 0}}])', own=own)
    any_first = pipe("group()", 'sort(columns: ["later", "_value"])', keep("_value"))
    tag_values = f'schema.tagValues(bucket: v.defaultBucket, tag: "${{tag}}", {of_runs}'
    value = _several("value", "has value", flux(SCHEMA, tag_values), "Only runs whose tag has one of these.")
    hint = "Choose one of your own tags; its values are in the next list."
    tag = _variable("tag", "Tag", flux('import "array"', SCHEMA, names + any_first), hint)
    return [tag, value.all_value(".*")]


def of_run(*where: str) -> list[QueryVariable]:
    """Return the variables for a run, its phase, and the two hidden ones that hold when it began and ended.

    The last two are in milliseconds, for links; the end is `now` while the run lives.

    Args:
        where: conditions on the tags of the run.
    """
    query = own_time(*OF_RUN)
    ends = [
        _variable(name, name, query + pipe(map_to(f"_value: r.{column}")), "").hide(VariableHide.HIDE_VARIABLE)
        for name, column in ((BEGIN, "from"), (END, "to"))
    ]
    return [run(*where), phase(), *ends]


def run(*where: str) -> QueryVariable:
    """Return the variable for the runs that have these tags; the run with the newest event comes first."""
    events = f'r._measurement == {literal(RUNS)} and r._field == "event"'
    query = "from(bucket: v.defaultBucket)" + pipe(
        "range(start: 0)",
        *map(keep_where, (events, *where)),
        "last()",
        keep("_time", "run"),
        "group()",
        'sort(columns: ["_time"], desc: true)',
        'unique(column: "run")',
        map_to("_value: r.run"),
    )
    return _variable("run", "Run", query, "The run heard of last comes first.")


def other_run() -> QueryVariable:
    """Return the variable for a second run; those that share most layers with the first come first, then the newest."""
    query = flux(
        "layers = "
        + points(GATE_STATS, ["step"], KEEPS_MEMORY, start="0", stop="")
        + pipe("last()", "group()", map_to('run: r.run, name: r.phase + "\\n" + r.layer')),
        f"mine = layers |> {keep_where(chosen('run'))} |> {column_values('name')}",
        union(
            shared="layers"
            + pipe(map_to("run: r.run, at: 0, shared: if contains(set: mine, value: r.name) then 1 else 0")),
            seen=points(RUNS, ["event"], start="0", stop="")
            + pipe("last()", "group()", map_to("run: r.run, at: int(v: r._time), shared: 0")),
        )
        + pipe(
            keep_where("r.run !~ /^${run:regex}$/"),
            group("run"),
            _SHARED,
            "group()",
            'sort(columns: ["shared", "at"], desc: true)',
            map_to("_value: r.run"),
        ),
    )
    return _variable("other", "With", query, "Those that have the same layers come first.")


def phase() -> QueryVariable:
    """Return the variable for the phases of the run."""
    query = _tag_values("phase", RUNS, chosen("run"))
    about = "Phase of the run: train, validation, backtest or live."
    return _variable("phase", "Phase", query, about).hide(VariableHide.HIDE_LABEL)


def layer() -> QueryVariable:
    """Return the variable for one layer of the run; the one with the worst score comes first.

    It reads the scores in the time range, which is quick. If there are none, it reads those of all times, so that the
    dashboard also opens for an old run. Scores without a gate, such as those of the loss, do not count.
    """
    in_layers = keep_where("contains(set: named, value: r.layer)")
    query = flux(
        SCHEMA,
        f"layers = {in_index('layer', GATE_STATS, *OF_RUN)}",
        f"named = layers |> {column_values('_value')}",
        f"worst = (start, stop) => {scores(*OF_RUN, start='start', stop='stop')}"
        + pipe("max()", "group()", in_layers, largest(1), column_values("layer")),
        "shown = worst(start: v.timeRangeStart, stop: v.timeRangeStop)",
        "first = if length(arr: shown) > 0 then shown else worst(start: time(v: 0), stop: now())",
        "layers" + _first("contains(set: first, value: r._value)"),
    )
    return _variable("layer", "Layer", query, "Of this run; the one with the worst anomaly score comes first.")


def layers(measurement: str = GATE_STATS) -> QueryVariable:
    """Return the variable for any layers of the run that have points in a measurement."""
    return _several("layer", "Layer", _tag_values("layer", measurement, *OF_RUN), "Of this run.")


def metrics(which: str) -> QueryVariable:
    """Return the hidden variable for the logged metrics of the run that meet a condition, for a panel of each."""
    query = _tag_values("_field", TRAIN_METRICS, which, *OF_RUN) + pipe(f"limit(n: {MOST_METRICS})")
    return _several("metric", "Metric", query, "").hide(VariableHide.HIDE_VARIABLE)


def gate() -> QueryVariable:
    """Return the variable for one gate of the layer; the one that keeps the memory comes first."""
    query = _tag_values("gate", GATE_STATS, *OF_LAYER) + _first(f"r._value =~ {_MEMORY_GATES}")
    return _variable("gate", "Gate", query, "Of this layer.")


def scored() -> QueryVariable:
    """Return the variable for all gates, parameters and losses of the layers that have scores."""
    query = _tag_values("gate", GATE_SCORES, *OF_LAYER)
    return _several("gate", "Gate", query, "Gates, parameters, and the loss of the whole model.")


def gates_and_states() -> list[QueryVariable]:
    """Return the variables by which panels repeat: the gates of the layer between 0 and 1, and its other gates.

    They are hidden: all are shown, and nobody has to choose.
    """
    return [
        _titled("gate", "Gates", "=~", "Those of the layer that lie between 0 and 1."),
        _titled("state", "States", "!~", "Those of the layer that lie on either side of 0."),
    ]


def _titled(name: str, label: str, matches: str, description: str) -> QueryVariable:
    titles = dictionary({gate: f"{i:02d} {title}|{gate}" for i, (gate, title) in enumerate(TITLES.items())})
    query = flux(
        'import "dict"',
        SCHEMA,
        f"titles = {titles}",
        in_index("gate", GATE_STATS, *OF_LAYER)
        + pipe(
            keep_where(f"r._value {matches} {pattern(*SIGMOID)}"),
            extend('own: "99 " + r._value + "|" + r._value'),
            map_to("_value: dict.get(dict: titles, key: r._value, default: r.own)"),
            'sort(columns: ["_value"])',
        ),
    )
    variable = _several(name, label, query, description).regex(_TITLED)
    return variable.hide(VariableHide.HIDE_VARIABLE)


def _first(condition: str) -> str:
    """Return the steps that put the values first for which a condition holds."""
    later = extend(f"later: if {condition} then 0 else 1")
    return pipe(later, 'sort(columns: ["later", "_value"])', keep("_value"))


def _tag_values(tag: str, measurement: str, *where: str) -> str:
    """Return the query for the values of a tag, which InfluxDB reads from its index."""
    return flux(SCHEMA, in_index(tag, measurement, *where))


def in_index(tag: str, measurement: str, *where: str) -> str:
    """Return the expression for the values of a tag; the query must begin with `SCHEMA`."""
    conditions = " and ".join((f"r._measurement == {literal(measurement)}", *where))
    return f"schema.tagValues(bucket: v.defaultBucket, tag: {literal(tag)}, predicate: (r) => {conditions}, start: 0)"


def _variable(name: str, label: str, query: str, description: str) -> QueryVariable:
    variable = QueryVariable(name).label(label).description(description).datasource(DATASOURCE).query(query)
    return variable.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).sort(VariableSort.DISABLED)


def _several(name: str, label: str, query: str, description: str) -> QueryVariable:
    """Return a variable with multiple choice; at first all values are chosen."""
    everything = VariableOption(selected=True, text=["All"], value=["$__all"])
    return _variable(name, label, query, description).multi(True).include_all(True).current(everything)

"""The variables of a dashboard. Each looks only at what those before it leave: user tags, run, phase, layer, gate."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders.dashboard import QueryVariable
from grafana_foundation_sdk.models.dashboard import VariableOption, VariableRefresh, VariableSort

from gatewatch.collector.cells import CELLS, GATES, MEMORY_GATES
from gatewatch.collector.names import OWN_TAGS
from gatewatch.collector.schema import GATE_SCORES, GATE_STATS, RUNS
from grafana.source.flux import DATASOURCE, chosen, flux, keep, pattern, pipe, points, text, values
from grafana.source.queries import CONSENSUS

SIGMOID: Final = tuple(name for name, gate in GATES.items() if gate.scale.low == 0)
"""The gates between 0 and 1; what a layer has beside them lies between −1 and 1, or, as the cell state, beyond."""
TITLES: Final = {name: GATES[name].title for cell in CELLS for name in cell.pictured}
"""Gate → what its pictures are called; in this order they are shown."""
_TITLED: Final = r"/^\d\d (?<text>.*)\|(?<value>[^|]*)$/"
_SCHEMA: Final = 'import "influxdata/influxdb/schema"'


_LAYER: Final = (chosen("run"), chosen("phase"), chosen("layer"))


def tag() -> QueryVariable:
    """Return the variable for one of a user's own tags; of those names only that a query can hold as they are."""
    query = flux(
        _SCHEMA,
        f"schema.tagKeys(bucket: v.defaultBucket, predicate: (r) => r._measurement == {text(RUNS)}, start: 0)",
        pipe(
            f"filter(fn: (r) => r._value !~ {pattern(*sorted(OWN_TAGS))} and r._value !~ /^_/)",
            r'filter(fn: (r) => r._value !~ /["\\$]/)',
        ),
    )
    return _variable("tag", "Tag", query, "Choose one of your own tags; its values are in the next list.")


def value() -> QueryVariable:
    """Return the variable for the values of that tag."""
    query = flux(
        _SCHEMA,
        'schema.tagValues(bucket: v.defaultBucket, tag: "${tag}", '
        f"predicate: (r) => r._measurement == {text(RUNS)}, start: 0)",
    )
    return _several(_variable("value", "has value", query, "Only runs whose tag has one of these.")).all_value(".*")


def run(name: str = "run", label: str = "Run", phase: str = "", besides: str = "") -> QueryVariable:
    """Return the variable for the runs that have these tags, the one heard of last first.

    Args:
        name, label: of the variable.
        phase: a condition on the phase.
        besides: another variable, whose run is left out.
    """
    query = flux(
        "from(bucket: v.defaultBucket)",
        pipe(
            "range(start: 0)",
            f'filter(fn: (r) => r._measurement == {text(RUNS)} and r._field == "event")',
            *([f"filter(fn: (r) => {phase})"] if phase else []),
            *([f"filter(fn: (r) => r.run !~ /^${{{besides}:regex}}$/)"] if besides else []),
            "last()",
            'filter(fn: (r) => "" =~ /^${value:regex}$/ or r["${tag}"] =~ /^${value:regex}$/)',
            keep("_time", "run"),
            "group()",
            'sort(columns: ["_time"], desc: true)',
            'unique(column: "run")',
            "map(fn: (r) => ({_value: r.run}))",
        ),
    )
    return _variable(name, label, query, "The run heard of last comes first.")


def phase() -> QueryVariable:
    """Return the variable for the phases of the run."""
    return _variable("phase", "Phase", _values("phase", RUNS, chosen("run")), "train, validation, backtest or live.")


def layer() -> QueryVariable:
    """Return the variable for one layer of the run; the one with the worst score comes first.

    The scores are those of the time range, which is quick; where it has none, those of all times, so that a run of
    long ago opens well too. Scores of what has no gates, such as the loss, do not count.
    """
    scores = points(GATE_SCORES, ["anomaly_score"], CONSENSUS, *_LAYER[:2], start="start", stop="stop")
    in_layers, worst = "filter(fn: (r) => contains(set: named, value: r.layer))", 'top(n: 1, columns: ["_value"])'
    query = flux(
        _SCHEMA,
        f"layers = {_index('layer', GATE_STATS, *_LAYER[:2])}",
        f"named = layers |> {values('_value')}",
        f"worst = (start, stop) => {scores}",
        pipe("max()", "group()", in_layers, worst, values("layer")),
        "shown = worst(start: v.timeRangeStart, stop: v.timeRangeStop)",
        "first = if length(arr: shown) > 0 then shown else worst(start: time(v: 0), stop: now())",
        "layers",
        _first("contains(set: first, value: r._value)"),
    )
    return _variable("layer", "Layer", query, "Of this run; the one with the worst anomaly score comes first.")


def layers(measurement: str = GATE_STATS) -> QueryVariable:
    """Return the variable for any layers of the run that have points in a measurement."""
    return _several(_variable("layer", "Layer", _values("layer", measurement, *_LAYER[:2]), "Of this run."))


def gate() -> QueryVariable:
    """Return the variable for one gate of the layer; the one that keeps the memory comes first."""
    keeps = f"r._value =~ {pattern(*sorted(MEMORY_GATES))}"
    return _variable("gate", "Gate", flux(_values("gate", GATE_STATS, *_LAYER), _first(keeps)), "Of this layer.")


def scored() -> QueryVariable:
    """Return the variable for all gates, parameters and losses of the layers that have scores."""
    query = _values("gate", GATE_SCORES, *_LAYER)
    return _several(_variable("gate", "Gate", query, "Gates, parameters, and the loss of the whole model."))


def sigmoid_gates() -> QueryVariable:
    """Return the variable for the gates of the layer that lie between 0 and 1, with their titles."""
    return _titled("gate", "Gates", "=~", "Those of the layer that lie between 0 and 1.")


def states() -> QueryVariable:
    """Return the variable for the other gates and states of the layer, with their titles."""
    return _titled("state", "States", "!~", "Those of the layer that lie on either side of 0.")


def _titled(name: str, label: str, matches: str, description: str) -> QueryVariable:
    titles = ", ".join(
        f"{text(gate)}: {text(f'{number:02d} {title}|{gate}')}" for number, (gate, title) in enumerate(TITLES.items())
    )
    query = flux(
        'import "dict"',
        _SCHEMA,
        f"titles = [{titles}]",
        _index("gate", GATE_STATS, *_LAYER),
        pipe(
            f"filter(fn: (r) => r._value {matches} {pattern(*SIGMOID)})",
            'map(fn: (r) => ({r with own: "99 " + r._value + "|" + r._value}))',
            "map(fn: (r) => ({_value: dict.get(dict: titles, key: r._value, default: r.own)}))",
            'sort(columns: ["_value"])',
        ),
    )
    return _several(_variable(name, label, query, description)).regex(_TITLED)


def _first(condition: str) -> str:
    """Return the steps that put the values first for which a condition holds."""
    later = f"map(fn: (r) => ({{r with later: if {condition} then 0 else 1}}))"
    return pipe(later, 'sort(columns: ["later", "_value"])', keep("_value"))


def _values(tag: str, measurement: str, *where: str) -> str:
    """Return the query for the values of a tag, which InfluxDB reads from its index."""
    return flux(_SCHEMA, _index(tag, measurement, *where))


def _index(tag: str, measurement: str, *where: str) -> str:
    conditions = " and ".join((f"r._measurement == {text(measurement)}", *where))
    return f"schema.tagValues(bucket: v.defaultBucket, tag: {text(tag)}, predicate: (r) => {conditions}, start: 0)"


def _variable(name: str, label: str, query: str, description: str) -> QueryVariable:
    return (
        QueryVariable(name)
        .label(label)
        .description(description)
        .datasource(DATASOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.DISABLED)
    )


def _several(variable: QueryVariable) -> QueryVariable:
    everything = VariableOption(selected=True, text=["All"], value=["$__all"])
    return variable.multi(True).include_all(True).current(everything)

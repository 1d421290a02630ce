// The worst layers of the last month
//
// The gates and parameters with the highest consensus scores of all runs: the score, its time, and how many of their
// scored captures were anomalous (above 1).
//
// param top: int > 0 = 10               how many
// param start: time = -30d              from when
// param stop: time = now                until when
// columns: run, phase, layer, gate, worst, when, anomalous, scored

of = (field) =>
    from(bucket: bucket)
        |> range(start: start, stop: stop)
        |> filter(fn: (r) => r._measurement == "gate_scores" and r.detector == "consensus" and r._field == field)
highest = () => of(field: "anomaly_score") |> max()
kept = ["run", "phase", "layer", "gate", "_field", "_value"]

union(
    tables: [
        highest() |> set(key: "_field", value: "worst") |> keep(columns: kept),
        highest() |> map(fn: (r) => ({r with _field: "when", _value: int(v: r._time)})) |> keep(columns: kept),
        of(field: "anomalous") |> sum() |> keep(columns: kept),
        of(field: "anomalous") |> count() |> set(key: "_field", value: "scored") |> keep(columns: kept),
    ],
)
    |> group(columns: ["run", "phase", "layer", "gate", "_field"])
    |> pivot(rowKey: ["run", "phase", "layer", "gate"], columnKey: ["_field"], valueColumn: "_value")
    |> group()
    |> map(fn: (r) => ({r with when: time(v: r.when)}))
    |> sort(columns: ["run", "phase", "layer", "gate"])
    |> sort(columns: ["worst"], desc: true)
    |> limit(n: top)

// The first anomaly of each run
//
// For each run and phase the first capture with a consensus score above 1: its time and step, how long after the first
// capture it was, and its layer: of several at that time what is no layer of the network, such as the data, then the one
// with the highest score. `source` says where the cause lies: network, data, optimizer, state or policy; scores made
// before sources were recorded have none. Runs without an anomaly are not listed.
//
// param runs: strings                   only these runs
// param start: time = -30d              from when
// param stop: time = now                until when
// columns: run, phase, time, step, after, layer, gate, source, score

import "strings"

scores = (fn) =>
    from(bucket: bucket)
        |> range(start: start, stop: stop)
        |> filter(fn: (r) => r._measurement == "gate_scores" and r.detector == "consensus")
        |> filter(fn: fn)
first_scores =
    scores(fn: (r) => r._field == "anomaly_score" and r._value > 1.0)
        |> first()
        |> filter(fn: (r) => length(arr: runs) == 0 or contains(value: r.run, set: runs))
        |> group(columns: ["run", "phase"])
        |> map(fn: (r) => ({r with order: -r._value, inside: not strings.hasPrefix(v: r.layer, prefix: "_")}))
        |> sort(columns: ["_time", "inside", "order", "layer", "gate"])
        |> first()
        |> drop(columns: ["inside", "order"])
        |> set(key: "_field", value: "score")
first_captures =
    from(bucket: bucket)
        |> range(start: start, stop: stop)
        |> filter(fn: (r) => r._measurement == "gate_stats" and r._field == "step")
        |> first()
        |> group(columns: ["run", "phase"])
        |> min(column: "_time")
        |> keep(columns: ["run", "phase", "_time"])
        |> rename(columns: {_time: "began"})

found =
    union(tables: [first_scores, scores(fn: (r) => r._field == "step" or r._field == "source")])
        |> keep(columns: ["_time", "run", "phase", "layer", "gate", "_field", "_value"])
        |> group(columns: ["run", "phase", "layer", "gate", "_field"])
        |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")
        |> filter(fn: (r) => exists r.score)
        |> group(columns: ["run", "phase"])

join(tables: {found: found, captures: first_captures}, on: ["run", "phase"])
    |> group()
    |> map(fn: (r) => ({r with after: string(v: duration(v: int(v: r._time) - int(v: r.began)))}))
    |> rename(columns: {_time: "time"})
    |> drop(columns: ["began"])
    |> sort(columns: ["run", "phase"])

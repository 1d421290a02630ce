// Anomalies and their causes in words
//
// Every capture of a gate or a parameter with a consensus score above 1. `source` says where the cause lies: network,
// data, optimizer, state or policy; scores made before sources were recorded have none. The columns why_… are its
// causes: by how many usual deviations a feature rose (positive) or fell (negative), or the score of a rule or a check
// that it broke. The command puts them into words, the largest first.
//
// param runs: strings                   only these runs
// param start: time = -30d              from when
// param stop: time = now                until when
// columns: time, run, phase, layer, gate, step, source, score, why
// in words: why_

scores = (fn) =>
    from(bucket: bucket)
        |> range(start: start, stop: stop)
        |> filter(fn: (r) => r._measurement == "gate_scores" and r.detector == "consensus")
        |> filter(fn: fn)
        |> filter(fn: (r) => length(arr: runs) == 0 or contains(value: r.run, set: runs))
        |> keep(columns: ["_time", "run", "phase", "layer", "gate", "_field", "_value"])

union(
    tables: [
        scores(fn: (r) => r._field == "anomaly_score" and r._value > 1.0) |> set(key: "_field", value: "score"),
        scores(fn: (r) => r._field == "step" or r._field == "source"),
        scores(fn: (r) => r._field =~ /^why_/),
    ],
)
    |> group(columns: ["run", "phase", "layer", "gate", "_field"])
    |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")
    |> filter(fn: (r) => exists r.score)
    |> group()
    |> rename(columns: {_time: "time"})
    |> sort(columns: ["time", "run", "phase", "layer", "gate"])

// Anomalies, with their causes in words
//
// Every capture with a consensus above 1, and its causes: by how many usual deviations a feature went up or down, or
// the score of a hard rule that is broken. The command adds what each means.
//
// param runs: strings                   only these runs
// param start: time = -30d              from when
// param stop: time = now                until when
// columns: time, run, phase, layer, gate, step, score, cause, by
// in words: cause, by

import "strings"

scores = (fn) =>
    from(bucket: bucket)
        |> range(start: start, stop: stop)
        |> filter(fn: (r) => r._measurement == "gate_scores" and r.detector == "consensus")
        |> filter(fn: fn)
        |> filter(fn: (r) => length(arr: runs) == 0 or contains(value: r.run, set: runs))
above =
    union(
        tables: [
            scores(fn: (r) => r._field == "anomaly_score" and r._value > 1.0) |> set(key: "_field", value: "score"),
            scores(fn: (r) => r._field == "step"),
        ],
    )
        |> keep(columns: ["_time", "run", "phase", "layer", "gate", "_field", "_value"])
        |> group(columns: ["run", "phase", "layer", "gate", "_field"])
        |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")
        |> filter(fn: (r) => exists r.score)
causes =
    scores(fn: (r) => r._field =~ /^why_/)
        |> map(
            fn: (r) =>
                ({
                    _time: r._time,
                    run: r.run,
                    phase: r.phase,
                    layer: r.layer,
                    gate: r.gate,
                    cause: strings.trimPrefix(v: r._field, prefix: "why_"),
                    by: r._value,
                }),
        )
        |> group(columns: ["run", "phase", "layer", "gate"])

join(tables: {above: above, causes: causes}, on: ["_time", "run", "phase", "layer", "gate"])
    |> group()
    |> rename(columns: {_time: "time"})
    |> sort(columns: ["time", "run", "phase", "layer", "gate", "cause"])

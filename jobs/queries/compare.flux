// Two runs at the same steps
//
// One statistic of each gate in both runs, averaged over bins of `steps` steps, so that the runs need not capture at the
// same steps. The last column is the value in the run minus the value in the other run. A run with more than 500 captures
// is first averaged over neighbouring captures.
//
// param run: string                     which run
// param other: string                   the run to compare it with
// param statistic: string of gate_stats = mean  mean, std, p05, p50, p95, saturated_low, entropy, dead_units…
// param steps: int > 0 = 1000           steps in a bin
// param phase: string = train           train, validation, backtest or live
// param layers: strings                 only these layers
// param gates: strings                  only these gates
// param start: time = 1970-01-01        from when
// param stop: time = now                until when
// columns: step, layer, gate, this, that, difference

import "date"

points = (name, field) =>
    from(bucket: bucket)
        |> range(start: start, stop: stop)
        |> filter(
            fn: (r) => r._measurement == "gate_stats" and r._field == field and r.run == name and r.phase == phase,
        )
        |> filter(fn: (r) => not exists r.look)
edge = (name, fn) => {
    times =
        points(name: name, field: "step")
            |> fn()
            |> group()
            |> sort(columns: ["_time"])
            |> fn()
            |> findColumn(fn: (key) => true, column: "_time")

    return if length(arr: times) > 0 then int(v: times[0]) else int(v: date.time(t: start))
}
of = (name, column) => {
    span = edge(name: name, fn: (tables=<-) => tables |> last()) - edge(name: name, fn: (tables=<-) => tables |> first())
    window = duration(v: span / 500 + 1)
    averaged = (field, as) =>
        points(name: name, field: field)
            |> aggregateWindow(every: window, fn: mean, createEmpty: false)
            |> filter(fn: (r) => length(arr: layers) == 0 or contains(value: r.layer, set: layers))
            |> filter(fn: (r) => length(arr: gates) == 0 or contains(value: r.gate, set: gates))
            |> set(key: "_field", value: as)

    return
        union(tables: [averaged(field: statistic, as: "value"), averaged(field: "step", as: "at")])
            |> keep(columns: ["_time", "layer", "gate", "_field", "_value"])
            |> group(columns: ["layer", "gate", "_field"])
            |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")
            |> filter(fn: (r) => exists r.value and exists r.at)
            |> map(
                fn: (r) =>
                    ({
                        layer: r.layer,
                        gate: r.gate,
                        step: int(v: r.at) / steps * steps,
                        _field: column,
                        _value: r.value,
                    }),
            )
            |> group(columns: ["layer", "gate", "step", "_field"])
            |> mean()
}

union(tables: [of(name: run, column: "this"), of(name: other, column: "that")])
    |> group()
    |> pivot(rowKey: ["layer", "gate", "step"], columnKey: ["_field"], valueColumn: "_value")
    |> filter(fn: (r) => exists r.this and exists r.that)
    |> map(fn: (r) => ({r with difference: r.this - r.that}))
    |> sort(columns: ["layer", "gate", "step"])

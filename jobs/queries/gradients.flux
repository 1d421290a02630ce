// Vanishing and exploding gradients
//
// The number of captures in which the gradient of a parameter had vanished (norm below 1e-7) or exploded (ten times its
// usual norm), and its smallest and largest norm.
//
// param run: string                     which run
// param start: time = 1970-01-01        from when
// param stop: time = now                until when
// columns: layer, param, captures, vanished, exploded, smallest, largest

norms = () =>
    from(bucket: bucket)
        |> range(start: start, stop: stop)
        |> filter(fn: (r) => r._measurement == "layer_updates" and r._field == "gradient_norm" and r.run == run)
states = () =>
    from(bucket: bucket)
        |> range(start: start, stop: stop)
        |> filter(fn: (r) => r._measurement == "gate_derived" and r._field == "gradient_state" and r.run == run)
        |> rename(columns: {gate: "param"})
of = (state) =>
    states()
        |> map(fn: (r) => ({layer: r.layer, param: r.param, _value: if r._value == state then 1 else 0}))
        |> group(columns: ["layer", "param"])
        |> sum()

union(
    tables: [
        norms() |> count() |> set(key: "_field", value: "captures"),
        norms() |> min() |> set(key: "_field", value: "smallest"),
        norms() |> max() |> set(key: "_field", value: "largest"),
        of(state: -1.0) |> set(key: "_field", value: "vanished"),
        of(state: 1.0) |> set(key: "_field", value: "exploded"),
    ],
)
    |> keep(columns: ["layer", "param", "_field", "_value"])
    |> group(columns: ["layer", "param", "_field"])
    |> pivot(rowKey: ["layer", "param"], columnKey: ["_field"], valueColumn: "_value")
    |> group()
    |> sort(columns: ["layer", "param"])

// How long each layer remembers
//
// The memory timescale in steps of the sequence, from the mean of the forget gate (in a GRU: the update gate). A new Keras
// LSTM has 3.2; a layer that forgets everything at every step has 0.
//
// param run: string                     which run
// param start: time = 1970-01-01        from when
// param stop: time = now                until when
// columns: phase, layer, first, last, lowest, highest, captures

series = () =>
    from(bucket: bucket)
        |> range(start: start, stop: stop)
        |> filter(fn: (r) => r._measurement == "gate_derived" and r._field == "memory_timescale" and r.run == run)

union(
    tables: [
        series() |> first() |> set(key: "_field", value: "first"),
        series() |> last() |> set(key: "_field", value: "last"),
        series() |> min() |> set(key: "_field", value: "lowest"),
        series() |> max() |> set(key: "_field", value: "highest"),
        series() |> count() |> set(key: "_field", value: "captures"),
    ],
)
    |> keep(columns: ["phase", "layer", "_field", "_value"])
    |> group(columns: ["phase", "layer", "_field"])
    |> pivot(rowKey: ["phase", "layer"], columnKey: ["_field"], valueColumn: "_value")
    |> group()
    |> sort(columns: ["phase", "layer"])

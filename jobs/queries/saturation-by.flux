// Saturation by symbol, or by another tag
//
// The share of saturated activations (fully open or shut) for each value of one of your own tags.
//
// param tag: string = symbol            which of your tags
// param runs: strings                   only these runs
// param start: time = -30d              from when
// param stop: time = now                until when
// columns: value, gate, mean, highest, captures

series = () =>
    from(bucket: bucket)
        |> range(start: start, stop: stop)
        |> filter(fn: (r) => r._measurement == "gate_derived" and r._field == "saturation")
by_tag = (tables=<-) =>
    tables
        |> filter(fn: (r) => length(arr: runs) == 0 or contains(value: r.run, set: runs))
        |> keep(columns: [tag, "gate", "_value"])
        |> rename(fn: (column) => if column == tag then "value" else column)
        |> filter(fn: (r) => exists r.value)
        |> group(columns: ["value", "gate"])

union(
    tables: [
        series() |> sum() |> by_tag() |> sum() |> set(key: "_field", value: "sum"),
        series() |> count() |> by_tag() |> sum() |> toFloat() |> set(key: "_field", value: "captures"),
        series() |> max() |> by_tag() |> max() |> set(key: "_field", value: "highest"),
    ],
)
    |> group(columns: ["value", "gate"])
    |> pivot(rowKey: ["value", "gate"], columnKey: ["_field"], valueColumn: "_value")
    |> group()
    |> map(fn: (r) => ({r with mean: r.sum / r.captures, captures: int(v: r.captures)}))
    |> drop(columns: ["sum"])
    |> sort(columns: ["value", "gate"])

// Which gates respond to the volatility of the market
//
// The rank correlation of a gate's mean activation with the volatility of the logged `price`: 1 for a gate that opens
// when volatility rises, −1 for one that closes, 0 for one that does not respond.
//
// param run: string                     which run
// param start: time = 1970-01-01        from when
// param stop: time = now                until when
// columns: phase, layer, gate, mean, last, captures

series = () =>
    from(bucket: bucket)
        |> range(start: start, stop: stop)
        |> filter(fn: (r) => r._measurement == "gate_derived" and r._field == "regime_sensitivity" and r.run == run)

union(
    tables: [
        series() |> mean() |> set(key: "_field", value: "mean"),
        series() |> last() |> set(key: "_field", value: "last"),
        series() |> count() |> set(key: "_field", value: "captures"),
    ],
)
    |> keep(columns: ["phase", "layer", "gate", "_field", "_value"])
    |> group(columns: ["phase", "layer", "gate", "_field"])
    |> pivot(rowKey: ["phase", "layer", "gate"], columnKey: ["_field"], valueColumn: "_value")
    |> group()
    |> sort(columns: ["phase", "layer", "gate"])

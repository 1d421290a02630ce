// Updates outside their healthy range
//
// The update ratio is the norm of a step divided by the norm of the weights: about 1e-3 in a healthy training. The number
// of captures in which it was below or above the range, its median and its last value.
//
// param run: string                     which run
// param slow: float = 1e-5              below it hardly learns
// param fast: float = 1e-1              above it forgets what it learned
// param start: time = 1970-01-01        from when
// param stop: time = now                until when
// columns: layer, param, captures, too_slow, too_fast, median, last

ratios = () =>
    from(bucket: bucket)
        |> range(start: start, stop: stop)
        |> filter(fn: (r) => r._measurement == "layer_updates" and r._field == "update_ratio" and r.run == run)
those = (fn) =>
    ratios()
        |> map(fn: (r) => ({layer: r.layer, param: r.param, _value: if fn(r: r) then 1 else 0}))
        |> group(columns: ["layer", "param"])
        |> sum()

union(
    tables: [
        ratios() |> count() |> set(key: "_field", value: "captures"),
        those(fn: (r) => r._value < slow) |> set(key: "_field", value: "too_slow"),
        those(fn: (r) => r._value > fast) |> set(key: "_field", value: "too_fast"),
        ratios() |> median(method: "exact_mean") |> set(key: "_field", value: "median"),
        ratios() |> last() |> set(key: "_field", value: "last"),
    ],
)
    |> keep(columns: ["layer", "param", "_field", "_value"])
    |> group(columns: ["layer", "param", "_field"])
    |> pivot(rowKey: ["layer", "param"], columnKey: ["_field"], valueColumn: "_value")
    |> group()
    |> sort(columns: ["layer", "param"])

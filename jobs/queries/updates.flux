// Updates outside of their healthy band
//
// The update ratio is how far a step moves the weights of a parameter, as a share of their size: about 1e-3 where
// training goes well. In how many captures it was below or above the band, and what it was.
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

// The collectors: what they sent, what was refused, and what they cost
//
// What each run's collector said last: captures, points shipped, refused by the store and dropped since the spool was
// full, failures beside the training, what waits, the cost of a capture, and the error of the replay.
//
// param start: time = -30d              from when
// param stop: time = now                until when
// columns: run, phase, time, captured, shipped, rejected, dropped, failures, spooled_bytes, capture_ms, overhead_ratio, replay_error

newest = (fn) =>
    from(bucket: bucket)
        |> range(start: start, stop: stop)
        |> filter(fn: (r) => r._measurement == "collector_health")
        |> filter(fn: fn)
        |> last()
        |> group(columns: ["run", "phase", "_field"])
        |> sort(columns: ["_time"])
        |> last()

union(
    tables: [
        newest(fn: (r) => true),
        newest(fn: (r) => r._field == "captured") |> map(fn: (r) => ({r with _field: "time", _value: int(v: r._time)})),
    ],
)
    |> keep(columns: ["run", "phase", "_field", "_value"])
    |> group(columns: ["run", "phase", "_field"])
    |> pivot(rowKey: ["run", "phase"], columnKey: ["_field"], valueColumn: "_value")
    |> group()
    |> filter(fn: (r) => exists r.time)
    |> map(fn: (r) => ({r with time: time(v: r.time)}))
    |> sort(columns: ["run", "phase"])

// Collectors: points sent and refused, and the cost of captures
//
// The last health report of each run's collector: number of captures; points shipped, rejected by the store and dropped
// because the spool was full; errors of the monitor; bytes that wait in the spool; cost of a capture; error of the replay.
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

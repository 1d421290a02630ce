// The collectors: what they sent, what was refused, and what they cost
//
// What each run's collector said last: captures, points shipped, refused by the store and dropped since the spool was
// full, failures beside the training, what waits, the cost of a capture, and the error of the replay.
//
// param start: time = -30d              from when
// param stop: time = now                until when
// columns: run, phase, time, captured, shipped, rejected, dropped, failures, spooled_bytes, capture_ms, overhead_ratio, replay_error

from(bucket: bucket)
    |> range(start: start, stop: stop)
    |> filter(fn: (r) => r._measurement == "collector_health")
    |> filter(
        fn: (r) =>
            contains(
                value: r._field,
                set: [
                    "captured",
                    "shipped",
                    "rejected",
                    "dropped",
                    "failures",
                    "spooled_bytes",
                    "capture_ms",
                    "overhead_ratio",
                    "replay_error",
                ],
            ),
    )
    |> last()
    |> group(columns: ["run", "phase", "_field"])
    |> sort(columns: ["_time"])
    |> last()
    |> pivot(rowKey: ["run", "phase", "_time"], columnKey: ["_field"], valueColumn: "_value")
    |> group()
    |> rename(columns: {_time: "time"})
    |> sort(columns: ["run", "phase"])

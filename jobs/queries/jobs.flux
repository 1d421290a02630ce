// How the jobs fare
//
// Of each job its last turn: how long it took, how late it is, and what it has counted since the service began.
//
// param start: time = -30d              from when
// param stop: time = now                until when
// columns: job, time, duration_s, lag_s, windows, rows_read, points_written, failures, missed

from(bucket: bucket)
    |> range(start: start, stop: stop)
    |> filter(fn: (r) => r._measurement == "jobs_health")
    |> last()
    |> group(columns: ["job", "_field"])
    |> sort(columns: ["_time"])
    |> last()
    |> pivot(rowKey: ["job", "_time"], columnKey: ["_field"], valueColumn: "_value")
    |> group()
    |> rename(columns: {_time: "time"})
    |> sort(columns: ["job"])

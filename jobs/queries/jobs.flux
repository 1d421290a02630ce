// Health of the jobs
//
// The last run of each job: its duration, how far it lags behind, and its counters since the service started.
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

// Alerts that were sent
//
// Every time that an alert of `gatewatch jobs` fired, was repeated or was resolved, newest first.
//
// param rules: strings                  only these rules
// param start: time = -30d              from when
// param stop: time = now                until when
// columns: time, rule, state, run, phase, layer, gate, job, value, threshold, delivered

from(bucket: bucket)
    |> range(start: start, stop: stop)
    |> filter(fn: (r) => r._measurement == "alert_events")
    |> filter(fn: (r) => length(arr: rules) == 0 or contains(value: r.rule, set: rules))
    |> rename(
        fn: (column) =>
            if column =~ /^_/ or column =~ /^(detector|gate|job|layer|param|phase|rule|run)$/ then
                column
            else
                "tag:" + column,
    )
    |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")
    |> group()
    |> rename(columns: {_time: "time"})
    |> sort(columns: ["time"], desc: true)

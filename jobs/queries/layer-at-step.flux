// The gates of a layer at a step
//
// Every statistic of each gate of the layer, at the last capture at or before the step.
//
// param run: string                     which run
// param layer: string                   which layer
// param step: int                       the step
// param phase: string = train           train, validation, backtest or live
// param start: time = 1970-01-01        from when
// param stop: time = now                until when
// columns: time, step, gate, mean, std, p05, p50, p95, saturated_low, saturated_high, entropy, dead_units, nan_count

import "date"

found =
    from(bucket: bucket)
        |> range(start: start, stop: stop)
        |> filter(
            fn: (r) =>
                r._measurement == "gate_stats" and r._field == "step" and r.run == run and r.layer == layer and r.phase
                    ==
                    phase and r._value <= step,
        )
        |> filter(fn: (r) => not exists r.look)
        |> last()
        |> group()
        |> sort(columns: ["_time"])
        |> tail(n: 1)
        |> findColumn(fn: (key) => true, column: "_time")
at = if length(arr: found) > 0 then found[0] else date.time(t: start)

from(bucket: bucket)
    |> range(start: at, stop: date.add(d: 1ns, to: at))
    |> filter(
        fn: (r) => r._measurement == "gate_stats" and r.run == run and r.layer == layer and r.phase == phase,
    )
    |> filter(fn: (r) => not exists r.look)
    |> filter(fn: (r) => r._field !~ /^hist_/ and r._field != "epoch")
    |> rename(
        fn: (column) =>
            if column =~ /^_/ or column =~ /^(detector|gate|job|layer|param|phase|rule|run)$/ then
                column
            else
                "tag:" + column,
    )
    |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")
    |> group()
    |> filter(fn: (r) => exists r.step)
    |> filter(fn: (r) => r.step <= step)
    |> rename(columns: {_time: "time"})
    |> sort(columns: ["gate"])

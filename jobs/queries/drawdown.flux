// Which gates drifted before the largest drawdown
//
// Finds the largest fall of a logged curve, such as the price or the equity of a backtest, from its highest point so
// far. Then compares the drift of each gate before the fall began with its drift in the rest of the run.
//
// param run: string                     which run
// param curve: string = equity          the logged metric that falls
// param before: duration > 0 = 30d      length of the time before the fall
// param phase: string = backtest        train, validation, backtest or live
// param start: time = 1970-01-01        from when
// param stop: time = now                until when
// columns: peak, trough, fall, layer, gate, before, usual, times

import "date"

falls =
    from(bucket: bucket)
        |> range(start: start, stop: stop)
        |> filter(
            fn: (r) =>
                r._measurement == "train_metrics" and r._field == curve and r.run == run and r.phase == phase,
        )
        |> toFloat()
        |> group()
        |> sort(columns: ["_time"])
        |> reduce(
            identity: {
                n: 0,
                high: 0.0,
                since: 1970-01-01T00:00:00Z,
                fall: 0.0,
                peak: 1970-01-01T00:00:00Z,
                trough: 1970-01-01T00:00:00Z,
            },
            fn: (r, accumulator) => {
                higher = accumulator.n == 0 or r._value > accumulator.high
                high = if higher then r._value else accumulator.high
                since = if higher then r._time else accumulator.since
                deeper = high - r._value > accumulator.fall

                return {
                    n: accumulator.n + 1,
                    high: high,
                    since: since,
                    fall: if deeper then high - r._value else accumulator.fall,
                    peak: if deeper then since else accumulator.peak,
                    trough: if deeper then r._time else accumulator.trough,
                }
            },
        )
        |> filter(fn: (r) => r.fall > 0.0)
peaks = falls |> findColumn(fn: (key) => true, column: "peak")
troughs = falls |> findColumn(fn: (key) => true, column: "trough")
sizes = falls |> findColumn(fn: (key) => true, column: "fall")
found = length(arr: peaks) > 0
peak = if found then peaks[0] else date.time(t: start)
trough = if found then troughs[0] else peak
fall = if found then sizes[0] else 0.0
since = date.sub(d: before, from: peak)
drift = () =>
    from(bucket: bucket)
        |> range(start: start, stop: stop)
        |> filter(
            fn: (r) =>
                r._measurement == "gate_derived" and r._field == "drift" and r.run == run and r.phase == phase,
        )

union(
    tables: [
        drift()
            |> filter(fn: (r) => r._time >= since and r._time < peak)
            |> mean()
            |> set(key: "_field", value: "before"),
        drift()
            |> filter(fn: (r) => r._time < since or r._time >= peak)
            |> mean()
            |> set(key: "_field", value: "usual"),
    ],
)
    |> keep(columns: ["layer", "gate", "_field", "_value"])
    |> group(columns: ["layer", "gate", "_field"])
    |> pivot(rowKey: ["layer", "gate"], columnKey: ["_field"], valueColumn: "_value")
    |> group()
    |> filter(fn: (r) => found and exists r.before and exists r.usual)
    |> map(fn: (r) => ({r with peak: peak, trough: trough, fall: fall, times: r.before / r.usual}))
    |> sort(columns: ["times", "layer", "gate"], desc: true)

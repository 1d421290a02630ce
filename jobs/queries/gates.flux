// The gates of a run over time
//
// One statistic of each gate, averaged over windows of `every`. The forget gate of a new Keras LSTM is at 0.73.
//
// param run: string                     which run
// param statistic: string of gate_stats = mean  mean, std, p05, p50, p95, saturated_low, entropy, dead_units…
// param layers: strings                 only these layers
// param gates: strings                  only these gates
// param every: duration > 0 = 1m        the length of a window; 1d or more for a backtest in market time
// param start: time = 1970-01-01        from when
// param stop: time = now                until when
// columns: time, phase, layer, gate, value

from(bucket: bucket)
    |> range(start: start, stop: stop)
    |> filter(fn: (r) => r._measurement == "gate_stats" and r._field == statistic and r.run == run)
    |> filter(fn: (r) => not exists r.look)
    |> aggregateWindow(every: every, fn: mean, createEmpty: false, timeSrc: "_start")
    |> filter(fn: (r) => length(arr: layers) == 0 or contains(value: r.layer, set: layers))
    |> filter(fn: (r) => length(arr: gates) == 0 or contains(value: r.gate, set: gates))
    |> keep(columns: ["_time", "phase", "layer", "gate", "_value"])
    |> group()
    |> rename(columns: {_time: "time", _value: "value"})
    |> sort(columns: ["phase", "layer", "gate", "time"])

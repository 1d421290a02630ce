// Every run: its state and progress
//
// The state is the run's last event. A run without an end event and without any event in the two minutes before `stop`
// has died, or cannot reach the store. The score is the newest consensus score of its worst layer. The losses are the
// newest; `loss` is NaN where metrics that came after the newest finite one were not finite.
//
// param start: time = -30d              from when
// param stop: time = now                until when
// columns: run, phase, state, started, last_seen, step, loss, val_loss, score

import "date"

newest = (measurement, field) =>
    from(bucket: bucket)
        |> range(start: start, stop: stop)
        |> filter(fn: (r) => r._measurement == measurement and r._field == field)
        |> last()
        |> group(columns: ["run", "phase", "_field"])
        |> sort(columns: ["_time"])
        |> last()
events = () => newest(measurement: "runs", field: "event")
begun = () =>
    from(bucket: bucket)
        |> range(start: start, stop: stop)
        |> filter(fn: (r) => r._measurement == "runs" and r._field == "step")
        |> first()
        |> group(columns: ["run", "phase", "_field"])
        |> sort(columns: ["_time"])
        |> first()
score = () =>
    from(bucket: bucket)
        |> range(start: start, stop: stop)
        |> filter(
            fn: (r) =>
                r._measurement == "gate_scores" and r._field == "anomaly_score" and r.detector == "consensus",
        )
        |> last()
        |> group(columns: ["run", "phase", "_field"])
        |> max()
        |> set(key: "_field", value: "score")
broken = () =>
    from(bucket: bucket)
        |> range(start: start, stop: stop)
        |> filter(
            fn: (r) => r._measurement == "train_metrics" and (r._field == "nan_count" or r._field == "inf_count"),
        )
        |> filter(fn: (r) => r._value > 0)
        |> last()
        |> group(columns: ["run", "phase"])
        |> sort(columns: ["_time"])
        |> last()
        // Before a finite loss of the same moment.
        |> map(fn: (r) => ({r with _time: time(v: int(v: r._time) - 1), _field: "loss", _value: float(v: "NaN")}))
loss = () =>
    union(tables: [newest(measurement: "train_metrics", field: "loss"), broken()])
        |> keep(columns: ["run", "phase", "_time", "_field", "_value"])
        |> group(columns: ["run", "phase"])
        |> sort(columns: ["_time"])
        |> last()
seconds = (time) => int(v: time) / 1000000000
until = seconds(time: date.time(t: stop))

union(
    tables: [
        events(),
        events() |> map(fn: (r) => ({r with _field: "last_seen", _value: seconds(time: r._time)})),
        begun() |> map(fn: (r) => ({r with _field: "started", _value: seconds(time: r._time)})),
        score(),
        newest(measurement: "runs", field: "step"),
        loss(),
        newest(measurement: "train_metrics", field: "val_loss"),
    ],
)
    |> keep(columns: ["run", "phase", "_field", "_value"])
    |> group(columns: ["run", "phase", "_field"])
    |> pivot(rowKey: ["run", "phase"], columnKey: ["_field"], valueColumn: "_value")
    |> group()
    |> filter(fn: (r) => exists r.event and exists r.last_seen and exists r.started)
    |> map(
        fn: (r) =>
            ({r with
                state:
                    if r.event != "started" and r.event != "resumed" and r.event != "heartbeat" then
                        r.event
                    else if until - r.last_seen > 120 then
                        "died"
                    else
                        "live",
                started: time(v: r.started * 1000000000),
                last_seen: time(v: r.last_seen * 1000000000),
            }),
    )
    |> drop(columns: ["event"])
    |> sort(columns: ["run", "phase"])

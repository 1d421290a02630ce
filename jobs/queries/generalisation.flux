// The best epoch of each run and the generalisation gap
//
// The epoch with the lowest validation loss, the newest validation loss, and how far it is above the training loss. The gap
// is relative: 1 is the size of the loss, or of its whole range where that is larger. Gates can look healthy while it grows.
//
// param runs: strings                   only these runs
// param start: time = -30d              from when
// param stop: time = now                until when
// columns: run, phase, time, epoch, step, best, last, gap

of = (measurement, field) =>
    from(bucket: bucket)
        |> range(start: start, stop: stop)
        |> filter(fn: (r) => r._measurement == measurement and r._field == field)
        |> filter(fn: (r) => length(arr: runs) == 0 or contains(value: r.run, set: runs))
        |> keep(columns: ["_time", "run", "phase", "_field", "_value"])
        |> group(columns: ["run", "phase", "_field"])
validation = () => of(measurement: "train_metrics", field: "val_loss")
best =
    union(
        tables: [
            validation() |> min() |> set(key: "_field", value: "best"),
            of(measurement: "train_metrics", field: "epoch"),
            of(measurement: "train_metrics", field: "step"),
        ],
    )
        |> pivot(rowKey: ["run", "phase", "_time"], columnKey: ["_field"], valueColumn: "_value")
        |> filter(fn: (r) => exists r.best)
newest =
    union(
        tables: [
            validation() |> last() |> set(key: "_field", value: "last"),
            of(measurement: "gate_derived", field: "generalisation_gap") |> last() |> set(key: "_field", value: "gap"),
        ],
    )
        |> drop(columns: ["_time"])
        |> pivot(rowKey: ["run", "phase"], columnKey: ["_field"], valueColumn: "_value")

join(tables: {best: best, newest: newest}, on: ["run", "phase"])
    |> group()
    |> rename(columns: {_time: "time"})
    |> sort(columns: ["run", "phase"])

// Dead and frozen units
//
// For each gate at its last capture: the number of dead units (which do nothing at all), their share of the layer, and
// the share of frozen units (which have not changed for several captures).
//
// param run: string                     which run
// param start: time = 1970-01-01        from when
// param stop: time = now                until when
// columns: phase, layer, gate, dead_units, dead_share, frozen_units

from(bucket: bucket)
    |> range(start: start, stop: stop)
    |> filter(
        fn: (r) =>
            r._measurement == "gate_derived" and r.run == run and (r._field == "dead_units" or r._field == "dead_share"
                or
                r._field == "frozen_units"),
    )
    |> last()
    |> keep(columns: ["phase", "layer", "gate", "_field", "_value"])
    |> group(columns: ["phase", "layer", "gate", "_field"])
    |> pivot(rowKey: ["phase", "layer", "gate"], columnKey: ["_field"], valueColumn: "_value")
    |> group()
    |> sort(columns: ["phase", "layer", "gate"])

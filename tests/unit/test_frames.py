"""The frames that Grafana makes of InfluxDB's answers."""

from __future__ import annotations

import pytest

from grafana.emulator.frames import FluxError, frames_of

HEAD = """#datatype,string,long,dateTime:RFC3339,dateTime:RFC3339,dateTime:RFC3339,double,string,string,string
#group,false,false,true,true,false,false,true,true,true
#default,_result,,,,,,,,
,result,table,_start,_stop,_time,_value,_field,_measurement,run
"""
RANGE = "2026-01-01T00:00:00Z,2026-01-02T00:00:00Z"


def answer(*rows: str) -> str:
    return (HEAD + "\n".join(rows) + "\n").replace("\n", "\r\n")


class TestSeries:
    def test_a_time_and_a_value_are_a_series(self):
        (frame,) = frames_of(answer(f",,0,{RANGE},2026-01-01T10:00:00Z,1.5,mean,gate_stats,a"))
        time, value = frame.fields
        assert (frame.name, time.name, value.name) == ("gate_stats", "Time", "mean")
        assert (time.kind, value.kind) == ("time", "number")
        assert value.labels == {"run": "a"}
        assert time.labels == {}
        assert time.values == [1_767_261_600 * 10**9]
        assert value.values == [1.5]

    def test_each_table_is_a_frame(self):
        frames = frames_of(
            answer(
                f",,0,{RANGE},2026-01-01T10:00:00Z,1,mean,gate_stats,a",
                f",,0,{RANGE},2026-01-01T10:00:01.000000001Z,2,mean,gate_stats,a",
                f',,1,{RANGE},2026-01-01T10:00:00Z,3,mean,gate_stats,"b, ""c"""',
            )
        )
        assert [len(frame) for frame in frames] == [2, 1]
        assert frames[1].labels == {"run": 'b, "c"'}
        assert frames[0].field("Time").values[1] % 10**9 == 1

    def test_a_missing_value_is_none(self):
        (frame,) = frames_of(answer(f",,0,{RANGE},2026-01-01T10:00:00Z,,mean,gate_stats,a"))
        assert frame.field("mean").values == [None]

    def test_without_a_field_the_value_is_called_value(self):
        text = "#datatype,string,long,dateTime:RFC3339,double\n#group,false,false,false,false\n#default,_result,,,\n"
        (frame,) = frames_of(text + ",result,table,_time,_value\n,,0,2026-01-01T00:00:00Z,1\n")
        assert [field.name for field in frame.fields] == ["Time", "Value"]


class TestTables:
    TEXT = (
        "#datatype,string,long,string,dateTime:RFC3339,long,boolean\n"
        "#group,false,false,false,false,false,false\n"
        "#default,_result,,,,,\n"
        ",result,table,run,seen,step,table\n"
    )

    def test_columns_stay_and_times_come_first(self):
        (frame,) = frames_of(self.TEXT + ",,0,a,2026-01-01T00:00:00Z,7,true\n")
        assert [(field.name, field.kind) for field in frame.fields] == [
            ("seen", "time"),
            ("run", "string"),
            ("step", "number"),
            ("table", "boolean"),
        ]
        assert [field.values for field in frame.fields][2:] == [[7], [True]]

    def test_several_results_follow_each_other(self):
        frames = frames_of(self.TEXT + ",,0,a,,7,true\n\n" + self.TEXT + ",other,0,b,,8,false\n")
        assert [frame.field("run").values for frame in frames] == [["a"], ["b"]]

    @pytest.mark.parametrize("text", ["", "\r\n", TEXT])
    def test_an_empty_answer_has_no_frames(self, text):
        assert frames_of(text) == []

    def test_a_missing_field_names_those_there_are(self):
        (frame,) = frames_of(self.TEXT + ",,0,a,,7,true\n")
        with pytest.raises(KeyError, match="mean; the frame has seen, run, step, table"):
            frame.field("mean")


class TestErrors:
    def test_an_error_in_the_answer_raises(self):
        text = "#datatype,string,string\n#group,true,true\n#default,,\n,error,reference\n,runtime error: no\tone,897\n"
        with pytest.raises(FluxError, match="runtime error: no one"):
            frames_of(text)

    def test_too_many_tables_raise(self):
        rows = [f",,{i},{RANGE},2026-01-01T10:00:00Z,1,mean,gate_stats,run-{i}" for i in range(4)]
        assert len(frames_of(answer(*rows), max_series=4)) == 4
        with pytest.raises(FluxError, match=r"max series reached \(3\)"):
            frames_of(answer(*rows), max_series=3)

    def test_too_many_rows_raise(self):
        rows = [f",,0,{RANGE},2026-01-01T10:00:{i:02d}Z,1,mean,gate_stats,a" for i in range(4)]
        assert len(frames_of(answer(*rows), 4)) == 1
        with pytest.raises(FluxError, match="4 rows of a table, at most 3"):
            frames_of(answer(*rows), 3)

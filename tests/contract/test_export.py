"""Tables of a run read back as what the store gives: one suite, over SQLite and over a real InfluxDB."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from gatewatch.collector.schema import GATE_STATS, GATE_UNITS, REFERENCE_LOOK, TRAIN_METRICS, Point
from gatewatch.jobs.exporting.exporter import Exported, Format, Target, export

from .test_store import NOON, points

if TYPE_CHECKING:
    from gatewatch.collector.store import Store

Pair = Callable[[], tuple["Store", "Store"]]


def exported(store: Store, folder: Path, form: Format = "parquet", run: str = "r") -> list[Exported]:
    with closing(store.history()) as history:
        return export(history, run, Target(folder, form, overwrite=True), url=store.url)


def parquet(folder: Path, table: str) -> pd.DataFrame:
    return pd.read_parquet(folder / f"{table}.parquet")


def plain(frame: pd.DataFrame, empty: tuple[object, ...] = ()) -> pd.DataFrame:
    """The same rows in one order, with Python's own values, so that frames of any origin compare.

    Args:
        frame: is compared.
        empty: values that count as none.
    """
    columns = sorted(frame.columns)
    rows = [
        {name: None if pd.isna(value) or value in empty else value for name, value in row.items()}
        for row in frame[columns].astype(object).to_dict("records")
    ]
    rows.sort(key=lambda row: [str(row[name]) for name in columns])
    return pd.DataFrame(rows, columns=columns, dtype=object)


def from_csv(folder: Path, table: str, like: pd.DataFrame) -> pd.DataFrame:
    """A table of CSV, each column read as what it is in the store; pandas cannot tell an empty text from none."""
    texts = pd.read_csv(folder / f"{table}.csv", dtype=str, keep_default_na=False)
    columns = {without_apostrophe(name): list(texts[name]) for name in texts.columns}
    assert sorted(columns) == sorted(like.columns)
    readers: dict[str, Callable[[str], Any]] = {"f": float, "i": int, "b": "true".__eq__, "M": pd.Timestamp}
    for name, cells in columns.items():
        kind = getattr(like[name].dtype, "kind", "O")
        read = readers.get(kind, without_apostrophe)
        columns[name] = [None if cell == "" and kind != "O" else read(cell) for cell in cells]
    return pd.DataFrame({name: pd.Series(cells, dtype=object) for name, cells in columns.items()})


def without_apostrophe(cell: str) -> str:
    """A text without the apostrophe that keeps a spreadsheet from running it."""
    return cell[1:] if cell[:2] in ("'=", "'+", "'-", "'@", "'\t", "'\r") else cell


def test_a_table_has_time_run_tags_and_fields_in_one_order(store: Store, tmp_path: Path) -> None:
    tags = {"run": "r", "phase": "train", "gate": "forget", "layer": "lstm", "symbol": "GOOG", "asset": "x"}
    fields = {"step": 3, "nan_count": 0, "hist_01": 0.25, "mean": 0.5, "own": True, "hist_00": 0.75}
    store.write([Point(GATE_STATS, tags, fields, NOON)])
    (one,) = exported(store, tmp_path, "csv")
    assert one == (GATE_STATS, str(tmp_path / "gate_stats.csv"), 1)
    assert (tmp_path / "gate_stats.csv").read_text() == (
        "time,run,phase,layer,gate,asset,symbol,mean,nan_count,hist_00,hist_01,step,own\n"
        "2023-11-14T22:13:20.000000000Z,r,train,lstm,forget,x,GOOG,0.5,0,0.75,0.25,3,true\n"
    )
    exported(store, tmp_path, "parquet")
    (row,) = parquet(tmp_path, GATE_STATS).to_dict("records")
    assert row["time"] == pd.Timestamp(NOON, tz="UTC")
    assert (row["own"], row["nan_count"], row["mean"], row["symbol"]) == (True, 0, 0.5, "GOOG")


def test_columns_come_from_the_run_alone_and_keep_their_type_in_every_piece(store: Store, tmp_path: Path) -> None:
    ours = [Point(GATE_UNITS, {"run": "r"}, {"u000": 0.5, "step": k}, NOON + k) for k in range(2_500)]
    ours[2_400] = Point(GATE_UNITS, {"run": "r"}, {"u001": 1.0, "step": 2**62 + 1}, NOON + 2_400)
    store.write([*ours, Point(GATE_UNITS, {"run": "wide"}, {"u063": 0.5, "step": 1}, NOON)])
    exported(store, tmp_path)
    frame = parquet(tmp_path, GATE_UNITS)
    assert list(frame.columns) == ["time", "run", "u000", "u001", "step"]
    assert frame["step"].iloc[2_400] == 2**62 + 1
    assert (frame["u000"].isna().sum(), frame["u001"].isna().sum(), len(frame)) == (1, 2_499, 2_500)
    assert_frame_equal(plain(frame), plain(store.read(GATE_UNITS, run="r")))


def test_whole_numbers_that_some_points_lack_stay_whole(store: Store, tmp_path: Path) -> None:
    store.write([Point("own", {"run": "r"}, {"a": 2**53 + 1}, NOON), Point("own", {"run": "r"}, {"b": True}, NOON + 1)])
    exported(store, tmp_path)
    frame = parquet(tmp_path, "own")
    assert (frame["a"].dtype, frame["b"].dtype) == (pd.Int64Dtype(), pd.BooleanDtype())
    assert frame["a"].iloc[0] == 2**53 + 1


def test_text_that_a_spreadsheet_would_run_gets_an_apostrophe_and_numbers_do_not(store: Store, tmp_path: Path) -> None:
    texts = ['=HYPERLINK("http://x")', "+1", "-1", "@a", "\tx", "\rx", "a=b", "a,b\n\"c'"]
    many = [
        Point("own", {"run": "=r"}, {"=text": text, "loss": -0.5, "n": -3}, NOON + k) for k, text in enumerate(texts)
    ]
    store.write(many)
    exported(store, tmp_path, "csv", run="=r")
    frame = pd.read_csv(tmp_path / "own.csv")
    assert list(frame["'=text"]) == ["'" + text for text in texts[:6]] + texts[6:]
    assert set(frame["run"]) == {"'=r"}
    assert (set(frame["loss"]), set(frame["n"])) == ({-0.5}, {-3})


def test_the_points_of_a_reference_look_are_a_table_of_their_own(store: Store, tmp_path: Path) -> None:
    tags = {"run": "r", "phase": "backtest", "gate": "forget"}
    looked_at = Point(GATE_STATS, {**tags, **REFERENCE_LOOK}, {"mean": 0.25}, NOON)
    store.write([Point(GATE_STATS, tags, {"mean": 0.5}, NOON), looked_at])
    assert [one.table for one in exported(store, tmp_path)] == ["gate_stats", "gate_stats_reference"]
    assert list(parquet(tmp_path, "gate_stats")["mean"]) == [0.5]
    assert list(parquet(tmp_path, "gate_stats_reference")["mean"]) == [0.25]
    assert "look" not in parquet(tmp_path, "gate_stats")


def test_a_tag_and_a_field_of_one_name_are_two_columns(store: Store, tmp_path: Path) -> None:
    store.write([Point(TRAIN_METRICS, {"run": "r", "price": "close"}, {"price": 1.5, "step": 1}, NOON)])
    exported(store, tmp_path, "csv")
    header, row = (tmp_path / "train_metrics.csv").read_text().splitlines()
    assert header == "time,run,tag:price,step,price"
    assert row.endswith(",close,1,1.5")


@pytest.mark.parametrize("name", ["../up", "a/b", "/etc/x", "..", "con fig", "é", "x" * 300])
def test_no_measurement_leads_out_of_the_folder(store: Store, tmp_path: Path, name: str) -> None:
    store.write([Point(name, {"run": "r"}, {"v": 1.0}, NOON)])
    (one,) = exported(store, tmp_path / "out", "csv")
    assert Path(one.file).resolve().parent == (tmp_path / "out").resolve()
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith("points.db")} == {"out"}


def test_names_that_differ_in_capitals_are_two_files(store: Store, tmp_path: Path) -> None:
    store.write([Point(name, {"run": "r"}, {"v": 1.0}, NOON) for name in ("own", "OWN", "gate_stats_reference")])
    store.write([Point(GATE_STATS, {"run": "r", **REFERENCE_LOOK}, {"mean": 1.0}, NOON)])
    files = [Path(one.file).name.casefold() for one in exported(store, tmp_path, "csv")]
    assert len(set(files)) == len(files) == 4


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(points, min_size=1, max_size=12))
def test_a_table_reads_back_as_what_the_store_reads(pair: Pair, tmp_path: Path, given_points: list[Point]) -> None:
    kept: dict[str, type] = {}
    batch = [
        Point("m", {**each.tags, "run": "r"}, each.fields, each.time)
        for each in given_points  # a field keeps the type that it was first written with
        if all(kept.setdefault(name, type(value)) is type(value) for name, value in each.fields.items())
    ]
    for store in pair():
        store.write(batch)
        expected = store.read("m", run="r")
        exported(store, tmp_path)
        assert_frame_equal(plain(parquet(tmp_path, "m")), plain(expected))
        exported(store, tmp_path, "csv")
        assert_frame_equal(plain(from_csv(tmp_path, "m", expected), ("",)), plain(expected, ("",)))

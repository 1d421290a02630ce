"""`gate_epoch_<n>.npz`: whole, of one run, and never half written."""

from __future__ import annotations

import json
import multiprocessing
import tempfile
import threading
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gatewatch.collector.epoch_files import epoch_owner, save_epoch, save_seconds
from gatewatch.collector.names import clean_name

pytestmark = pytest.mark.filterwarnings("error")

VALUES = np.random.default_rng(0).random((2, 3, 4), np.float32)
HOSTILE = ["", "/", "..", "../../etc/passwd", "/abs", "a\\", "nul\0", "\0", "two\nlines", "\ud800", "🚀", "x" * 70_000]

names = st.text(max_size=8) | st.text(st.characters(), max_size=8) | st.sampled_from(HOSTILE)


class Layer(NamedTuple):
    gates: dict
    mask: np.ndarray | None = None


LAYERS = {"memory": Layer({"forget": VALUES, "cell": -VALUES})}


def save(folder, layers=LAYERS, run="mine", epoch=0, step=7, phase="train"):
    return save_epoch(folder, layers, run=run, phase=phase, epoch=epoch, step=step)


def load(path):
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_numpy_reads_what_was_saved_and_the_comment_says_whose_it_is(tmp_path):
    path = save(tmp_path / "new" / "logs", epoch=12)
    assert path == tmp_path / "new" / "logs" / "gate_epoch_12.npz"
    found = load(path)
    assert list(found) == ["memory/forget", "memory/cell"]
    np.testing.assert_array_equal(found["memory/forget"], VALUES)
    np.testing.assert_array_equal(found["memory/cell"], -VALUES)
    with zipfile.ZipFile(path) as archive:
        assert json.loads(archive.comment) == {"run": "mine", "phase": "train", "epoch": 12, "step": 7}
        assert archive.testzip() is None


@settings(deadline=None, max_examples=50)
@given(hnp.arrays(hnp.floating_dtypes(endianness="="), hnp.array_shapes(min_dims=3, max_dims=3)), st.booleans())
def test_arrays_come_back_bit_for_bit_however_they_lie_in_memory(values, by_time):
    if by_time:
        values = np.ascontiguousarray(values.transpose(1, 0, 2)).transpose(1, 0, 2)
    with tempfile.TemporaryDirectory() as folder:
        found = load(save(Path(folder), {"a": Layer({"g": values})}))["a/g"]
    assert (found.dtype, found.shape) == (values.dtype, values.shape)
    np.testing.assert_array_equal(found, values)


def test_a_run_writes_its_own_file_anew(tmp_path):
    save(tmp_path)
    save(tmp_path, {"memory": Layer({"forget": VALUES + 1})})
    assert files(tmp_path) == ["gate_epoch_0.npz"]
    np.testing.assert_array_equal(load(tmp_path / "gate_epoch_0.npz")["memory/forget"], VALUES + 1)


@pytest.mark.parametrize("other", ["theirs", "../theirs", "..", "/etc/passwd", "🚀", "x" * 400, "a/b", "C:\\x"])
def test_another_runs_file_is_moved_into_a_folder_of_that_run(tmp_path, other):
    folder = tmp_path / "logs"
    save(folder, {"memory": Layer({"forget": VALUES + 1})}, run=other)
    save(folder)
    (kept,) = (path for path in folder.iterdir() if path.is_dir())
    assert files(tmp_path) == sorted(["logs/gate_epoch_0.npz", f"logs/{kept.name}/gate_epoch_0.npz"])
    assert epoch_owner(kept / "gate_epoch_0.npz") == (other, "train")
    assert epoch_owner(folder / "gate_epoch_0.npz") == ("mine", "train")
    np.testing.assert_array_equal(load(kept / "gate_epoch_0.npz")["memory/forget"], VALUES + 1)


def test_runs_that_take_turns_keep_their_files(tmp_path):
    for epoch in range(3):
        for run in ("a", "b", "a"):
            save(tmp_path, run=run, epoch=epoch)
    assert files(tmp_path) == sorted(
        [f"gate_epoch_{n}.npz" for n in range(3)] + [f"{run}/gate_epoch_{n}.npz" for n in range(3) for run in "ab"]
    )
    assert {epoch_owner(tmp_path / f"gate_epoch_{n}.npz") for n in range(3)} == {("a", "train")}


def test_phases_that_take_turns_keep_their_files(tmp_path):
    for epoch in range(3):
        for phase in ("train", "validation", "backtest"):
            save(tmp_path, phase=phase, epoch=epoch)
    places = {path: epoch_owner(tmp_path / path) for path in files(tmp_path)}
    for epoch in range(3):
        name = f"gate_epoch_{epoch}.npz"
        assert places[name] == ("mine", "backtest")
        assert places[f"mine/{name}"] == ("mine", "train")
        assert places[f"mine/validation/{name}"] == ("mine", "validation")
    assert len(places) == 9


def test_threads_that_share_a_folder_write_whole_files(tmp_path):
    threads = [threading.Thread(target=_write, args=(tmp_path, run)) for run in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for path in files(tmp_path):
        with zipfile.ZipFile(tmp_path / path) as archive:
            assert archive.testzip() is None
    owned = {(epoch_owner(tmp_path / path)[0], path[-5]) for path in files(tmp_path)}
    assert owned == {(run, str(epoch)) for run in "abc" for epoch in range(3)}


def test_a_run_that_is_named_like_a_file_has_a_folder_all_the_same(tmp_path):
    save(tmp_path, run="gate_epoch_0.npz")
    save(tmp_path)
    assert len(files(tmp_path)) == 2


def _write(folder, run):
    for _ in range(20):
        for epoch in range(3):
            save(folder, run=run, epoch=epoch)


def test_processes_that_share_a_folder_lose_no_file(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(tmp_path, run)) for run in ("a", "b", "c")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    owned = {(epoch_owner(tmp_path / path)[0], path[-5]) for path in files(tmp_path)}
    assert owned == {(run, str(epoch)) for run in "abc" for epoch in range(3)}


@settings(deadline=None, max_examples=50)
@given(names)
@example('say "x"')
def test_a_runs_name_comes_back_whatever_it_is(run):
    with tempfile.TemporaryDirectory() as folder:
        assert epoch_owner(save(Path(folder), run=run[:512])) == (run[:512], "train")


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(names, st.lists(names, unique_by=clean_name, min_size=1, max_size=2), max_size=3))
@example({name: ["forget", "cell"] for name in HOSTILE})
def test_whatever_layers_and_gates_are_called_they_are_named_as_in_the_points(layers):
    named = {name: gates for name, gates in layers.items() if "/" not in clean_name(name) + "".join(gates)}
    wanted = {f"{clean_name(layer)}/{clean_name(gate)}" for layer, gates in named.items() for gate in gates}
    with tempfile.TemporaryDirectory() as folder:
        path = save(Path(folder), {layer: Layer(dict.fromkeys(gates, VALUES)) for layer, gates in named.items()})
        assert set(load(path)) == wanted
        assert files(Path(folder)) == ["gate_epoch_0.npz"]


@pytest.mark.parametrize("layer", HOSTILE)
def test_a_hostile_layer_can_be_read_back(tmp_path, layer):
    path = save(tmp_path / "logs", {layer: Layer({"forget": VALUES})})
    found = load(path)
    assert list(found) == [f"{clean_name(layer)}/forget"]
    np.testing.assert_array_equal(found[f"{clean_name(layer)}/forget"], VALUES)
    assert files(tmp_path) == ["logs/gate_epoch_0.npz"]


def _missing(path):
    path.unlink()


def _empty(path):
    path.write_bytes(b"")


def _text(path):
    path.write_text("these are no gates")


def _truncated(path):
    path.write_bytes(path.read_bytes()[:-30])


def _numpys(path):
    with path.open("wb") as file:
        np.savez(file, a=VALUES)


def _commented(comment):
    def write(path):
        with zipfile.ZipFile(path, "a") as archive:
            archive.comment = comment

    return write


def _newer_zip(path):
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 6] = 255  # the version that is needed to read it
    path.write_bytes(data)


FOREIGN = [
    _missing,
    _empty,
    _text,
    _truncated,
    _numpys,
    _newer_zip,
    *map(_commented, [b"[]", b"7", b'"r"', b'{"run": 7}', b"{}", b"\xff\xfe", b"{", b"[" * 60_000]),
]


@pytest.mark.parametrize("spoil", FOREIGN)
def test_a_file_that_is_none_of_ours_has_no_owner_and_gives_way(tmp_path, spoil):
    path = save(tmp_path, run="theirs")
    spoil(path)
    assert epoch_owner(path) is None
    save(tmp_path)
    assert files(tmp_path) == ["gate_epoch_0.npz"]
    assert epoch_owner(path) == ("mine", "train")
    np.testing.assert_array_equal(load(path)["memory/forget"], VALUES)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return save(tmp_path_factory.mktemp("sound")).read_bytes()


@settings(deadline=None)
@given(data=st.data())
def test_a_file_damaged_anywhere_has_an_owner_or_none(sound, data):
    damaged = bytearray(sound[: data.draw(st.integers(0, len(sound)))] or sound)
    for place, byte in data.draw(st.dictionaries(st.integers(0, len(damaged) - 1), st.integers(0, 255))).items():
        damaged[place] = byte
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gate_epoch_0.npz"
        path.write_bytes(damaged)
        assert isinstance(epoch_owner(path), tuple | None)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = save(tmp_path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"[Oo]bject arrays"):
        save(tmp_path, {"memory": Layer({"forget": VALUES, "cell": np.array([[[object()]]])})})
    assert path.read_bytes() == before
    assert files(tmp_path) == ["gate_epoch_0.npz"]


def test_a_place_that_cannot_be_written_is_an_error_of_the_system(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        save(tmp_path / "file")
    with pytest.raises(OSError, match="file"):
        save(tmp_path / "file" / "logs")
    (tmp_path / "gate_epoch_3.npz").mkdir()
    with pytest.raises(OSError, match="gate_epoch_3"):
        save(tmp_path, epoch=3)
    assert files(tmp_path) == ["file"]


def test_the_estimate_grows_with_the_arrays():
    twice = {"a": Layer({"forget": VALUES}), "b": Layer({"forget": VALUES})}
    assert save_seconds({}) == 0
    assert save_seconds(twice) == 2 * save_seconds({"a": Layer({"forget": VALUES})}) > 0

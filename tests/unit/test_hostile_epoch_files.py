"""`gate_epoch_<n>.npz` as the report reads it: what is damaged or crafted is named, and unpacks to nothing."""

from __future__ import annotations

import io
import json
import os
import tracemalloc
import zipfile

import numpy as np
import pytest

from gatewatch.collector.epoch_files import epoch_owner, save_epoch
from gatewatch.collector.schema import Point
from gatewatch.collector.store import open_store
from gatewatch.jobs.report import epoch_files
from gatewatch.jobs.report.epoch_files import read_epochs
from gatewatch.jobs.report.page import write_report
from tests.unit.test_epochs import Layer

pytestmark = pytest.mark.filterwarnings("error")

VALUES = np.random.default_rng(0).random((2, 3, 4), np.float32)
ABOUT = json.dumps({"run": "mine", "phase": "train", "epoch": 1, "step": 7}).encode()


def array_file(values):
    stream = io.BytesIO()
    np.save(stream, values, allow_pickle=values.dtype.hasobject)
    return stream.getvalue()


def header(shape, kind="<f4"):
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def write(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.comment = ABOUT
        for name, content in members.items():
            archive.writestr(name, content)


HOSTILE = {
    "a header of a huge shape": {"a/forget.npy": header((2**60, 1, 1)) + bytes(8)},
    "a header of 60 GB": {"a/forget.npy": header((15, 10**6, 1000)) + bytes(8)},
    "a header of a shape beyond any number": {"a/forget.npy": header((2**63, 2**63, 2))},
    "a header of a negative shape": {"a/forget.npy": header((-1, 3, 4))},
    "a header that is code": {"a/forget.npy": header("__import__('os').system('true')")},
    "a header that is cut": {"a/forget.npy": header((2, 3, 4))[:40]},
    "an array that is cut": {"a/forget.npy": array_file(VALUES)[:-8]},
    "more than the array": {"a/forget.npy": array_file(VALUES) + bytes(8)},
    "pickled objects": {"a/forget.npy": array_file(np.array([[[print]]], dtype=object))},
    "a header of objects": {"a/forget.npy": header((1, 1, 1), "|O") + b"cos\nsystem\n(S'true'\ntR."},
    "whole numbers": {"a/forget.npy": array_file(np.ones((2, 3, 4), int))},
    "two dimensions": {"a/forget.npy": array_file(VALUES[0])},
    "no values": {"a/forget.npy": array_file(VALUES[:0])},
    "text": {"a/forget.npy": b"text"},
}


def read(folder):
    saved, notes = read_epochs([str(folder)], "mine", frames=10, layers=1)
    return {label: sorted(gates) for frames in saved.values() for label, gates in frames.items()}, notes


@pytest.fixture
def folder(tmp_path):
    """A folder with a sound file of epoch 0."""
    layers = {"a": Layer({"forget": VALUES})}
    save_epoch(tmp_path / "logs", layers, run="mine", phase="train", epoch=0, step=3)
    return tmp_path / "logs"


@pytest.mark.parametrize("how", HOSTILE)
def test_a_hostile_array_is_named_and_the_other_files_are_shown(folder, how):
    write(folder / "gate_epoch_1.npz", HOSTILE[how])
    tracemalloc.start()
    frames, notes = read(folder)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert frames == {"epoch 0": ["forget"]}
    (note,) = notes
    assert note.startswith("gate_epoch_1.npz could not be read and is left out (")
    assert "\n" not in note
    assert peak < 2**20


def test_a_small_file_that_unpacks_to_gigabytes_is_not_unpacked(folder):
    gate = header((1, 2**20, 75)) + bytes(300 * 2**20)
    write(folder / "gate_epoch_1.npz", {"a/forget.npy": gate})
    assert (folder / "gate_epoch_1.npz").stat().st_size < 2**19
    tracemalloc.start()
    frames, notes = read(folder)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert frames == {"epoch 0": ["forget"]}
    assert notes == [
        "gate_epoch_1.npz could not be read and is left out "
        "(a/forget.npy unpacks to 314,572,928 bytes, and at most 268,435,456 are read)."
    ]
    assert peak < 2**20


def test_many_gates_are_bounded_together(folder, monkeypatch):
    monkeypatch.setattr(epoch_files, "MOST_BYTES", 1000)
    write(folder / "gate_epoch_1.npz", {f"{n}/forget.npy": array_file(VALUES) for n in range(20)})
    frames, notes = read(folder)
    assert frames == {"epoch 0": ["forget"]}
    assert "(it unpacks to 4,480 bytes, and at most 1,000 are read)" in notes[0]


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_method_that_unpacks_without_bound_is_refused(folder, method):
    write(folder / "gate_epoch_1.npz", {"a/forget.npy": array_file(VALUES)}, method)
    assert read(folder)[0] == {"epoch 0": ["forget"]}


def test_a_large_file_of_a_real_network_is_read(folder):
    layers = {"a": Layer({"forget": np.zeros((32, 256, 512), np.float32)})}  # which packs to a thousandth
    save_epoch(folder, layers, run="mine", phase="train", epoch=1, step=7)
    assert read(folder) == ({"epoch 0": ["forget"], "epoch 1": ["forget"]}, [])


def test_names_that_climb_out_of_the_folder_are_names_of_layers(folder, tmp_path):
    names = ["../../climbed/forget.npy", "/climbed/forget.npy", "..\\climbed/forget.npy"]
    write(folder / "gate_epoch_1.npz", dict.fromkeys(names, array_file(VALUES)))
    frames, notes = read(folder)
    assert (frames["epoch 1"], notes) == (["forget"], [])
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["gate_epoch_0.npz", "gate_epoch_1.npz", "logs"]


def test_gates_beyond_single_precision_are_shown(folder):
    write(folder / "gate_epoch_1.npz", {"a/forget.npy": array_file(np.full((2, 3, 4), 1.7e308))})
    assert read(folder) == ({"epoch 0": ["forget"], "epoch 1": ["forget"]}, [])


def test_a_pipe_of_that_name_is_not_waited_for(folder):
    os.mkfifo(folder / "gate_epoch_1.npz")
    assert epoch_owner(folder / "gate_epoch_1.npz") is None
    assert read(folder) == (
        {"epoch 0": ["forget"]},
        ["gate_epoch_1.npz could not be read and is left out (it is no file)."],
    )


def test_a_report_is_written_whatever_lies_beside_it(folder, tmp_path):
    for number, members in enumerate(HOSTILE.values(), start=1):
        write(folder / f"gate_epoch_{number}.npz", members)
    store = open_store(f"sqlite:///{tmp_path}/points.db")
    tags, config = {"run": "mine", "phase": "train"}, json.dumps({"log_dir": str(folder)})
    store.write(
        [
            Point("runs", tags, {"event": "started", "step": 0, "config": config}, 10**18),
            *(
                Point("gate_stats", {**tags, "layer": "a", "gate": "forget"}, {"mean": 0.5, "step": n}, 10**18 + n)
                for n in range(3)
            ),
        ]
    )
    page = write_report(store, "mine", tmp_path / "report.html").read_text()
    store.close()
    assert page.count("could not be read and is left out") == len(HOSTILE)

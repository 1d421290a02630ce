"""Files of `AnomalyDetector`: what is saved comes back, and what is damaged or crafted is one line."""

from __future__ import annotations

import math
import tracemalloc
import zipfile
from contextlib import suppress

import numpy as np
import pytest
import skops.io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.ensemble import IsolationForest

from gatewatch import AnomalyDetector
from gatewatch.collector.errors import ConfigError
from gatewatch.jobs import model_files
from tests.unit.test_anomaly_detector import sample


@pytest.fixture(scope="module")
def detector():
    return AnomalyDetector().train(sample(seed) for seed in range(100))


def test_it_is_kept_in_a_file_with_its_provenance(detector, tmp_path):
    detector.save(tmp_path / "normal.skops")
    loaded = AnomalyDetector.load(tmp_path / "normal.skops")
    assert [loaded.score(sample(k)) for k in range(5)] == [detector.score(sample(k)) for k in range(5)]
    assert loaded.provenance["samples"] == 100
    assert set(loaded.provenance["versions"]) == {"numpy", "scikit-learn"}


def test_a_file_that_is_none_is_one_line(detector, tmp_path):
    whole = tmp_path / "normal.skops"
    detector.save(whole)
    (tmp_path / "cut.skops").write_bytes(whole.read_bytes()[:-1000])
    (tmp_path / "text.skops").write_text("no detector")
    skops.io.dump({"other": 1}, tmp_path / "other.skops")
    skops.io.dump([1, 2], tmp_path / "list.skops")
    forest = IsolationForest().fit(np.zeros((9, 7)))
    skops.io.dump({"forest": forest, "provenance": detector.provenance}, tmp_path / "former.skops")
    (tmp_path / "folder.skops").mkdir()
    for name in ("cut", "text", "other", "list", "former", "folder", "missing"):
        with pytest.raises(ConfigError, match=f"{name}.skops: .*; train and save it again") as raised:
            AnomalyDetector.load(tmp_path / f"{name}.skops")
        assert "\n" not in str(raised.value)


def saved(detector, tmp_path):
    """What a detector's file holds, and the file."""
    detector.save(tmp_path / "normal.skops")
    return skops.io.load(tmp_path / "normal.skops"), tmp_path / "normal.skops"


CRAFTED = {
    "features of another version": lambda held: held["provenance"].update(features=["mean"]),
    "a contamination of 7": lambda held: held["provenance"].update(contamination=7),
    "a contamination that is text": lambda held: held["provenance"].update(contamination="0.05"),
    "one sample": lambda held: held["provenance"].update(samples=1),
    "an offset that is not finite": lambda held: held.update(offset=math.nan),
    "an offset of 0": lambda held: held.update(offset=0.0),
    "an offset of the other sign": lambda held: held.update(offset=0.5),
    "no offset": lambda held: held.pop("offset"),
    "a range too short": lambda held: held.update(low=np.zeros(3)),
    "a range of another type": lambda held: held.update(high=np.zeros(7, dtype="U3")),
    "a range that is a list": lambda held: held.update(high=[0.0] * 7),
    "a range upside down": lambda held: held.update(low=held["high"] + 1),
    "a range that is not finite": lambda held: held.update(low=np.full(7, -math.inf)),
    "no floor": lambda held: held.update(floor=np.zeros(7)),
    "trees that are none": lambda held: held.update(trees=7),
    "an array too few": lambda held: held["trees"].pop("left"),
    "a child out of range": lambda held: held["trees"]["left"].__setitem__(0, 10**9),
    "a negative child": lambda held: held["trees"]["right"].__setitem__(0, -7),
}


@pytest.mark.parametrize("how", CRAFTED)
def test_a_crafted_file_is_one_line(detector, tmp_path, how):
    held, file = saved(detector, tmp_path)
    CRAFTED[how](held)
    skops.io.dump(held, file)
    with pytest.raises(ConfigError, match=r"normal\.skops: .*; train and save it again") as raised:
        AnomalyDetector.load(file)
    assert "\n" not in str(raised.value)


@pytest.fixture(scope="module")
def whole(detector, tmp_path_factory):
    file = tmp_path_factory.mktemp("whole") / "normal.skops"
    detector.save(file)
    return file.read_bytes()


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_file_damaged_anywhere_is_one_line_or_the_same_detector(detector, whole, tmp_path, data):
    content, file = bytearray(whole), tmp_path / "damaged.skops"
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=3)):
        content[at] ^= data.draw(st.integers(1, 255))
    file.write_bytes(content)
    found = None
    with suppress(ConfigError):
        found = AnomalyDetector.load(file)
    assert found is None or found.score(sample(5)) == detector.score(sample(5))


def test_a_file_whose_member_has_an_endless_name_is_one_short_line(whole, tmp_path):
    content, file = bytearray(whole), tmp_path / "d.skops"
    content[26:28] = (4_000).to_bytes(2, "little")  # the length of the name in the first header
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        AnomalyDetector.load(file)
    assert len(str(caught.value)) < 500 + len(str(file))


def rewritten(file, members=None, schema=None, method=zipfile.ZIP_DEFLATED):
    """Write a file anew, with other members (name → bytes) and another schema (text → text)."""
    with zipfile.ZipFile(file) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    if schema is not None:
        held["schema.json"] = schema(held["schema.json"].decode()).encode()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in (held | (members or {})).items():
            archive.writestr(name, content)


def header(shape, kind="<f8"):
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


HOSTILE = {
    "a bomb": lambda file: rewritten(file, {"0.npy": bytes(model_files.MOST_BYTES)}),
    "a header of a huge shape": lambda file: rewritten(file, {"0.npy": header((2**60,)) + bytes(8)}),
    "a header of a shape beyond any number": lambda file: rewritten(file, {"0.npy": header((2**63, 2**63))}),
    "a header of a negative shape": lambda file: rewritten(file, {"0.npy": header((-1,))}),
    "pickled objects": lambda file: rewritten(file, {"0.npy": header((1,), "|O") + b"cos\nsystem\n."}),
    "a name that climbs": lambda file: rewritten(file, {"../../climbed": b"text"}),
    "a method that unpacks without bound": lambda file: rewritten(file, method=zipfile.ZIP_BZIP2),
    "a schema nested too deeply": lambda file: rewritten(file, schema=lambda _: "[" * 100_000 + "]" * 100_000),
    "no schema": lambda file: rewritten(file, schema=lambda _: ""),
    "a function": lambda file: skops.io.dump({"provenance": np.sum}, file),
    "an estimator": lambda file: skops.io.dump({"provenance": IsolationForest()}, file),
    "an array of objects": lambda file: skops.io.dump({"low": np.array([1, "x", None], dtype=object)}, file),
    "a random state": lambda file: skops.io.dump({"low": np.random.default_rng(0)}, file),
    "a class of another name": lambda file: rewritten(
        file, schema=lambda text: text.replace('"ndarray"', '"matrix"', 1)
    ),
}


@pytest.mark.parametrize("how", HOSTILE)
def test_a_hostile_file_is_one_line_and_allocates_nothing(detector, tmp_path, how):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    file = tmp_path / "deep" / "er" / "normal.skops"
    detector.save(file)
    HOSTILE[how](file)
    tracemalloc.start()
    with pytest.raises(ConfigError, match=r"normal\.skops: .*; train and save it again") as raised:
        AnomalyDetector.load(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "\n" not in str(raised.value)
    assert peak < 2 * model_files.MOST_BYTES
    assert [path.name for path in tmp_path.rglob("*")] == ["deep", "er", "normal.skops"]


def test_a_file_larger_than_any_is_not_read(detector, tmp_path):
    file = tmp_path / "normal.skops"
    detector.save(file)
    with file.open("r+b") as stream:
        stream.truncate(2**40)  # takes no room on the disk
    with pytest.raises(ConfigError, match=r"normal\.skops: .* larger than 67,108,864 bytes; train and save it again"):
        AnomalyDetector.load(file)

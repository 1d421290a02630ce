"""Checkpoints: what is kept comes back as it was, and what is damaged is as if there were none."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import threading
import tracemalloc
import zipfile
from dataclasses import fields

import numpy as np
import pytest
import skops.io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.ensemble import IsolationForest

from gatewatch import open_store
from gatewatch.jobs import checkpoint as checkpoints
from gatewatch.jobs.checkpoint import Checkpoint, forget, load, save
from gatewatch.jobs.scoring.captures import MEASUREMENTS, captures
from gatewatch.jobs.scoring.rolling_state import RollingState
from gatewatch.jobs.scoring.scoring_state import ScoringState
from tests.recorded import fill, recorded

TAGS = {"run": "r", "phase": "train"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """90 captures."""
    store = open_store(f"sqlite:///{tmp_path_factory.mktemp('run') / 'points.db'}")
    fill(store, recorded(90))
    return captures(TAGS, *(store.read(name, prefix_tags=True) for name in MEASUREMENTS))


def scored(run, count):
    """The checkpoint after so many captures."""
    scoring = ScoringState()
    if count:
        scoring.advance(run.part(0, count), count)
    return Checkpoint(count * 2, count, 10**18 + count, 10**18, (count, 10**18), 5, 7, 3, scoring)


def same(one, other):
    """Whether two checkpoints say the same, to the last bit."""
    for each in fields(RollingState):
        np.testing.assert_array_equal(
            getattr(one.scoring.rolling, each.name), getattr(other.scoring.rolling, each.name)
        )
    for name in ("points", "captures", "newest", "back", "seen", "redo", "first", "after"):
        assert getattr(one, name) == getattr(other, name)
    for here, there in zip(one.scoring.detectors, other.scoring.detectors, strict=True):
        assert here.state.keys() == there.state.keys()
        for name, values in here.state.items():
            np.testing.assert_array_equal(values, there.state[name])
        assert (here.model is None) == (there.model is None)
        if here.model is not None:
            assert here.model.model_id == there.model.model_id
            assert here.model.provenance == there.model.provenance
            rows = np.random.default_rng(0).normal(size=(50, 8)) * 20
            np.testing.assert_array_equal(here.model.score(rows), there.model.score(rows))
    return True


@pytest.fixture(autouse=True)
def no_forest_is_remembered():
    """A service that was started anew reads them again."""
    checkpoints._loaded.cache_clear()


@pytest.mark.parametrize("count", [0, 1, 2, 20, 32, 33, 80])
def test_what_is_kept_comes_back_as_it_was(run, tmp_path, count):
    kept = scored(run, count)
    save(tmp_path, "r", TAGS, kept)
    assert (kept.scoring.detectors[0].model is not None) == (count > 32)
    checkpoints._loaded.cache_clear()
    found = load(tmp_path, "r", TAGS)
    assert same(found, kept)
    if count:
        beside = [each.scoring.advance(run.part(0, count + 5), 5) for each in (found, kept)]
        assert beside[0] == beside[1]


def test_there_is_none_before_one_is_kept(tmp_path, caplog):
    assert load(tmp_path / "nowhere", "r", TAGS) is None
    assert caplog.records == []


def test_runs_phases_and_tags_have_their_own(run, tmp_path):
    names = ["r", "R", "r/train", "../r", "..", 'a "b" c', "r" * 400, "λ" * 200, "con"]
    kept = {}
    for number, name in enumerate(names):
        for tags in (TAGS, {**TAGS, "phase": "live"}, {**TAGS, "symbol": "../../x"}):
            kept[name, json.dumps(tags)] = Checkpoint(points=100 + len(kept), captures=number)
            save(tmp_path / "state", name, tags, kept[name, json.dumps(tags)])
    for (name, tags), checkpoint in kept.items():
        assert load(tmp_path / "state", name, json.loads(tags)).points == checkpoint.points
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_a_run_is_forgotten_and_no_other(run, tmp_path):
    for name in ("r", "other"):
        save(tmp_path, name, TAGS, scored(run, 40))
    forget(tmp_path, "r")
    forget(tmp_path, "r")
    assert load(tmp_path, "r", TAGS) is None
    assert load(tmp_path, "other", TAGS) is not None


def test_the_newest_replaces_the_one_before_and_leaves_nothing_beside(run, tmp_path):
    for count in (40, 50):
        save(tmp_path, "r", TAGS, scored(run, count))
    assert load(tmp_path, "r", TAGS).captures == 50
    assert sorted(path.suffix for path in tmp_path.rglob("*.*")) == [".npz", ".skops"]


def test_a_forest_is_written_once(run, tmp_path):
    save(tmp_path, "r", TAGS, scored(run, 40))
    (file,) = tmp_path.rglob("*.skops")
    before = file.stat().st_mtime_ns
    checkpoints._loaded.cache_clear()
    save(tmp_path, "r", TAGS, scored(run, 60))
    assert file.stat().st_mtime_ns == before


def test_one_of_another_version_is_left_aside(run, tmp_path, monkeypatch, caplog):
    save(tmp_path, "r", TAGS, scored(run, 40))
    monkeypatch.setattr(checkpoints, "VERSION", checkpoints.VERSION + 1)
    assert load(tmp_path, "r", TAGS) is None
    assert caplog.records == []


def test_a_folder_that_cannot_be_written_is_said_and_nothing_more(run, tmp_path, caplog):
    (tmp_path / "runs").write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING, "gatewatch"):
        save(tmp_path, "r", TAGS, scored(run, 40))
    assert len(caplog.records) == 1
    assert "cannot be stored: " in caplog.records[0].message
    assert "\n" not in caplog.records[0].message
    assert load(tmp_path, "r", TAGS) is None


def broken(file, how):
    """What may have happened to a file."""
    whole = file.read_bytes()
    match how:
        case "empty":
            file.write_bytes(b"")
        case "truncated":
            file.write_bytes(whole[: len(whole) // 2])
        case "foreign":
            file.write_bytes(b"not a checkpoint\n" * 100)
        case "missing":
            file.unlink()
        case "a folder":
            file.unlink()
            file.mkdir()


@pytest.mark.parametrize("how", ["empty", "truncated", "foreign", "missing", "a folder"])
@pytest.mark.parametrize("suffix", [".npz", ".skops"])
def test_what_is_damaged_is_said_and_left_aside(run, tmp_path, caplog, suffix, how):
    kept = scored(run, 40)
    save(tmp_path, "r", TAGS, kept)
    (file,) = tmp_path.rglob(f"*{suffix}")
    broken(file, how)
    with caplog.at_level(logging.WARNING, "gatewatch"):
        assert load(tmp_path, "r", TAGS) is None
    if (suffix, how) != (".npz", "missing"):
        (record,) = caplog.records
        assert "is ignored, the run is scored from its beginning" in record.message
        assert "\n" not in record.message
    if how != "a folder":  # which a user must have made
        save(tmp_path, "r", TAGS, kept)
        assert same(load(tmp_path, "r", TAGS), kept)


def test_a_forest_of_another_run_is_no_forest_of_this(run, tmp_path, caplog):
    save(tmp_path, "r", TAGS, scored(run, 40))
    other = scored(run.part(20), 40)
    save(tmp_path, "other", TAGS, other)
    (one,), (two,) = ((tmp_path / "runs" / name).glob("*.skops") for name in ("r", "other"))
    one.write_bytes(two.read_bytes())
    assert load(tmp_path, "r", TAGS) is None
    assert "holds isolation_forest-" in caplog.records[0].message


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_byte_is_never_an_exception_nor_another_checkpoint(run, tmp_path, data):
    kept = scored(run, 20)
    save(tmp_path, "r", TAGS, kept)
    (file,) = tmp_path.rglob("*.npz")
    content = bytearray(file.read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=3)):
        content[at] ^= data.draw(st.integers(1, 255))
    file.write_bytes(content)
    found = load(tmp_path, "r", TAGS)
    assert found is None or same(found, kept)


def crafted(file, arrays=None, **about):
    """Write a checkpoint anew with other arrays and another description: valid files, but of no state there can be."""
    with np.load(file) as stored:
        held = {name: stored[name] for name in stored.files}
    told = json.loads(str(held["about"]))
    for name, value in about.items():
        told[name] = value(told[name]) if callable(value) else value
    held |= {name: change(held[name]) for name, change in (arrays or {}).items()}
    held["about"] = np.array(json.dumps(told))
    np.savez(file, **held)


def altered(at, value):
    def change(values):
        values = values.copy()
        values[at] = value
        return values

    return change


CRAFTED = {
    **{
        f"{name} too short": {"arrays": {f"rolling.{name}": lambda values: values[..., :-1]}}
        for name in RollingState().arrays
    },
    "more rows than there are": {"arrays": {"rolling.values": lambda values: np.tile(values, (9, 1))}},
    "text for numbers": {"arrays": {"rolling.low": lambda values: values.astype(str)}},
    "single precision": {"arrays": {"rolling.values": lambda values: values.astype(np.float32)}},
    "a flag that is a number": {"arrays": {"rolling.learnable": lambda values: values.astype(float)}},
    "captures out of order": {"arrays": {"rolling.at": altered(3, 0.0)}},
    "captures that are NaN": {"arrays": {"rolling.at": altered(3, np.nan)}},
    "no speed": {"arrays": {"rolling.speed": altered(3, 0.0)}},
    "an unknown signal": {"keys": lambda keys: [[*keys[0][:2], "mood"], *keys[1:]]},
    "a signal twice": {"keys": lambda keys: [keys[1], *keys[1:]]},
    "a signal of numbers": {"keys": lambda keys: [[1, 2, "loss"], *keys[1:]]},
    "a signal too few": {"keys": lambda keys: keys[1:]},
    "no captures": {"count": 0},
    "captures that are no number": {"count": "40"},
    "captures beyond any number": {"count": 2**80},
    "a time that is text": {"newest": "now"},
    "a time beyond any": {"back": 2**63},
    "points that are a fraction": {"points": 1.5},
    "one time at the last pass": {"seen": [1]},
    "the state of a rule too short": {"arrays": {"rules.z": lambda values: values[:, 1:]}},
    "the state of a rule of more captures": {"arrays": {"rules.high": lambda values: np.tile(values, (2, 1))}},
    "a state of a rule that there is not": {"detectors": lambda of: of | {"rules": [None, ["z"]]}},
    "a model of a detector without one": {"detectors": lambda of: of | {"robust": ["m", []]}},
    "rows to learn from of another shape": {"arrays": {"isolation_forest.learned": lambda values: values[:, :3]}},
}


@pytest.mark.parametrize("how", CRAFTED)
def test_a_crafted_checkpoint_is_said_and_left_aside(run, tmp_path, caplog, how):
    kept = scored(run, 20 if "learn from" in how else 40)
    save(tmp_path, "r", TAGS, kept)
    (file,) = tmp_path.rglob("*.npz")
    crafted(file)
    assert same(load(tmp_path, "r", TAGS), kept)
    crafted(file, **CRAFTED[how])
    if how.startswith("a model of"):
        (forest,) = tmp_path.rglob("*.skops")
        shutil.copy(forest, file.with_suffix(".robust.skops"))
    with caplog.at_level(logging.WARNING, "gatewatch"):
        assert load(tmp_path, "r", TAGS) is None
    (record,) = caplog.records
    assert "is ignored, the run is scored from its beginning" in record.message
    assert "\n" not in record.message


def test_a_forest_whose_nodes_lead_nowhere_is_said_and_left_aside(run, tmp_path, caplog):
    save(tmp_path, "r", TAGS, scored(run, 40))
    (file,) = tmp_path.rglob("*.skops")
    held = skops.io.load(file)
    held["trees"]["left"][0] = 10**9
    skops.io.dump(held, file)
    assert load(tmp_path, "r", TAGS) is None
    assert "the nodes of its trees are not reached once each" in caplog.records[0].message


def test_a_forest_of_scikit_learns_own_objects_is_not_built(run, tmp_path, caplog):
    save(tmp_path, "r", TAGS, scored(run, 40))
    (file,) = tmp_path.rglob("*.skops")
    skops.io.dump(IsolationForest().fit(np.zeros((9, 8))), file)
    assert load(tmp_path, "r", TAGS) is None
    assert "it holds a sklearn.ensemble._iforest.IsolationForest" in caplog.records[0].message


def member(shape, kind, content=b""):
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + content


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (member((2**60,), "<f8", bytes(8)), "not as large as its header says"),
        (member((2**63, 2**63), "<f8"), "not as large as its header says"),
        (member((-1,), "<f8"), "not as large as its header says"),
        (member((1,), "|O", b"cos\nsystem\n(S'true'\ntR."), "no array of plain values"),
        (bytes(200_000), "it unpacks to"),
        (b"text", "magic string"),
    ],
)
def test_a_hostile_array_is_not_unpacked(run, tmp_path, caplog, monkeypatch, content, reason):
    save(tmp_path, "r", TAGS, scored(run, 40))
    (file,) = tmp_path.rglob("*.npz")
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../climbed.npy", content)
    monkeypatch.setattr(checkpoints, "MOST_BYTES", 200_000)
    tracemalloc.start()
    assert load(tmp_path, "r", TAGS) is None
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert reason in caplog.records[0].message
    assert "\n" not in caplog.records[0].message
    assert peak < 2**24
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_who_reads_finds_the_old_one_or_the_new_one(run, tmp_path):
    kept = [scored(run, count) for count in (33, 60)]
    save(tmp_path, "r", TAGS, kept[0])
    stop, failures = threading.Event(), []

    def write(checkpoint):
        while not stop.is_set():
            save(tmp_path, "r", TAGS, checkpoint)

    def read():
        while not stop.is_set():
            found = load(tmp_path, "r", TAGS)
            if found is None or not same(found, kept[found.captures == 60]):
                failures.append(found)

    threads = [threading.Thread(target=write, args=[each]) for each in kept] + [threading.Thread(target=read)]
    for thread in threads:
        thread.start()
    stop.wait(1.0)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(path.suffix for path in tmp_path.rglob("*.*")) == [".npz", ".skops"]


def test_models_are_read_and_written_without_loading_torch():
    code = """
import sys
from gatewatch.jobs.skops_io import skops_io
assert skops_io().loads(skops_io().dumps({"a": 1})) == {"a": 1}
assert not [name for name in sys.modules if name.startswith(("torch", "sklearn.externals.array_api_compat.torch"))]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

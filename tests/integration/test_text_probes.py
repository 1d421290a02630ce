"""Models of texts: a probe of texts has the same fingerprint in each process."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

KERAS = """
import keras, numpy as np, tensorflow as tf
from gatewatch import GateMonitor
texts, others = (np.array([["buy low"], [last]], dtype=object) for last in ("sell high", "sell now"))
split = keras.layers.TextVectorization(output_sequence_length=4)
split.adapt(texts)
layers = [split, keras.layers.Embedding(20, 3), keras.layers.LSTM(4), keras.layers.Dense(1)]
model = keras.Sequential([keras.Input((1,), dtype="string"), *layers])
model.compile("adam", "mse")
probes = {"objects": texts, "texts": texts.astype(str), "tensor": tf.constant(texts), "other": others}
for name, probe in probes.items():
    monitor = GateMonitor(probe=probe, run=name, every=1, log_dir=None)
    model.fit(tf.constant(texts), np.ones((2, 1)), verbose=0, callbacks=[monitor])
"""
TORCH = """
import numpy as np, torch
from gatewatch.torch import GateMonitor
class Reader(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = torch.nn.LSTM(1, 4, batch_first=True)
    def read(self, texts):
        texts = texts["news"] if isinstance(texts, dict) else texts
        texts = texts["text"] if getattr(texts, "dtype", None) is not None and texts.dtype.names else texts
        words = [[float(len(word)) for word in str(text).split()[:2]] for text in texts]
        return self.lstm(torch.tensor(words)[:, :, None])
texts, others = (["buy low", last] for last in ("sell high", "sell now"))
probes = {"objects": np.array(texts, dtype=object), "texts": np.array(texts), "list": (texts,), "dict": {"news": texts}}
probes["records"] = np.array([(text, 1.0) for text in texts], dtype=[("text", "U9"), ("size", float)])
others = {"other": np.array(others), "other list": (others,), "other dict": {"news": others}}
for name, probe in (probes | others).items():
    with GateMonitor(Reader(), None, run=name, probe=probe, method="read"):
        pass
"""
TOLD = """
import json
from gatewatch import open_store
runs = open_store().runs()
print(json.dumps({run: json.loads(config)["probe_fingerprint"] for run, config in zip(runs["run"], runs["config"])}))
"""


def fingerprints(code, place):
    """Train in a process of its own; return run → fingerprint of its probe."""
    place.mkdir()
    own = {"KERAS_BACKEND": "tensorflow", "GATEWATCH_STORE": f"sqlite:///{place}/g.db", "GATEWATCH_SPOOL": str(place)}
    done = subprocess.run(
        [sys.executable, "-c", code + TOLD],
        capture_output=True,
        text=True,
        check=False,
        cwd=place,
        env=os.environ | own,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("code", "alike", "others"),
    [
        (KERAS, ["objects", "texts", "tensor"], ["other"]),  # each is a tensor of TensorFlow's
        (TORCH, ["objects", "texts"], ["list", "dict", "records", "other", "other list", "other dict"]),
    ],
    ids=["keras", "torch"],
)
def test_it_is_the_same_in_each_process_and_another_for_other_texts(tmp_path, code, alike, others):
    first, again = (fingerprints(code, tmp_path / name) for name in ("first", "again"))
    assert first == again
    assert set(first) == {*alike, *others}
    assert all(first.values())
    assert len({first[run] for run in alike}) == 1
    assert len(set(first.values())) == 1 + len(others)

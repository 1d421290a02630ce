"""Files of `AnomalyDetector.save` that are damaged, or made by somebody who wishes harm."""

from __future__ import annotations

import math
from pathlib import Path
from random import Random

import numpy as np

from gatewatch import AnomalyDetector
from tests.fuzz.model_files import damaged_model
from tests.fuzz.odd import put, steady
from tests.fuzz.target import Target

_SAMPLES = np.random.default_rng(0).uniform(0, 1, (12, 2, 5, 3))


class DetectorFiles(Target):
    """A file is loaded, and scores a sample."""

    name = "detectors"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        AnomalyDetector().train(_SAMPLES).save(folder / "detector.skops")
        self._sound = steady((folder / "detector.skops").read_bytes())

    def sound(self) -> bytes:
        return self._sound

    def make(self, random: Random) -> bytes:
        return damaged_model(random, self._sound)

    def place(self, case: bytes, folder: Path) -> None:
        put(folder, {"detector.skops": case, "other.skops": self._sound})

    def run(self, case: bytes, folder: Path) -> None:
        with self.allowed():
            detector = AnomalyDetector.load(folder / "detector.skops")
            score = detector.score(_SAMPLES[0])
            assert not math.isnan(score), "a score that is NaN"
            detector.predict({"activations": _SAMPLES[1], "gradients": [1.0]})
            detector.save(folder / "again.skops")
            assert AnomalyDetector.load(folder / "again.skops").score(_SAMPLES[0]) == score

    def others(self, folder: Path) -> dict[str, object]:
        return {"file": (folder / "other.skops").read_bytes()}

"""The detectors, in the order in which they score: a later one reads the scores of the earlier ones."""

from typing import Final

from gatewatch.jobs.scoring.detectors.base import Detector
from gatewatch.jobs.scoring.detectors.checks import Checks
from gatewatch.jobs.scoring.detectors.consensus import Consensus
from gatewatch.jobs.scoring.detectors.data import Data
from gatewatch.jobs.scoring.detectors.isolation_forest import ForestDetector
from gatewatch.jobs.scoring.detectors.robust import Robust
from gatewatch.jobs.scoring.detectors.rules import Rules

DETECTORS: Final[tuple[type[Detector], ...]] = (ForestDetector, Robust, Rules, Checks, Data, Consensus)

__all__ = ["DETECTORS", "Detector"]

"""The checks as a detector: a violated statement is an alarm at once, and needs no history of the run's own."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np

from gatewatch.jobs.scoring.captures import Array, Pair
from gatewatch.jobs.scoring.checks import CHECKS, Check
from gatewatch.jobs.scoring.checks.base import WARNING
from gatewatch.jobs.scoring.detectors.base import Batch, Detector, Scores
from gatewatch.jobs.scoring.sources import Sources


class Checks(Detector):
    """Scores each series by the check that is violated most; there is no score where none can be made."""

    name = "checks"
    scores_warm_up = True
    scores_alone = True
    look_back = max(check.look_back for check in CHECKS)
    phrases = MappingProxyType({check.name: check.sentence for check in CHECKS})

    def score(self, batch: Batch) -> Scores:
        """Return the largest score of the checks of each series, each check's own as the causes, and the source."""
        by_series: dict[Pair, Array] = {}
        causes: dict[Pair, dict[str, Array]] = {}
        sources: dict[Pair, Sources] = {}
        for check in CHECKS:
            for series, values in self._judged(batch, check).items():
                before = by_series.get(series, np.full(len(values), np.nan))
                is_larger = np.isfinite(values) & ~(values <= before)
                by_series[series] = np.where(is_larger, values, before)
                sources[series] = np.where(is_larger, check.source, sources.get(series, check.source))
                causes.setdefault(series, {})[check.name] = np.nan_to_num(values)
        return Scores(by_series, causes, sources=sources)

    def _judged(self, batch: Batch, check: Check) -> dict[Pair, Array]:
        """Return the scores of one check for the new captures, of the series for which it has any."""
        begin = max(0, batch.first - check.look_back)
        judged = check.judge(batch.captures.part(begin))
        most = np.inf if check.alarms else WARNING
        new = {series: np.minimum(values[batch.first - begin :], most) for series, values in judged.items()}
        return {series: values for series, values in new.items() if np.isfinite(values).any()}

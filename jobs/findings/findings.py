"""All that is said of a run: the one list from which report, page, mail and verdict are made."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from gatewatch.jobs.findings.finding import Finding, cause_before_effect, in_order
from gatewatch.jobs.findings.groups import with_drivers
from gatewatch.jobs.findings.learning import learning_findings
from gatewatch.jobs.findings.not_finite import not_finite
from gatewatch.jobs.findings.outliers import outliers
from gatewatch.jobs.findings.overfit import overfit
from gatewatch.jobs.findings.run_limits import limit_sentences
from gatewatch.jobs.findings.settings import jumps, set_before
from gatewatch.jobs.findings.statements import statements
from gatewatch.jobs.findings.unjudged import unjudged

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from gatewatch.jobs.findings.axis import Axis
    from gatewatch.jobs.findings.run_points import RunPoints
    from gatewatch.jobs.findings.series import Key


def findings_of(points: RunPoints) -> list[Finding]:
    """Return all that is said of a run, the most important first.

    What is wrong, the first cause first; what cannot be judged; notices; what is as it should be.
    """
    said = with_drivers(statements(points.all_scores, points.axis_of, points.layers), points.groups)
    found = run_findings(
        points.stats,
        points.scores,
        points.metrics,
        points.axis_of,
        [*said, *learning_findings(points.updates, points.axis_of)],
        updates=points.updates,
        layers=points.layers,
    )
    limits = [Finding(sentence=text, level="fact") for text in limit_sentences(points.shown_scores)]
    open_phases = unjudged(points.stats, points.counts, points.all_scores, is_going=points.is_going)
    return in_order([*found, *open_phases, *limits])


def run_findings(
    stats: Mapping[Key, pd.DataFrame],
    scores: Mapping[Key, pd.DataFrame],
    metrics: pd.DataFrame,
    axes: Mapping[str, Axis] = MappingProxyType({}),
    said: Sequence[Finding] = (),
    *,
    updates: Mapping[Key, pd.DataFrame] = MappingProxyType({}),
    layers: Sequence[str] = (),
) -> list[Finding]:
    """Return what is found, the most important first: see `in_order`.

    Of the alarms the first is what was set and jumped just before; the others are in order of time.

    Args:
        stats, scores, updates: series → points of `gate_stats`, of `gate_scores`, of `layer_updates`.
        metrics: points of `train_metrics`.
        axes: phase → its axis; a phase without one counts steps.
        said: what checks, the detector `data` and the learning say.
        layers: names of the network's layers, in its order.
    """
    stated = [*said, *not_finite(stats, metrics, updates, axes, layers)]
    standing = outliers(scores, axes, stated)
    alarms = cause_before_effect(each for each in (*stated, *standing) if each.is_alarm)
    since = [each.time for each in alarms if each.time is not None]
    settings = [jump.finding() for jump in set_before(jumps(metrics, axes), since)]
    others = [each for each in (*cause_before_effect(stated), *standing, *overfit(metrics)) if not each.is_alarm]
    return in_order([*settings, *alarms, *others])

"""Turn the points and files of a run into the values of the report's template."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from gatewatch.collector.store.base import Store
from gatewatch.jobs.findings.findings import findings_of
from gatewatch.jobs.findings.outliers import FEW
from gatewatch.jobs.findings.run_points import as_text, read_points
from gatewatch.jobs.findings.series import worst_layers
from gatewatch.jobs.findings.unscored import no_scores, unscored
from gatewatch.jobs.report.epoch_files import read_epochs
from gatewatch.jobs.report.gate_section import gate_section
from gatewatch.jobs.report.heatmap_section import heatmaps
from gatewatch.jobs.report.learning_section import learning_section
from gatewatch.jobs.report.metric_section import metric_charts
from gatewatch.jobs.report.plot_style import OTHER, PHASE_COLOURS
from gatewatch.jobs.report.run_summary import ending, run_summary, state_of

MAX_LAYERS: Final = 12
"""How many layers are drawn of a run of one phase; the table has all. More make a page that nobody scrolls through."""
MAX_HEATMAP_FRAMES: Final = 48
"""How many frames all heatmaps together have: of 64 × 64 cells in four panels each, about 4 MB."""


def content(
    store: Store, about: Mapping[str, Any], report_progress: Callable[[str], None], now: datetime
) -> dict[str, Any]:
    """Make every value that the template names.

    Args:
        store: where the points are.
        about: the run's row of `store.runs()`.
        report_progress: called with a line for each step of the work.
        now: with a zone; a run that has been silent for long has died.

    Raises:
        WriteUnavailable: the store does not answer.
    """
    run = str(about["run"])
    report_progress(f"reading run {run}")
    points = read_points(store, about, units=True)
    axes, spans, rows, stats, scores = points.axes, points.spans, points.rows, points.stats, points.scores
    phases = [phase for axis in axes for phase in axis.phases]
    most = max(4, MAX_LAYERS // max(1, len(phases)))
    shown = worst_layers(rows, most)
    state = state_of(about, now)

    report_progress("drawing heatmaps")
    configs, market = points.configs, points.market
    folders = [str(config["log_dir"]) for config in configs if isinstance(config.get("log_dir"), str)]
    saved, notes = read_epochs(list(dict.fromkeys(folders)), run, frames=MAX_HEATMAP_FRAMES, layers=len(shown))
    pictures = heatmaps(points.units, shown, saved, axes, spans, MAX_HEATMAP_FRAMES)
    report_progress("drawing charts")
    config = configs[0] if configs else {}
    market_spans = {phase: spans[phase] for phase in phases if phase in market}
    facts = run_summary(
        about, state, points.events, points.captures, rows=rows, config=config, market=market_spans, again=points.again
    )
    return {
        "run": run,
        "ending": ending(about, state),
        "facts": facts,
        "findings": [each.sentence for each in findings_of(points)],
        "no_scores": None if points.detector else no_scores(stats),
        "unscored": [each.sentence for each in unscored(stats, scores)],
        "detector": points.detector.replace("_", " "),
        "phases": {phase: PHASE_COLOURS.get(phase, OTHER) for phase in phases} if len(phases) > 1 else {},
        "rows": [row for row in rows if row.key in stats or row.worst > 1],
        "few": FEW,
        "left_out": len({row.key.layer for row in rows}) - len(shown),
        "metrics": metric_charts(points.metrics, points.captures, axes),
        "keras": str(about.get("framework")).startswith("keras"),
        "layers": gate_section(shown, stats, scores, rows, axes, spans),
        "learning": learning_section(points.updates, points.axis_of, most),
        "heatmaps": pictures,
        "notes": notes,
        "config": [(name, as_text(value)) for name, value in config.items()],
    }

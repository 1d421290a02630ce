"""Turn the points and files of a run into the values of the report's template."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any, Final

import pandas as pd

from gatewatch.collector import schema
from gatewatch.collector.store.base import Store
from gatewatch.jobs.findings.axis import (
    axes_of,
    in_market_time,
    in_step_order,
    market_phases,
    spans_of,
    walked_again,
)
from gatewatch.jobs.findings.finding import in_order
from gatewatch.jobs.findings.findings import FEW, no_scores, run_findings, still_learning, unscored
from gatewatch.jobs.findings.run_limits import limit_sentences
from gatewatch.jobs.findings.series import by_series, config_of, layer_order, one_detector, table, worst_layers
from gatewatch.jobs.findings.statements import statements
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
    read = partial(store.read, run=run, prefix_tags=True)
    events, metrics, captures = map(read, (schema.RUNS, schema.TRAIN_METRICS, schema.GATE_STATS))
    derived, scored = map(read, (schema.GATE_DERIVED, schema.GATE_SCORES))
    updates, units = map(read, (schema.LAYER_UPDATES, schema.GATE_UNITS))
    market = market_phases(events, captures, metrics)
    metrics, captures, scored, updates, units = (
        in_market_time(frame, market, events) for frame in (metrics, captures, scored, updates, units)
    )
    again = walked_again(market, captures, metrics)
    metrics, captures, scored, updates, units = (
        in_step_order(frame, again) for frame in (metrics, captures, scored, updates, units)
    )
    by_all = scored
    detector, scored = one_detector(scored)
    spans = spans_of(captures, metrics, updates, scored, units)
    axes = axes_of(spans, market - again)
    by_phase = {phase: axis for axis in axes for phase in axis.phases}

    configs = _configs(about, events)
    order = layer_order(configs)
    stats, scores = by_series(captures, layers=order), by_series(scored, layers=order)
    rows = table(stats, by_series(derived, layers=order), scores)
    phases = [phase for axis in axes for phase in axis.phases]
    most = max(4, MAX_LAYERS // max(1, len(phases)))
    shown = worst_layers(rows, most)
    state = state_of(about, now)
    learning, wrong = learning_section(by_series(updates, "param", order), by_phase, most)

    said = statements(by_all, by_phase, order)
    found = in_order([*run_findings(rows, stats, scores, metrics, by_phase, said), *still_learning(stats, by_all)])

    report_progress("drawing heatmaps")
    folders = [str(config["log_dir"]) for config in configs if isinstance(config.get("log_dir"), str)]
    saved, notes = read_epochs(list(dict.fromkeys(folders)), run, frames=MAX_HEATMAP_FRAMES, layers=len(shown))
    pictures = heatmaps(by_series(units, layers=order), shown, saved, axes, spans, MAX_HEATMAP_FRAMES)
    report_progress("drawing charts")
    config = configs[0] if configs else {}
    market_spans = {phase: spans[phase] for phase in phases if phase in market}
    facts = run_summary(about, state, events, captures, rows=rows, config=config, market=market_spans, again=again)
    return {
        "run": run,
        "ending": ending(about, state),
        "facts": facts,
        "findings": [each.sentence for each in found] + limit_sentences(scored) + wrong,
        "no_scores": None if detector else no_scores(stats),
        "unscored": [each.sentence for each in unscored(stats, scores)],
        "detector": detector.replace("_", " "),
        "phases": {phase: PHASE_COLOURS.get(phase, OTHER) for phase in phases} if len(phases) > 1 else {},
        "rows": [row for row in rows if row.key in stats or row.worst > 1],
        "few": FEW,
        "left_out": len({row.key.layer for row in rows}) - len(shown),
        "metrics": metric_charts(metrics, captures, axes),
        "keras": str(about.get("framework")).startswith("keras"),
        "layers": gate_section(shown, stats, scores, rows, axes, spans),
        "learning": learning,
        "heatmaps": pictures,
        "notes": notes,
        "config": [(name, _text(value)) for name, value in config.items()],
    }


def _configs(about: Mapping[str, Any], events: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the configuration of each phase, the run's own first."""
    texts = [about.get("config"), *events.get("config", ())]
    return [config for text in dict.fromkeys(map(_text, texts)) if (config := config_of(text))]


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)

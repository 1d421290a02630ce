"""Turn the points and files of a run into the values of the report's template, section by section."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from gatewatch.collector.store.base import Store
from gatewatch.jobs.findings.finding import Finding
from gatewatch.jobs.findings.findings import findings_of
from gatewatch.jobs.findings.outliers import FEW
from gatewatch.jobs.findings.run_points import RunPoints, as_text, read_points
from gatewatch.jobs.findings.run_state import state_of
from gatewatch.jobs.findings.series import name_of, worst_layers
from gatewatch.jobs.findings.unjudged import unjudged
from gatewatch.jobs.report.epoch_files import Gates, read_epochs
from gatewatch.jobs.report.gate_section import range_charts, score_charts
from gatewatch.jobs.report.heatmap_section import heatmaps
from gatewatch.jobs.report.learning_section import learning_section
from gatewatch.jobs.report.metric_section import metric_charts
from gatewatch.jobs.report.plot_style import OTHER, PHASE_COLOURS
from gatewatch.jobs.report.run_summary import ending, run_summary
from gatewatch.jobs.runbook import what_to_do
from gatewatch.jobs.text import number

MAX_LAYERS: Final = 12
"""How many layers are drawn of a run of one phase; the table has all. More make a page that nobody scrolls through."""
MAX_HEATMAP_FRAMES: Final = 48
"""How many frames all heatmaps together have: of 64 × 64 cells in four panels each, about 4 MB."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A run that is to be drawn.

    Attributes:
        about: its row of `store.runs()`.
        state: from `state_of`.
        points: its points.
        by_epoch: whether heatmaps are drawn from the epoch files where there are any; else by capture.
    """

    about: Mapping[str, Any]
    state: str
    points: RunPoints
    by_epoch: bool = True

    @property
    def phases(self) -> list[str]:
        """Its phases, in the order of its axes."""
        return [phase for axis in self.points.axes for phase in axis.phases]

    @property
    def most(self) -> int:
        """How many layers are drawn: fewer where there are several phases."""
        return max(4, MAX_LAYERS // max(1, len(self.phases)))

    @property
    def layers(self) -> list[str]:
        """The layers that are drawn, in their order."""
        return worst_layers(self.points.rows, self.most)


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
    report_progress(f"reading run {about['run']}")
    run = Drawn(about, state_of(about, now), read_points(store, about, units=True))
    report_progress("drawing charts")
    values = shared_values(run)
    for section in SECTIONS.values():
        values |= section(run)
    return values


def shared_values(run: Drawn) -> dict[str, Any]:
    """Return the values that several sections name."""
    points, phases = run.points, run.phases
    return {
        "run": str(run.about["run"]),
        "phases": {phase: PHASE_COLOURS.get(phase, OTHER) for phase in phases} if len(phases) > 1 else {},
        "few": FEW,
        "left_out": len({row.key.layer for row in points.rows}) - len(run.layers),
    }


def _answer(run: Drawn) -> dict[str, Any]:
    points = run.points
    config = points.configs[0] if points.configs else {}
    market = {phase: points.spans[phase] for phase in run.phases if phase in points.market}
    frames = points.events, points.captures
    about = run.about
    facts = run_summary(
        about,
        run.state,
        *frames,
        rows=points.rows,
        config=config,
        market=market,
        again=points.again,
        drawn=points.drawn,
    )
    return {"ending": ending(about, run.state), "facts": facts, "findings": _told(findings_of(points), run.phases)}


def _told(findings: Sequence[Finding], phases: Collection[str]) -> list[dict[str, Any]]:
    """Return each finding as the template shows it; the first of each rule has what to do."""
    told: list[dict[str, Any]] = []
    rules: set[str] = set()
    for each in findings:
        to_do = [] if each.rule in rules else what_to_do(each.rule)
        facts = {
            "Where": name_of(each.key, phases) if each.key else "",
            "Since": "" if each.step is None else f"step {number(each.step)}",
            "Source": each.source or "",
        }
        told.append(
            {
                "sentence": each.sentence,
                "level": each.level,
                "what": "" if each.what in each.sentence else each.what[:1].upper() + each.what[1:],
                "facts": {name: value for name, value in facts.items() if value},
                "to_do": to_do,
            }
        )
        rules.add(each.rule)
    return told


def _gates(run: Drawn) -> dict[str, Any]:
    points = run.points
    return {"rows": [row for row in points.rows if row.key in points.stats or row.worst > 1]}


def _metrics(run: Drawn) -> dict[str, Any]:
    charts = metric_charts(run.points.metrics, run.points.captures, run.points.axes)
    return {"metrics": charts, "keras": str(run.about.get("framework")).startswith("keras")}


def _scores(run: Drawn) -> dict[str, Any]:
    points = run.points
    missing = unjudged(points.stats, points.counts, points.all_scores, is_going=points.is_going)
    return {
        "scored": score_charts(run.layers, points.stats, points.scores, points.rows, points.axes, points.spans),
        "unjudged": [each.sentence for each in missing],
        "detector": points.detector.replace("_", " "),
    }


def _ranges(run: Drawn) -> dict[str, Any]:
    return {"ranges": range_charts(run.layers, run.points.stats, run.points.axes, run.points.spans)}


def _learning(run: Drawn) -> dict[str, Any]:
    return {"learning": learning_section(run.points.updates, run.points.axis_of, run.most)}


def _heatmaps(run: Drawn) -> dict[str, Any]:
    points, shown = run.points, run.layers
    saved: dict[tuple[str, str], dict[str, Gates]] = {}
    notes: list[str] = []
    if run.by_epoch:
        folders = _folders(points.configs)
        name = str(run.about["run"])
        saved, notes = read_epochs(folders, name, frames=MAX_HEATMAP_FRAMES, layers=len(shown))
    drawn = heatmaps(points.units, shown, saved, points.axes, points.spans, MAX_HEATMAP_FRAMES)
    return {"heatmaps": drawn, "notes": notes}


def _config(run: Drawn) -> dict[str, Any]:
    config = run.points.configs[0] if run.points.configs else {}
    return {"config": [(name, as_text(value)) for name, value in config.items()]}


def _folders(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    folders = [str(config["log_dir"]) for config in configs if isinstance(config.get("log_dir"), str)]
    return list(dict.fromkeys(folders))


SECTIONS: Final[Mapping[str, Callable[[Drawn], dict[str, Any]]]] = {
    "answer": _answer,
    "gates": _gates,
    "metrics": _metrics,
    "scores": _scores,
    "ranges": _ranges,
    "learning": _learning,
    "heatmaps": _heatmaps,
    "config": _config,
}
"""Section, which is a block of the template → what makes the values that it names, beside those that several name."""

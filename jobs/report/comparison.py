"""Turn the points of several runs into the values of the template that compares them, section by section."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from gatewatch.collector.errors import ConfigError
from gatewatch.jobs.findings.differences import Difference, differences
from gatewatch.jobs.findings.findings import findings_of
from gatewatch.jobs.findings.run_points import read_points
from gatewatch.jobs.findings.run_state import run_row, state_of
from gatewatch.jobs.findings.series import name_of
from gatewatch.jobs.report.comparison_charts import (
    MOST_RUNS,
    gate_charts,
    metric_charts,
    score_charts,
    shown,
    update_charts,
)
from gatewatch.jobs.report.content import Drawn
from gatewatch.jobs.report.plot_style import OTHER, PHASE_COLOURS
from gatewatch.jobs.text import join_words, number, shorten

if TYPE_CHECKING:
    from gatewatch.collector.store.base import Store
    from gatewatch.jobs.findings.finding import Finding

_NAMED: Final = 3
"""How many differences the first sentence names."""
_LONGEST: Final = 60
"""Characters of a value in the first sentence."""
_KINDS: Final = {
    "own": "config=",
    "logged": "logged",
    "model": "network",
    "tag": "tag",
    "monitor": "monitor",
    "version": "version",
}


def chosen_runs(names: Iterable[str]) -> list[str]:
    """Return the runs to compare, each once.

    Raises:
        ConfigError: there are fewer than two, or more than can be told apart.
    """
    chosen = list(dict.fromkeys(names))
    if len(chosen) < 2:
        raise ConfigError("a comparison needs two different runs: name two or more")
    if len(chosen) > MOST_RUNS:
        raise ConfigError(f"{len(chosen)} runs are more than can be told apart: compare {MOST_RUNS} at most")
    return chosen


def comparison(
    store: Store, names: Iterable[str], report_progress: Callable[[str], None], now: datetime
) -> dict[str, Any]:
    """Make every value that the template names.

    Args:
        store: where the points are.
        names: of the runs.
        report_progress: called with a line for each step of the work.
        now: with a zone; a run that has been silent for long has died.

    Raises:
        ConfigError: there is no such run, or too few or too many.
        WriteUnavailable: the store does not answer.
    """
    abouts = [run_row(store, name) for name in chosen_runs(names)]
    chosen_runs(str(about["run"]) for about in abouts)
    runs = []
    for about in abouts:
        report_progress(f"reading run {about['run']}")
        runs.append(Drawn(about, state_of(about, now), read_points(store, about)))
    values = shared_values(runs)
    for section in SECTIONS.values():
        values |= section(runs)
    return values


def shared_values(runs: Sequence[Drawn]) -> dict[str, Any]:
    """Return the values that several sections name."""
    looks = shown([(_name(run), run.points) for run in runs])
    phases = dict.fromkeys(phase for run in runs for phase in run.phases)
    return {
        "runs": [{"name": look.name, "colour": look.colour, "dash": look.dash} for look in looks],
        "phases": {phase: PHASE_COLOURS.get(phase, OTHER) for phase in phases} if len(phases) > 1 else {},
    }


def _answer(runs: Sequence[Drawn]) -> dict[str, Any]:
    found = [findings_of(run.points) for run in runs]
    changed = differences([(run.about, run.points) for run in runs])
    names = [_name(run) for run in runs]
    firsts = [each[0] if each else None for each in found]
    return {
        "level": "alarm" if any(each is not None and each.is_alarm for each in firsts) else "fact",
        "sentence": f"{anomalous(names, firsts)} {what_differs(names, changed)}",
        "answers": [_told(run, first) for run, first in zip(runs, firsts, strict=True)],
        "notes": _notes(runs),
    }


def anomalous(names: Sequence[str], firsts: Sequence[Finding | None]) -> str:
    """Say in a sentence which runs are anomalous, since when, and by what.

    Args:
        names: of the runs.
        firsts: the first finding of each.
    """
    alarms = [(name, first) for name, first in zip(names, firsts, strict=True) if first and first.is_alarm]
    open_runs = [name for name, first in zip(names, firsts, strict=True) if not first or first.level == "undecided"]
    calm = [name for name in names if name not in open_runs and name not in dict(alarms)]
    parts = [f"{name} is anomalous{_since(first)}{_where(first)}: {_ended(first.what)}" for name, first in alarms]
    if calm:
        verb = "is" if len(calm) == 1 else "are"
        parts.append(
            f"{join_words(calm)} {verb} not anomalous." if alarms else f"Nothing is anomalous in {join_words(calm)}."
        )
    if open_runs:
        parts.append(f"{join_words(open_runs)} cannot be judged.")
    return " ".join(parts)


def what_differs(names: Sequence[str], changed: Sequence[Difference]) -> str:
    """Say in a sentence what differs in what was set."""
    own = [each for each in changed if each.is_set]
    if not own:
        more = f" ({len(changed)} of the surroundings: see the table)" if changed else ""
        return f"Nothing that was recorded of their settings differs{more}."
    said = []
    for each in own[:_NAMED]:
        values = [
            f"{shorten(value, _LONGEST) or 'none'} in {name}" for name, value in zip(names, each.values, strict=True)
        ]
        said.append(f"{each.name} ({', '.join(values)})")
    more = f" and {len(own) - _NAMED} more" if len(own) > _NAMED else ""
    return f"What was set differs in {', '.join(said) if more else join_words(said)}{more}."


def _ended(text: str) -> str:
    return text if text.endswith(("?", "!", ".")) else f"{text}."


def _where(first: Finding) -> str:
    return f", {name_of(first.key, {first.key.phase})}" if first.key else ""


def _since(first: Finding) -> str:
    if first.step is not None:
        return f" since step {number(first.step)}"
    return "" if first.time is None else f" since {str(first.time.astype('M8[s]')).replace('T', ' ')}"


def _told(run: Drawn, first: Finding | None) -> dict[str, Any]:
    points = run.points
    steps = [float(frame["step"].max()) for frame in (points.captures, points.metrics) if "step" in frame]
    return {
        "name": _name(run),
        "state": run.state,
        "level": first.level if first else "undecided",
        "what": first.what if first else "",
        "since": _since(first).removeprefix(" since ") if first else "",
        "source": (first.source or "") if first else "",
        "steps": number(max(steps)) if steps else "",
        "worst": max((row.worst for row in points.rows if row.worst == row.worst), default=float("nan")),
    }


def _notes(runs: Sequence[Drawn]) -> list[str]:
    """Say what cannot be compared: runs without points, and networks that have no layer in common."""
    empty = [_name(run) for run in runs if run.points.captures.empty and run.points.metrics.empty]
    notes = [f"{join_words(empty)} recorded nothing that can be drawn."] if empty else []
    layers = [{key.layer for key in run.points.stats} for run in runs if run.points.stats]
    if len(layers) > 1 and not set.intersection(*layers):
        notes.append(
            "Their networks differ: no layer has the same name in all of them, so each is drawn "
            "for the runs that have it."
        )
    return notes


def _settings(runs: Sequence[Drawn]) -> dict[str, Any]:
    changed = differences([(run.about, run.points) for run in runs])
    return {"differences": [{"name": each.name, "kind": _KINDS[each.kind], "values": each.values} for each in changed]}


def _section(name: str, charts: Callable[..., Any]) -> Callable[[Sequence[Drawn]], dict[str, Any]]:
    return lambda runs: {name: charts(shown([(_name(run), run.points) for run in runs]))}


def _name(run: Drawn) -> str:
    return str(run.about["run"])


SECTIONS: Final[Mapping[str, Callable[[Sequence[Drawn]], dict[str, Any]]]] = {
    "answer": _answer,
    "settings": _settings,
    "metrics": _section("metrics", metric_charts),
    "scores": _section("scored", score_charts),
    "gates": _section("gates", gate_charts),
    "updates": _section("updates", update_charts),
}
"""Section, which is a block of the template → what makes the values that it names, beside those that several name."""

"""The table: a line for each fault and each healthy control, the totals, and how far Gatewatch is from its aims."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from bench.faults.controls import CONTROLS
from bench.faults.evaluate import CHECKS, CONSENSUS, DETECTORS, NOTICES
from bench.faults.faults import FAULTS
from bench.faults.judge import Outcome, Summary, summarise
from bench.faults.recorder import Record
from bench.faults.wilson import wilson_interval

Outcomes = Mapping[str, Sequence[tuple[Record, Outcome]]]
Wanted = Callable[[Record], bool]

ALARMS: Final = CONSENSUS
"""The detector that alarms: the intervals are of its shares."""
UNSHOWN: Final = "loss"
"""Faults that show there first, if anywhere, are not among those that the aims count."""
LEAST_RECALL: Final = 0.95
LEAST_BOUND: Final = 0.90
MOST_FALSE: Final = 1.0
MOST_ALARMED: Final = 0.05
LONGEST_DELAY: Final = 3.0
_FIRST: Final = 46


def lines(outcomes: Outcomes) -> Iterator[str]:
    """The lines of the table of one split."""
    runs = [record for record, _ in max(outcomes.values(), key=len, default=[])]
    faults = Counter(record.case.fault for record in runs if record.case.fault)
    controls = Counter(record.case.control for record in runs if record.case.control)
    healthy = Counter(record.case.data for record in runs if record.case.control)
    yield (
        f"{sum(faults.values())} faulty runs of {len(faults)} kinds, "
        f"{sum(controls.values())} healthy runs of {len(controls)} kinds, {healthy['changing']} with another regime"
    )
    yield f"{'':<{_FIRST}}" + "".join(f"{_short(name):>14}" for name in DETECTORS) + f"  95 % of gw {ALARMS}"
    yield "recall, by fault (runs; shows in)"
    for name, fault in FAULTS.items():
        if faults[name]:
            of = _of_fault(name)
            what = f"  {name} ({faults[name]}; {fault.shows}{', exact' if fault.exact else ''})"
            yield _line(what, outcomes, _recall, of) + _interval(outcomes, of)
    yield _line("recall, all", outcomes, _recall) + _interval(outcomes)
    yield _line("recall, what shows in more than the loss", outcomes, _recall, _shown) + _interval(outcomes, _shown)
    yield _line("recall, what breaks an exact statement", outcomes, _recall, _exact) + _interval(outcomes, _exact)
    yield _line("another regime, followed by an alarm or notice", _regimes_as_faults(outcomes), _recall)
    yield _line("median delay, captures", outcomes, lambda s: s.delay, places=0)
    yield _line("false alarms per 1,000 healthy captures", outcomes, _false, places=1)
    yield _line("healthy runs with any alarm", outcomes, lambda s: s.healthy_alarmed) + _interval(
        outcomes, alarmed=True
    )
    yield _line("healthy captures judged", outcomes, lambda s: float(s.judged), places=0)
    yield "false alarms per 1,000 captures, by control (runs; its data); 95 % of the share of runs with any"
    for name, count in controls.items():
        of = _of_control(name)
        data = CONTROLS[name].data
        line = _line(f"  {name} ({count}; {data})", outcomes, _false, of, places=1)
        yield line + _interval(outcomes, of, alarmed=True)


def aims(outcomes: Outcomes) -> Iterator[str]:
    """A line for each aim: what the consensus and the checks reach, and whether that is enough."""
    if ALARMS not in outcomes:
        yield f"aims: no {ALARMS} in the scores"
        return
    every, shown = _summary(outcomes, ALARMS), _summary(outcomes, ALARMS, _shown)
    if shown.recall is not None:
        low, high = wilson_interval(shown.found, shown.faulty)
        yield _aim(
            f"recall of what shows in more than the loss at least {LEAST_RECALL:g}, its lower bound {LEAST_BOUND:g}",
            f"{shown.recall:.3f} ({low:.2f} to {high:.2f}; {shown.found} of {shown.faulty})",
            shown.recall >= LEAST_RECALL and low >= LEAST_BOUND,
        )
    if every.false_per_thousand is not None and every.healthy_alarmed is not None:
        met = every.false_per_thousand <= MOST_FALSE
        yield _aim(
            f"false alarms per 1,000 healthy captures at most {MOST_FALSE:g}", f"{every.false_per_thousand:.2f}", met
        )
        low, high = wilson_interval(every.alarmed, every.healthy)
        yield _aim(
            f"share of healthy runs with an alarm at most {MOST_ALARMED:g}",
            f"{every.healthy_alarmed:.3f} ({low:.2f} to {high:.2f}; {every.alarmed} of {every.healthy})",
            every.healthy_alarmed <= MOST_ALARMED,
        )
    if every.delay is not None:
        met = every.delay <= LONGEST_DELAY
        yield _aim(f"median delay, captures, at most {LONGEST_DELAY:g}", f"{every.delay:g}", met)
    if CHECKS in outcomes:
        exact, checked = _summary(outcomes, CHECKS, _exact), _summary(outcomes, CHECKS)
        if exact.faulty:
            what, value = "what breaks an exact statement, found by the checks: all", f"{exact.found} of {exact.faulty}"
            yield _aim(what, value, exact.found == exact.faulty)
        if checked.healthy:
            value = f"{checked.alarmed} of {checked.healthy}"
            yield _aim("healthy runs that a check alarms: none", value, checked.alarmed == 0)


def missed(outcomes: Outcomes) -> Iterator[str]:
    """What the consensus and the checks did not find, and the healthy runs that they alarmed."""
    for record, outcome in outcomes.get(ALARMS, ()):
        if outcome.faulty and outcome.delay is None:
            yield f"not found: {record.case.name}"
        elif not outcome.faulty and outcome.alarms:
            yield f"{outcome.alarms} false alarms: {record.case.name}"
    for record, outcome in outcomes.get(CHECKS, ()):
        if _exact(record) and outcome.delay is None:
            yield f"found by no check: {record.case.name}"
        elif not outcome.faulty and outcome.alarms:
            yield f"{outcome.alarms} false alarms of checks: {record.case.name}"


def _aim(what: str, value: str, met: bool) -> str:
    return f"aim: {what}: {value}, {'met' if met else 'MISSED'}"


def _of_fault(name: str) -> Wanted:
    return lambda record: record.case.fault == name


def _of_control(name: str) -> Wanted:
    return lambda record: record.case.control == name


def _all(_: Record) -> bool:
    return True


def _shown(record: Record) -> bool:
    return record.fault is not None and record.fault.shows != UNSHOWN


def _exact(record: Record) -> bool:
    return record.fault is not None and record.fault.exact


def _recall(summary: Summary) -> float | None:
    return summary.recall


def _false(summary: Summary) -> float | None:
    return summary.false_per_thousand


def _summary(outcomes: Outcomes, detector: str, wanted: Wanted = _all) -> Summary:
    """Sum up a detector over the runs that are wanted; a notice is false only where the data are steady."""
    return summarise(
        outcome
        for record, outcome in outcomes.get(detector, ())
        if wanted(record) and (detector != NOTICES or outcome.faulty or record.case.data == "steady")
    )


def _regimes_as_faults(outcomes: Outcomes) -> Outcomes:
    """The healthy runs that come into another regime, as if that were what is to be found."""
    return {
        detector: [(record, replace(outcome, faulty=True)) for record, outcome in of if record.case.data == "changing"]
        for detector, of in outcomes.items()
    }


def _line(
    what: str,
    outcomes: Outcomes,
    value: Callable[[Summary], float | None],
    wanted: Wanted = _all,
    places: int = 2,
) -> str:
    cells = []
    for name in DETECTORS:
        summary = _summary(outcomes, name, wanted)
        number = value(summary) if summary.faulty or summary.healthy else None
        cells.append(f"{'-' if number is None else f'{number:,.{places}f}':>14}")
    return f"{what:<{_FIRST}}" + "".join(cells)


def _interval(outcomes: Outcomes, wanted: Wanted = _all, alarmed: bool = False) -> str:
    summary = _summary(outcomes, ALARMS, wanted)
    hits, trials = (summary.alarmed, summary.healthy) if alarmed else (summary.found, summary.faulty)
    if not trials:
        return ""
    low, high = wilson_interval(hits, trials)
    return f"  {low:.2f} to {high:.2f}"


def _short(name: str) -> str:
    return {"fixed thresholds": "thresholds", "plain isolation forest": "forest", "isolation_forest": "gw forest"}.get(
        name, name if name == "sketch" else f"gw {name}"
    )

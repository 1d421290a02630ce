"""The table: a line for each fault, the totals, and how far Gatewatch is from its aims."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from bench.faults.evaluate import DETECTORS
from bench.faults.faults import FAULTS
from bench.faults.judge import Outcome, Summary, summarise
from bench.faults.recorder import Record

Outcomes = Mapping[str, Sequence[tuple[Record, Outcome]]]

AIMED: Final = "consensus"
AIMS: Final = (
    ("recall of the faults that a gate or a gradient can show", 0.95, "at least"),
    ("false alarms per 1,000 healthy captures", 1.0, "at most"),
    ("median delay, captures", 3.0, "at most"),
)
_FIRST: Final = 40


def lines(outcomes: Outcomes) -> Iterator[str]:
    """The lines of the table of one split."""
    runs = [record for record, _ in max(outcomes.values(), key=len, default=[])]
    faults = Counter(record.case.fault for record in runs if record.case.fault)
    controls = {record.case.control for record in runs if record.case.control}
    faulty = sum(faults.values())
    yield (
        f"{faulty} faulty runs of {len(faults)} kinds, {len(runs) - faulty} healthy runs of {len(controls)} kinds, "
        "on real prices"
    )
    yield f"{'':<{_FIRST}}" + "".join(f"{_short(name):>14}" for name in DETECTORS)
    yield "recall, by fault (runs; shows in)"
    for name, fault in FAULTS.items():
        if faults[name]:
            yield _line(f"  {name} ({faults[name]}; {fault.shows})", outcomes, lambda s: s.recall, _only(name))
    yield _line("recall, all", outcomes, lambda s: s.recall)
    yield _line("recall, shown by a gate or a gradient", outcomes, lambda s: s.recall, _shown)
    yield _line("median delay, captures", outcomes, lambda s: s.delay, places=0)
    yield _line("false alarms per 1,000 healthy captures", outcomes, lambda s: s.false_per_thousand, places=1)
    yield _line("healthy runs with any alarm", outcomes, lambda s: s.healthy_alarmed)
    yield _line("healthy captures judged", outcomes, lambda s: float(s.judged), places=0)


def aims(outcomes: Outcomes) -> Iterator[str]:
    """A line for each aim: what the consensus reaches, and whether that is enough."""
    if AIMED not in outcomes:
        yield f"aims: no {AIMED} in the scores"
        return
    every = summarise(outcome for _, outcome in outcomes[AIMED])
    shown = summarise(outcome for record, outcome in outcomes[AIMED] if _shown(record))
    for (what, aim, sense), value in zip(AIMS, (shown.recall, every.false_per_thousand, every.delay), strict=True):
        if value is not None:
            met = value >= aim if sense == "at least" else value <= aim
            yield f"aim: {what} {sense} {aim:g}: {value:.3g}, {'met' if met else 'MISSED'}"


def missed(outcomes: Outcomes) -> Iterator[str]:
    """The faulty runs whose fault the consensus did not find, and the healthy ones that it alarmed."""
    for record, outcome in outcomes.get(AIMED, ()):
        if outcome.faulty and outcome.delay is None:
            yield f"not found: {record.case.name}"
        elif not outcome.faulty and outcome.alarms:
            yield f"{outcome.alarms} false alarms: {record.case.name}"


def _only(fault: str) -> Callable[[Record], bool]:
    return lambda record: record.case.fault == fault


def _shown(record: Record) -> bool:
    return record.shows in ("gate", "gradient")


def _line(
    what: str,
    outcomes: Outcomes,
    of: Callable[[Summary], float | None],
    wanted: Callable[[Record], bool] = lambda _: True,
    places: int = 2,
) -> str:
    cells = []
    for name in DETECTORS:
        summary = summarise(outcome for record, outcome in outcomes.get(name, ()) if wanted(record))
        value = of(summary) if summary.faulty or summary.healthy else None
        cells.append(f"{'-' if value is None else f'{value:,.{places}f}':>14}")
    return f"{what:<{_FIRST}}" + "".join(cells)


def _short(name: str) -> str:
    return {"fixed thresholds": "thresholds", "plain isolation forest": "forest", "isolation_forest": "gw forest"}.get(
        name, name if name == "sketch" else f"gw {name}"
    )

"""The verdict on a run, from its findings: `gatewatch.verdict` and `gatewatch verdict`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from gatewatch.collector.errors import ReadRefused, WriteUnavailable
from gatewatch.collector.runtime.background import BackgroundCall
from gatewatch.collector.store import Store, open_store
from gatewatch.collector.verdict import Answer, Verdict, VerdictFinding, undecided
from gatewatch.jobs.findings.findings import findings_of
from gatewatch.jobs.findings.run_points import read_points
from gatewatch.jobs.findings.run_state import run_row, state_of

if TYPE_CHECKING:
    from gatewatch.collector.times import Time
    from gatewatch.jobs.findings.finding import Finding, Level

_ANSWERS: Final[Mapping[Level, Answer]] = {"alarm": "alarm", "undecided": "undecided", "notice": "notice"}
"""Level of the first finding → the verdict; any other is healthy."""


def verdict(store: Store | str, run: str, *, timeout: float | None = 60.0, start: Time | None = None) -> Verdict:
    """Return what is said of a run: whether it is healthy, in one sentence, and why.

    It reads the points and scores of the run, and computes no scores: `gatewatch jobs` or `gatewatch verdict` does.

    Args:
        store: the store that holds the run, or its URL.
        run: name of the run.
        timeout: seconds to wait for the store, after which the verdict is `undecided`; None: as long as it takes.
        start: judge only what was captured at this time or later; None: the whole run.

    Raises:
        ConfigError: there is no such run, or the store cannot be opened.
    """
    opened = store if isinstance(store, Store) else open_store(store)
    try:
        if timeout is None:
            return read_verdict(opened, run, start)
        return BackgroundCall[Verdict]().result(lambda: read_verdict(opened, run, start), timeout)
    except TimeoutError:
        return undecided(run, f"{opened.url} was not read within {timeout:g} s")
    except (WriteUnavailable, ReadRefused) as error:
        return undecided(run, str(error))


def read_verdict(store: Store, run: str, start: Time | None = None) -> Verdict:
    """Return what is said of a run, or of what was captured at a time or later.

    Raises:
        ConfigError: there is no such run, or the store cannot be read.
        WriteUnavailable: the store does not answer.
    """
    about = run_row(store, run)
    points = read_points(store, about, start=start)
    return judge(str(about["run"]), state_of(about, datetime.now(UTC)), findings_of(points))


def judge(run: str, state: str, findings: Sequence[Finding]) -> Verdict:
    """Return the verdict that follows from the findings on a run.

    Args:
        run: its name.
        state: of the run.
        findings: from `findings_of`, which a report tells in the same order.
    """
    against = tuple(_public(each) for each in findings if each.level in _ANSWERS)
    if not findings:
        return Verdict(run, state, "undecided", "The run cannot be judged: none of its captures has a score.")
    first = findings[0]
    return Verdict(run, state, _ANSWERS.get(first.level, "healthy"), first.sentence, against)


def _public(finding: Finding) -> VerdictFinding:
    key, time = finding.key, finding.time
    return VerdictFinding(
        source=finding.source,
        layer=key.layer if key else None,
        gate=key.gate if key else None,
        what=finding.what,
        since_step=finding.step,
        since_time=None if time is None else time.astype("M8[us]").astype(datetime).replace(tzinfo=UTC),
        evidence=finding.evidence,
    )

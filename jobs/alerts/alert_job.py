"""The job that evaluates the rules, records the events, and mails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gatewatch.collector.errors import ConfigError, GatewatchError, WriteRejected, WriteUnavailable
from gatewatch.collector.log import log
from gatewatch.collector.times import Time, nanoseconds
from gatewatch.jobs.alerts.about_run import about_run
from gatewatch.jobs.alerts.evaluator import Evaluator
from gatewatch.jobs.alerts.lifecycle import advance, due, end_with_runs
from gatewatch.jobs.alerts.mail import alert_mail
from gatewatch.jobs.alerts.outbox import Outbox
from gatewatch.jobs.alerts.reader import Reader, ReadResult
from gatewatch.jobs.alerts.rule import Rule
from gatewatch.jobs.alerts.rules import BUILT_IN, active_rules
from gatewatch.jobs.alerts.series_state import Silence
from gatewatch.jobs.alerts.state import StateFiles, owned

if TYPE_CHECKING:
    from gatewatch.collector.config import Settings
    from gatewatch.collector.store import Store

_FOLDER: Final = "alerts"
_MOST_EVENTS: Final = 10_000
"""Points of `alert_events` that wait for the store at the most; past it the oldest go."""


@dataclass(slots=True)
class Outcome:
    """What an evaluation did.

    Attributes:
        busy: another process was at it; nothing was done.
        rows_read, points_written: of the store.
        failures: runs that could not be evaluated, and a store or a mail server that does not answer.
        firing: alerts that fire now, without those whose run has ended.
        written: mails that were put into the outbox.
        sent: mails that the server accepted.
        waiting, refused: mails that wait for it, and that it has refused for good, in all.
        problem: why no mails can be sent now; None where they can.
        failed: run → why it could not be evaluated.
    """

    busy: bool = False
    rows_read: int = 0
    points_written: int = 0
    failures: int = 0
    firing: int = 0
    written: int = 0
    sent: int = 0
    waiting: int = 0
    refused: int = 0
    problem: str | None = None
    failed: dict[str, str] = field(default_factory=dict)


def evaluate(store: Store, settings: Settings, folder: Path, now: Time, *, rules: Sequence[Rule] = BUILT_IN) -> Outcome:
    """Read the new points, evaluate the rules, record and mail what changed, and send the mails that wait.

    Any number of processes may call it with one folder: one at a time works, the others do nothing. The state survives
    whatever ends the process; a mail is sent at least once.

    Args:
        store: with the points; `alert_events` are written to it.
        settings: `[alerts]`, `[mail]` and the interval of the jobs.
        folder: for the state: how far each run was read, which alerts fire, and the mails that wait.
        now: the time.
        rules: the declared ones, to which the configuration adds its own.

    Raises:
        WriteUnavailable: the store does not answer. What can be done without it was done.
        ConfigError: the rules are wrong, or the store may not be read.
        OSError: the folder cannot be written.
    """
    active = active_rules(settings.alerts, rules)
    moment = nanoseconds(now)
    with owned(folder / _FOLDER) as own:
        return _Evaluation(store, settings, folder / _FOLDER, active, moment).run() if own else Outcome(busy=True)


class _Evaluation:
    def __init__(self, store: Store, settings: Settings, folder: Path, rules: Sequence[Rule], now: int) -> None:
        self._store, self._settings, self._now = store, settings, now
        self._rules = {rule.name: rule for rule in rules}
        self._files = StateFiles(folder)
        self._outbox = Outbox(folder)
        self._outcome = Outcome()
        self._state = self._files.state()

    def run(self) -> Outcome:
        state, rules, problem = self._state, list(self._rules.values()), None
        try:
            result = Reader(self._store, rules, self._settings, self._files, state, self._now).read()
        except (WriteUnavailable, ConfigError) as error:
            result, problem = ReadResult(), error
        self._advance(result, away=problem is not None)
        self._post(result)
        state.evaluated = state.evaluated if problem else self._now
        # Mails first, then the alerts, then what was read: a process that is killed in between does it again.
        self._files.save(state)
        for progress in result.progress:
            self._files.save_run(progress)
        for run in result.forgotten:
            self._files.forget_run(run)
        self._send()
        if problem is None:
            self._write()
        self._files.save(state)
        if problem is not None:
            raise problem
        return self._outcome

    def _advance(self, result: ReadResult, away: bool) -> None:
        state = self._state
        state.away = min(state.away or self._now, self._now) if away else None
        since = state.away or self._now
        store = Evaluator(list(self._rules.values()), state.store, self._now)
        store.silence(Silence("store_silence", (self._now - since) / 1e9, since, None), {})
        state.events += advance(state.entries, [*result.alerts, *store.alerts.values()], self._now)
        for key, entry in list(state.entries.items()):
            if entry.rule not in self._rules or entry.run in result.forgotten:
                del state.entries[key]
        end_with_runs(state.entries, result.states, self._now)
        for run in result.forgotten:
            state.mailed.pop(run, None)
        for run, reason in result.failed.items():
            log.warning("gatewatch: the alerts of run %r cannot be evaluated: %s", run, reason)
        self._outcome.rows_read, self._outcome.failed = result.rows, result.failed
        self._outcome.failures = len(result.failed)
        self._outcome.firing = sum(entry.firing.until is None and not entry.ended for entry in state.entries.values())

    def _post(self, result: ReadResult) -> None:
        """Write the mails that are due, where anybody is to get mails."""
        settings, state = self._settings, self._state
        for run, (items, new_events) in due(state.entries, state.mailed, settings.alerts, self._now).items():
            state.events += new_events
            if settings.mail.to:
                about = about_run(self._store, run, result.runs.get(run, {}), items, self._now)
                message = alert_mail(run, items, self._rules, settings, self._now, about)
                events = [event for item in items for event in item.events]
                self._outbox.put(message, settings.mail.to, events, self._now)
                self._outcome.written += 1

    def _send(self) -> None:
        outcome, state = self._outcome, self._state
        if self._settings.mail.to:
            before, dropped = state.problem, self._outbox.dropped
            outcome.sent, delivered = self._outbox.send(self._settings.mail, state, self._now)
            state.events += [replace(event, delivered=True) for event in delivered]
            outcome.problem = state.problem
            outcome.failures += state.problem is not None
            if state.problem is not None and state.problem != before:
                log.warning("gatewatch: mails wait: %s", state.problem)
            if dropped:
                log.warning("gatewatch: dropped the %d oldest mails, since too many wait to be sent", dropped)
        outcome.waiting, outcome.refused = len(self._outbox.waiting), len(self._outbox.refused)

    def _write(self) -> None:
        """Write the points that are not in the store yet; those that it does not take now wait."""
        events, self._state.events = self._state.events[-_MOST_EVENTS:], []
        self._outcome.points_written = len(events)
        try:
            if events:
                self._store.write([event.point() for event in events])
        except WriteRejected as error:
            log.warning("gatewatch: the store refuses points of alert_events: %s", error)
            self._outcome.failures += 1
        except GatewatchError:
            self._outcome.failures += 1
            self._outcome.points_written, self._state.events = 0, events

"""What the page of alerts shows: what fired in all runs, what the collector lost, and who scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gatewatch.collector.schema import ALERT_EVENTS, COLLECTOR_HEALTH, JOBS_HEALTH
from gatewatch.collector.times import nanoseconds
from gatewatch.jobs.text import first_few, moment, shorten
from gatewatch.jobs.view.fired import STATES, Fired, fired
from gatewatch.jobs.view.health import Recording, jobs, recordings
from gatewatch.jobs.view.page import render

if TYPE_CHECKING:
    from gatewatch.collector.store import Store

DAYS: Final = 30
"""What is older than so many days is not shown."""
MOST: Final = 100
"""Rows of a table at the most."""
_NAME: Final = 60
"""Characters of a run's name in the sentence."""


def alerts_html(store: Store, rows: Sequence[Mapping[str, Any]], scoring: str, now: datetime) -> str:
    """Render what the page of alerts shows.

    Args:
        store: holds the events and the health.
        rows: of the list of runs.
        scoring: who scores the store, in a sentence.
        now: with a zone.

    Raises:
        WriteUnavailable, ConfigError: the store cannot be read.
    """
    begin = nanoseconds(now - timedelta(days=DAYS))
    recent = [row for row in rows if nanoseconds(row["seen"] * 10**6) >= begin]
    alerts = fired(store.find(ALERT_EVENTS, start=begin, prefix_tags=True), recent)
    recorded = recordings(store.newest(COLLECTOR_HEALTH, prefix_tags=True), [row["run"] for row in recent])
    working = [job for job in jobs(store.newest(JOBS_HEALTH), nanoseconds(now)) if job.reported >= begin]
    return render(
        "alerts_data.html",
        sentence=sentence_of(alerts, recorded),
        firing=sum(one.state == "fires" for one in alerts),
        fired=alerts[:MOST],
        more=len(alerts[MOST:]),
        recordings=recorded,
        jobs=working,
        scoring=scoring,
        states=STATES,
        days=DAYS,
        most=MOST,
        moment=_moment,
    )


def sentence_of(alerts: Sequence[Fired], recorded: Sequence[Recording]) -> str:
    """Say in a sentence or two whether anything fires, where, and whether anything was lost."""
    fires, ended, over = (sum(one.state == state for one in alerts) for state in STATES)
    where = _names(one.run or "the jobs" for one in alerts if one.state == "fires")
    sentences = [f"{fires} alert{' fires' if fires == 1 else 's fire'}, in {where}." if fires else "Nothing fires."]
    if ended:
        sentences.append(f"{ended} fired until the run ended.")
    if over:
        sentences.append(f"{over} {'is' if over == 1 else 'are'} over.")
    if troubled := _names(one.run for one in recorded if one.problems):
        sentences.append(f"Something was lost, refused or left out in {troubled}.")
    return " ".join(sentences)


def _names(runs: Iterable[str]) -> str:
    return first_few([shorten(run, _NAME) for run in dict.fromkeys(runs)])


def _moment(nanoseconds: int | None) -> str:
    """Return a time to the second; empty where there is none."""
    return moment(np.datetime64(nanoseconds, "ns").astype("M8[s]")) if nanoseconds else ""

"""The verdict on a run: what the jobs say of it in one sentence, as a training and a program take it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

Answer = Literal["healthy", "notice", "alarm", "undecided"]


@dataclass(frozen=True, slots=True)
class VerdictFinding:
    """One thing that speaks against a run, or keeps it from being judged.

    Attributes:
        source: where the cause lies: network, data, optimizer, state or policy; None where that is not known.
        layer, gate: where it was seen first; of a parameter, `gate` is its name. None where it is of no series.
        what: what is wrong, in a few words.
        since_step: the step of the capture at which it was seen first; None where it is about no moment.
        since_time: the time of that capture, in UTC, or the market's; None likewise.
        evidence: name → number or text that it rests on.
    """

    source: str | None
    layer: str | None
    gate: str | None
    what: str
    since_step: int | None
    since_time: datetime | None
    evidence: Mapping[str, float | str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it: the time as text, and null for a number that is not finite."""
        return {
            "source": self.source,
            "layer": self.layer,
            "gate": self.gate,
            "what": self.what,
            "since_step": self.since_step,
            "since_time": None if self.since_time is None else self.since_time.isoformat(),
            "evidence": {name: _as_json(value) for name, value in self.evidence.items()},
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is said of a run.

    Attributes:
        run: its name.
        state: `live`, `died`, `completed`, `failed` or `interrupted`; None where the store could not say it.
        verdict: `alarm`: something is wrong. `notice`: nothing is, but look at what it names. `healthy`: neither.
            `undecided`: too little was captured or scored to say, or the store could not be read.
        sentence: the first that a report says of the run; of one that is undecided, why.
        findings: what it rests on, the first cause first; empty for a healthy run.
    """

    run: str
    state: str | None
    verdict: Answer
    sentence: str
    findings: tuple[VerdictFinding, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return it as `gatewatch verdict --json` prints it."""
        return {
            "run": self.run,
            "state": self.state,
            "verdict": self.verdict,
            "sentence": self.sentence,
            "findings": [finding.as_dict() for finding in self.findings],
        }


def undecided(run: str, reason: str) -> Verdict:
    """Return the verdict on a run of which nothing could be read."""
    return Verdict(run, None, "undecided", f"Undecided: {reason}")


def _as_json(value: float | str) -> float | str | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value

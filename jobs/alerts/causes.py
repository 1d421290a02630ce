"""Group the alerts of a mail by their cause: what one NaN sets off is one thing to read, and not forty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gatewatch.jobs.alerts.lifecycle import Item, MailKind
from gatewatch.jobs.frames import rank

if TYPE_CHECKING:
    from gatewatch.jobs.alerts.rule import Rule

_SCORES: Final = "anomaly"
"""The rule about the consensus, which rises with whatever other rules alert about."""
_OF_RULES: Final[Mapping[str, str]] = {
    "gate_not_finite": "not_finite",
    "update_not_finite": "not_finite",
    "gradient_exploding": "exploded",
    "gradient_vanishing": "vanished",
    "layer_frozen": "frozen",
    "forget_gate_shut": "collapsed",
    "forget_gate_open": "collapsed",
}
"""Alert rule → the rule of the detector `rules` that is broken then: its name is in the reasons of a score."""


@dataclass(frozen=True, slots=True)
class Cause:
    """The alerts of a mail that have one cause.

    Attributes:
        kind: of all of them.
        items: the first is where it began: earliest, of these next to the inputs, and of these the worst.
    """

    kind: MailKind
    items: Sequence[Item]

    @property
    def lead(self) -> Item:
        """The alert in which it began."""
        return self.items[0]


def causes_of(
    items: Sequence[Item], rules: Mapping[str, Rule], kinds: Sequence[MailKind], layers: Sequence[str] = ()
) -> list[Cause]:
    """Group alerts by their cause, in the order in which a mail has them: by kind, then the worst, then the earliest.

    Alerts of one rule in one phase have one cause. Scores that rise by what another rule alerts about belong to it.

    Args:
        items: the alerts.
        rules: by their names.
        kinds: in the order of the mail.
        layers: names of the network's layers, in its order.
    """
    stated = {(item.kind, _phase(item), _OF_RULES.get(item.entry.rule, "")) for item in items}
    groups: dict[tuple[MailKind, str, str], list[Item]] = {}
    for item in items:
        reasons = [reason for reason in item.entry.firing.why if (item.kind, _phase(item), reason) in stated]
        cause = _OF_RULES.get(item.entry.rule) or item.entry.rule
        if item.entry.rule == _SCORES and reasons:
            cause = reasons[0]
        elif item.entry.rule == "check_failed":
            cause = f"check_failed {' '.join(sorted(item.entry.firing.why))}"
        groups.setdefault((item.kind, _phase(item), cause), []).append(item)

    def order(item: Item) -> tuple[object, ...]:
        entry, condition = item.entry, rules[item.entry.rule].condition
        place = rank(entry.tags.get("layer", ""), layers)
        worst = entry.firing.worst if entry.firing.worst == condition.worst([entry.firing.worst, 0.0]) else 0.0
        return entry.rule == _SCORES, entry.firing.since, place, -abs(worst), item.key

    causes = [Cause(kind, sorted(group, key=order)) for (kind, _, _), group in groups.items()]
    return sorted(
        causes,
        key=lambda cause: (
            kinds.index(cause.kind),
            rules[cause.lead.entry.rule].severity(cause.lead.entry.firing.why),
            *order(cause.lead)[1:],
        ),
    )


def places_of(items: Sequence[Item]) -> dict[str, list[str]]:
    """Return layer or job → gates and parameters of some alerts, in their order, each once."""
    places: dict[str, dict[str, None]] = {}
    for item in items:
        tags = item.entry.tags
        layer = tags.get("layer") or tags.get("job") or ""
        places.setdefault(layer, {})[tags.get("gate") or tags.get("param") or ""] = None
    return {layer: [part for part in parts if part] for layer, parts in places.items()}


def _phase(item: Item) -> str:
    return item.entry.tags.get("phase", "")

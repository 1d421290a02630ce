"""What a mail says: plain text, and simple HTML for a phone. Whatever it names is hostile until it is escaped."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from html import escape
from typing import TYPE_CHECKING, Final

import numpy as np

from gatewatch.collector.text import escape_controls
from gatewatch.jobs.alerts.about_run import AboutRun
from gatewatch.jobs.alerts.causes import Cause, causes_of, places_of
from gatewatch.jobs.alerts.lifecycle import AlertState, Item, MailKind
from gatewatch.jobs.alerts.smtp import sender_of
from gatewatch.jobs.findings.explanations import in_words
from gatewatch.jobs.text import moment, number, printable, shorten

if TYPE_CHECKING:
    from gatewatch.collector.config import MailSettings, Settings
    from gatewatch.jobs.alerts.rule import Rule

_STYLES: Final[Mapping[MailKind, tuple[str, str]]] = {
    "firing": ("FIRING", "#b3261e"),
    "repeated": ("STILL FIRING", "#b3261e"),
    "ended": ("ENDED WHILE FIRING", "#b3261e"),
    "passed": ("FIRED AND OVER", "#8a5a00"),
    "recovered": ("RECOVERED", "#1b6e3c"),
}
"""Kind → title and colour, in the order in which a mail has them."""
_ENDS: Final = {"completed": "was completed", "failed": "failed", "interrupted": "was interrupted", "died": "died"}
"""State of a run → how it ended, in words."""
MOST: Final = 12
"""Causes that a mail says everything of; of more it has the names."""
_NAME: Final = 60
"""Characters of a name in a subject."""
_LONG: Final = 200
"""Characters of a name in the text."""
_PLACE: Final = ("layer", "gate", "param", "job")


def alert_mail(
    run: str,
    items: Sequence[Item],
    rules: Mapping[str, Rule],
    settings: Settings,
    now: int,
    about: AboutRun = AboutRun(),  # noqa: B008 - it cannot be changed
) -> EmailMessage:
    """Return the one mail about a run, or about the jobs.

    Args:
        run: its name; empty for the jobs.
        items: the alerts that it mentions.
        rules: by their names.
        settings: the sender, the recipients, the runbook, and how often a mail is repeated.
        now: nanoseconds.
        about: the run's state, its layers, and what was set in it.

    Raises:
        ConfigError: there is no server, or no sender.
    """
    causes = causes_of(items, rules, list(_STYLES), about.layers)
    counts = Counter(cause.kind for cause in causes)
    titles = ", ".join(f"{title} {counts[kind]}" for kind, (title, _) in _STYLES.items() if counts[kind])
    more_places = len({_place(item.entry) for item in causes[0].items}) - 1
    place = _short(_place(causes[0].lead.entry)) + (f" and {more_places} more" if more_places else "")
    subject = f"[gatewatch] {titles}: {' '.join(filter(None, (_short(run or 'jobs'), place)))}"
    cards = [_card(cause, rules[cause.lead.entry.rule], settings.alerts.runbook, about) for cause in causes[:MOST]]
    lasting = any(cause.kind in ("firing", "repeated") for cause in causes)
    foot = f"Repeated every {number(settings.alerts.repeat_hours)} h while it lasts. " if lasting else ""
    if more := causes[MOST:]:
        foot = f"And {len(more)} more: {', '.join(map(_named, more[:MOST]))}{' …' if len(more) > MOST else ''}. {foot}"
    foot += "Rules and recipients: [alerts] and [mail] in gatewatch.toml."
    name = shorten(printable(run), _LONG) if run else "The jobs and the store"
    head = f"{name}{'' if about.goes_on else f' ({_ended(about)})'}: {titles.lower()}"
    leads = [shorten(printable(jump.finding().sentence), 2 * _LONG) for jump in about.settings[:MOST]]
    text = "\n\n".join([head, *leads, *(text for text, _ in cards), foot]) + "\n"
    shown = "".join(f"<p>{escape(lead)}</p>\n" for lead in leads) + "".join(html for _, html in cards)
    html = _PAGE.format(head=escape(head), cards=shown, foot=escape(foot))
    identity = _digest(repr(sorted(map(_identity, items))))
    return message(subject, text, settings.mail, now, identity, html=html, thread=run or "jobs")


def message(
    subject: str, text: str, settings: MailSettings, now: int, identity: str, *, html: str = "", thread: str = ""
) -> EmailMessage:
    """Return a mail whose headers hold nothing but what they are meant to.

    Args:
        subject: of any text; what cannot be printed is shown as an escape.
        text, html: of the body; html empty: plain text alone.
        settings: the sender and the recipients.
        now: nanoseconds.
        identity: the same for what is sent twice; becomes the Message-ID.
        thread: mails of the same are shown together; empty: of none.

    Raises:
        ConfigError: there is no server, or no sender.
    """
    mail, sender = EmailMessage(policy=SMTP), sender_of(settings)
    domain = sender.rpartition("@")[2]
    mail["Subject"] = printable(subject)
    mail["From"] = sender
    mail["To"] = ", ".join(settings.to)
    mail["Date"] = format_datetime(datetime.fromtimestamp(now // 10**9, UTC))
    mail["Message-ID"] = f"<{identity}@{domain}>"
    if thread:
        mail["References"] = f"<{_digest(thread)}.run@{domain}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(escape_controls(text, keep="\n"), cte="quoted-printable")
    if html:
        mail.add_alternative(escape_controls(html, keep="\n"), subtype="html", cte="quoted-printable")
    if mail["Subject"].isascii():  # one that is folded may begin with an empty line
        mail.policy = SMTP.clone(max_line_length=998)
    return mail


def _card(cause: Cause, rule: Rule, runbook: str, about: AboutRun) -> tuple[str, str]:
    """Return what a mail says of the alerts of one cause, as plain text and as HTML."""
    item, entry = cause.lead, cause.lead.entry
    firing, unit = entry.firing, rule.quantity.unit
    kind, colour = _STYLES[item.kind]
    title, where = f"{kind}: {rule.name} ({rule.severity(firing.why)})", _where(entry)
    side = "below" if not rule.condition.is_upper or entry.threshold == rule.condition.below else "above"
    value, threshold, worst = (
        f"{number(value)} {unit}" if unit in ("s", "B") else number(value)
        for value in (firing.value, entry.threshold, firing.worst)
    )
    at_step = f" at step {number(firing.worst_step)}" if firing.worst_step is not None else ""
    at_worst = f", at worst {worst}{at_step}" if firing.worst != firing.value else ""
    reasons = in_words(firing.why, entry.tags.get("gate", ""))
    # Whether it is the network or the data, and the main reason, before anything else.
    lead = [f"{firing.source}: {reasons[0]}"] if firing.source and reasons else []
    lines = [*lead, rule.summary, f"{rule.quantity.text} {value}, alerts {side} {threshold}{at_worst}"]
    lines += [firing.reached] if firing.reached else []
    lines.append(f"since {_when(firing.since, firing.since_step)}")
    lines += _others(cause.items)
    if firing.until is not None:
        lines.append(f"over at {_when(firing.until, firing.until_step)}")
    if item.kind == "ended":
        ended = "" if about.goes_on or about.last_seen is None else f" at {_when(about.last_seen, None)}"
        lines.append(f"the run {_ENDS.get(entry.ended, entry.ended)}{ended} while it fired: this is no recovery")
    lines += [f"why: {reason}" for reason in reasons[len(lead) :]]
    link = ""
    if item.kind != "recovered":
        lives = item.kind in ("firing", "repeated") and about.goes_on
        remedy = " ".join(filter(None, (rule.while_live if lives else "", rule.remedy)))
        lines += [f"do: {remedy}"] if remedy else []
        link = printable(f"{runbook}#{rule.name}" if rule.runbook is None else rule.runbook)
    lines = [printable(line) for line in lines]
    text = "\n".join(filter(None, [title, where, *lines, link and f"more: {link}"]))
    anchor = (
        f'<a href="{escape(link)}">{escape(link)}</a>' if link.startswith(("https://", "http://")) else escape(link)
    )
    body = "<br>".join([*map(escape, lines), *([anchor] if anchor else [])])
    return text, _CARD.format(colour=colour, title=escape(title), where=escape(where), lines=body)


_PAGE: Final = """\
<!DOCTYPE html>
<html><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"></head>
<body style="margin:0 auto;max-width:40em;padding:12px;font:16px/1.45 sans-serif;color:#1c1b1f">
<p style="font-weight:bold;overflow-wrap:anywhere">{head}</p>
{cards}<p style="color:#5f5d63;font-size:14px">{foot}</p>
</body></html>
"""
_CARD: Final = """\
<div style="border-left:4px solid {colour};padding:2px 0 2px 12px;margin:0 0 16px;overflow-wrap:anywhere">
<strong style="color:{colour}">{title}</strong><br><strong>{where}</strong><br>
{lines}
</div>
"""


def _others(items: Sequence[Item]) -> list[str]:
    """Return lines about the other alerts of a cause, layer by layer: those of the same capture, and those after it."""
    since, told = items[0].entry.firing.since, {_place(items[0].entry)}
    lines = []
    for when, is_together in (("at once", True), ("later", False)):
        group = [item for item in items if (item.entry.firing.since == since) == is_together]
        new = {place: item for item in group if (place := _place(item.entry)) not in told}
        told |= new.keys()
        if new:
            listed = "; ".join(map(_listed, places_of(list(new.values())).items()))
            lines.append(f"{when} in {len(new)} more: {shorten(listed, 3 * _LONG)}")
    return lines


def _listed(place: tuple[str, Sequence[str]]) -> str:
    layer, parts = place
    return shorten(printable(f"{layer}: {', '.join(parts)}" if parts else layer), _LONG)


def _ended(about: AboutRun) -> str:
    """Return how and when a run ended, such as `completed 2026-05-28 14:30 UTC`."""
    when = "" if about.last_seen is None else f" {_when(about.last_seen, None)}"
    return f"{'nothing heard since' if about.state == 'died' else about.state}{when}"


def _identity(item: Item) -> tuple[object, ...]:
    return item.kind, item.key, item.entry.firing.since, item.entry.firing.until, item.entry.notifications


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:32]


def _named(cause: Cause) -> str:
    return " ".join(filter(None, (cause.lead.entry.rule, _short(_place(cause.lead.entry)))))


def _place(entry: AlertState) -> str:
    return "/".join(entry.tags[name] for name in _PLACE if entry.tags.get(name))


def _where(entry: AlertState) -> str:
    parts = [_place(entry), *(f"{name} {value}" for name, value in entry.tags.items() if name not in (*_PLACE, "run"))]
    return ", ".join(shorten(printable(part), _LONG) for part in parts if part)


def _short(name: str) -> str:
    return shorten(printable(name), _NAME)


def _when(time: int, step: float | None) -> str:
    at_step = f", step {number(step)}" if step is not None else ""
    return f"{moment(np.datetime64(time, 'ns').astype('M8[s]'))} UTC{at_step}"

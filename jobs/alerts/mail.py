"""What a mail says: plain text, and simple HTML for a phone. Whatever it names is hostile until it is escaped."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from html import escape
from typing import TYPE_CHECKING, Final

import numpy as np

from gatewatch.jobs.alerts.lifecycle import AlertState, Item, Kind
from gatewatch.jobs.findings.explanations import in_words
from gatewatch.jobs.text import moment, number, printable, shorten

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gatewatch.jobs.alerts.rule import Rule

_TITLES: Final[Mapping[Kind, str]] = {
    "firing": "FIRING",
    "repeated": "STILL FIRING",
    "passed": "FIRED AND OVER",
    "recovered": "RECOVERED",
}
MOST: Final = 12
"""Alerts that a mail says everything of; of more it has the names."""
_NAME: Final = 60
"""Characters of a name in a subject."""
_LONG: Final = 200
"""Characters of a name in the text."""
_PLACE: Final = ("layer", "gate", "param", "job")
_COLOURS: Final[Mapping[Kind, str]] = {
    "firing": "#b3261e",
    "repeated": "#b3261e",
    "passed": "#8a5a00",
    "recovered": "#1b6e3c",
}


def alert_mail(
    run: str,
    items: Sequence[Item],
    rules: Mapping[str, Rule],
    *,
    sender: str,
    to: Sequence[str],
    now: int,
    runbook: str,
    repeat_hours: float,
) -> EmailMessage:
    """The one mail about a run, or about the jobs.

    Args:
        run: its name; empty for the jobs.
        items: the alerts that it mentions.
        rules: by their names.
        sender, to: addresses.
        now: nanoseconds.
        runbook: where the runbook is.
        repeat_hours: after which it is repeated.
    """
    kinds = list(_TITLES)
    ordered = sorted(items, key=lambda item: (kinds.index(item.kind), rules[item.entry.rule].severity, item.key))
    counted = [(kind, sum(item.kind == kind for item in ordered)) for kind in kinds]
    about = ", ".join(f"{_TITLES[kind]} {count}" for kind, count in counted if count)
    whose, place = _short(run or "jobs"), _short(_place(ordered[0].entry))
    subject = f"[gatewatch] {about}: {' '.join(filter(None, (whose, place)))}"
    cards = [_Card(item, rules[item.entry.rule], runbook) for item in ordered[:MOST]]
    lasting = any(item.entry.firing.until is None for item in ordered)
    foot = f"Repeated every {number(repeat_hours)} h while it lasts. " if lasting else ""
    if more := ordered[MOST:]:
        foot = f"And {len(more)} more: {', '.join(map(_named, more[:MOST]))}{' …' if len(more) > MOST else ''}. {foot}"
    foot += "Rules and recipients: [alerts] and [mail] in gatewatch.toml."
    head = f"{shorten(printable(run), _LONG) if run else 'The jobs and the store'}: {about.lower()}"
    text = "\n\n".join([head, *(card.text() for card in cards), foot]) + "\n"
    html = _PAGE.format(head=escape(head), cards="".join(card.html() for card in cards), foot=escape(foot))
    identity = hashlib.sha256(repr(sorted(_identity(item) for item in items)).encode()).hexdigest()[:32]
    return message(subject, text, html, sender=sender, to=to, now=now, identity=identity, thread=run or "jobs")


def message(
    subject: str,
    text: str,
    html: str | None = None,
    *,
    sender: str,
    to: Sequence[str],
    now: int,
    identity: str,
    thread: str | None = None,
) -> EmailMessage:
    """A mail whose headers hold nothing but what they are meant to.

    Args:
        subject: of any text; what cannot be printed is shown as an escape.
        text, html: of the body.
        sender, to: addresses, as `gatewatch.collector.config.mail_address` lets them pass.
        now: nanoseconds.
        identity: the same for what is sent twice; becomes the Message-ID.
        thread: mails of the same are shown together.
    """
    mail = EmailMessage(policy=SMTP)
    domain = sender.rpartition("@")[2]
    mail["Subject"] = printable(subject)
    mail["From"] = sender
    mail["To"] = ", ".join(to)
    mail["Date"] = format_datetime(datetime.fromtimestamp(now // 10**9, UTC))
    mail["Message-ID"] = f"<{identity}@{domain}>"
    if thread is not None:
        mail["References"] = f"<{hashlib.sha256(thread.encode(errors='replace')).hexdigest()[:32]}.run@{domain}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(text.encode(errors="replace").decode(), cte="quoted-printable")
    if html is not None:
        mail.add_alternative(html.encode(errors="replace").decode(), subtype="html", cte="quoted-printable")
    if mail["Subject"].isascii():  # one that is folded may begin with an empty line
        mail.policy = SMTP.clone(max_line_length=998)
    return mail


class _Card:
    """What is said of one alert."""

    def __init__(self, item: Item, rule: Rule, runbook: str) -> None:
        entry, firing = item.entry, item.entry.firing
        self.kind = item.kind
        self.title = f"{_TITLES[item.kind]}: {rule.name} ({rule.severity})"
        self.where = _where(entry)
        side = "below" if rule.condition.above is None or entry.threshold == rule.condition.below else "above"
        value, threshold, worst = (
            f"{number(value)} {rule.quantity.unit if rule.quantity.unit in ('s', 'B') else ''}".strip()
            for value in (firing.value, entry.threshold, firing.worst)
        )
        lines = [rule.summary, f"{rule.quantity.text} {value}, alerts {side} {threshold}"]
        if firing.worst != firing.value:
            lines[-1] += f", at worst {worst}"
        lines.append(f"since {_when(firing.since, firing.since_step)}")
        if firing.until is not None:
            lines.append(f"over at {_when(firing.until, firing.until_step)}")
        lines += [f"why: {cause}" for cause in in_words(firing.why)]
        self.link = printable(f"{runbook}#{rule.name}" if rule.runbook is None else rule.runbook)
        if item.kind != "recovered":
            lines += [f"do: {rule.remedy}"] if rule.remedy else []
        else:
            self.link = ""
        self.lines = [printable(line) for line in lines]

    def text(self) -> str:
        return "\n".join(filter(None, [self.title, self.where, *self.lines, self.link and f"more: {self.link}"]))

    def html(self) -> str:
        link = escape(self.link)
        if self.link.startswith(("https://", "http://")):
            link = f'<a href="{link}">{link}</a>'
        lines = [*map(escape, self.lines), *([link] if link else [])]
        return _CARD.format(
            colour=_COLOURS[self.kind], title=escape(self.title), where=escape(self.where), lines="<br>".join(lines)
        )


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


def _identity(item: Item) -> tuple[object, ...]:
    return item.kind, item.key, item.entry.firing.since, item.entry.firing.until, item.entry.notifications


def _named(item: Item) -> str:
    return " ".join(filter(None, (item.entry.rule, _short(_place(item.entry)))))


def _place(entry: AlertState) -> str:
    return "/".join(entry.tags[name] for name in _PLACE if entry.tags.get(name))


def _where(entry: AlertState) -> str:
    parts = [_place(entry), *(f"{name} {value}" for name, value in entry.tags.items() if name not in (*_PLACE, "run"))]
    return ", ".join(shorten(printable(part), _LONG) for part in parts if part)


def _short(name: str) -> str:
    return shorten(printable(name), _NAME)


def _when(time: int, step: float | None) -> str:
    moment_ = moment(np.datetime64(time, "ns").astype("M8[s]"))
    return f"{moment_} UTC" + (f", step {number(step)}" if step is not None else "")

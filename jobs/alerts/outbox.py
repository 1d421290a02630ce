"""Mails on disk: written before they are sent, and gone once the server has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from email.message import EmailMessage
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gatewatch.jobs.alerts.lifecycle import Event
from gatewatch.jobs.alerts.smtp import Delivered, ServerAway, deliver
from gatewatch.jobs.alerts.state import State, load, save

if TYPE_CHECKING:
    from gatewatch.collector.config import MailSettings

FIRST_PAUSE_SECONDS: Final = 15.0
LONGEST_PAUSE_SECONDS: Final = 300.0
MOST: Final = 1000
"""Mails that wait, and mails that were refused, at the most; past it the oldest go."""
_WAITING: Final = "outbox"
_REFUSED: Final = "refused"


@dataclass(slots=True)
class Mail:
    """A mail as it waits.

    Attributes:
        sender, to: of the envelope; who has it already is no more in `to`.
        content: the message.
        events: that it mentions.
        tries, not_before: attempts in a row at which the server put it off, and when to try again; nanoseconds.
        problem: why it was put off or refused.
    """

    sender: str
    to: list[str]
    content: str
    events: list[Event] = field(default_factory=list)
    tries: int = 0
    not_before: int = 0
    problem: str | None = None


class Outbox:
    """The mails of one store's alerts. For one process at a time.

    Args:
        folder: of the alerts.
        most: mails that wait at the most.

    Attributes:
        dropped: mails that went for want of room.
    """

    def __init__(self, folder: Path, most: int = MOST) -> None:
        self._folder, self._most = folder, most
        self.dropped = 0

    @property
    def waiting(self) -> list[Path]:
        """Return the mails that wait, oldest first."""
        return sorted((self._folder / _WAITING).glob("[!.]*.json"))

    @property
    def refused(self) -> list[Path]:
        """Return the mails that a server has refused for good; one that is moved back to the others is tried again."""
        return sorted((self._folder / _REFUSED).glob("[!.]*.json"))

    def put(self, message: EmailMessage, to: Sequence[str], events: Sequence[Event], now: int) -> None:
        """Keep a mail until it is sent; the same one, by its Message-ID, is kept once.

        Raises:
            OSError: it cannot be written.
        """
        identity = str(message["Message-ID"]).strip("<>").partition("@")[0]
        if not any(path.stem.endswith(identity) for path in self.waiting):
            mail = Mail(str(message["From"]), list(to), message.as_bytes().decode("ascii"), list(events))
            save(self._folder / _WAITING / f"{now:020d}-{identity}.json", mail)
            for path in self.waiting[: -self._most]:
                path.unlink(missing_ok=True)
                self.dropped += 1

    def send(self, settings: MailSettings, state: State, now: int) -> tuple[int, list[Event]]:
        """Hand over what waits, oldest first, until there is none or the server is away.

        Args:
            settings: of the server.
            state: says when to try again; brought up to date.
            now: nanoseconds.

        Returns:
            Mails accepted, and the events that they mention.

        Raises:
            OSError: a file cannot be written or removed.
        """
        sent, delivered = 0, list[Event]()
        if now < state.not_before:
            return sent, delivered
        for path in self.waiting:
            mail = load(path, Mail)
            if mail is None or now < mail.not_before:
                continue
            try:
                done = deliver(settings, mail.sender, mail.to, mail.content.encode("ascii"))
            except ServerAway as error:
                state.tries += 1
                state.not_before, state.problem = now + _pause(state.tries), str(error)
                return sent, delivered
            state.tries, state.not_before, state.problem = 0, 0, None
            if self._settle(path, mail, done, now):
                sent += 1
                delivered += mail.events
        return sent, delivered

    def _settle(self, path: Path, mail: Mail, done: Delivered, now: int) -> bool:
        """Keep or remove a mail by what became of it; return whether somebody has it and nobody is still to get it."""
        if done.refused:
            refused = replace(mail, to=list(done.refused), problem=_reasons(done.refused))
            save(self._folder / _REFUSED / path.name, refused)
            for old in self.refused[: -self._most]:
                old.unlink(missing_ok=True)
        if done.later:
            mail.tries += 1
            mail.not_before, mail.problem = now + _pause(mail.tries), _reasons(done.later)
            save(path, replace(mail, to=list(done.later)))
            return False
        with suppress(FileNotFoundError):
            path.unlink()
        return len(done.refused) < len(mail.to)


def _pause(tries: int) -> int:
    return int(min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(tries - 1, 10)) * 1e9)


def _reasons(refused: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in refused.items())

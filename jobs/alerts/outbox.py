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
"""Maximum number of mails that wait, and of refused mails that are kept; beyond it the oldest are deleted."""
_WAITING: Final = "outbox"
_REFUSED: Final = "refused"


@dataclass(slots=True)
class Mail:
    """A mail that waits to be sent.

    Attributes:
        sender, to: sender and recipients of the envelope; recipients who have received the mail are removed from `to`.
        content: the message.
        events: the alert events that it mentions.
        tries: number of attempts in a row that the server postponed.
        not_before: when to try again; nanoseconds.
        problem: why it was postponed or refused.
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
        folder: the folder of the alerts.
        most: maximum number of mails that wait, and of refused mails that are kept.

    Attributes:
        dropped: number of waiting mails that were deleted because there were more.
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
        """Return the mails that a server has refused for good. Move one to the waiting mails to try it again."""
        return sorted((self._folder / _REFUSED).glob("[!.]*.json"))

    def put(self, message: EmailMessage, to: Sequence[str], events: Sequence[Event], now: int) -> None:
        """Keep a mail until it is sent. A mail with the same Message-ID as a waiting one is not added again.

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
        """Send the waiting mails, oldest first, until none is left or the server cannot be reached.

        Args:
            settings: settings of the mail server.
            state: says when to try again; it is updated.
            now: the time, in nanoseconds.

        Returns:
            The number of mails that the server accepted, and the events that they mention.

        Raises:
            OSError: a file cannot be written or removed.
        """
        sent, delivered = 0, list[Event]()
        if _waits(state.not_before, now):
            return sent, delivered
        for path in self.waiting:
            mail = load(path, Mail)
            if mail is None or _waits(mail.not_before, now):
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
        """Store again or delete a mail after an attempt.

        Returns:
            Whether delivery is complete: no recipient is left to try again, and one of this attempt was accepted.
        """
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


def _waits(not_before: int, now: int) -> bool:
    """Return whether it is too early; not where the moment lies beyond any pause, as after the clock was set back."""
    return now < not_before <= now + LONGEST_PAUSE_SECONDS * 1e9


def _pause(tries: int) -> int:
    return int(min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(tries - 1, 10)) * 1e9)


def _reasons(refused: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in refused.items())

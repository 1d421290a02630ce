"""Mail from a script or a notebook: thresholds on numbers, and a message."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from gatewatch.collector.arrays import as_number
from gatewatch.collector.errors import ConfigError, GatewatchError
from gatewatch.jobs.alerts.mail import message
from gatewatch.jobs.alerts.smtp import deliver, sender_of, server_of
from gatewatch.jobs.text import printable, shorten

if TYPE_CHECKING:
    from gatewatch.collector.config import MailSettings, Settings

Threshold = float | Mapping[str, float]
"""A number that a metric must not exceed; or a mapping with `above`, `below` or both."""


class Exceeded(NamedTuple):
    """A metric that is out of bounds. As text it is one line.

    Attributes:
        metric: its name.
        value: may be not finite, which is out of any bounds.
        threshold: that it lies beyond; of a value that is not finite the first.
        side: above or below; empty for a value that is not finite.
    """

    metric: str
    value: float
    threshold: float
    side: str

    def __str__(self) -> str:
        if not self.side:
            return f"{printable(self.metric)} is {self.value}, not a finite number"
        return f"{printable(self.metric)} is {self.value:.6g}, {self.side} {self.threshold:.6g}"


class AlertManager:
    """Compares metrics with thresholds, and sends mails.

    The mail server comes from `[mail]` of the configuration file, its password from GATEWATCH_SMTP_PASSWORD.

    Args:
        recipients: one address or several.
        thresholds: metric → the number it must not exceed, or `{"above": x, "below": y}`, either or both.
        mail: the server, in place of the configuration's.
        now: returns the time, in nanoseconds since the Unix epoch.

    Raises:
        ConfigError: a recipient is not an address, or a threshold is not a number; the message names it.
    """

    def __init__(
        self,
        recipients: str | Sequence[str],
        thresholds: Mapping[str, Threshold],
        *,
        mail: MailSettings | None = None,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        from gatewatch.collector.config import mail_address  # noqa: PLC0415 - pydantic loads slowly

        self.recipients = [recipients] if isinstance(recipients, str) else list(recipients)
        if not self.recipients:
            raise ConfigError("recipients: there is none; give a mail address, or several")
        for recipient in self.recipients:
            try:
                mail_address(recipient)
            except (ValueError, TypeError, AttributeError) as error:
                raise ConfigError(f"recipients: {error}") from None
        if not isinstance(thresholds, Mapping):
            raise ConfigError(f"thresholds={thresholds!r}: must be a mapping from metric to number")
        self._bounds = {str(name): _bounds(name, threshold) for name, threshold in thresholds.items()}
        self._mail, self._now = mail, now

    def check_metrics(self, metrics: Mapping[str, Any]) -> list[Exceeded]:
        """Return which of the metrics are out of bounds, in the order of the metrics.

        A metric without a threshold is not looked at, nor is one that is no number; one that is NaN or infinite is
        out of any bounds.

        Args:
            metrics: name → number, such as Keras's `logs`.
        """
        exceeded = []
        for name, given in metrics.items():
            bounds = self._bounds.get(str(name))
            value = None if isinstance(given, bool) else as_number(given)
            if bounds is None or value is None:
                continue
            if not math.isfinite(value):
                exceeded.append(Exceeded(str(name), value, next(iter(bounds.values())), ""))
            for side, threshold in bounds.items():
                if math.isfinite(value) and (value > threshold if side == "above" else value < threshold):
                    exceeded.append(Exceeded(str(name), value, threshold, side))
        return exceeded

    def send_alert(self, message: str | Sequence[Exceeded]) -> None:
        """Send a mail to all recipients, now; nothing for an empty list.

        Args:
            message: its text, or what `check_metrics` gave.

        Raises:
            ConfigError: no mail server is configured.
            GatewatchError: the server is away or refuses the mail; names it, and what to do.
        """
        from gatewatch.collector.config import load_settings  # noqa: PLC0415 - as above

        lines = [message] if isinstance(message, str) else [str(exceeded) for exceeded in message]
        if lines:
            settings = (self._mail or load_settings().mail).model_copy(update={"to": self.recipients})
            _send(settings, "\n".join(lines), self._now())


def send_test(settings: Settings) -> None:
    """Send a test mail to the recipients of the alerts.

    Raises:
        ConfigError: there are no recipients, or no server is named.
        GatewatchError: the server is away or refuses the mail; names host and port, what happened and the remedy.
    """
    if not settings.mail.to:
        raise ConfigError("nobody is to get mails: name the server in [mail] host and the recipients in [mail] to")
    _send(settings.mail, "A test: mails of Gatewatch arrive here.", time.time_ns())


def _send(settings: MailSettings, text: str, now: int) -> None:
    subject = f"[gatewatch] {shorten(printable(next(iter(text.splitlines()), '')), 100)}"
    mail = message(subject, f"{text}\n", settings, now, secrets.token_hex(16))
    done = deliver(settings, sender_of(settings), settings.to, mail.as_bytes())
    for recipient, reason in done.refused.items():
        whom, remedy = f" for {recipient}", "see that it is right"
        if len(done.refused) == len(settings.to):
            whom, remedy = "", "see [mail] sender and who gets it"
        raise GatewatchError(f"{server_of(settings)} refuses the mail{whom}: {reason}; {remedy}")
    for recipient, reason in done.later.items():
        raise GatewatchError(f"{server_of(settings)} puts off the mail for {recipient}: {reason}; send it again later")


def _bounds(name: object, threshold: object) -> dict[str, float]:
    given = threshold if isinstance(threshold, Mapping) else {"above": threshold}
    sides = [side for side in given if side in ("above", "below")]
    numbers = {side: as_number(given[side]) for side in sides if not isinstance(given[side], bool)}
    bounds = {side: number for side, number in numbers.items() if number is not None}
    if not bounds or len(bounds) < len(given) or any(map(math.isnan, bounds.values())):
        raise ConfigError(
            f"thresholds[{name!r}]={threshold!r}: must be a number, or a mapping with numbers for above, below or both"
        )
    return bounds

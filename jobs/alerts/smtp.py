"""One mail, one dialogue with a mail server: it is accepted, refused, or to be tried again."""

from __future__ import annotations

import platform
import re
import smtplib
import ssl
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from gatewatch.collector.environment import read_password
from gatewatch.collector.errors import ConfigError, GatewatchError
from gatewatch.jobs.text import printable

if TYPE_CHECKING:
    from gatewatch.collector.config import MailSettings

PASSWORD: Final = "GATEWATCH_SMTP_PASSWORD"  # noqa: S105 - the name of the variable
_PORTS: Final = {"auto": 587, "starttls": 587, "tls": 465, "none": 25}
_TLS_PORT: Final = 465
_DIALOGUE: Final = 6
"""A whole dialogue may take so many times what one answer may: a server that drips is one that hangs."""
_CLOSING: Final = 421


class ServerAway(GatewatchError):  # noqa: N818 - as the store's WriteUnavailable
    """No mail can be sent now: the server is away, or wants something else first. Its text names the remedy."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """What became of a mail; the recipients that neither names have it.

    Attributes:
        later: recipient → why it is to be tried again for them.
        refused: recipient → why it never will be delivered to them.
    """

    later: Mapping[str, str]
    refused: Mapping[str, str]


def sender_of(mail: MailSettings) -> str:
    """Return who the mails are from.

    Raises:
        ConfigError: there is no server, or no sender.
    """
    if mail.host is None:
        raise ConfigError("[mail] host is not set in gatewatch.toml: name the server that takes the mails")
    sender = mail.sender or (mail.user if mail.user and "@" in mail.user else None)
    if sender is None:
        raise ConfigError("[mail] sender is not set in gatewatch.toml: name the address that the mails are from")
    return sender


def server_of(mail: MailSettings) -> str:
    """Return host and port of the server, for messages."""
    return f"{mail.host}:{_port(mail)}"


def deliver(mail: MailSettings, sender: str, to: Sequence[str], content: bytes) -> Delivered:
    """Hand a mail to the server.

    Where the connection breaks after the server has accepted it and before it has said so, the mail is sent again: a
    mail comes once, rarely twice with the same Message-ID.

    Args:
        mail: where the server is, and how it is spoken to; the password is in the environment.
        sender, to: of the envelope.
        content: the message, as bytes.

    Raises:
        ServerAway: try again later.
    """
    try:
        context = ssl.create_default_context()
        tls = mail.security == "tls" or (mail.security == "auto" and _port(mail) == _TLS_PORT)
        connect = partial(smtplib.SMTP_SSL, context=context) if tls else smtplib.SMTP
        client = connect(local_hostname=_own_name(), timeout=mail.timeout_seconds)
        client._host = mail.host  # type: ignore[attr-defined]  # what a certificate is checked for: see `connect` below
        watchdog = threading.Timer(_DIALOGUE * mail.timeout_seconds, _break_off, [client])
        watchdog.daemon = True
        watchdog.start()
        try:
            _greet(client, mail, tls, context)
            return _hand_over(client, sender, to, content)
        finally:
            with suppress(smtplib.SMTPException, OSError, ValueError):
                client.quit()
            client.close()
            watchdog.cancel()
    except smtplib.SMTPAuthenticationError as error:
        problem = f" refuses [mail] user or {PASSWORD}: {_reply(error.smtp_code, error.smtp_error)}; mend them"
    except ssl.SSLCertVerificationError as error:
        reason = error.verify_message or "it cannot be verified"
        problem = f": the server's certificate is not trusted: {reason}; name its authority in SSL_CERT_FILE"
    except smtplib.SMTPResponseException as error:
        problem = f" does not take mails now: {_reply(error.smtp_code, error.smtp_error)}; see the server's log"
    except (smtplib.SMTPException, OSError) as error:
        reason = printable(str(error) or type(error).__name__)[:200]
        problem = f": {reason}; see that the mail server runs there, and [mail] security"
    raise ServerAway(f"{server_of(mail)}{problem}")


def _greet(client: smtplib.SMTP, mail: MailSettings, tls: bool, context: ssl.SSLContext) -> None:
    code, text = client.connect(mail.host or "", _port(mail))
    if code != 220:
        raise smtplib.SMTPConnectError(code, text)
    client.ehlo_or_helo_if_needed()
    offered = client.has_extn("starttls")
    if mail.security == "starttls" and not offered:
        raise ServerAway(f"{server_of(mail)} offers no STARTTLS, which [mail] security asks for")
    if not tls and offered and mail.security != "none":
        client.starttls(context=context)
        client.ehlo_or_helo_if_needed()
    if mail.user is not None:
        if not (tls or offered or mail.security == "none"):
            raise ServerAway(
                f"{server_of(mail)} offers no STARTTLS, and a password is not sent in the clear; "
                'use another port, or allow it with [mail] security = "none"'
            )
        client.login(mail.user, _password())


def _hand_over(client: smtplib.SMTP, sender: str, to: Sequence[str], content: bytes) -> Delivered:
    replies: Mapping[str, tuple[int, bytes | str]]
    try:
        replies = client.sendmail(sender, list(to), content)
    except smtplib.SMTPRecipientsRefused as error:
        replies = error.recipients
    except (smtplib.SMTPSenderRefused, smtplib.SMTPDataError) as error:
        replies = dict.fromkeys(to, (error.smtp_code, error.smtp_error))
    for code, text in replies.values():
        if code == _CLOSING:
            raise smtplib.SMTPResponseException(code, text)
    reasons = {name: _reply(code, text) for name, (code, text) in replies.items()}
    return Delivered(
        later={name: reason for name, reason in reasons.items() if replies[name][0] < 500},
        refused={name: reason for name, reason in reasons.items() if replies[name][0] >= 500},
    )


def _password() -> str:
    password = read_password(PASSWORD)
    if not password:
        raise ServerAway(f"{PASSWORD} is not set; [mail] user needs it in the environment")
    if not password.isascii() or not password.isprintable():
        raise ServerAway(f"{PASSWORD} has a character that mail servers do not take; choose an ASCII one")
    return password


def _own_name() -> str:
    """Return what the server is greeted with: asking DNS for it, as smtplib does, may take half a minute."""
    name = platform.node()
    return name if re.fullmatch(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+", name) else "[127.0.0.1]"


def _break_off(client: smtplib.SMTP) -> None:
    with suppress(OSError, AttributeError):
        client.sock.shutdown(2)  # type: ignore[union-attr]  # None before there is a connection


def _port(mail: MailSettings) -> int:
    return mail.port or _PORTS[mail.security]


def _reply(code: int, text: bytes | str) -> str:
    shown = text.decode(errors="replace") if isinstance(text, bytes) else text
    return printable(f"{code} {' '.join(shown.split())}")[:200]

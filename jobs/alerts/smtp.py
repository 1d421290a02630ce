"""One mail, one dialogue with a mail server: it is accepted, refused, or to be tried again."""

from __future__ import annotations

import platform
import re
import smtplib
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
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


class MailRefused(GatewatchError):  # noqa: N818 - as the store's WriteRejected
    """The server will never take this mail."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """What became of a mail that was accepted for some or for nobody yet.

    Attributes:
        later: recipient → why it is to be tried again for them.
        refused: recipient → why it never will be delivered to them.
    """

    later: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


def sender_of(mail: MailSettings) -> str:
    """Who the mails are from.

    Raises:
        ConfigError: there is no server, or no sender.
    """
    if mail.host is None:
        raise ConfigError("[mail] host is not set in gatewatch.toml: name the server that takes the mails")
    sender = mail.sender or (mail.user if mail.user and "@" in mail.user else None)
    if sender is None:
        raise ConfigError("[mail] sender is not set in gatewatch.toml: name the address that the mails are from")
    return sender


def port_of(mail: MailSettings) -> int:
    """The port of the server."""
    return mail.port or _PORTS[mail.security]


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
        MailRefused: nobody gets it.
    """
    where = f"{mail.host}:{port_of(mail)}"
    try:
        context = ssl.create_default_context()
        tls = mail.security == "tls" or (mail.security == "auto" and port_of(mail) == _TLS_PORT)
        client = (
            smtplib.SMTP_SSL(local_hostname=_own_name(), timeout=mail.timeout_seconds, context=context)
            if tls
            else smtplib.SMTP(local_hostname=_own_name(), timeout=mail.timeout_seconds)
        )
        client._host = mail.host  # type: ignore[attr-defined]  # what a certificate is checked for: see `connect` below
        watchdog = threading.Timer(_DIALOGUE * mail.timeout_seconds, _break_off(client))
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
        raise ServerAway(f"{where} refuses [mail] user or {PASSWORD}: {_answer(error)}; mend them") from None
    except ssl.SSLCertVerificationError as error:
        reason = error.verify_message or "it cannot be verified"
        raise ServerAway(
            f"{where}: the server's certificate is not trusted: {reason}; name its authority in SSL_CERT_FILE"
        ) from None
    except smtplib.SMTPResponseException as error:
        raise ServerAway(f"{where} does not take mails now: {_answer(error)}; see the server's log") from None
    except (smtplib.SMTPException, OSError) as error:
        reason = printable(str(error) or type(error).__name__)[:200]
        raise ServerAway(f"{where}: {reason}; see that the mail server runs there, and [mail] security") from None


def _greet(client: smtplib.SMTP, mail: MailSettings, tls: bool, context: ssl.SSLContext) -> None:
    code, text = client.connect(mail.host or "", port_of(mail))
    if code != 220:
        raise smtplib.SMTPConnectError(code, text)
    client.ehlo_or_helo_if_needed()
    offered = client.has_extn("starttls")
    if mail.security == "starttls" and not offered:
        raise ServerAway(f"{mail.host}:{port_of(mail)} offers no STARTTLS, which [mail] security asks for")
    encrypted = tls
    if not tls and offered and mail.security != "none":
        client.starttls(context=context)
        client.ehlo_or_helo_if_needed()
        encrypted = True
    if mail.user is not None:
        if not encrypted and mail.security != "none":
            raise ServerAway(
                f"{mail.host}:{port_of(mail)} offers no STARTTLS, and a password is not sent in the clear; "
                'use another port, or allow it with [mail] security = "none"'
            )
        client.login(mail.user, _password())


def _hand_over(client: smtplib.SMTP, sender: str, to: Sequence[str], content: bytes) -> Delivered:
    try:
        refused = client.sendmail(sender, list(to), content)
    except smtplib.SMTPRecipientsRefused as error:
        refused = error.recipients
        if any(code == _CLOSING for code, _ in refused.values()):
            raise smtplib.SMTPResponseException(*next(r for r in refused.values() if r[0] == _CLOSING)) from None
        if all(code >= 500 for code, _ in refused.values()):
            raise MailRefused(_reply(next(iter(refused.values())))) from None
    except (smtplib.SMTPSenderRefused, smtplib.SMTPDataError) as error:
        if error.smtp_code == _CLOSING:
            raise
        if error.smtp_code >= 500:
            raise MailRefused(_answer(error)) from None
        return Delivered(later=dict.fromkeys(to, _answer(error)))
    return Delivered(
        later={name: _reply(reply) for name, reply in refused.items() if reply[0] < 500},
        refused={name: _reply(reply) for name, reply in refused.items() if reply[0] >= 500},
    )


def _password() -> str:
    password = read_password("GATEWATCH_SMTP_PASSWORD")
    if not password:
        raise ServerAway(f"{PASSWORD} is not set; [mail] user needs it in the environment")
    if not password.isascii() or not password.isprintable():
        raise ServerAway(f"{PASSWORD} has a character that mail servers do not take; choose an ASCII one")
    return password


def _own_name() -> str:
    """What the server is greeted with: asking DNS for it, as smtplib does, may take half a minute."""
    name = platform.node()
    return name if re.fullmatch(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+", name) else "[127.0.0.1]"


def _break_off(client: smtplib.SMTP) -> Callable[[], None]:
    def break_off() -> None:
        with suppress(OSError, AttributeError):
            client.sock.shutdown(2)  # type: ignore[union-attr]  # None before there is a connection

    return break_off


def _answer(error: smtplib.SMTPResponseException) -> str:
    text = error.smtp_error
    return _reply((error.smtp_code, text if isinstance(text, bytes) else str(text).encode()))


def _reply(reply: tuple[int, bytes]) -> str:
    return printable(f"{reply[0]} {' '.join(reply[1].decode(errors='replace').split())}")[:200]

"""Mails, through real mail servers: what arrives, how often, how it is protected, and that none is lost."""

from __future__ import annotations

import contextlib
import email
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from email import policy
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gatewatch.collector.config import AlertRuleSettings, AlertSettings, MailSettings, Settings
from gatewatch.collector.errors import ConfigError, GatewatchError
from gatewatch.collector.schema import Point
from gatewatch.collector.store import open_store
from gatewatch.jobs.alerts import BUILT_IN, AlertManager, evaluate, send_test
from gatewatch.jobs.alerts.about_run import AboutRun
from gatewatch.jobs.alerts.lifecycle import AlertState, Item
from gatewatch.jobs.alerts.mail import MOST, alert_mail
from gatewatch.jobs.alerts.outbox import Outbox
from gatewatch.jobs.alerts.series_state import Firing
from gatewatch.jobs.alerts.state import State
from tests.conftest import ROOT, free_port

S = 10**9
BEGUN = 1_790_000_000 * S
PASSWORD = "correct horse"
RULES = {rule.name: rule for rule in BUILT_IN}

pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS:UserWarning")


def at(seconds):
    return BEGUN + int(seconds * S)


class Postbox:
    """A real SMTP server on the loopback address, and what it has accepted.

    Attributes:
        mails: each a parsed message, with the envelope's recipients in `to`.
        replies: command → what it says to it, in place of accepting it; called with the recipient or None.
        encrypted: of each accepted mail, whether the connection was.
        commands: everything that came over the wire in clear text.
    """

    def __init__(self, port=0, tls=None, starttls=None, login=False):
        self.mails, self.encrypted, self.commands = [], [], []
        self.replies = {}
        self.port = port or free_port()
        options = {"tls_context": starttls, "auth_require_tls": False, "timeout": 20}
        if login:
            options |= {"authenticator": self._login, "auth_required": True}
        self._options, self._tls = options, tls
        self.start()

    def start(self):
        self._controller = Controller(self, "127.0.0.1", self.port, ssl_context=self._tls, **self._options)
        self._controller.start()

    def stop(self):
        if self._controller is not None:
            self._controller.stop()
        self._controller = None

    def settings(self, security="auto", to=("me@example.com",), **others):
        names = {"host": "127.0.0.1", "port": self.port, "sender": "gatewatch@example.com", "timeout_seconds": 5.0}
        return MailSettings(security=security, to=list(to), **(names | others))

    @property
    def subjects(self):
        return [str(mail["Subject"]) for mail in self.mails]

    def _login(self, server, session, envelope, mechanism, data):
        self.commands.append((mechanism, data.login, session.ssl is not None))
        return AuthResult(success=data.password == PASSWORD.encode(), handled=False)

    async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802 - aiosmtpd's name
        if reply := self._reply("RCPT", address):
            return reply
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_MAIL(self, server, session, envelope, address, options):  # noqa: N802 - aiosmtpd's name
        if reply := self._reply("MAIL", address):
            return reply
        envelope.mail_from = address
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):  # noqa: N802 - aiosmtpd's name
        if reply := self._reply("DATA", None):
            return reply
        mail = email.message_from_bytes(envelope.content, policy=policy.default)
        mail.to, mail.sender, mail.raw = envelope.rcpt_tos, envelope.mail_from, envelope.content
        self.mails.append(mail)
        self.encrypted.append(server.transport.get_extra_info("ssl_object") is not None)
        return "250 accepted"

    def _reply(self, command, about):
        answer = self.replies.get(command)
        return answer(about) if callable(answer) else answer


@pytest.fixture
def postbox():
    box = Postbox()
    yield box
    box.stop()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A certificate of the loopback address that only who is told so trusts."""
    folder = tmp_path_factory.mktemp("certificate")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=nobody",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return certificate, context


class Service:
    """What the jobs do each interval, by a clock that the test sets."""

    def __init__(self, folder, mail, **alerts):
        self.folder, self.mail = folder, mail
        self.alerts = AlertSettings(disable=["run_died"], **alerts)  # the clock runs faster here than heartbeats come
        self.url = f"sqlite:///{folder / 'gatewatch.db'}"
        self.store = open_store(self.url)

    def turn(self, seconds, points=()):
        self.store.write(points)
        settings = Settings(mail=self.mail, alerts=self.alerts)
        return evaluate(self.store, settings, self.folder, at(seconds))

    def turns(self, begin, end, every=15):
        """Turns in which every run says that it lives."""
        runs = [{"run": run, "phase": "train"} for run in self.store.runs()["run"]]
        beats = lambda seconds: [Point("runs", run, {"event": "heartbeat", "step": 1}, at(seconds)) for run in runs]  # noqa: E731
        return [self.turn(seconds, beats(seconds)) for seconds in range(begin, end, every)]

    def fires(self, seconds, run="goog-1", layers=("memory",), count=4, step=100):
        """NaN in a gate of some layers of a run that lives, or none any more where the count is 0."""
        tags = {"run": run, "phase": "train"}
        points = [Point("runs", tags, {"event": "started", "config": "{}", "step": 0}, at(seconds) - S)]
        for layer in layers:
            gate = {**tags, "layer": layer, "gate": "forget"}
            for k in range(3):
                fields = {"nan_count": count, "inf_count": 0, "step": step + k}
                points.append(Point("gate_stats", gate, fields, at(seconds) - 900_000_000 + k))
        return self.turn(seconds, points)

    def beats(self, seconds, run="goog-1"):
        point = Point("runs", {"run": run, "phase": "train"}, {"event": "heartbeat", "step": 1}, at(seconds))
        return self.turn(seconds, [point])

    def events(self):
        frame = self.store.read("alert_events").to_dict("records")
        return [(row["rule"], row.get("layer"), row["state"], bool(row["delivered"])) for row in frame]


@pytest.fixture
def service(tmp_path, postbox):
    return Service(tmp_path, postbox.settings())


def text_of(mail, kind="plain"):
    return mail.get_body((kind,)).get_content().replace("\r\n", "\n")


class TestWhatArrives:
    def test_what_fires_together_is_one_mail_of_its_run(self, service, postbox):
        service.fires(0, layers=("memory", "decision"))
        service.turns(15, 121)
        (mail,) = postbox.mails
        assert mail["Subject"] == "[gatewatch] FIRING 1: goog-1 decision/forget and 1 more"
        assert (mail["From"], mail["To"], mail.to) == ("gatewatch@example.com", "me@example.com", ["me@example.com"])
        assert mail["Date"].datetime.timestamp() == BEGUN // S + 30
        assert mail["Auto-Submitted"] == "auto-generated"
        text = text_of(mail)
        for line in (
            "FIRING: gate_not_finite (critical)",
            "decision/forget, phase train",
            "NaN or Inf in a gate",
            "values that are not finite 4, alerts above 0",
            "since 2026-09-21 14:13:19 UTC, step 100",
            "at once in 1 more: memory: forget",
            f"do: Stop the run. {RULES['gate_not_finite'].remedy}",
            "more: docs/runbook.md#gate_not_finite",
        ):
            assert line in text.splitlines()
        assert "width=device-width" in text_of(mail, "html")
        assert service.events() == [("gate_not_finite", layer, "firing", True) for layer in ("decision", "memory")]

    def test_two_runs_are_two_mails(self, service, postbox):
        service.fires(0, run="a")
        service.fires(0, run="b")
        service.turns(15, 46)
        assert sorted(postbox.subjects) == [f"[gatewatch] FIRING 1: {run} memory/forget" for run in "ab"]
        assert postbox.mails[0]["References"] != postbox.mails[1]["References"]

    def test_it_is_told_again_while_it_lasts_and_once_when_it_is_over(self, service, postbox):
        service.fires(0)
        for seconds in (15, 31, 3600, 4 * 3600, 4 * 3600 + 46):
            service.beats(seconds)
        service.fires(4 * 3600 + 400, count=0, step=900)
        service.turns(4 * 3600 + 415, 4 * 3600 + 800)
        assert postbox.subjects == [
            "[gatewatch] FIRING 1: goog-1 memory/forget",
            "[gatewatch] STILL FIRING 1: goog-1 memory/forget",
            "[gatewatch] RECOVERED 1: goog-1 memory/forget",
        ]
        assert len({mail["Message-ID"] for mail in postbox.mails}) == 3
        assert len({mail["References"] for mail in postbox.mails}) == 1
        assert "at worst 4" in text_of(postbox.mails[2])
        assert "step 902" in text_of(postbox.mails[2])
        assert [event[2:] for event in service.events()] == [
            ("firing", True),
            ("repeated", True),
            ("recovered", True),
        ]

    def test_a_run_that_ends_while_an_alert_fires_says_so_once_and_is_no_recovery(self, service, postbox):
        service.fires(0)
        service.turns(15, 61)
        service.turn(600, [Point("runs", {"run": "goog-1", "phase": "train"}, {"event": "failed", "step": 9}, at(599))])
        for seconds in range(615, 9 * 3600, 600):
            service.turn(seconds)
        assert postbox.subjects == [
            "[gatewatch] FIRING 1: goog-1 memory/forget",
            "[gatewatch] ENDED WHILE FIRING 1: goog-1 memory/forget",
        ]
        assert text_of(postbox.mails[1]).splitlines() == [
            "goog-1 (failed 2026-09-21 14:23:19 UTC): ended while firing 1",
            "",
            "ENDED WHILE FIRING: gate_not_finite (critical)",
            "memory/forget, phase train",
            "NaN or Inf in a gate",
            "values that are not finite 4, alerts above 0",
            "since 2026-09-21 14:13:19 UTC, step 100",
            "the run failed at 2026-09-21 14:23:19 UTC while it fired: this is no recovery",
            f"do: {RULES['gate_not_finite'].remedy}",
            "more: docs/runbook.md#gate_not_finite",
            "",
            "Rules and recipients: [alerts] and [mail] in gatewatch.toml.",
        ]
        assert service.events() == [("gate_not_finite", "memory", state, True) for state in ("firing", "ended")]

    def test_what_was_over_before_it_was_told_says_so(self, service, postbox):
        service.fires(0)
        service.fires(15, count=0, step=900)
        service.turns(30, 100)
        assert postbox.subjects == ["[gatewatch] FIRED AND OVER 1: goog-1 memory/forget"]
        assert "do: " in text_of(postbox.mails[0])

    def test_a_mail_with_very_many_alerts_stays_readable(self, service, postbox):
        for k in range(30):
            own = {"name": f"own_{k:02d}", "measurement": "gate_stats", "field": "nan_count", "above": 0}
            service.alerts.rules.append(AlertRuleSettings(**own))
        service.fires(0, layers=[f"layer-{k:02d}" for k in range(90)])
        service.turn(31)
        (mail,) = postbox.mails
        assert mail["Subject"] == "[gatewatch] FIRING 31: goog-1 layer-00/forget and 89 more"
        assert text_of(mail).count("FIRING: ") == MOST
        assert f"And {31 - MOST} more: own_{MOST - 1} layer-00/forget, " in text_of(mail)
        assert max(map(len, text_of(mail).splitlines())) < 700

    def test_all_recipients_get_it(self, service, postbox):
        service.mail = postbox.settings(to=["a@example.com", "b@example.com"])
        service.fires(0)
        service.turn(31)
        assert [mail.to for mail in postbox.mails] == [["a@example.com", "b@example.com"]]

    def test_without_recipients_there_are_events_and_no_mails(self, service, postbox):
        service.mail = MailSettings()
        outcomes = [service.fires(0), *service.turns(15, 121)]
        assert postbox.mails == []
        assert service.events() == [("gate_not_finite", "memory", "firing", False)]
        assert {(outcome.written, outcome.waiting, outcome.problem) for outcome in outcomes} == {(0, 0, None)}

    def test_points_in_an_influxdb_are_judged_and_written_alike(self, service, postbox, influxd):
        service.store = influxd.store()
        service.fires(0)
        service.turns(15, 61)
        service.fires(75, count=0, step=900)
        service.turns(90, 500, 60)
        assert [subject.split()[1] for subject in postbox.subjects] == ["FIRING", "RECOVERED"]
        assert service.events() == [("gate_not_finite", "memory", state, True) for state in ("firing", "recovered")]
        assert service.turn(501).rows_read <= 4

    def test_the_outcome_counts(self, service, postbox):
        outcome = service.fires(0)
        assert (outcome.firing, outcome.points_written, outcome.written, outcome.sent) == (1, 1, 0, 0)
        assert outcome.rows_read == 4
        outcome = service.turn(31)
        assert (outcome.firing, outcome.points_written, outcome.written, outcome.sent) == (1, 1, 1, 1)
        assert (outcome.waiting, outcome.refused, outcome.failures, outcome.problem) == (0, 0, 0, None)


class TestEncryption:
    @pytest.fixture(autouse=True)
    def trusted(self, certificate, monkeypatch):
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        monkeypatch.setenv("GATEWATCH_SMTP_PASSWORD", PASSWORD)

    @pytest.fixture
    def box(self):
        boxes = []

        def make(**options):
            boxes.append(Postbox(**options))
            return boxes[-1]

        yield make
        for one in boxes:
            one.stop()

    @pytest.mark.parametrize("security", ["auto", "starttls"])
    def test_starttls_where_it_is_offered(self, box, certificate, security):
        server = box(starttls=certificate[1])
        send_test(Settings(mail=server.settings(security)))
        assert server.encrypted == [True]

    def test_tls_from_the_first_byte(self, box, certificate):
        server = box(tls=certificate[1])
        send_test(Settings(mail=server.settings("tls")))
        assert server.encrypted == [True]

    def test_auto_sends_without_where_it_is_not_offered(self, box):
        server = box()
        send_test(Settings(mail=server.settings()))
        assert server.encrypted == [False]

    def test_none_does_not_ask_for_it(self, box, certificate):
        server = box(starttls=certificate[1])
        send_test(Settings(mail=server.settings("none")))
        assert server.encrypted == [False]

    def test_starttls_that_is_asked_for_and_not_offered_sends_nothing(self, box):
        server = box()
        with pytest.raises(GatewatchError, match=rf"127.0.0.1:{server.port} offers no STARTTLS"):
            send_test(Settings(mail=server.settings("starttls")))
        assert server.mails == []

    @pytest.mark.parametrize("security", ["auto", "starttls", "tls"])
    def test_a_certificate_that_is_not_trusted_sends_nothing(self, box, certificate, security, monkeypatch):
        monkeypatch.delenv("SSL_CERT_FILE")
        server = box(**{"tls" if security == "tls" else "starttls": certificate[1]})
        with pytest.raises(GatewatchError, match=rf"127.0.0.1:{server.port}: .*not trusted.*SSL_CERT_FILE"):
            send_test(Settings(mail=server.settings(security)))
        assert server.mails == []

    def test_a_certificate_of_another_host_sends_nothing(self, box, certificate):
        server = box(starttls=certificate[1])
        with pytest.raises(GatewatchError, match="not trusted"):
            send_test(Settings(mail=server.settings(host="localhost")))
        assert server.mails == []

    def test_a_login(self, box, certificate):
        server = box(starttls=certificate[1], login=True)
        send_test(Settings(mail=server.settings(user="me")))
        assert server.encrypted == [True]
        assert {(login, encrypted) for _, login, encrypted in server.commands} == {(b"me", True)}

    def test_a_password_is_not_sent_in_the_clear(self, box):
        server = box(login=True)
        with pytest.raises(GatewatchError, match="a password is not sent in the clear") as caught:
            send_test(Settings(mail=server.settings(user="me")))
        assert server.commands == []
        assert PASSWORD not in str(caught.value)

    def test_unless_that_is_asked_for(self, box):
        server = box(login=True)
        send_test(Settings(mail=server.settings("none", user="me")))
        assert server.encrypted == [False]

    def test_a_wrong_password_is_named_and_shown_nowhere(self, box, certificate, monkeypatch):
        monkeypatch.setenv("GATEWATCH_SMTP_PASSWORD", "s3cret")
        server = box(starttls=certificate[1], login=True)
        with pytest.raises(GatewatchError, match=r"refuses \[mail\] user or GATEWATCH_SMTP_PASSWORD: 535") as caught:
            send_test(Settings(mail=server.settings(user="me")))
        assert "s3cret" not in str(caught.value)

    @pytest.mark.parametrize(
        ("password", "problem"), [(None, "is not set"), ("schön", "a character"), ("a\r\nb", "a character")]
    )
    def test_a_password_that_cannot_be_one(self, box, certificate, monkeypatch, password, problem):
        monkeypatch.delenv("GATEWATCH_SMTP_PASSWORD")
        if password:
            monkeypatch.setenv("GATEWATCH_SMTP_PASSWORD", password)
        server = box(starttls=certificate[1], login=True)
        with pytest.raises(GatewatchError, match=f"GATEWATCH_SMTP_PASSWORD .*{problem}"):
            send_test(Settings(mail=server.settings(user="me")))

    def test_mails_wait_until_the_password_is_right(self, box, certificate, tmp_path, monkeypatch):
        monkeypatch.setenv("GATEWATCH_SMTP_PASSWORD", "wrong")
        server = box(starttls=certificate[1], login=True)
        service = Service(tmp_path, server.settings(user="me"))
        service.fires(0)
        assert "GATEWATCH_SMTP_PASSWORD" in service.turn(31).problem
        monkeypatch.setenv("GATEWATCH_SMTP_PASSWORD", PASSWORD)
        service.turns(46, 80)
        assert len(server.mails) == 1


class TestServersThatAreNotWell:
    def test_one_that_is_away_for_a_while_loses_no_mail(self, service, postbox):
        postbox.stop()
        for k in range(5):
            service.fires(20 * k, run=f"run-{k}")
        outcomes = service.turns(300, 900, 60)
        assert outcomes[-1].waiting == 5
        assert "see that the mail server runs there" in outcomes[-1].problem
        assert service.events() == [("gate_not_finite", "memory", "firing", False)] * 5
        postbox.start()
        service.turns(900, 1300, 60)
        assert postbox.subjects == [f"[gatewatch] FIRING 1: run-{k} memory/forget" for k in range(5)]
        assert service.events() == [("gate_not_finite", "memory", "firing", True)] * 5

    def test_one_that_is_away_is_not_asked_all_the_time(self, service, postbox):
        postbox.stop()
        with Stub("close") as stub:
            service.mail = postbox.settings(port=stub.port)
            for run in "abc":
                service.fires(0, run=run)
            service.turns(15, 1800, 30)
        assert 6 <= stub.connections <= 12

    def test_451_is_tried_again(self, service, postbox):
        postbox.replies["DATA"] = "451 greylisted, come back"
        service.fires(0)
        outcome = service.turn(31)
        assert (outcome.sent, outcome.waiting, outcome.refused, outcome.problem) == (0, 1, 0, None)
        postbox.replies.clear()
        service.turns(46, 80)
        assert len(postbox.mails) == 1
        assert service.turn(80).waiting == 0

    @pytest.mark.parametrize("command", ["MAIL", "RCPT", "DATA"])
    def test_554_is_kept_with_the_reason_and_does_not_hold_up_others(self, service, postbox, command):
        postbox.replies[command] = "554 5.7.1 \x1b[31mlooks like spam"
        service.fires(0, run="a")
        outcome = service.turn(31)
        assert (outcome.sent, outcome.waiting, outcome.refused, outcome.problem) == (0, 0, 1, None)
        postbox.replies.clear()
        service.fires(45, run="b")
        service.turn(80)
        assert postbox.subjects == ["[gatewatch] FIRING 1: b memory/forget"]
        (kept,) = Outbox(service.folder / "alerts").refused
        reason = json.loads(kept.read_bytes())["problem"]
        assert re.fullmatch(r"me@example.com: 554 5\.7\.1 .*looks like spam", reason)
        assert reason.isprintable()
        assert [event[3] for event in service.events()] == [False, True]
        kept.rename(service.folder / "alerts/outbox" / kept.name)  # somebody has mended it
        service.turn(95)
        assert postbox.subjects[1:] == ["[gatewatch] FIRING 1: a memory/forget"]

    def test_one_recipient_of_several_that_is_refused_or_put_off(self, service, postbox):
        service.mail = postbox.settings(to=["good@example.com", "gone@example.com", "later@example.com"])
        bad = {"gone@example.com": "550 no such user", "later@example.com": "450 mailbox busy"}
        postbox.replies["RCPT"] = bad.get
        service.fires(0)
        outcome = service.turn(31)
        assert (outcome.sent, outcome.waiting, outcome.refused) == (0, 1, 1)
        del bad["later@example.com"]
        service.turns(46, 80)
        assert [mail.to for mail in postbox.mails] == [["good@example.com"], ["later@example.com"]]
        assert len({mail["Message-ID"] for mail in postbox.mails}) == 1
        (kept,) = Outbox(service.folder / "alerts").refused
        assert json.loads(kept.read_bytes())["to"] == ["gone@example.com"]
        assert service.events() == [("gate_not_finite", "memory", "firing", True)]

    @pytest.mark.parametrize("way", ["silent", "drip", "close", "busy", "drop", "421"])
    def test_one_that_hangs_drips_drops_or_is_busy(self, service, postbox, way):
        with Stub(way) as stub:
            service.mail = postbox.settings(port=stub.port, timeout_seconds=0.2)
            service.fires(0)
            begin = time.monotonic()
            outcome = service.turn(31)
            assert time.monotonic() - begin < 5
            assert stub.connections == 1
        assert (outcome.sent, outcome.waiting, outcome.failures) == (0, 1, 1)
        assert outcome.problem.startswith(f"127.0.0.1:{stub.port}")
        assert outcome.problem.isprintable()
        service.mail = postbox.settings()
        service.turns(46, 80)
        assert postbox.subjects == ["[gatewatch] FIRING 1: goog-1 memory/forget"]

    def test_one_that_goes_after_it_has_accepted_gets_the_same_mail_again(self, service, postbox):
        with Stub("drop after DATA") as stub:
            service.mail = postbox.settings(port=stub.port)
            service.fires(0)
            assert service.turn(31).waiting == 1
            first = email.message_from_bytes(stub.received, policy=policy.default)
        service.mail = postbox.settings()
        service.turns(46, 80)
        assert [mail["Message-ID"] for mail in postbox.mails] == [first["Message-ID"]]

    def test_past_so_many_mails_the_oldest_go(self, tmp_path, caplog):
        outbox = Outbox(tmp_path, most=3)
        for k in range(5):
            outbox.put(mail_about(f"run-{k}"), ["me@example.com"], [], at(k))
        assert len(outbox.waiting) == 3
        assert outbox.dropped == 2
        assert "run-2" in json.loads(outbox.waiting[0].read_bytes())["content"]

    def test_a_mail_that_is_damaged_does_not_hold_up_others(self, service, postbox, caplog):
        folder = service.folder / "alerts/outbox"
        folder.mkdir(parents=True)
        (folder / "00000000000000000001-abc.json").write_text('{"sender": "gate')
        service.fires(0)
        service.turn(31)
        assert len(postbox.mails) == 1
        assert "is damaged" in caplog.text


class Stub:
    """A server that is none: it accepts connections, and then behaves as no well server can be made to."""

    def __init__(self, way):
        self.way, self.connections, self.received = way, 0, b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._closing = threading.Event()

    def __enter__(self):
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def _serve(self):
        while not self._closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with connection, contextlib.suppress(OSError):
                self._talk(connection)

    def _talk(self, connection):
        if self.way == "silent":
            self._closing.wait(10)
        elif self.way == "drip":
            while not self._closing.wait(0.02):
                connection.sendall(b"2")
        elif self.way == "busy":
            connection.sendall(b"554 too \x1b[1mbusy\r\n")
        elif self.way in ("drop", "421", "drop after DATA"):
            connection.sendall(b"220 here\r\n")
            lines = connection.makefile("rb")
            for line in lines:
                if line.upper().startswith(b"MAIL") and self.way == "421":
                    connection.sendall(b"421 shutting down\r\n")
                    return
                if line.upper().startswith(b"RCPT") and self.way == "drop":
                    return
                connection.sendall(b"354 go on\r\n" if line.upper().startswith(b"DATA") else b"250 OK\r\n")
                if line.upper().startswith(b"DATA"):
                    while not self.received.endswith(b"\r\n.\r\n"):
                        self.received += lines.readline()
                    return


class TestWhoEndsInBetween:
    def test_a_service_that_starts_again_does_not_tell_again(self, service, postbox):
        service.fires(0)
        service.turns(15, 61)
        again = Service(service.folder, service.mail)
        again.turns(75, 600)
        assert len(postbox.mails) == 1
        assert again.events() == [("gate_not_finite", "memory", "firing", True)]

    @pytest.mark.parametrize(
        "damage",
        [b"", b'{"evaluated": 17', b"[]", b"\xff\x00", b'{"entries": {"x": 3}}', b'{"not_before": 1%030d}' % 0],
    )
    def test_a_state_that_is_damaged_is_said_and_begun_anew(self, service, postbox, caplog, damage):
        service.fires(0)
        service.turns(15, 61)
        state = service.folder / "alerts/alerts.json"
        state.write_bytes(damage)
        service.turn(75)
        assert "alerts.json is damaged" in caplog.text
        assert state.with_suffix(".damaged").read_bytes() == damage
        service.fires(90, run="goog-2")
        service.turns(105, 151)
        assert "[gatewatch] FIRING 1: goog-2 memory/forget" in postbox.subjects

    def test_what_is_remembered_of_a_run_may_be_damaged_too(self, service, postbox, caplog):
        service.fires(0)
        service.turns(15, 61)
        (service.folder / "alerts/runs/goog-1.json").write_text("{")
        service.turns(75, 200)
        assert "goog-1.json is damaged" in caplog.text
        assert len(postbox.mails) == 1

    def test_a_service_that_is_killed_while_it_sends_loses_nothing(self, service, postbox):
        """The server hangs in the middle of the mail; the process is killed; the next one sends it."""
        service.fires(0)
        with Stub("silent") as stub:
            code = (
                "import sys; from pathlib import Path\n"
                "from gatewatch.collector.config import MailSettings, Settings\n"
                "from gatewatch.collector.store import open_store\n"
                "from gatewatch.jobs.alerts import evaluate\n"
                f"mail = MailSettings(host='127.0.0.1', port={stub.port}, sender='a@b.c', to=['me@example.com'])\n"
                f"evaluate(open_store({service.url!r}), Settings(mail=mail), Path({str(service.folder)!r}), {at(31)})\n"
            )
            process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
            deadline = time.monotonic() + 30
            while not stub.connections and time.monotonic() < deadline:
                time.sleep(0.02)
            assert stub.connections == 1
            process.send_signal(signal.SIGKILL)
            process.wait()
        service.turns(46, 400)
        assert len(postbox.mails) == 1
        assert service.events()[-1][2:] == ("firing", True)

    def test_two_services_with_one_folder_mail_once(self, service, postbox):
        service.fires(0, layers=("memory", "decision"))
        others = [Service(service.folder, service.mail) for _ in range(4)]
        for seconds in range(15, 121, 15):
            with ThreadPoolExecutor(len(others)) as pool:
                outcomes = list(pool.map(lambda other: other.turn(seconds), others))  # noqa: B023 - mapped at once
            assert any(not outcome.busy for outcome in outcomes)
        assert len(postbox.mails) == 1

    def test_two_processes_with_one_folder_mail_once(self, service, postbox):
        service.fires(0)
        code = (
            "import sys, time; from pathlib import Path\n"
            "from gatewatch.collector.config import MailSettings, Settings\n"
            "from gatewatch.collector.store import open_store\n"
            "from gatewatch.jobs.alerts import evaluate\n"
            f"mail = MailSettings(host='127.0.0.1', port={postbox.port}, sender='a@b.c', to=['me@example.com'])\n"
            f"store = open_store({service.url!r})\n"
            "for seconds in range(15, 150, 15):\n"
            f"    evaluate(store, Settings(mail=mail), Path({str(service.folder)!r}), {BEGUN} + seconds * {S})\n"
        )
        processes = [subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) for _ in range(2)]
        assert [process.wait(60) for process in processes] == [0, 0]
        assert len(postbox.mails) == 1

    def test_while_another_is_at_it_nothing_is_done(self, service, postbox):
        with Stub("silent") as stub:
            slow = Service(service.folder, postbox.settings(port=stub.port, timeout_seconds=2.0))
            slow.fires(0)
            with ThreadPoolExecutor(1) as pool:
                turn = pool.submit(slow.turn, 31)
                while not stub.connections:
                    time.sleep(0.01)
                assert service.turn(32).busy
                assert turn.result().waiting == 1


HOSTILE = st.text(st.characters(codec="utf-8"), max_size=500) | st.lists(
    st.sampled_from(
        ["\r\n", "\n", "\r", "\0", "\u2028", "Bcc: you@evil.example", "\x1b[31m", "\u202e", "é", "<b>", ".", " "]
    ),
    max_size=40,
).map("".join)
HEADERS = {
    "Subject",
    "From",
    "To",
    "Date",
    "Message-ID",
    "References",
    "Auto-Submitted",
    "MIME-Version",
    "Content-Type",
}


def mail_about(run, layer="memory", why=None, *, rule="anomaly", source="", reached=""):
    tags = {"run": run, "phase": "train", "layer": layer, "gate": "forget", "detector": "consensus"}
    entry = AlertState(rule, tags, Firing(at(0), 10.0, 1.5, 2.0, why or {}, source=source, reached=reached), 1.0)
    mail = MailSettings(host="127.0.0.1", sender="gatewatch@example.com", to=["me@example.com"])
    return alert_mail(run, [Item("firing", run, entry, [])], RULES, Settings(mail=mail), at(0))


def lines_about(**about):
    """The lines of the alert that a mail holds."""
    _, card, _ = mail_about("r", **about).get_body(("plain",)).get_content().split("\n\n")
    return card.splitlines()


class TestSource:
    def test_a_mail_leads_with_the_source_and_the_sentence_of_the_check(self):
        assert lines_about(rule="check_failed", source="optimizer", why={"moments_fell": 2.0})[:4] == [
            "FIRING: check_failed (critical)",
            "memory/forget, phase train, detector consensus",
            "optimizer: the optimizer's second moments fell further than they decay: was its state dropped or "
            "exchanged? (moments_fell)",
            "a statement that is true of every sound training is broken",
        ]

    def test_the_other_reasons_come_after_what_is_compared(self):
        lines = lines_about(source="network", why={"loss": -3.0, "frozen": 2.0})
        assert lines[2:4] == [
            "network: the weights stand still while the run goes on (frozen)",
            "a gate behaves as it has not before",
        ]
        assert [line for line in lines if line.startswith("why")] == ["why: the loss fell (loss, 3× its usual)"]

    def test_a_score_that_says_no_source_leads_with_the_rule(self):
        lines = lines_about(why={"loss": -3.0})
        assert lines[2] == "a gate behaves as it has not before"
        assert "why: the loss fell (loss, 3× its usual)" in lines

    def test_it_says_how_many_healthy_runs_came_this_far(self):
        reached = "2 of 19 healthy runs of this network came this far"
        lines = lines_about(reached=reached)
        assert lines[3:5] == ["anomaly score 1.5, alerts above 1, at worst 2", reached]

    def test_a_check_that_a_sound_training_may_fail_is_a_warning(self):
        assert lines_about(rule="check_failed", why={"order_lost": 2.0})[0] == "FIRING: check_failed (warning)"
        both = {"order_lost": 2.0, "moments_fell": 2.0}
        assert lines_about(rule="check_failed", why=both)[0] == "FIRING: check_failed (critical)"


def mail_of(*alerts, about=AboutRun()):  # noqa: B008 - it cannot be changed
    """The mail about some alerts: rule, layer, gate, step, worst, reasons."""
    items = []
    for rule, layer, gate, step, worst, why in alerts:
        tags = {"run": "r", "phase": "train", "layer": layer, "gate": gate}
        firing = Firing(at(step), step, worst, worst, dict.fromkeys(why, 2.0), worst_at=at(step), worst_step=step)
        items.append(Item("firing", f"{rule} {layer} {gate}", AlertState(rule, tags, firing, 1.0), []))
    mail = MailSettings(host="127.0.0.1", sender="gatewatch@example.com", to=["me@example.com"])
    return alert_mail("r", items, RULES, Settings(mail=mail), at(0), about)


class TestCauses:
    def test_scores_that_rise_by_what_another_rule_tells_belong_to_it(self):
        mail = mail_of(
            ("anomaly", "lstm", "input", 100, 2.0, ["not_finite"]),
            ("gate_not_finite", "lstm", "input", 100, 64.0, []),
            ("update_not_finite", "lstm", "kernel", 101, 64.0, []),
        )
        assert mail["Subject"] == "[gatewatch] FIRING 1: r lstm/input and 1 more"
        assert "later in 1 more: lstm: kernel" in text_of(mail)

    def test_what_has_nothing_to_do_with_it_is_another_cause(self):
        mail = mail_of(
            ("gate_not_finite", "lstm", "input", 100, 64.0, []),
            ("anomaly", "lstm", "output", 40, 3.0, ["entropy"]),
            ("check_failed", "lstm", "kernel", 50, 2.0, ["moments_fell"]),
            ("check_failed", "lstm", "recurrent", 50, 2.0, ["moments_fell"]),
            ("check_failed", "_data", "price", 60, 2.0, ["scale_jumped"]),
        )
        titles = [line for line in text_of(mail).splitlines() if line.startswith("FIRING: ")]
        assert mail["Subject"].startswith("[gatewatch] FIRING 4: r lstm/kernel and 1 more")
        assert titles == [
            "FIRING: check_failed (critical)",
            "FIRING: gate_not_finite (critical)",
            "FIRING: anomaly (warning)",
            "FIRING: check_failed (warning)",
        ]

    def test_scores_alone_are_a_cause_too(self):
        mail = mail_of(("anomaly", "lstm", "input", 100, 2.0, ["not_finite"]))
        assert mail["Subject"] == "[gatewatch] FIRING 1: r lstm/input"

    @pytest.mark.parametrize(
        ("layers", "place"),
        [(("trend", "carry"), "trend/input"), (("carry", "trend"), "carry/output"), ((), "carry/output")],
    )
    def test_it_begins_next_to_the_inputs_and_there_where_it_is_worst(self, layers, place):
        alerts = [
            ("anomaly", layer, gate, 100, worst, [])
            for layer, gate, worst in (
                ("carry", "input", 2.0),
                ("carry", "output", 9.0),
                ("trend", "forget", 2.0),
                ("trend", "input", 3.0),
            )
        ]
        mail = mail_of(*alerts, about=AboutRun(layers=layers))
        assert mail["Subject"] == f"[gatewatch] FIRING 1: r {place} and 3 more"

    def test_what_began_first_is_the_first_wherever_it_lies(self):
        mail = mail_of(
            ("anomaly", "trend", "input", 100, 9.0, []),
            ("anomaly", "carry", "input", 99, 2.0, []),
            about=AboutRun(layers=("trend", "carry")),
        )
        assert mail["Subject"] == "[gatewatch] FIRING 1: r carry/input and 1 more"


class TestTheRun:
    def rate(self, step=100, after=0.3):
        metrics = [
            Point("train_metrics", {"run": "goog-1", "phase": "train"},
                  {"learning_rate": 1e-3 if k < step else after, "step": k}, at(k))
            for k in range(200)
        ]  # fmt: skip
        return [metric for metric in metrics if metric.fields["step"] % 4 == 0]

    def test_what_was_set_and_jumped_just_before_comes_first(self, service, postbox):
        service.store.write(self.rate())
        service.fires(110)
        service.turns(125, 170)
        (mail,) = postbox.mails
        assert text_of(mail).splitlines()[2] == (
            "First at step 100, learning_rate went from 0.001 to 0.3, 300 times as large: what follows began then."
        )
        assert "learning_rate went from 0.001" in text_of(mail, "html")

    @pytest.mark.parametrize("seconds", [60, 190])
    def test_what_was_set_long_before_or_after_is_not_named(self, service, postbox, seconds):
        service.store.write(self.rate())
        service.fires(seconds)
        service.turns(seconds + 15, seconds + 61)
        (mail,) = postbox.mails
        assert "learning_rate" not in text_of(mail)

    def test_a_run_that_was_copied_in_while_it_seemed_to_go_on_is_not_to_be_stopped(self, service, postbox):
        tags = {"run": "goog-1", "phase": "train"}
        points = [Point("runs", tags, {"event": "heartbeat", "config": "{}", "step": 100}, at(0))]
        gate = {**tags, "layer": "memory", "gate": "forget"}
        points += [Point("gate_stats", gate, {"nan_count": 4, "inf_count": 0, "step": k}, at(-k)) for k in range(3)]
        service.turn(1800, points)
        service.turn(1840)
        (mail,) = postbox.mails
        text = text_of(mail)
        assert text.startswith("goog-1 (nothing heard since 2026-09-21 14:13:20 UTC): firing 1\n")
        assert "Stop the run" not in text


class TestHostileNames:
    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(run=HOSTILE, layer=HOSTILE, feature=HOSTILE)
    @example(run="0\U00012544", layer="000000000000000000000\x1f\x1f", feature="")
    def test_no_name_becomes_a_header_a_recipient_or_markup(self, postbox, run, layer, feature):
        mail = mail_about(run, layer, {feature: 3.0})
        box = Outbox(Path(os.environ["GATEWATCH_SPOOL"]))
        for path in box.waiting:
            path.unlink()
        box.put(mail, ["me@example.com"], [], at(0))
        postbox.mails.clear()
        assert box.send(postbox.settings(), State(), at(0))[0] == 1
        (arrived,) = postbox.mails
        assert set(arrived.keys()) == HEADERS
        assert arrived.to == ["me@example.com"]
        subject = str(arrived["Subject"])
        assert subject.startswith("[gatewatch] FIRING 1: ")
        assert subject.isprintable()
        assert len(subject) <= 160
        head = arrived.raw.split(b"\r\n\r\n")[0]
        assert all(len(line) <= 998 for line in head.split(b"\r\n"))
        assert head.isascii()
        for line in text_of(arrived).splitlines():
            assert line.isprintable()
        html = text_of(arrived, "html")
        assert set(re.findall(r"<(\w+)", html)) <= {"html", "head", "meta", "body", "p", "div", "strong", "br"}

    def test_a_run_with_a_name_like_this_gets_its_mail(self, service, postbox):
        run = "é" * 200 + ' <script>alert(1)</script> "quoted" 100%'
        service.fires(0, run=run)
        service.turn(31)
        (mail,) = postbox.mails
        assert mail["Subject"].startswith(f"[gatewatch] FIRING 1: {'é' * 59}… ")
        assert "<script>" not in text_of(mail, "html")

    def test_a_link_is_one_only_where_the_runbook_has_an_address(self, service, postbox):
        service.alerts = AlertSettings(runbook='https://wiki.example.com/"onclick="x')
        service.fires(0)
        service.turn(31)
        html = text_of(postbox.mails[0], "html")
        assert '<a href="https://wiki.example.com/&quot;onclick=&quot;x#gate_not_finite">' in html


class TestFromAScript:
    def test_an_alert_of_a_manager(self, postbox):
        manager = AlertManager(["me@example.com", "you@example.com"], {"loss": 1.0}, mail=postbox.settings(to=[]))
        manager.send_alert(manager.check_metrics({"loss": 2.0, "reward": 1.0}))
        manager.send_alert("drawdown 12 %\nclose the position\n.\n")
        manager.send_alert(manager.check_metrics({"loss": 0.5}))
        assert postbox.subjects == ["[gatewatch] loss is 2, above 1", "[gatewatch] drawdown 12 %"]
        assert [mail.to for mail in postbox.mails] == [["me@example.com", "you@example.com"]] * 2
        assert postbox.mails[1].get_content().replace("\r\n", "\n").startswith("drawdown 12 %\nclose the position\n.\n")

    def test_the_server_comes_from_the_configuration(self, postbox, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        Path("gatewatch.toml").write_text(
            f'[mail]\nhost = "127.0.0.1"\nport = {postbox.port}\nsender = "gatewatch@example.com"\n'
        )
        AlertManager("me@example.com", {}).send_alert("hello")
        assert postbox.subjects == ["[gatewatch] hello"]

    def test_without_a_server_or_a_sender_that_is_said(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ConfigError, match=r"\[mail\] host is not set in gatewatch.toml"):
            AlertManager("me@example.com", {}).send_alert("hello")
        with pytest.raises(ConfigError, match=r"\[mail\] sender is not set"):
            AlertManager("me@example.com", {}, mail=MailSettings(host="h")).send_alert("hello")
        with pytest.raises(ConfigError, match=r"nobody is to get mails: .*\[mail\] to"):
            send_test(Settings())

    def test_what_goes_wrong_is_one_line_with_host_port_and_remedy(self, postbox):
        port = free_port()
        refused = Settings(mail=postbox.settings(port=port))
        unknown = Settings(mail=postbox.settings(host="mail.invalid"))
        for wrong, where in ((refused, f"127.0.0.1:{port}: .*refused"), (unknown, f"mail.invalid:{postbox.port}: ")):
            with pytest.raises(GatewatchError, match=rf"{where}.*; see that the mail server runs there") as caught:
                send_test(wrong)
            assert "\n" not in str(caught.value)
        for reply, problem in (
            ("550 no such user", r"refuses the mail: 550 no such user; see \[mail\] sender"),
            ("450 busy", "puts off the mail for me@example.com: 450 busy"),
        ):
            postbox.replies["RCPT"] = reply
            with pytest.raises(GatewatchError, match=rf"127.0.0.1:{postbox.port} {problem}"):
                send_test(Settings(mail=postbox.settings()))

    @settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(message=HOSTILE)
    def test_no_message_becomes_a_header(self, postbox, message):
        postbox.mails.clear()
        AlertManager("me@example.com", {}, mail=postbox.settings()).send_alert(message)
        (arrived,) = postbox.mails
        assert set(arrived.keys()) == HEADERS - {"References"} | {"Content-Transfer-Encoding"}
        assert arrived.to == ["me@example.com"]
        assert str(arrived["Subject"]).isprintable()

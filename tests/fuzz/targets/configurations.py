"""`gatewatch.toml`, the environment and the command line, wrong in many ways."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from random import Random
from typing import Any

from pydantic import BaseModel

from gatewatch.collector.config import Settings, load_settings
from gatewatch.collector.store import open_store
from gatewatch.jobs.alerts.rules import active_rules
from gatewatch.jobs.command_line import parser
from tests.conftest import ROOT
from tests.fuzz import odd
from tests.fuzz.target import Target
from tests.fuzz.two_runs import FILE, MINE, URL, rows, write_two_runs

_SAMPLE = (ROOT / "config/gatewatch.sample.toml").read_bytes()
_VARIABLES = (
    *(
        "GATEWATCH_STORE",
        "GATEWATCH_CONFIG",
        "GATEWATCH_SPOOL",
        "GATEWATCH_STATE",
        "GATEWATCH_SMTP_PASSWORD",
        "GATEWATCH_ALERT_TO",
    ),
    *(
        f"INFLUXDB_V2_{name}"
        for name in ("URL", "ORG", "BUCKET", "TOKEN", "TOKEN_FILE", "TIMEOUT", "VERIFY_SSL", "SSL_CA_CERT", "PROXY")
    ),
    *(f"INFLUXDB_V2_{name}" for name in ("CERT_FILE", "CERT_KEY_FILE", "AUTH_BASIC", "CONNECTION_POOL_MAXSIZE")),
    *("GRAFANA_URL", "GRAFANA_TOKEN", "HTTP_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "XDG_STATE_HOME"),
)
_ENDLESS = {"demo"}
"""Commands that train, which takes minutes."""
_WAITING = {"--watch", "--mail", "--interval", "--executor", "--workers", "--verbose"}
"""Options with which a command goes on, or mails."""
_URLS = (
    *(
        "sqlite:///",
        "sqlite:///new.db",
        "sqlite://x",
        "sqlite:////dev/null/x",
        "127.0.0.1",
        "",
        " ",
        "file:///x",
        "http://",
    ),
    *(f"http://127.0.0.1:{port}" for port in ("9", "0", "99999", "9/a b\n")),
    *("https://127.0.0.1:9", "http://[::1", "http://u:p@127.0.0.1:9", "HTTP://127.0.0.1:9#x"),
)


@dataclass
class Case:
    """What is configured, and what is typed.

    Attributes:
        toml: of `gatewatch.toml`; None: there is none.
        environment: more variables.
        arguments: of the command.
    """

    toml: bytes | None = None
    environment: dict[str, str] = field(default_factory=dict)
    arguments: list[str] = field(default_factory=lambda: ["runs", "--store", URL])


class Configurations(Target):
    """A command, in a folder with a store."""

    name = "configurations"
    seconds = 60.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        write_two_runs(folder / FILE)
        self._files = odd.taken(folder)
        self._commands = [*_commands(parser(), [])]

    def sound(self) -> Case:
        return Case()

    def make(self, random: Random) -> Case:
        case = Case()
        if random.random() < 0.6:
            case.toml = (
                odd.damaged(random, _SAMPLE) if random.random() < 0.25 else _toml(random).encode(errors="replace")
            )
        for _ in range(random.choice((0, 0, 1, 2))):
            case.environment[random.choice(_VARIABLES)] = _variable(random)
        if random.random() < 0.7:
            path, actions = random.choice(self._commands)
            case.arguments = [*path, *_arguments(random, actions)]
            if path[0] == "jobs":
                case.arguments.append("--once")
            if "-o" not in case.arguments and path[0] == "report":
                case.arguments += ["-o", "report.html"]
            if random.random() < 0.1:
                case.arguments.insert(random.randint(0, len(case.arguments)), odd.argument(random))
        case.arguments = [
            argument
            for argument in case.arguments
            if not argument.startswith(("--w", "--m", "--i"))
            or argument in ("--influxdb-url",)
            or argument.startswith("--me")
        ]
        return case

    def place(self, case: Case, folder: Path) -> None:
        odd.put(folder, self._files)
        if case.toml is not None:
            (folder / "gatewatch.toml").write_bytes(case.toml)

    def run(self, case: Case, folder: Path) -> None:
        kept, stdin = dict(os.environ), sys.stdin
        home = {"XDG_STATE_HOME": str(folder / "home"), "INFLUXDB_V2_TIMEOUT": "300"}
        try:
            sys.stdin = StringIO("")
            for name, value in (home | case.environment).items():
                with suppress(ValueError, UnicodeError):  # the system takes no such value either
                    os.environ[name] = value
            with self.allowed():
                active_rules(load_settings().alerts)
            with self.allowed():
                open_store()
            self.command(*case.arguments)
        finally:
            sys.stdin = stdin
            for name in set(os.environ) - set(kept):
                del os.environ[name]
            os.environ.update(kept)

    def others(self, folder: Path) -> dict[str, object]:
        return {"points": rows(folder / FILE)}


def _commands(command: argparse.ArgumentParser, path: list[str]) -> Iterator[tuple[list[str], list[argparse.Action]]]:
    """Yield each command with its options."""
    below = [action for action in command._actions if isinstance(action, argparse._SubParsersAction)]
    for action in below:
        for name, each in action.choices.items():
            if name not in _ENDLESS:
                yield from _commands(each, [*path, name])
    if not below:
        yield path, [action for action in command._actions if not _WAITING & {*action.option_strings}]


def _arguments(random: Random, actions: list[argparse.Action]) -> Iterator[str]:
    for action in actions:
        if random.random() < (0.3 if action.option_strings and not action.required else 0.9):
            if action.option_strings:
                yield random.choice(action.option_strings)
            if action.nargs != 0:
                yield _argument(random, action)


def _argument(random: Random, action: argparse.Action) -> str:
    name = action.dest
    if name in ("output", "flux", "from_token_file", "folder"):
        return odd.path(random)
    if name in ("store", "source", "destination", "url", "influxdb_url"):
        return random.choice((URL, URL, *_URLS, f"sqlite:///{odd.path(random)}"))
    if name == "timeout":
        return random.choice(("1", "1", "0", "-1", "x", "1e3", "٣", "9" * 400))
    if name == "run":
        return random.choice((MINE, odd.argument(random)))
    if name == "name":
        return random.choice(("runs", "gates", "compare", "worst-layers", odd.argument(random)))
    if name == "param":
        return random.choice(
            (
                f"run={odd.argument(random)}",
                "start=-1h",
                odd.argument(random),
                "x:int=1",
                "x:duration=1y",
                f"n:float={'9' * 400}",
            )
        )
    return random.choice(
        (odd.argument(random), str(odd.number(random)), "2026-01-01", "0001-01-01", "9999-12-31T23:59:59+14:00")
    )


def _variable(random: Random) -> str:
    return random.choice(
        (odd.argument(random), odd.path(random), str(odd.number(random))[:1000], random.choice(_URLS), "x\r")
    )


def _toml(random: Random) -> str:
    """Return text of the form of `gatewatch.toml`: known and unknown keys, with values of any type."""
    lines: list[str] = []
    for name, each in Settings.model_fields.items():
        if random.random() < 0.5:
            _table(random, name, each.annotation, lines)
    if random.random() < 0.2:
        lines.insert(random.randint(0, len(lines)), odd.text(random))
    if random.random() < 0.03:
        lines.append(
            "x = "
            + random.choice(("[" * 3000, "{a=" * 3000, "9" * 5000, "1e99999", "0x" + "f" * 5000, "a" + ".a" * 3000))
        )
    return "\n".join(lines)


def _table(random: Random, name: str, model: Any, lines: list[str]) -> None:
    lines.append(f"[{name}]")
    rules = None
    for key, each in model.model_fields.items():
        if random.random() < 0.4:
            if key == "rules":
                rules = each.annotation.__args__[0]
            else:
                lines.append(f"{key} = {_literal(random, key)}")
    if random.random() < 0.1:
        lines.append(f"{_quoted(odd.text(random))} = 1")
    for _ in range(random.randint(0, 3) if rules else 0):
        assert issubclass(rules, BaseModel)
        lines.append("[[alerts.rules]]")
        sound = {"name": '"a_rule"', "measurement": '"gate_stats"', "field": '"mean"', "above": "1"}
        for key in rules.model_fields:
            if key in sound and random.random() < 0.8:
                lines.append(f"{key} = {sound[key]}")
            elif random.random() < 0.3:
                lines.append(f"{key} = {_literal(random, key)}")


def _literal(random: Random, key: str) -> str:
    if key in ("path", "state"):
        return _quoted(odd.path(random))
    if key == "url":
        return _quoted(random.choice((URL, *_URLS)))
    if key == "host":
        return random.choice(('"127.0.0.1"', '"a b"', "1"))
    return random.choice(
        (
            _quoted(odd.text(random)),
            *(
                "1",
                "0",
                "-1",
                "1.5",
                "true",
                "inf",
                "nan",
                "1e400",
                "9" * 30,
                "[]",
                "{}",
                '["a", 1]',
                "[[]]",
                "2026-01-01",
                "'local'",
            ),
            '{layer = "x", gate = ["y", 1]}',
        )
    )


def _quoted(text: str) -> str:
    escaped = "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in text)
    return f'"{escaped}"'

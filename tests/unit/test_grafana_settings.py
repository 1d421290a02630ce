"""Grafana starts with docker-compose.yml and the sample environment: each setting follows Grafana's own rules."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = (ROOT / "docker-compose.yml").read_text()
SAMPLE = dict(re.findall(r"^(\w+)=(.*)$", (ROOT / "config/.env.example").read_text(), re.M))
GIVEN = yaml.safe_load(COMPOSE)["services"]["grafana"]["environment"]
REFERENCE = re.compile(r"\$\{(\w+)(?::([-+?])([^}]*))?\}")


def filled_in(text: str, values: dict[str, str]) -> str:
    """A value of the compose file as Docker Compose fills it in; a needed variable that is empty becomes `needed`."""

    def fill(match: re.Match[str]) -> str:
        name, operator, other = match.groups()
        value = values.get(name, "")
        if operator == "+":
            return other if value else ""
        return value or {"-": other, "?": "needed", None: ""}[operator]

    return REFERENCE.sub(fill, text)


def settings(values: dict[str, str]) -> dict[str, str]:
    """Each setting as Grafana has it: Compose reads $$ as $, and Grafana puts in its own variables once."""
    given = {name: filled_in(value, values) for name, value in GIVEN.items() if not value.startswith("$$")}
    own = {name: value.removeprefix("$$").strip("{}") for name, value in GIVEN.items() if value.startswith("$$")}
    return given | {name: given[variable] for name, variable in own.items()}


def is_address(text: str) -> bool:
    """Whether Grafana's `util.IsEmail` takes it, as far as ASCII goes: a dot must be in the domain."""
    letters = r"[\w!#$%&'*+/=?^`{|}~-]+"
    label = r"[a-z0-9]([a-z0-9._~-]*[a-z0-9])?"
    last = r"[a-z]([a-z0-9._~-]*[a-z0-9])?"
    return bool(re.fullmatch(rf"{letters}(\.{letters})*@({label}\.)+{last}\.?", text, re.I | re.A))


def is_url(text: str) -> bool:
    parts = urlsplit(text)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0


def is_host_with_port(text: str) -> bool:
    return bool(re.fullmatch(r"[\w.-]+:\d+", text))


def is_boolean(text: str) -> bool:
    """Whether go-ini knows it; anything else it silently takes for the default."""
    return text in ("true", "false")


def is_duration(text: str) -> bool:
    return bool(re.fullmatch(r"(\d+(ms|[smhdwMy]))+", text))


def is_text(text: str) -> bool:
    return text.isprintable() and text == text.strip()


def is_content_types(text: str) -> bool:
    """Whether Grafana has a template for each; the last comes first in a mail, and mail programs show the last part."""
    return text.split(",") in (["text/html"], ["text/html", "text/plain"])


def is_policy(text: str) -> bool:
    return text in ("OpportunisticStartTLS", "MandatoryStartTLS", "NoStartTLS")


# An empty value is as if the variable were not there.
RULES = {
    "INFLUXDB_V2_URL": is_url,
    "INFLUXDB_V2_ORG": is_text,
    "INFLUXDB_V2_BUCKET": is_text,
    "GATEWATCH_GRAFANA_USER": is_text,
    "GATEWATCH_GRAFANA_PASSWORD": is_text,
    "GATEWATCH_SMTP_USER": is_text,
    "GATEWATCH_SMTP_PASSWORD": is_text,
    "GF_SECURITY_ADMIN_USER": is_text,
    "GF_SECURITY_ADMIN_PASSWORD": is_text,
    "GF_SECURITY_DISABLE_GRAVATAR": is_boolean,
    "GF_SERVER_ROOT_URL": is_url,
    "GF_USERS_ALLOW_SIGN_UP": is_boolean,
    "GF_AUTH_ANONYMOUS_ENABLED": is_boolean,
    "GF_ANALYTICS_REPORTING_ENABLED": is_boolean,
    "GF_ANALYTICS_CHECK_FOR_UPDATES": is_boolean,
    "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": is_boolean,
    "GF_NEWS_NEWS_FEED_ENABLED": is_boolean,
    "GF_PLUGINS_PREINSTALL_DISABLED": is_boolean,
    "GF_UNIFIED_ALERTING_ALERTMANAGER_CONFIG_POLL_INTERVAL": is_duration,
    "GF_SMTP_ENABLED": is_boolean,
    "GF_SMTP_HOST": is_host_with_port,
    "GF_SMTP_USER": is_text,
    "GF_SMTP_PASSWORD": is_text,
    "GF_SMTP_FROM_ADDRESS": is_address,
    "GF_SMTP_FROM_NAME": is_text,
    "GF_SMTP_STARTTLS_POLICY": is_policy,
    "GF_EMAILS_CONTENT_TYPES": is_content_types,
    "GATEWATCH_ALERT_TO": is_address,
}
EXPANDED = re.compile(r"\$(__\w+)?\{[^}]+\}|%\(.*?\)s")
"""What Grafana replaces in a setting: ${NAME}, $__env{NAME}, $__file{path}, and %(key)s of its ini files."""


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("gatewatch@localhost", False),
        ("gatewatch@gatewatch.localhost", True),
        ("nobody@gatewatch.invalid", True),
        ("gate.watch+1@mail.example.com", True),
        ("gatewatch@127.0.0.1", False),
        ("gatewatch", False),
        ("Gatewatch <gatewatch@example.com>", False),
    ],
)
def test_an_address_needs_a_dot_in_its_domain(text, taken):
    assert is_address(text) is taken


@pytest.mark.parametrize("values", [{}, SAMPLE, SAMPLE | {"GATEWATCH_SMTP_HOST": "smtp.example.com:587"}])
def test_grafana_takes_every_default(values):
    assert set(GIVEN) == set(RULES), "a setting without a rule here, or a rule without a setting"
    for name, value in settings(values).items():
        assert not value or RULES[name](value), f"{name}={value}"
        assert not EXPANDED.search(value), f"{name}={value}"


def test_the_sender_of_the_mails_is_never_empty():
    for values in ({}, SAMPLE):
        assert settings(values)["GF_SMTP_FROM_ADDRESS"] == "gatewatch@gatewatch.localhost"


def test_mail_is_off_until_a_server_is_named():
    assert settings(SAMPLE)["GF_SMTP_ENABLED"] == ""
    assert settings(SAMPLE | {"GATEWATCH_SMTP_HOST": "smtp.example.com:587"})["GF_SMTP_ENABLED"] == "true"


def test_a_password_reaches_grafana_as_it_is():
    for name in ("GF_SECURITY_ADMIN_PASSWORD", "GF_SMTP_PASSWORD"):
        variable = name.replace("GF_SECURITY_ADMIN", "GATEWATCH_GRAFANA").replace("GF_", "GATEWATCH_")
        assert GIVEN[name] == f"$${{{variable}}}"
        assert settings({variable: "$HOME ${HOME} 100%"})[name] == "$HOME ${HOME} 100%"

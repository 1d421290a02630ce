"""The connection to a Grafana: every request to its HTTP API, and every error as one line."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any, Final

import requests
from grafana_client import GrafanaApi  # type: ignore[import-untyped]  # it ships without types
from grafana_client.client import GrafanaException  # type: ignore[import-untyped]  # as above

from gatewatch.collector.address import server_url
from gatewatch.collector.environment import read_variable
from gatewatch.collector.errors import ConfigError, GatewatchError
from gatewatch.collector.text import one_line
from gatewatch.jobs.grafana.content import Content

OLDEST: Final = 11
"""The major version from which on everything that a push makes was seen to work and to stay editable."""
CONNECT_S: Final = 5.0
PERMISSIONS: Final = (
    *("datasources:read", "datasources:create", "datasources:write"),
    *("folders:read", "folders:create", "dashboards:read", "dashboards:create", "dashboards:write"),
    *("alert.provisioning:read", "alert.provisioning:write"),
)
"""What a push needs the token to be allowed to do."""
ROLE: Final = "make a service account with the role Admin and give its token as GRAFANA_TOKEN"


class Refused(GatewatchError):  # noqa: N818 - it is an answer
    """Grafana did not do what it was asked to.

    Attributes:
        status: the HTTP status.
        reason: what Grafana says.
    """

    def __init__(self, status: int, reason: str, where: str) -> None:
        super().__init__(f"{where}: {reason} ({status})")
        self.status = status
        self.reason = reason


class NoAnswer(GatewatchError):  # noqa: N818 - as above
    """Grafana did not answer in time."""


class Grafana:
    """A Grafana as the owner of a token sees it.

    Args:
        url: its address, with its path where a proxy puts it under one.
        token: of a service account; without one only its health can be read.
        source: where the address was given; errors name it.

    Raises:
        ConfigError: the address or the token cannot be one.
    """

    def __init__(self, url: str, token: str, source: str = "GRAFANA_URL") -> None:
        self._source = source
        self.url = server_url(url, source, credential="GRAFANA_TOKEN")
        if not token.isprintable():
            raise ConfigError(f"GRAFANA_TOKEN holds a character that no token has; {ROLE}")
        self._client = GrafanaApi(token or None).client
        self._client.url = f"{self.url}/api"
        self._client.s.max_redirects = 0  # a redirect would make a GET of a POST, and nothing would be written

    @cached_property
    def version(self) -> str:
        """Its version, such as 12.1.0.

        Raises:
            ConfigError: it is too old, or not a Grafana.
        """
        # Where /health hides the version from strangers, the settings show it to the token.
        version = self.health().get("version") or self.get("/frontend/settings")["buildInfo"].get("version")
        major = re.match(r"\d+(?=\.)", str(version))
        if major is None:
            raise ConfigError(f"{self.url} does not say its version ({version!r}); Grafana {OLDEST} or newer is needed")
        if int(major[0]) < OLDEST:
            raise ConfigError(f"{self.url} is Grafana {version}, and {OLDEST} or newer is needed: update it")
        return str(version)

    @cached_property
    def pages(self) -> str:
        """The address under which people see it, by its own settings; it may be reached here under another."""
        return str(self.get("/frontend/settings").get("appUrl") or self.url).rstrip("/")

    def health(self) -> dict[str, Any]:
        """Return what it says about itself to everyone.

        Raises:
            ConfigError: it is not a Grafana.
        """
        health = self.get("/health")
        if not isinstance(health, dict) or "database" not in health:
            raise self._not_grafana()
        return health

    def check_permissions(self) -> None:
        """See that the token may do everything that a push does.

        Raises:
            ConfigError: it may not; names what it lacks.
        """
        try:
            allowed = self.get("/access-control/user/permissions")
        except Refused:
            return
        missing = [name for name in PERMISSIONS if name not in allowed] if isinstance(allowed, dict) else []
        if missing:
            raise ConfigError(f"{self.url}: the token lacks {', '.join(missing)}; {ROLE}")

    def get(self, path: str, *, timeout_s: float = 30.0, missing_ok: bool = False) -> Any:
        """Return what is at a path under `/api`.

        Args:
            path: with its query.
            timeout_s: seconds to wait for the answer.
            missing_ok: whether to return None where nothing is.

        Raises:
            Refused: Grafana does not give it.
            NoAnswer: the time is over.
            ConfigError: the address or the token is wrong.
            GatewatchError: nothing answers.
        """
        return self._request("GET", path, timeout_s, missing_ok=missing_ok)

    def write(self, method: str, path: str, body: Content) -> Any:
        """Make (POST) or replace (PUT) something that can be edited in Grafana. Raises what `get` raises."""
        return self._request(method, path, json=body, headers={"X-Disable-Provenance": "true"})

    def _request(
        self, method: str, path: str, timeout_s: float = 30.0, *, missing_ok: bool = False, **arguments: Any
    ) -> Any:
        self._client.timeout = (min(CONNECT_S, timeout_s), timeout_s)
        try:
            return getattr(self._client, method)(path, **arguments)
        except GrafanaException as error:
            if missing_ok and error.status_code == 404:
                return None
            raise self._refusal(f"{method} {path.partition('?')[0]}", error.status_code, error.response) from None
        except (requests.RequestException, ValueError) as error:
            raise self._failure(error) from None

    def _failure(self, error: Exception) -> GatewatchError:
        match error:
            case requests.exceptions.SSLError():
                reason = one_line(getattr(error.args[0], "reason", error) if error.args else error, 300)
                remedy = "see its certificate, and name its authority in REQUESTS_CA_BUNDLE"
                return ConfigError(f"{self.url}: TLS failed ({reason}); {remedy}")
            case requests.TooManyRedirects():
                location = "" if error.response is None else str(error.response.headers.get("Location"))
                leads_to = one_line(location.partition("?")[0], 300)
                return ConfigError(f"{self.url} leads to {leads_to}; name that in {self._source}")
            case requests.Timeout():
                return NoAnswer(f"{self.url}: no answer in time; see that Grafana runs there")
            case requests.ConnectionError():
                return GatewatchError(f"{self.url}: no connection; see that Grafana runs there, and {self._source}")
        return self._not_grafana()

    def _refusal(self, request: str, status: int, answer: Any) -> GatewatchError:
        if answer is not None and not isinstance(answer, dict | list):
            page = Refused(status, one_line(answer, 300) or "no answer", self.url)
            return page if status >= 500 else self._not_grafana(f" {status}")
        message = answer.get("message") if isinstance(answer, dict) else None
        reason = one_line(message or answer or "there is nothing", 300)
        denials = {401: "the token is refused", 403: "the token may not do this"}
        if denial := denials.get(status):
            return ConfigError(f"{self.url}: {denial} ({reason}); {ROLE}")
        return Refused(status, reason, f"{self.url}: {request}")

    def _not_grafana(self, status: str = "") -> ConfigError:
        return ConfigError(f"{self.url} answers{status}, and is no Grafana; see {self._source}")


def connect(url: str | None = None) -> Grafana:
    """Return the Grafana to push to, after a check of its version and of what the token may do.

    Args:
        url: its address; that of GRAFANA_URL where None.

    Raises:
        ConfigError: no address or token is given, the token may not push, or the Grafana is too old.
    """
    address = url or read_variable("GRAFANA_URL")
    if not address:
        raise ConfigError("GRAFANA_URL is not set: name the Grafana there or with --url, such as http://host:3000")
    grafana = Grafana(address, token(), "--url" if url else "GRAFANA_URL")
    if not token():
        raise ConfigError(f"GRAFANA_TOKEN is not set; {ROLE}")
    _ = grafana.version
    grafana.check_permissions()
    return grafana


def token() -> str:
    """Return Grafana's token of the environment; empty where there is none."""
    return read_variable("GRAFANA_TOKEN")

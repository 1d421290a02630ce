"""The connection to a Grafana: every request to its HTTP API, and every error as one line."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any, Final
from urllib.parse import urlsplit

import requests
from grafana_client import GrafanaApi  # type: ignore[import-untyped]  # it ships without types
from grafana_client.client import GrafanaException  # type: ignore[import-untyped]  # as above

from gatewatch.collector.address import server_url
from gatewatch.collector.errors import ConfigError, GatewatchError
from gatewatch.collector.text import one_line

OLDEST: Final = 11
"""The major version from which on everything that a push makes was seen to work and to stay editable."""
PROVISIONING: Final = "/v1/provisioning"
TIMEOUT_S: Final = (5.0, 30.0)
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
        parts = urlsplit(self.url)
        self._client = GrafanaApi(
            token or None,
            protocol=parts.scheme,
            host=parts.netloc,
            url_path_prefix=f"{parts.path.lstrip('/')}/" if parts.path else "",
        ).client
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
            allowed = self.find("/access-control/user/permissions")
        except Refused:
            return
        missing = [name for name in PERMISSIONS if name not in allowed] if isinstance(allowed, dict) else []
        if missing:
            raise ConfigError(f"{self.url}: the token lacks {', '.join(missing)}; {ROLE}")

    def get(self, path: str, timeout_s: float | None = None) -> Any:
        """Return what is at a path under `/api`.

        Args:
            path: with its query.
            timeout_s: seconds to wait for the answer; 30 where None.

        Raises:
            Refused: Grafana does not give it.
            NoAnswer: the time is over.
            ConfigError: the address or the token is wrong.
            GatewatchError: nothing answers.
        """
        return self._request("GET", path, timeout_s=timeout_s)

    def find(self, path: str) -> Any | None:
        """Return what is at a path, or None where nothing is. Raises what `get` raises."""
        try:
            return self.get(path)
        except Refused as refused:
            if refused.status == 404:
                return None
            raise

    def post(self, path: str, body: Any) -> Any:
        """Make something that can be edited in Grafana. Raises what `get` raises."""
        return self._request("POST", path, body)

    def put(self, path: str, body: Any) -> Any:
        """Replace something; it can be edited in Grafana. Raises what `get` raises."""
        return self._request("PUT", path, body)

    def _request(self, method: str, path: str, body: Any = None, timeout_s: float | None = None) -> Any:
        self._client.timeout = TIMEOUT_S if timeout_s is None else (min(TIMEOUT_S[0], timeout_s), timeout_s)
        headers = {"X-Disable-Provenance": "true"} if method != "GET" else None
        try:
            return getattr(self._client, method)(path, json=body, headers=headers)
        except GrafanaException as error:
            raise self._refusal(method, path, error) from None
        except requests.exceptions.SSLError as error:
            reason = one_line(getattr(error.args[0], "reason", error) if error.args else error, 300)
            raise ConfigError(
                f"{self.url}: TLS failed ({reason}); see its certificate, and name its authority in REQUESTS_CA_BUNDLE"
            ) from None
        except requests.exceptions.TooManyRedirects as error:
            location = "" if error.response is None else str(error.response.headers.get("Location")).partition("?")[0]
            raise ConfigError(f"{self.url} leads to {one_line(location, 300)}; name that in {self._source}") from None
        except requests.exceptions.Timeout:
            raise NoAnswer(f"{self.url}: no answer in time; see that Grafana runs there") from None
        except requests.exceptions.ConnectionError:
            raise GatewatchError(
                f"{self.url}: no connection; see that Grafana runs there, and {self._source}"
            ) from None
        except (requests.exceptions.RequestException, ValueError):
            raise self._not_grafana() from None

    def _refusal(self, method: str, path: str, error: Any) -> GatewatchError:
        status, answer = int(error.status_code), error.response
        if answer is not None and not isinstance(answer, dict | list):
            if status < 500:
                return self._not_grafana(f" {status}")
            return Refused(status, one_line(answer, 300) or "no answer", self.url)
        message = answer.get("message") if isinstance(answer, dict) else None
        reason = one_line(message or answer or "there is nothing", 300)
        if status == 401:
            return ConfigError(f"{self.url}: the token is refused ({reason}); {ROLE}")
        if status == 403:
            return ConfigError(f"{self.url}: the token may not do this ({reason}); {ROLE}")
        return Refused(status, reason, f"{self.url}: {method} {path.partition('?')[0]}")

    def _not_grafana(self, status: str = "") -> ConfigError:
        return ConfigError(f"{self.url} answers{status}, and is no Grafana; see {self._source}")

"""A Grafana behind its HTTP API: every request goes through here, and every refusal comes back as one line."""

from __future__ import annotations

import re
from typing import Any, Final

import requests
from grafana_client import GrafanaApi  # type: ignore[import-untyped]  # it ships without types
from grafana_client.client import GrafanaException  # type: ignore[import-untyped]  # as above

from gatewatch.collector.errors import ConfigError, GatewatchError
from gatewatch.jobs.grafana.address import address

OLDEST: Final = (9, 3, 0)
"""The first that creates rules over the API which stay editable (`X-Disable-Provenance`)."""
EDITABLE: Final = (9, 5, 1)
"""The first that heeds that header for contact points, policies, templates and groups of rules too."""
TIMEOUT_S: Final = (5.0, 30.0)
ROLE: Final = "make a service account with the role Admin and give its token as GRAFANA_TOKEN"


class Refused(GatewatchError):  # noqa: N818 - it is what Grafana answered
    """Grafana did not do what it was asked.

    Attributes:
        status: of HTTP.
        said: what it says, without where.
    """

    def __init__(self, status: int, said: str, where: str) -> None:
        super().__init__(f"{where}: {said} ({status})")
        self.status = status
        self.said = said


class NoAnswer(GatewatchError):  # noqa: N818 - as above
    """Grafana did not answer in time."""


class Grafana:
    """One Grafana, seen as a token sees it.

    Args:
        url: its address, with its path where a proxy puts it under one; without user, password, query or fragment.
        token: of a service account, or an API key; without one it can be asked for its health alone.
        named: where the address was given.

    Raises:
        ConfigError: the address is none, or the token cannot be one.
    """

    def __init__(self, url: str, token: str, named: str = "GRAFANA_URL") -> None:
        self._named = named
        where = address(url, named, port=3000, variable="GRAFANA_TOKEN")
        self.url = where.url
        if not token.strip().isprintable():
            raise ConfigError(f"GRAFANA_TOKEN holds what no token can; {ROLE}")
        self._api = GrafanaApi(
            token.strip() or None,
            host=where.host,
            port=where.port,
            url_path_prefix=f"{where.path}/" if where.path else "",
            protocol=where.scheme,
            timeout=TIMEOUT_S,
        )
        self._api.client.s.max_redirects = 0  # one would make a GET of a POST, and nothing would be written
        self._version: tuple[int, ...] | None = None

    @property
    def version(self) -> tuple[int, ...]:
        """Its version, asked for once.

        Raises:
            ConfigError: it is too old, or no Grafana.
        """
        if self._version is None:
            health = self.health()
            said = health.get("version") or self.get("/frontend/settings")["buildInfo"].get("version")
            found = re.match(r"(\d+)\.(\d+)\.(\d+)", str(said))
            if found is None:
                raise ConfigError(
                    f"{self.url} does not say its version ({said!r}); {_version(OLDEST)} or newer is needed"
                )
            version = tuple(int(part) for part in found.groups())
            if version < OLDEST:
                raise ConfigError(
                    f"{self.url} is Grafana {_version(version)}, and {_version(OLDEST)} or newer is needed: before it"
                    " alert rules made over the API cannot be edited; update it, or use file provisioning"
                )
            self._version = version
        return self._version

    def health(self) -> dict[str, Any]:
        """What it says of itself to everyone.

        Raises:
            ConfigError: it is no Grafana.
        """
        health = self.get("/health")
        if not isinstance(health, dict) or "database" not in health:
            raise self._stranger()
        return health

    def get(self, path: str, within_s: float | None = None) -> Any:
        """What is at a path under `/api`.

        Raises:
            NoAnswer: it takes longer than it may, or than is common.
        """
        return self._ask("GET", path, within_s=within_s)

    def find(self, path: str) -> Any | None:
        """What is at a path, or None where nothing is."""
        try:
            return self._ask("GET", path)
        except Refused as refused:
            if refused.status == 404:
                return None
            raise

    def post(self, path: str, body: Any) -> Any:
        """Make something, so that it can be edited in Grafana."""
        return self._ask("POST", path, body)

    def put(self, path: str, body: Any) -> Any:
        """Replace something, so that it can be edited in Grafana."""
        return self._ask("PUT", path, body)

    def _ask(self, method: str, path: str, body: Any = None, within_s: float | None = None) -> Any:
        self._api.client.timeout = TIMEOUT_S if within_s is None else (min(TIMEOUT_S[0], within_s), within_s)
        headers = {"X-Disable-Provenance": "true"} if method != "GET" else None
        try:
            return getattr(self._api.client, method)(path, json=body, headers=headers)
        except GrafanaException as error:
            raise self._refusal(method, path, error) from None
        except requests.exceptions.SSLError as error:
            reason = one_line(getattr(error.args[0], "reason", error) if error.args else error)
            raise ConfigError(
                f"{self.url}: TLS failed ({reason}); see its certificate, and name its authority in REQUESTS_CA_BUNDLE"
            ) from None
        except requests.exceptions.TooManyRedirects as error:
            there = str(error.response.headers.get("Location")).partition("?")[0] if error.response is not None else ""
            raise ConfigError(f"{self.url} leads to {one_line(there)}; name that in {self._named}") from None
        except requests.exceptions.Timeout:
            raise NoAnswer(f"{self.url}: no answer in time; see that Grafana runs there") from None
        except requests.exceptions.ConnectionError:
            raise GatewatchError(f"{self.url}: no connection; see that Grafana runs there, and {self._named}") from None
        except (requests.exceptions.RequestException, ValueError):
            raise self._stranger() from None

    def _stranger(self, status: str = "") -> ConfigError:
        return ConfigError(f"{self.url} answers{status}, and is no Grafana; see {self._named}")

    def _refusal(self, method: str, path: str, error: Any) -> GatewatchError:
        status, answer = int(error.status_code), error.response
        if answer is not None and not isinstance(answer, dict | list):
            if status in (404, 405) or status < 500:
                return self._stranger(f" {status}")
            return Refused(status, one_line(answer) or "no answer", self.url)
        said = one_line((answer.get("message") if isinstance(answer, dict) else None) or answer or "there is nothing")
        if status == 401:
            return ConfigError(f"{self.url}: the token is refused ({said}); {ROLE}")
        if status == 403:
            return ConfigError(f"{self.url}: the token may not do this ({said}); {ROLE}")
        return Refused(status, said, f"{self.url}: {method} {path.partition('?')[0]}")


def one_line(text: object) -> str:
    """Foreign text as one line of bearable length."""
    line = " ".join(str(text).split())
    return line if len(line) <= 300 else f"{line[:300]}…"


def _version(parts: tuple[int, ...]) -> str:
    return ".".join(map(str, parts))

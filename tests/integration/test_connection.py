"""How an InfluxDB is reached: TLS, proxies and timeouts, against real servers that speak TLS and a real proxy."""

from __future__ import annotations

import re
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np
import pytest

from gatewatch import GateMonitor
from gatewatch.collector.errors import ConfigError, WriteUnavailable
from gatewatch.collector.schema import Point
from gatewatch.collector.store import open_store
from gatewatch.collector.store.base import Store
from tests.conftest import free_port
from tests.servers import ForwardProxy, Front, certificate, holding, replying

if TYPE_CHECKING:
    from ..conftest import Influxd

Env = Callable[..., None]


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Certificates: an authority, what it signed (for 127.0.0.1 and for influx.test), and a key with a password."""
    folder = tmp_path_factory.mktemp("pems")
    authority = certificate(folder, "authority")
    named = {name: certificate(folder, name, authority) for name in ("server", "client")}
    other = certificate(folder, "other", authority, "DNS:influx.test")
    locked = folder / "locked.key"
    command = ["openssl", "ec", "-aes128", "-passout", "pass:horse", "-in", folder / "client.key", "-out", locked]
    subprocess.run(command, check=True, capture_output=True)
    return {"authority": authority, "other": other, "locked": locked, **named}


@pytest.fixture
def environment(influxd: Influxd, monkeypatch: pytest.MonkeyPatch) -> Env:
    """Set variables; organisation, bucket and token are those of the real server."""
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)

    def set_all(**values: object) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, str(value))

    set_all(INFLUXDB_V2_ORG=influxd.org, INFLUXDB_V2_BUCKET=influxd.bucket(), INFLUXDB_V2_TOKEN=influxd.token)
    return set_all


@pytest.fixture
def tls_front(influxd: Influxd, pems: dict[str, Path]) -> Iterator[Callable[..., Front]]:
    """Begin a front of the real server that speaks TLS."""
    fronts: list[Front] = []

    def begin(name: str = "server", *, clients: bool = False) -> Front:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pems[name])
        if clients:
            context.load_verify_locations(pems["authority"])
            context.verify_mode = ssl.CERT_REQUIRED
            # With TLS 1.3 a client has sent its request before it is refused, and may see no more than a reset.
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        fronts.append(Front(influxd.url, tls=context))
        return fronts[-1]

    yield begin
    for front in fronts:
        front.close()


@pytest.fixture
def proxies() -> Iterator[Callable[..., ForwardProxy]]:
    """Begin a proxy."""
    begun: list[ForwardProxy] = []

    def begin(hosts: dict[str, str], login: str = "") -> ForwardProxy:
        begun.append(ForwardProxy(hosts, login))
        return begun[-1]

    yield begin
    for proxy in begun:
        proxy.close()


def works(store: Store) -> bool:
    store.check()
    now = time.time_ns()
    store.write([Point("m", {"run": "r"}, {"f": 1.0}, now)])
    return store.read("m")["time"].astype("int64").tolist()[-1] == now


def refused(url: str, *words: str, error: type[Exception] = ConfigError) -> None:
    """It is refused at the start, in one line with these words and without a secret."""
    with pytest.raises(error) as caught:
        open_store(url).check()
    text = str(caught.value)
    assert "\n" not in text
    assert "horse" not in text
    assert "operator" not in text
    for word in words:
        assert word in text


@pytest.mark.parametrize("variable", ["INFLUXDB_V2_SSL_CA_CERT", "REQUESTS_CA_BUNDLE"])
def test_an_authority_of_ones_own_is_trusted_where_it_is_named(environment, tls_front, pems, variable):
    front = tls_front()
    refused(front.url, front.url, "INFLUXDB_V2_SSL_CA_CERT", "REQUESTS_CA_BUNDLE", "INFLUXDB_V2_VERIFY_SSL")
    environment(**{variable: pems["authority"]})
    assert works(open_store(front.url))


def test_the_certificate_of_the_server_itself_can_be_named(environment, tls_front, pems):
    environment(INFLUXDB_V2_SSL_CA_CERT=pems["server"])
    assert works(open_store(tls_front().url))


def test_our_variable_comes_before_that_of_all_programs(environment, tls_front, pems):
    environment(INFLUXDB_V2_SSL_CA_CERT=pems["authority"], REQUESTS_CA_BUNDLE="/nowhere.pem")
    assert works(open_store(tls_front().url))


@pytest.mark.filterwarnings("error")  # urllib3 would warn at each connection, and where warnings are errors raise
@pytest.mark.parametrize("off", ["false", "False\r", "no", "0"])
def test_verification_can_be_turned_off(environment, tls_front, off):
    environment(INFLUXDB_V2_VERIFY_SSL=off)
    assert works(open_store(tls_front("other").url))


@pytest.mark.parametrize("on", ["true", "1", ""])
def test_verification_is_on_unless_it_is_turned_off(environment, tls_front, on):
    environment(INFLUXDB_V2_VERIFY_SSL=on)
    refused(tls_front().url, "CERTIFICATE_VERIFY_FAILED")


def test_a_certificate_for_another_host_is_refused(environment, tls_front, pems):
    environment(INFLUXDB_V2_SSL_CA_CERT=pems["authority"])
    refused(tls_front("other").url, "TLS failed", "use the name that its certificate is for")


def test_a_server_that_wants_a_certificate_gets_it(environment, tls_front, pems):
    front = tls_front(clients=True)
    environment(INFLUXDB_V2_SSL_CA_CERT=pems["authority"])
    refused(front.url, "INFLUXDB_V2_CERT_FILE", "INFLUXDB_V2_CERT_KEY_FILE")
    environment(INFLUXDB_V2_CERT_FILE=pems["client"])
    assert works(open_store(front.url))
    environment(INFLUXDB_V2_CERT_KEY_FILE=pems["locked"], INFLUXDB_V2_CERT_KEY_PASSWORD="horse")
    assert works(open_store(front.url))
    environment(INFLUXDB_V2_CERT_KEY_PASSWORD="donkey")
    refused(front.url, "INFLUXDB_V2_CERT_FILE", "INFLUXDB_V2_CERT_KEY_FILE", "_CERT_KEY_PASSWORD")
    environment(INFLUXDB_V2_CERT_KEY_PASSWORD="")  # OpenSSL must not ask for one on the terminal
    refused(front.url, "_CERT_KEY_PASSWORD")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("INFLUXDB_V2_SSL_CA_CERT", "/nowhere.pem"),
        ("REQUESTS_CA_BUNDLE", "/etc/hostname"),
        ("INFLUXDB_V2_CERT_FILE", "/nowhere.pem"),
        ("INFLUXDB_V2_CERT_FILE", "/etc/hostname"),
        ("INFLUXDB_V2_VERIFY_SSL", "perhaps"),
        ("INFLUXDB_V2_AUTH_BASIC", "perhaps"),
        ("INFLUXDB_V2_TIMEOUT", "10s"),
        ("INFLUXDB_V2_TIMEOUT", "0"),
        ("INFLUXDB_V2_TIMEOUT", "-1"),
        ("INFLUXDB_V2_CONNECTION_POOL_MAXSIZE", "many"),
        ("INFLUXDB_V2_PROXY", "socks5://horse@proxy:1080"),
        ("INFLUXDB_V2_PROXY", "http://"),
        ("HTTPS_PROXY", "socks5://horse@proxy:1080"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(environment, name, value):
    environment(**{name: value})
    refused("https://influx.test", f"{name}")


def test_plain_http_where_tls_is_spoken_and_the_reverse(environment, influxd):
    refused(influxd.url.replace("http:", "https:"), "use http://")


def test_a_timeout_is_in_milliseconds(environment, influxd):
    front = Front(influxd.url)
    front.answer = holding
    environment(INFLUXDB_V2_TIMEOUT="300")
    refused(front.url, "no answer within 0.3 s", error=WriteUnavailable)
    front.close()


def test_the_number_of_connections_may_be_set(environment, influxd):
    environment(INFLUXDB_V2_CONNECTION_POOL_MAXSIZE="1")
    assert works(open_store(influxd.url))


def test_a_token_may_be_a_user_and_a_password_for_who_stands_before_the_server(environment):
    front, seen = Front(), []
    front.answer = lambda handler, body: (seen.append(handler.headers["Authorization"]), replying(204)(handler, body))
    environment(INFLUXDB_V2_AUTH_BASIC="true", INFLUXDB_V2_TOKEN="ada:horse")
    open_store(front.url).check()
    assert seen[0] == "Basic YWRhOmhvcnNl"
    front.close()


# --- Proxies. influx.test is a name that only the proxy can resolve. --------------------------------------------------


@pytest.mark.parametrize("variable", ["INFLUXDB_V2_PROXY", "HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_that_a_variable_names_is_used(environment, influxd, proxies, variable):
    proxy = proxies({"influx.test:8086": influxd.address})
    environment(**{variable: f"http://{proxy.address}"})
    assert works(open_store("http://influx.test:8086"))
    assert "POST influx.test:8086" in proxy.asked


@pytest.mark.parametrize("variable", ["INFLUXDB_V2_PROXY", "HTTPS_PROXY", "https_proxy"])
@pytest.mark.parametrize("scheme", ["", "http://"])
def test_tls_goes_through_a_proxy_unseen(environment, tls_front, pems, proxies, variable, scheme):
    proxy = proxies({"influx.test:443": f"127.0.0.1:{tls_front('other').port}"}, "ada:ho@rse")
    login = f"ada:ho%40rse@{proxy.address}"
    environment(**{variable: f"{scheme}{login}"}, INFLUXDB_V2_SSL_CA_CERT=pems["authority"])
    assert works(open_store("https://influx.test"))
    assert set(proxy.asked) == {"CONNECT influx.test:443"}


def test_no_proxy_names_who_is_reached_without(environment, influxd, proxies, monkeypatch):
    proxy = proxies({})
    environment(HTTP_PROXY=f"http://{proxy.address}", NO_PROXY=".test, other")
    refused("http://influx.test:8086", "no connection", error=WriteUnavailable)
    monkeypatch.delenv("NO_PROXY")
    assert works(open_store(influxd.url))  # a proxy on another machine cannot lead to the loopback of this one
    assert works(open_store(influxd.url.replace("127.0.0.1", "localhost")))
    assert proxy.asked == []


@pytest.mark.parametrize(("url", "method"), [("http://influx.test:80", "POST"), ("https://influx.test:443", "CONNECT")])
def test_a_proxy_that_wants_a_password_is_named_with_its_variable(environment, proxies, url, method):
    proxy = proxies({}, "ada:horse")
    for login in ("", "ada:donkey@"):
        environment(INFLUXDB_V2_PROXY=f"http://{login}{proxy.address}")
        refused(url, proxy.address, "407", "INFLUXDB_V2_PROXY", "user:password@")
    environment(INFLUXDB_V2_PROXY=f"http://ada:horse@{proxy.address}")
    refused(url, proxy.address, "403", "INFLUXDB_V2_PROXY", "NO_PROXY")
    assert re.match(method, proxy.asked[0])


def test_a_proxy_that_is_away_does_not_keep_anyone_from_training(environment):
    address = f"127.0.0.1:{free_port()}"
    for url, variable in (("http://influx.test", "HTTP_PROXY"), ("https://influx.test", "HTTPS_PROXY")):
        environment(**{variable: f"http://{address}"})
        refused(url, address, variable, "NO_PROXY", error=WriteUnavailable)


def test_a_server_behind_a_proxy_that_is_away_does_not_either(environment, influxd, proxies):
    proxy = proxies({"influx.test:443": f"127.0.0.1:{free_port()}"})
    environment(HTTPS_PROXY=f"http://{proxy.address}")
    refused("https://influx.test", "502", "see that InfluxDB runs there", error=WriteUnavailable)


def test_no_secret_of_a_connection_is_in_its_text(environment):
    environment(INFLUXDB_V2_PROXY="http://ada:horse@proxy:3128")
    client = open_store("http://influx.test").influxdb
    assert client is not None
    assert "horse" not in f"{client!r} {client.connection!r}"
    assert "YWRhOmhvcnNl" not in f"{client!r} {client.connection!r}"


# --- What is no InfluxDB 2. The headers and answers are those of the servers that are named. --------------------------

IS_3 = replying(200, b'{"version":"3.4.1","revision":"abc"}', X_Influxdb_Build="Core", X_Influxdb_Version="3.4.1")
IS_18 = replying(204, X_Influxdb_Build="OSS", X_Influxdb_Version="1.8.10")
IS_2_STARTING = replying(503, b'{"code":"unavailable","message":"not ready"}', X_Influxdb_Version="v2.7.1")
HEALTH_18 = replying(200, b'{"name":"influxdb","message":"ready","status":"pass","version":"1.8.10"}')
PAGE = replying(200, b"<html>welcome</html>", Content_Type="text/html")
NOWHERE = replying(404, b"<html>no such page</html>")
NO_METHOD = replying(501, b"<html>Unsupported method ('POST')</html>")
GRAFANA = replying(404, b'{"message":"Not found","traceID":""}')


@pytest.fixture
def server(environment):
    """A server that answers as it is told, by the path."""
    front = Front()

    def begin(**by_path):
        answers = {path.replace("_", "/"): answer for path, answer in by_path.items()}

        def answer(handler, body):
            answers.get(handler.path.partition("?")[0], answers.get("/", NOWHERE))(handler, body)

        front.answer = answer
        return front.url

    yield begin
    front.close()


@pytest.mark.parametrize(
    ("answers", "named"),
    [
        ({"_ping": IS_3, "_health": replying(200, b"OK"), "_api_v2_write": replying(204)}, "InfluxDB 3.4.1 (Core)"),
        ({"_ping": IS_18, "_api_v2_write": replying(204)}, "InfluxDB 1.8.10 (OSS)"),
        ({"_ping": IS_18, "_api_v2_write": replying(404, b'{"error":"database not found"}')}, "InfluxDB 1.8.10 (OSS)"),
        ({"_ping": NOWHERE, "_health": HEALTH_18, "_api_v2_write": replying(204)}, "InfluxDB 1.8.10"),
        ({"_": PAGE}, "answers 200"),
        ({"_ping": NOWHERE, "_api_v2_write": NO_METHOD}, "answers 404 to /ping"),  # a web server of files alone
        ({"_": GRAFANA}, "answers 404 to /ping"),
    ],
    ids=["3-core", "1.8", "1.8-without-the-database", "1.8-behind-a-proxy", "page", "files", "grafana"],
)
def test_what_answers_and_is_not_influxdb_2_is_refused_by_its_name(server, answers, named):
    refused(server(**answers), named, "not InfluxDB 2", "see the address")


@pytest.mark.parametrize(
    "answers",
    [
        {"_": IS_2_STARTING},
        {"_api_v2_write": replying(503), "_": PAGE},  # a load balancer whose server is away
        {"_": replying(504, b"<html>gateway timeout</html>")},
        {"_": replying(500)},
    ],
)
def test_a_server_that_is_not_ready_is_not_refused(server, answers):
    refused(server(**answers), "answers 5" if "_api_v2_write" in answers else "", error=WriteUnavailable)


@pytest.mark.parametrize("ping", [NOWHERE, replying(401), PAGE, replying(204, X_Influxdb_Version="dev")])
def test_what_takes_writes_and_names_itself_nothing_else_is_taken(server, ping):
    open_store(server(_ping=ping, _api_v2_write=replying(204))).check()


def test_a_training_into_something_else_does_not_begin(server):
    url = server(_ping=IS_3, _api_v2_write=replying(204))
    model = keras.Sequential([keras.Input((4, 2)), keras.layers.LSTM(3)])
    model.compile("adam", "mse")
    x = np.zeros((2, 4, 2), "float32")
    with pytest.raises(ConfigError, match=r"InfluxDB 3\.4\.1 \(Core\) is there, which is not InfluxDB 2"):
        model.fit(x, x[:, 0, :1], verbose=0, callbacks=[GateMonitor(probe=x, log_dir=None, store=url, run="r")])
    assert int(model.optimizer.iterations) == 0

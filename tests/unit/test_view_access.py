"""Who may read the local page, and what each answer says."""

from __future__ import annotations

import gzip

import pytest

from gatewatch.jobs.view.access import cookie_for, cookie_of, has_token, is_loopback, names_this_machine
from gatewatch.jobs.view.answers import POLICY, Answer, compressed, json_answer, with_tag


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:6007", "127.0.0.1:6007", "LOCALHOST:80", "[::1]:6007", "127.1.2.3"]
)
def test_a_loopback_address_names_this_machine_whatever_port_ssh_forwards(host):
    assert names_this_machine(host)


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "evil.example",
        "evil.example:6007",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "192.168.1.5:6007",
        "[::1",
        "0.0.0.0",
        "user@evil.example",
        "127.0.0.1@evil.example",
        "2130706433",
    ],
)
def test_any_other_name_does_not(host):
    assert not names_this_machine(host)


def test_an_address_that_others_reach_is_no_loopback():
    assert [is_loopback(each) for each in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "192.168.1.5", "box")] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]


def test_the_cookie_of_another_port_is_another():
    header = cookie_for("secret", 6007)
    assert header == "gatewatch-6007=secret; HttpOnly; SameSite=Strict; Path=/"
    assert cookie_of("a=b; gatewatch-6007=secret", 6007) == "secret"
    for cookies in (None, "", "gatewatch-6008=secret", "gatewatch-6007", "\x00=;;", "gatewatch-6007=other"):
        assert not has_token("secret", cookie_of(cookies, 6007))
    assert has_token("é", "é")
    assert not has_token("secret", None)


def test_what_a_browser_knows_already_is_not_sent_again():
    whole = with_tag(json_answer({"a": 1}), None)
    tag = whole.headers["ETag"]
    assert (whole.status, whole.body) == (200, b'{"a":1}')
    for known in (tag, f"W/{tag}", f'"x", {tag}'):
        assert with_tag(json_answer({"a": 1}), known).status == 304
        assert with_tag(json_answer({"a": 1}), known).body == b""
        assert with_tag(json_answer({"a": 2}), known).status == 200
    assert with_tag(json_answer({"a": 1}, 503), tag).status == 503


def test_a_number_that_is_not_finite_is_null():
    assert json_answer([float("nan"), float("inf"), 1.5]).body == b"[null,null,1.5]"


def test_only_what_is_long_is_compressed_where_that_is_accepted():
    long = Answer(b"x" * 5000)
    packed = compressed(long, "br, gzip;q=0.8")
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.body) == long.body
    assert compressed(long, None) == compressed(long, "br") == long
    assert compressed(Answer(b"short"), "gzip") == Answer(b"short")


def test_the_policy_runs_no_script_but_the_servers_files():
    rules = dict(rule.strip().split(" ", 1) for rule in POLICY.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == rules["connect-src"] == "'self'"
    assert not [name for name, rule in rules.items() if "unsafe" in rule and name != "style-src"]

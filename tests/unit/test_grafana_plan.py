"""What a push decides, and how it compares: without a Grafana."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewatch.jobs.grafana import content as grafana_content
from gatewatch.jobs.grafana.artifacts import expand
from gatewatch.jobs.grafana.content import (
    MARK,
    covers,
    fingerprint,
    marked,
    normalize,
    pushed_in,
    route_content,
    rule_content,
    seconds,
    unmarked,
)
from gatewatch.jobs.grafana.plan import FILES, Existing, Resource, as_existing, plan
from gatewatch.jobs.grafana.push import with_route

TEXT = st.text(max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)
CONTENTS = st.dictionaries(TEXT, VALUES, max_size=4).map(normalize)

RESOURCE = Resource("rule", "u", "name", {"a": 1})


def decided(existing, resource=RESOURCE, overwrite=False):
    (step,) = plan([resource], {} if existing is None else {resource.key: existing}, overwrite=overwrite)
    return step.verb


class TestPlan:
    @given(CONTENTS)
    def test_a_missing_resource_is_created(self, content):
        assert decided(None, Resource("rule", "u", "n", content)) == "create"

    @given(CONTENTS, st.booleans())
    def test_a_pushed_resource_is_unchanged(self, content, overwrite):
        resource = Resource("rule", "u", "n", content)
        existing = Existing(content, resource.fingerprint, changed=False)
        assert decided(existing, resource, overwrite) == "unchanged"

    @given(CONTENTS, CONTENTS)
    def test_a_change_of_the_user_is_never_overwritten(self, theirs, ours):
        resource = Resource("rule", "u", "n", ours)
        for pushed in (None, "0123456789abcdef", resource.fingerprint):
            existing = Existing(theirs, pushed, changed=True)
            assert decided(existing, resource) in ("unchanged", "kept")

    @given(CONTENTS, CONTENTS, st.booleans())
    def test_a_provisioned_resource_is_never_written(self, theirs, ours, overwrite):
        existing = Existing(theirs, None, owner="file", problem="it does not answer")
        (step,) = plan([Resource("rule", "u", "n", ours)], {("rule", "u"): existing}, overwrite=overwrite)
        assert (step.verb, step.why) == ("kept", FILES)

    def test_an_older_push_is_updated(self):
        assert decided(Existing({"a": 0}, fingerprint({"a": 0}), changed=False)) == "update"

    def test_a_key_that_grafana_added_is_no_change(self):
        assert decided(Existing({"a": 1, "new": "x"}, RESOURCE.fingerprint, changed=True)) == "unchanged"

    def test_a_key_that_is_gone_is_a_change(self):
        resource = Resource("rule", "u", "n", {"a": 1, "b": 2})
        assert decided(Existing({"a": 1}, resource.fingerprint, changed=True), resource) == "kept"

    def test_overwrite_replaces_a_change_of_the_user(self):
        assert decided(Existing({"a": 9}, RESOURCE.fingerprint, changed=True), overwrite=True) == "update"

    def test_a_resource_with_a_problem_is_written_again_unless_the_user_changed_it(self):
        assert decided(Existing({"a": 1}, RESOURCE.fingerprint, changed=False, problem="no")) == "update"
        assert decided(Existing({"a": 2}, RESOURCE.fingerprint, changed=True, problem="no")) == "kept"

    def test_a_provisioned_parent_blocks(self):
        assert decided(Existing(None, owner="file")) == "blocked"


class TestTokenMark:
    @settings(max_examples=10)
    @given(st.text(min_size=1, max_size=90), st.text(min_size=1, max_size=90))
    def test_it_matches_its_own_token_alone_and_is_salted(self, token, other):
        mark = grafana_content.token_mark(token)
        assert grafana_content.is_token(token, mark)
        assert grafana_content.is_token(other, mark) == (token == other)
        assert len(mark) == 33
        assert mark != grafana_content.token_mark(token)

    @pytest.mark.parametrize("mark", [None, "", ".", 3, "é.", {}])
    def test_garbage_matches_no_token(self, mark):
        assert not grafana_content.is_token("t", mark)


class TestContent:
    @given(CONTENTS)
    def test_empty_values_do_not_count(self, content):
        padded = {"empty": None, "off": False, "none": {"x": []}} | json.loads(json.dumps(content, sort_keys=True))
        assert fingerprint(normalize(padded)) == fingerprint(content)
        assert covers(padded, content)
        assert normalize(content) == content

    def test_whole_numbers_are_integers(self):
        assert fingerprint(normalize({"params": [300.0, 0.5, 1e300]})) == fingerprint(
            {"params": [300, 0.5, int(1e300)]}
        )

    @given(CONTENTS, TEXT, st.integers(min_value=1))
    def test_a_change_changes_the_fingerprint(self, content, name, value):
        changed = {**content, name: [value, content.get(name)]}
        assert fingerprint(normalize(changed)) != fingerprint(content)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [("30s", 30), ("1m", 60), ("1m30s", 90), ("2h", 7200), ("1d", 86400), ("1w", 604800), ("0s", 0), (90, 90)],
    )
    def test_durations_are_seconds(self, text, expected):
        assert seconds(text) == expected

    @pytest.mark.parametrize("text", ["", "m", "1x", "5 m", "-1m", "1.5.2"])
    def test_what_is_not_a_duration_raises(self, text):
        with pytest.raises(ValueError, match=r"duration|convert"):
            seconds(text)

    def test_a_rule_compares_equal_as_grafana_gives_it_back(self):
        query = {"refId": "A", "datasourceUid": "gatewatch", "relativeTimeRange": {"from": 60, "to": 0}}
        sent = {"title": "t", "for": "120s", "interval": "60s", "data": [{**query, "model": {"query": "f"}}]}
        given_back = {
            **{"title": "t", "for": "2m", "interval": "1m", "isPaused": False, "labels": {}, "keep_firing_for": "0s"},
            "data": [{**query, "queryType": "", "model": {"query": "f", "intervalMs": 1000, "maxDataPoints": 43200}}],
        }
        assert rule_content(sent) == rule_content(given_back)
        assert rule_content(sent) != rule_content({**given_back, "isPaused": True})


class TestMarks:
    @given(TEXT.map(str.strip), CONTENTS)
    def test_the_mark_in_a_template_is_read_back(self, text, content):
        pushed = marked("template", {"template": text}, fingerprint(content))
        assert unmarked("template", pushed) == ({"template": text}, fingerprint(content), None)

    @given(TEXT)
    def test_a_template_without_a_mark(self, text):
        assert unmarked("template", {"template": text}) == ({"template": text.strip()}, None, None)

    def test_the_mark_in_a_message_is_read_back(self):
        assert pushed_in(MARK.format("0123456789abcdef")) == "0123456789abcdef"
        assert pushed_in("Restored from version 3") is None
        assert pushed_in(None) is None

    @pytest.mark.parametrize("mark", [None, "", "x", "a.b.c", ".b", MARK.format("0123456789abcdef")])
    def test_a_mark_that_is_gone_or_garbage_counts_as_a_change_of_the_user(self, mark):
        assert as_existing("datasource", {"name": "x", "jsonData": {"gatewatchPush": mark}}).changed


class TestExpand:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("$A", "1"),
            ("${A}b", "1b"),
            ("$$A", "$A"),
            ("$$$A", "$1"),
            ("$NONE.", "."),
            ("{{ $$labels.run }}", "{{ $labels.run }}"),
            ("a$", "a$"),
            ("$A_B", ""),
        ],
    )
    def test_variables_are_expanded(self, text, expected):
        assert expand({"x": [text, 3, None]}, {"A": "1"}) == {"x": [expected, 3, None]}

    @given(st.dictionaries(st.from_regex(r"[A-Z]{1,5}", fullmatch=True), TEXT), TEXT)
    def test_doubled_dollars_give_the_text_back(self, environment, text):
        assert expand(text.replace("$", "$$"), environment) == text


ROUTES = st.lists(st.fixed_dictionaries({"receiver": TEXT, "object_matchers": st.just([["team", "=", "desk"]])}))
OURS = {"receiver": "mail", "object_matchers": [["service", "=", "gatewatch"]], "group_wait": 30.0}
OURS |= {"routes": [{"receiver": "mail", "group_interval": 60.0}]}


class TestRoute:
    @given(TEXT, ROUTES, ROUTES, st.booleans())
    def test_it_is_in_the_tree_once_and_others_stay(self, receiver, before, after, there):
        older = [{"receiver": "old", "object_matchers": [["service", "=", "gatewatch"]]}] if there else []
        tree = {"receiver": receiver, "group_by": ["x"], "provenance": "", "routes": [*before, *older, *after]}
        as_it_was = copy.deepcopy(tree)
        new = with_route(tree, OURS)
        assert tree == as_it_was
        ours = [route for route in new["routes"] if route_content(route) == route_content(OURS)]
        assert len(ours) == 1
        assert [route for route in new["routes"] if route not in ours] == [*before, *after]
        assert (new["receiver"], new["group_by"]) == (receiver, ["x"])
        assert with_route(new, OURS) == new

    def test_it_comes_before_routes_that_take_everything(self):
        greedy = {"receiver": "desk", "object_matchers": [["alertname", "=~", ".*"]]}
        assert with_route({"receiver": "r", "routes": [greedy]}, OURS)["routes"][0]["receiver"] == "mail"

    def test_it_is_added_to_a_tree_without_routes(self):
        assert len(with_route({"receiver": "r"}, OURS)["routes"]) == 1

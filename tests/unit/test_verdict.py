"""The verdict: what follows from findings, its JSON, and its exit status."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest

from gatewatch.collector.runtime.background import BackgroundCall
from gatewatch.collector.verdict import Verdict, VerdictFinding, undecided
from gatewatch.collector.verdict_reader import VerdictReader
from gatewatch.jobs.commands.verdict import exit_status
from gatewatch.jobs.findings.finding import Finding
from gatewatch.jobs.findings.series import Key
from gatewatch.jobs.findings.verdict import judge

ALARM = Finding(
    sentence="First at step 40, moments fell.",
    level="alarm",
    what="moments fell",
    source="optimizer",
    key=Key("train", "lstm", "kernel"),
    step=40,
    time=np.datetime64("2026-01-01T00:00:04.5", "ns"),
    evidence={"score": 2.0, "phase": "train"},
)
NOTICE = Finding(sentence="The feed moved.", level="notice", what="the feed moved", source="data")
SHORT = Finding(sentence="14 of 33.", level="undecided", what="too little", evidence={"captures": 14})
CALM = Finding(sentence="All is well.", level="fact")


@pytest.mark.parametrize(
    ("findings", "answer", "sentence", "count"),
    [
        ([ALARM, SHORT, NOTICE, CALM], "alarm", "First at step 40, moments fell.", 3),
        ([SHORT, NOTICE], "undecided", "14 of 33.", 2),
        ([NOTICE, CALM], "notice", "The feed moved.", 1),
        ([CALM], "healthy", "All is well.", 0),
    ],
)
def test_the_first_finding_is_the_verdict_and_facts_are_no_evidence(findings, answer, sentence, count):
    verdict = judge("r", "completed", findings)
    assert (verdict.verdict, verdict.sentence, len(verdict.findings)) == (answer, sentence, count)


def test_its_json_has_the_keys_that_programs_rely_on():
    assert judge("r", "live", [ALARM, CALM]).as_dict() == {
        "run": "r",
        "state": "live",
        "verdict": "alarm",
        "sentence": "First at step 40, moments fell.",
        "findings": [
            {
                "source": "optimizer",
                "layer": "lstm",
                "gate": "kernel",
                "what": "moments fell",
                "since_step": 40,
                "since_time": "2026-01-01T00:00:04.500000+00:00",
                "evidence": {"score": 2.0, "phase": "train"},
            }
        ],
    }


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_is_null_in_json(value):
    finding = VerdictFinding(None, 'a\n"</script>\x1b\udcff', "g", "w", None, None, {"score": value, "cause": "\0"})
    verdict = Verdict("\udcff\n", None, "alarm", "\x1b[31m", (finding,))
    read = json.loads(json.dumps(verdict.as_dict(), allow_nan=False))
    assert read["findings"][0]["evidence"] == {"score": None, "cause": "\0"}
    assert read["run"] == "\udcff\n"


@pytest.mark.parametrize(
    ("answer", "by_default", "with_notice"),
    [("healthy", 0, 0), ("notice", 0, 1), ("alarm", 1, 1), ("undecided", 3, 3)],
)
def test_the_exit_status(answer, by_default, with_notice):
    assert (exit_status(answer, "alarm"), exit_status(answer, "notice")) == (by_default, with_notice)


class TestBackgroundCall:
    def test_it_returns_and_raises_what_the_function_does(self):
        call = BackgroundCall[int]()
        assert call.result(lambda: 7, 10) == 7
        with pytest.raises(ZeroDivisionError):
            call.result(lambda: 1 // 0, 10)
        assert call.result(lambda: 8, 10) == 8

    def test_a_call_that_is_still_at_work_is_waited_for_and_no_other_begins(self):
        go, begun = threading.Event(), []

        def work():
            begun.append(1)
            go.wait(10)
            return "first"

        call = BackgroundCall[str]()
        for _ in range(3):
            with pytest.raises(TimeoutError):
                call.result(work, 0.01)
        go.set()
        assert call.result(lambda: "second", 10) == "first"
        assert begun == [1]
        assert call.result(lambda: "second", 10) == "second"


class Silent:
    """A store that a user made, which can be written alone."""

    url = "mine://"


class TestReader:
    @pytest.mark.parametrize("seconds", [float("nan"), float("inf"), "soon", None])
    def test_a_timeout_that_is_none_is_named(self, seconds):
        verdict = VerdictReader().read(Silent(), "r", seconds)
        assert verdict.verdict == "undecided"
        assert "timeout=" in verdict.sentence

    def test_a_store_that_cannot_be_read_is_named(self):
        verdict = VerdictReader().read(Silent(), "r", 5)
        assert verdict == undecided("r", "the store of the run cannot be read: it has no find, runs")

    def test_a_store_that_raises_is_none(self):
        class Broken(Silent):
            path = "x"

            @property
            def destination(self):
                raise SystemError("odd")

            find = runs = None

        assert VerdictReader().read(Broken(), "r", 5) == undecided("r", "SystemError: odd")

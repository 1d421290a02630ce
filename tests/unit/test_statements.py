"""The sentences of checks and of the data detector: when first, what, where, and in which order."""

from __future__ import annotations

from itertools import chain
from typing import get_args

import numpy as np
import pandas as pd

from gatewatch.jobs.findings.finding import UPSTREAM
from gatewatch.jobs.findings.findings import run_findings
from gatewatch.jobs.findings.series import Key, by_series
from gatewatch.jobs.findings.statements import statements
from gatewatch.jobs.scoring.sources import Source

MOMENTS = "the optimizer's second moments fell further than they decay: was its state dropped or exchanged?"


def scored(detector, layer, gate, violated=(), cause="moments_fell", score=2.0, phase="train"):
    """Ten captures, one every 10 steps, of which some violate a check."""
    return [
        {
            "time": pd.Timestamp("2026-01-01", tz="UTC") + pd.Timedelta(seconds=k),
            "step": 10 * k,
            "phase": phase,
            "layer": layer,
            "gate": gate,
            "detector": detector,
            "anomaly_score": score if k in violated else 0.0,
            **({f"why_{cause}": score} if k in violated else {}),
        }
        for k in range(10)
    ]


def said(*series, layers=()):
    return [each.sentence for each in statements(pd.DataFrame([*chain(*series)]), layers=layers)]


def test_a_sentence_says_when_first_what_and_where():
    kernel = scored("checks", "b", "kernel", {4, 7})
    recurrent = scored("checks", "a", "recurrent", {4})
    later = scored("checks", "a", "bias", {6})
    (sentence,) = said(kernel, recurrent, later, layers=["a", "b"])
    assert sentence == f"First at step 40, {MOMENTS} (the recurrent weights of a and the kernel weights of b)."


def test_of_many_series_three_are_named():
    (sentence,) = said(*(scored("checks", f"l{k}", "kernel", {4}) for k in range(5)))
    assert sentence.endswith(
        "(the kernel weights of l0, the kernel weights of l1, the kernel weights of l2 and 2 more)."
    )


def test_what_came_first_comes_first_and_in_one_step_what_lies_upstream():
    moments, feed = scored("checks", "a", "kernel", {4}), scored("checks", "_data", "price", {4}, "scale_jumped")
    state = scored("checks", "a", "state", {3}, "not_reset")
    sentences = said(moments, feed, state)
    assert [sentence.split(",")[0] for sentence in sentences] == ["First at step 30"] + ["First at step 40"] * 2
    assert "the input price" in sentences[1]


def test_of_the_feed_the_inputs_are_named():
    feed, price = (scored("checks", "_data", gate, {4}, "scale_jumped") for gate in ("feed", "price"))
    (sentence,) = said(feed, price)
    assert sentence.endswith("(the input price).")


def test_causes_that_are_not_of_the_check_are_left_out():
    with_residual = [{**row, "why_gradient_norm": 9.0, "why_hasty": 2.0} for row in scored("checks", "a", "k", {4})]
    assert len(said(with_residual)) == 1


def test_a_feed_that_moved_is_a_notice():
    (one,) = statements(pd.DataFrame(scored("data", "_data", "feed", {5}, "feed_moved")))
    assert not one.is_alarm
    assert one.sentence.startswith("First at step 50, a notice, no alarm: what is fed is not what it was")


def test_a_statement_says_for_programs_what_where_and_since_when():
    feed, price = (scored("checks", "_data", gate, {4, 6}, "scale_jumped", score=3.5) for gate in ("feed", "price"))
    (one,) = statements(pd.DataFrame(feed + price))
    assert (one.level, one.source, one.key) == ("alarm", "data", Key("train", "_data", "price"))
    assert one.step == 40
    assert one.time == np.datetime64("2026-01-01T00:00:04")
    assert one.what.startswith("the scale of a feature jumped")
    assert one.evidence == {"phase": "train", "cause": "scale_jumped", "score": 3.5, "series": 2}


def test_a_warning_is_one_too():
    (one,) = statements(pd.DataFrame(scored("checks", "_model", "probe_loss", {5}, "probe_loss_rises", score=1.0)))
    assert not one.is_alarm


def test_phases_are_told_apart():
    train, live = scored("checks", "a", "kernel"), scored("checks", "a", "kernel", {2}, phase="live")
    assert said(train, live) == [f"First at step 20, {MOMENTS} (the kernel weights of a, live)."]


def test_runs_without_such_scores_have_no_sentence():
    assert statements(pd.DataFrame()) == []
    assert said(scored("consensus", "a", "kernel", {4})) == []


def test_alarms_come_before_all_else_and_notices_after_them():
    every = scored("checks", "a", "kernel", {4}) + scored("data", "_data", "feed", {2}, "feed_moved")
    consensus = by_series(pd.DataFrame(scored("consensus", "a", "kernel") * 10))
    found = run_findings({}, consensus, pd.DataFrame(), said=statements(pd.DataFrame(every)))
    sentences = [each.sentence for each in found]
    assert sentences[0].startswith(f"First at step 40, {MOMENTS}")
    assert sentences[1].startswith("First at step 20, a notice")
    assert len(sentences) == 2


def test_every_source_has_its_place():
    assert sorted(UPSTREAM) == sorted(get_args(Source))

"""A run that is too long to be read whole is judged as if it were, and its charts keep what matters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from gatewatch.collector.schema import Point
from gatewatch.jobs.findings.findings import findings_of
from gatewatch.jobs.findings.run_points import RunPoints, read_points
from gatewatch.jobs.findings.run_state import run_row
from gatewatch.jobs.frames import not_finite, numbers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gatewatch.collector.store import Store

BEGIN = 1_700_000_000_000_000_000
SECOND = 10**9
CAPTURES = 300
GATES = ("input", "forget")
_ALARMS = {("scores", "consensus"), ("rate", "consensus"), ("check", "checks"), ("check", "consensus")}


def run(fault: str, phase: str = "train") -> Iterator[Point]:
    """The points of a run of 300 captures, one every ten steps, in which something goes wrong from capture 217 on."""
    random = np.random.default_rng(3)
    tags = {"run": "r", "phase": phase, "symbol": "GOOG"}
    yield Point("runs", tags, {"event": "started", "step": 0, "config": '{"layers": ["b", "a"]}'}, BEGIN)
    yield Point("runs", tags, {"event": "completed", "step": 10 * CAPTURES}, BEGIN + CAPTURES * SECOND)
    for i in range(CAPTURES):
        at, step, wrong = BEGIN + i * SECOND, 10 * i, i >= 217
        rate = 0.3 if fault == "rate" and wrong else 1e-3
        yield Point("train_metrics", tags, {"loss": random.random(), "learning_rate": rate, "step": step}, at)
        vanished = fault == "gradient" and wrong
        for layer in ("a", "b"):
            sizes = {
                "gradient_norm": 1e-12 if vanished else random.random() + 1,
                "update_frequency": 1.0,
                "nan_count": 0,
            }
            yield Point("layer_updates", {**tags, "layer": layer, "param": "kernel"}, {**sizes, "step": step}, at)
            for gate in GATES:
                of = {**tags, "layer": layer, "gate": gate}
                yield from _gate(fault, of, at, step, random, wrong=wrong and gate == "forget" and layer == "a")


def _gate(
    fault: str, tags: dict[str, str], at: int, step: int, random: np.random.Generator, *, wrong: bool
) -> Iterator[Point]:
    broken = fault == "nan" and step >= 2170
    spike = fault == "spike" and step == 1230 and tags["gate"] == "input"
    saturated = {"saturated_low": 0.25, "saturated_high": 0.0, "dead_units": 1}
    values = {} if broken else {"mean": random.random(), "p05": 0.1, "p95": 0.99 if spike else 0.9, **saturated}
    yield Point("gate_stats", tags, {**values, "nan_count": 7 * broken, "inf_count": 0, "step": step}, at)
    yield Point("gate_units", tags, {"u000": step / 1e4, "u001": 0.5, "step": step}, at)
    yield Point("gate_derived", tags, {"window_s": 1.0, "memory_timescale": 3.0}, at)
    for detector in ("consensus", "checks", "rules"):
        alarms = wrong and (fault, detector) in _ALARMS
        score = float(random.uniform(1.5, 3)) if alarms else float(random.uniform(0, 0.9))
        why: dict[str, Any] = {}
        if alarms:
            why = (
                {"why_second_moment": 2.0} if fault == "check" else {"why_mean_activation": 6.0, "why_saturation": 4.0}
            )
        fields = {"anomaly_score": score, "anomalous": int(alarms), "step": step, "source": "network", **why}
        yield Point("gate_scores", {**tags, "detector": detector}, fields, at)


def read(store: Store, spans: int | None) -> RunPoints:
    """The run: whole, or as a long one with so many spans."""
    about = run_row(store, "r")
    return read_points(store, about) if spans is None else read_points(store, about, longest=0, spans=spans, units=True)


@pytest.mark.parametrize("fault", ["healthy", "nan", "scores", "check", "rate", "gradient", "spike"])
def test_a_long_run_has_the_same_findings_as_a_short_one(store: Store, fault: str) -> None:
    store.write(run(fault))
    whole = read(store, None)
    found = findings_of(whole)
    assert (found[0].level == "alarm") == (fault not in ("healthy", "spike", "gradient"))
    for spans in (1, 16, 1000):
        long = read(store, spans)
        assert findings_of(long) == found
        assert long.rows == whole.rows or fault == "nan"
        assert long.axes == whole.axes
        assert long.spans == whole.spans


def test_the_capture_at_which_values_broke_is_drawn_at_its_step(store: Store) -> None:
    store.write(run("nan"))
    long = read(store, 16)
    for frame in long.stats.values():
        first = int(np.argmax(not_finite(frame) > 0))
        assert (numbers(frame, "step")[first], not_finite(frame)[first]) == (2170.0, 7.0)
        assert len(frame) == 18  # the spans, the first that broke, and the newest
    assert all(row.is_broken for row in long.rows)


def test_a_lone_spike_is_drawn(store: Store) -> None:
    store.write(run("spike"))
    long = read(store, 16)
    assert {key.gate for key, frame in long.stats.items() if numbers(frame, "p95").max() == 0.99} == {"input"}
    assert long.drawn == {"train": (16, 300)}
    assert len(next(iter(long.units.values()))) == 17


def test_a_short_phase_beside_a_long_one_is_whole(store: Store) -> None:
    store.write(run("healthy"))
    store.write(point for i, point in enumerate(run("spike", "backtest")) if i < 2 + 15 * 27)
    about = run_row(store, "r")
    long = read_points(store, about, longest=100, spans=50)
    shown = {key.phase: len(frame) for key, frame in long.stats.items()}
    assert shown["train"] == 51
    assert (shown["backtest"], long.drawn["backtest"]) == (15, (15, 15))
    assert findings_of(long) == findings_of(read_points(store, about))


@pytest.mark.parametrize("layer", ["a", "b"])
@pytest.mark.parametrize("recorded", [range(100), range(250, CAPTURES)], ids=["at first", "at last"])
def test_layers_may_be_recorded_for_different_parts_of_a_long_run(store: Store, layer: str, recorded: range) -> None:
    points = run("nan")
    store.write(p for p in points if p.tags.get("layer") != layer or (p.time - BEGIN) // SECOND in recorded)
    found = findings_of(read(store, None))
    assert "step 2,170" in found[0].sentence
    long = read(store, 16)
    assert findings_of(long) == found
    assert long.drawn == {"train": (16, 300)}

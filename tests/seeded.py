"""A store that looks like one in use: runs that learn, collapse, die, fail, trade, and have hostile names.

All of it is made up, the same for the same `now`. Scores and derived metrics are those of a real pass of the jobs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gatewatch.collector import cells
from gatewatch.collector.cells import LSTM, gate_scale
from gatewatch.collector.schema import (
    ALERT_EVENTS,
    COLLECTOR_HEALTH,
    FEED_FEATURES,
    FEED_STATS,
    JOBS_HEALTH,
    LAYER_UPDATES,
    RECURRENT_STATE,
    RUNS,
    TRAIN_METRICS,
    Point,
)
from gatewatch.collector.store import Store
from gatewatch.jobs.scoring.scoring_pass import run_pass
from tests.recorded import SECOND, Array, recorded

COLLAPSED: Final = "goog-lstm-1"
"""An LSTM that lives, and whose first layer's forget gate falls shut in the last third; it overfits besides."""
HEALTHY: Final = "goog-lstm-2"
"""Its twin, which completed."""
GRU: Final = "eurusd-gru-1"
BACKTEST: Final = "goog-backtest-1"
"""In market time: a capture a day. Its events are in the time of the clock."""
DIED: Final = "btc-lstm-died"
FAILED: Final = "btc-lstm-failed"
HOSTILE: Final = 'a "b" ${x} .*[c]|(d)\\d+ /e,f=g\'h é漢'
"""Like the layer and the tags of this run: quotes, regex, Flux, backslashes, line protocol, unicode."""
HOSTILE_LAYER: Final = 'enc/"l" ${y}.^$\\w {0}, =ü'
HOSTILE_TAGS: Final = {"symbol": 'BRK.B "${z}" \\s|x', "my tag": "a, b=c"}
_GOOG: Final = {"symbol": "GOOG", "strategy": "momentum"}
TAGS: Final[Mapping[str, Mapping[str, str]]] = {
    COLLAPSED: _GOOG,
    HEALTHY: _GOOG,
    GRU: {"symbol": "EURUSD", "strategy": "carry"},
    BACKTEST: _GOOG,
    DIED: {"symbol": "BTCUSD"},
    FAILED: {},
    HOSTILE: HOSTILE_TAGS,
}
"""Run → the user's tags."""
RUN_NAMES: Final = (COLLAPSED, HEALTHY, GRU, BACKTEST, DIED, FAILED, HOSTILE)

LAYERS: Final = ("lstm_0", "lstm_1")
CAPTURES: Final = 90
EVERY: Final = 20 * SECOND
"""Between captures: 90 of them are half an hour."""
ONSET: Final = CAPTURES * 2 // 3
"""The capture at which the forget gate begins to fall."""
EPOCH: Final = 9
"""Captures an epoch; each epoch ends with a validation loss."""
UNITS: Final = 16
POSITIONS: Final = 12
FEATURES: Final = ("close", 'a "b" [c], ${x}', "volumé", *(f"return {lag}" for lag in range(1, 10)))
"""What is fed, by name. The second name is hostile."""
DAY: Final = 86_400 * SECOND
BACKTEST_DAYS: Final = 120
BACKTEST_AGO: Final = 400 * DAY
"""Before now: the end of the backtest's market dates."""

_USUAL: Final = {"input": 0.35, "forget": 0.73, "output": 0.5, "update": 0.6, "reset": 0.45}
_Fault = Callable[[int, str], float]
"""Capture and gate → what its activations are multiplied by."""


def seed(store: Store, now: int, runs: Sequence[str] = RUN_NAMES) -> None:
    """Write runs, their scores, and what is told of collector, jobs and alerts.

    Args:
        store: that is empty, or holds the same already.
        now: nanoseconds since the Unix epoch; nothing is later.
        runs: which of them.
    """
    for run in runs:
        store.write(point for part in _RUNS[run](now) for point in part)
    store.write([*jobs_points(now), *alert_points(now)])
    failed = [done for done in run_pass(store) if done.failed]
    assert not failed, failed


def heartbeats(now: int) -> Iterator[Point]:
    """A sign of life of each run that lives, at that time: for a test that comes long after the seeding."""
    for run, step in ((COLLAPSED, CAPTURES - 1), (GRU, 49), (HOSTILE, 39)):
        yield Point(RUNS, {"run": run, "phase": "train", **TAGS[run]}, {"event": "heartbeat", "step": step}, now)


def begin(now: int, captures: int = CAPTURES, silent: int = 0) -> int:
    """When the first of so many captures was taken that ended so many nanoseconds ago."""
    return now - silent - captures * EVERY


def many(now: int, count: int) -> Iterator[Point]:
    """Events of this many runs, each begun a minute before the next; every tenth failed. No captures."""
    for number in range(count):
        tags, since = {"run": f"run-{number:04d}", "phase": "train"}, now - (count - number) * 60 * SECOND
        about = {"framework": "keras", "model": "lstm", "config": "{}", "step": 0}
        yield Point(RUNS, tags, {"event": "started", **about}, since)
        end = "failed" if number % 10 == 0 else "completed"
        yield Point(RUNS, tags, {"event": end, "step": 100 + number}, since + 50 * SECOND)
        yield Point(TRAIN_METRICS, tags, {"loss": 1.0 / (1 + number), "step": 100, "epoch": 1}, since + 40 * SECOND)


def jobs_points(now: int, minutes: int = 30) -> Iterator[Point]:
    """Health of the jobs, one point per job and minute."""
    for k in range(minutes):
        for job in ("detect", "alerts"):
            counts = {"windows": 40 * k, "rows_read": 900 * k, "points_written": 160 * k, "failures": k // 20}
            fields = {"duration_s": 0.8 + 0.02 * k, "lag_s": 5.0 + k % 7, "missed": k // 25, **counts}
            yield Point(JOBS_HEALTH, {"job": job}, fields, now - (minutes - k) * 60 * SECOND)


def alert_points(now: int) -> Iterator[Point]:
    """A collapse that was told, a death, and a late job that recovered."""
    layer = {"run": COLLAPSED, "phase": "train", "layer": LAYERS[0], "gate": "forget"}
    told = (
        ({**layer, "rule": "forget_gate_shut"}, "firing", 0.01, 0.05, 9),
        ({"run": DIED, "phase": "train", "rule": "run_died"}, "firing", 180.0, 120.0, 12),
        ({"job": "detect", "rule": "jobs_late"}, "firing", 400.0, 300.0, 20),
        ({"job": "detect", "rule": "jobs_late"}, "recovered", 30.0, 300.0, 15),
    )
    for tags, state, value, threshold, minutes in told:
        fields = {"state": state, "value": value, "threshold": threshold, "delivered": True}
        yield Point(ALERT_EVENTS, tags, fields, now - minutes * 60 * SECOND)


def _training(
    run: str,
    now: int,
    *,
    captures: int = CAPTURES,
    silent: int = 0,
    phase: str = "train",
    layers: Sequence[str] = LAYERS,
    gates: Sequence[str] = LSTM.gate_names,
    tags: Mapping[str, str] | None = None,
    seed: int = 1,
    fault: _Fault = lambda k, gate: 1.0,
    rise: float = 0.0,
    end: Mapping[str, Any] | None = None,
    at: Callable[[int], int] | None = None,
) -> Iterator[list[Point]]:
    """The points of a run, capture by capture.

    Args:
        run, phase, layers, gates, tags, seed: see `recorded`.
        now: no point is later.
        captures: how many.
        silent: nanoseconds for which nothing was heard of it.
        fault: of the first layer.
        rise: of the validation loss, an epoch, once half of the run is over.
        end: the fields of its last event; None where it told no end.
        at: the time of a capture, where that is not the clock's.
    """
    named = {"run": run, "phase": phase, **(tags or {})}
    since = begin(now, captures, silent)

    def clock(k: int) -> int:
        return since + k * EVERY

    moment = at or clock
    parts = [
        recorded(
            captures,
            run=run,
            phase=phase,
            tags=tags,
            layers=(layer,),
            gates=gates,
            loss=not number,
            seed=seed + number,
            params=("kernel", "recurrent", "bias") if phase == "train" else (),
            change=_natural(seed + number, fault if not number else lambda k, gate: 1.0),
            at=moment,
        )
        for number, layer in enumerate(layers)
    ]
    about = {"framework": "keras/tensorflow", "model": "Sequential policy", "config": _config(layers, tags)}
    yield [Point(RUNS, named, {"event": "started", **about, "step": 0}, since - SECOND)]
    for k, captured in enumerate(zip(*parts, strict=True)):
        points = [point for part in captured for point in part if point.measurement != RUNS]
        updates = [point for point in points if point.measurement == LAYER_UPDATES]
        points += [
            Point(LAYER_UPDATES, p.tags, {"update_norm": 3e-3, "update_frequency": 0.98}, p.time) for p in updates
        ]
        if (k + 1) % EPOCH == 0 and phase == "train":
            loss = 1.05 - 0.5 * (1 - np.exp(-k / 60)) + rise * max(0, k - captures / 2) / EPOCH
            fields = {"val_loss": float(loss), "epoch": k // EPOCH, "step": k}
            points.append(Point(TRAIN_METRICS, named, fields, moment(k) + 1000))
        yield [*points, *_fed(named, layers, k, moment(k), seed), *_watching(named, k, clock(k))]
    if end is not None:
        yield [Point(RUNS, named, {**end, "step": captures - 1}, clock(captures - 1) + SECOND)]


def _fed(named: Mapping[str, str], layers: Sequence[str], k: int, time: int, seed: int) -> Iterator[Point]:
    """What is recorded of the batch, of each feature, and of the state that sequences begin with; all of it healthy."""
    random = np.random.default_rng([seed, k, 99])
    scale = 10.0 ** (np.arange(len(FEATURES)) % 4)
    mean, std = scale * random.normal(0, 0.05, len(scale)), scale * random.normal(1, 0.02, len(scale))
    statistics = {
        **{"mean": mean, "std": std, "p01": mean - 2.3 * std, "p99": mean + 2.3 * std},
        **{"lag1": random.normal(0.9, 0.01, len(scale)), "nan_share": 0 * scale, "gradient_share": scale / scale.sum()},
    }
    for statistic, values in statistics.items():
        fields = {f"f{i:03d}": float(value) for i, value in enumerate(values)}
        yield Point(FEED_FEATURES, {**named, "statistic": statistic}, fields | {"step": k}, time)
    of_batch = {
        **{"nan_share": 0.0, "inf_share": 0.0, "constant_features": 0, "clipped_share": 0.01, "distinct_share": 1.0},
        **{"lag1": 0.9, "target_correlation": 0.2, "features": len(FEATURES), "sequences": 32, "positions": POSITIONS},
        "distance": float(abs(random.normal(0.1, 0.01))),
    }
    yield Point(FEED_STATS, named, {**of_batch, "step": k}, time)
    yield Point(TRAIN_METRICS, named, {"probe_loss": float(1 - 0.4 * (1 - np.exp(-k / 60))), "step": k}, time)
    state = {"initial_norm": 0.0, "starts": 4, "starts_not_reset": 0, "logprob_difference": 1e-6, "step": k}
    for layer in layers:
        yield Point(RECURRENT_STATE, {**named, "layer": layer}, state, time)


def _natural(seed: int, fault: _Fault) -> Callable[[int, str, Array], Array]:
    """Activations of UNITS units at POSITIONS positions, in the range that a gate of this name has."""

    def change(k: int, gate: str, values: Array) -> Array:
        usual = np.random.default_rng([seed, *gate.encode()])
        units = usual.normal(0, 0.12, UNITS) + np.linspace(-0.06, 0.06, UNITS)
        random = np.random.default_rng([seed, k, *gate.encode()])
        positions = 0.05 * np.sin(np.linspace(0, 3, POSITIONS) + k / 15)[:, None]
        found: NDArray[np.float64] = units + positions + random.normal(0, 0.05, (2, POSITIONS, UNITS))
        scale = gate_scale(gate)
        if scale.low == 0:
            found = (found + _USUAL[gate]).clip(0.001, 0.999)
        else:
            found = (found * 2.5 * scale.high).clip(scale.low * 0.99, scale.high * 0.99)
        return found * fault(k, gate)

    return change


def _falling(k: int, gate: str) -> float:
    return max(0.01, 1 - (k - ONSET) / 8) if gate == "forget" and k >= ONSET else 1.0


def _watching(named: Mapping[str, str], k: int, time: int) -> Iterator[Point]:
    """What the monitor says of itself with every capture."""
    yield Point(RUNS, named, {"event": "heartbeat", "step": k}, time + 2000)
    counts = {"captured": k + 1, "shipped": 60 * k, "rejected": 0, "dropped": 0, "failures": 0, "every": 10}
    costs = {"capture_ms": 4.0 + k % 3, "overhead_ratio": 0.008, "spooled_bytes": 2048 * (k % 5), "replay_error": 2e-7}
    yield Point(COLLECTOR_HEALTH, named, {**counts, **costs, "unreplayed_layers": 0}, time + 3000)


def _config(layers: Sequence[str], tags: Mapping[str, str] | None) -> str:
    about = {"layers": {name: {"units": UNITS} for name in layers}, "tags": dict(tags or {})}
    return json.dumps({**about, "feature_names": FEATURES})


def _collapsed(now: int) -> Iterator[list[Point]]:
    return _training(COLLAPSED, now, tags=TAGS[COLLAPSED], fault=_falling, rise=0.25)


def _healthy(now: int) -> Iterator[list[Point]]:
    return _training(HEALTHY, now, silent=300 * SECOND, tags=TAGS[HEALTHY], end={"event": "completed"})


def _gru(now: int) -> Iterator[list[Point]]:
    return _training(GRU, now, captures=50, layers=("gru",), gates=cells.GRU.gate_names, tags=TAGS[GRU], seed=3)


def _backtest(now: int) -> Iterator[list[Point]]:
    first = market_begin(now)

    def at(k: int) -> int:
        return first + k * DAY

    tags = TAGS[BACKTEST]
    ends = {"event": "completed"}
    walked = _training(
        BACKTEST, now, captures=BACKTEST_DAYS, silent=60 * SECOND, phase="backtest", layers=("memory",), tags=tags,
        seed=5, end=ends, at=at,
    )  # fmt: skip
    random = np.random.default_rng(7)
    price = 100 * np.exp(np.cumsum(random.normal(0.0005, 0.02, BACKTEST_DAYS)))
    position = np.tanh(np.cumsum(random.normal(0, 0.3, BACKTEST_DAYS)))
    equity = 100 + np.concatenate([[0.0], np.cumsum(position[:-1] * np.diff(price))])
    named = {"run": BACKTEST, "phase": "backtest", **tags}
    traded = zip(price.tolist(), position.tolist(), equity.tolist(), strict=True)
    yield [
        Point(TRAIN_METRICS, named, {"price": p, "position": q, "equity": e, "step": k, "epoch": 0}, at(k) + 1000)
        for k, (p, q, e) in enumerate(traded)
    ]
    yield from walked


def market_begin(now: int) -> int:
    """The first market date of the backtest."""
    return (now - BACKTEST_AGO) // DAY * DAY - (BACKTEST_DAYS - 1) * DAY


def _died(now: int) -> Iterator[list[Point]]:
    silent = 15 * 60 * SECOND
    return _training(DIED, now, captures=40, silent=silent, layers=("lstm",), tags=TAGS[DIED], seed=11)


def _failed(now: int) -> Iterator[list[Point]]:
    ends = {"event": "failed", "error": 'ValueError: "loss" is NaN at step 39'}
    return _training(FAILED, now, captures=40, silent=600 * SECOND, layers=("lstm",), seed=13, end=ends)


def _hostile(now: int) -> Iterator[list[Point]]:
    return _training(HOSTILE, now, captures=40, layers=(HOSTILE_LAYER,), tags=HOSTILE_TAGS, seed=17)


_RUNS: Final = {
    COLLAPSED: _collapsed,
    HEALTHY: _healthy,
    GRU: _gru,
    BACKTEST: _backtest,
    DIED: _died,
    FAILED: _failed,
    HOSTILE: _hostile,
}

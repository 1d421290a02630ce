"""The points of one capture and of what a framework logs: any names, any numbers, always storable."""

from __future__ import annotations

import fractions
import math
from decimal import Decimal
from typing import NamedTuple

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gatewatch.collector.capture import gate_points, metrics_point, no_numbers
from gatewatch.collector.cells import gate_scale
from gatewatch.collector.names import clean_name
from gatewatch.collector.schema import GATE_STATS, GATE_STATS_FIELDS, point_problem
from gatewatch.collector.statistics import gate_statistics, time_profile, unit_profile

pytestmark = pytest.mark.filterwarnings("error")

TAGS = {"run": "r", "phase": "train", "symbol": "GOOG"}
VALUES = np.random.default_rng(0).random((2, 3, 4), np.float32)
HOSTILE = ["", " ", "time", "_field", "a,b=c d", 'say "x"', "two\nlines", "nul\0", "back\\", "\ud800", "🚀", "x" * 2000]

names = st.text(max_size=8) | st.text(st.characters(), max_size=8) | st.sampled_from(HOSTILE)


class Layer(NamedTuple):
    gates: dict
    mask: np.ndarray | None = None


def test_a_gate_has_its_statistics_its_units_and_its_positions():
    mask = np.array([[True, True, False], [True, False, False]])
    points = gate_points({"memory": Layer({"forget": VALUES}, mask)}, TAGS, time=7, step=3, epoch=1)
    assert [point.measurement for point in points] == ["gate_units", "gate_time", "gate_stats"]
    assert {point.time for point in points} == {7}
    assert all(point.tags == {**TAGS, "layer": "memory", "gate": "forget"} for point in points)
    units, positions, stats = (point.fields for point in points)
    assert stats == {**gate_statistics(VALUES, gate_scale("forget"), mask), "step": 3, "epoch": 1}
    assert units == {**unit_profile(VALUES, mask), "step": 3}
    assert positions == {**time_profile(VALUES, mask), "step": 3}
    assert set(stats) == set(GATE_STATS_FIELDS)
    assert set(positions) == {"t000", "t001", "step"}


def test_a_gate_without_any_value_still_says_how_much_of_it_is_lost():
    (point,) = gate_points({"a": Layer({"cell": np.full((2, 3, 4), np.nan)})}, TAGS, 0, 0, 0)
    assert point.measurement == GATE_STATS
    assert point.fields == {"nan_count": 24, "inf_count": 0, "step": 0, "epoch": 0}


def test_every_layer_and_every_gate_is_a_series_of_its_own():
    layers = {"a": Layer({"update": VALUES, "reset": VALUES}), "b": Layer({"update": VALUES})}
    points = gate_points(layers, TAGS, 0, 0, 0)
    assert [(p.tags["layer"], p.tags["gate"]) for p in points if p.measurement == GATE_STATS] == [
        ("a", "update"),
        ("a", "reset"),
        ("b", "update"),
    ]
    assert len({(p.measurement, p.tags["layer"], p.tags["gate"]) for p in points}) == 9


gate_values = hnp.arrays(
    st.sampled_from([np.float16, np.float32, np.float64]),
    hnp.array_shapes(min_dims=3, max_dims=3, max_side=4),
    elements=st.floats(width=16) | st.sampled_from([0.0, 1.0, math.nan, math.inf]),
)


@settings(deadline=None)
@given(st.dictionaries(names, st.dictionaries(names, gate_values, max_size=2), max_size=3))
@example({name: {name: VALUES} for name in HOSTILE})
@example({"a": {"cell": np.array([1.7e308, -1.7e308, 0, 1.7e308]).reshape(2, 2, 1)}})
def test_whatever_layers_and_gates_are_called_and_hold_every_point_can_be_stored(layers):
    for point in gate_points({name: Layer(gates) for name, gates in layers.items()}, TAGS, 1, 2, 3):
        assert point_problem(point) is None
        for name, value in point.fields.items():
            counts = name in ("step", "epoch", "dead_units", "nan_count", "inf_count")
            assert type(value) is (int if counts else float), name


def test_what_is_logged_becomes_floats_and_what_is_not_finite_is_counted():
    logs = {"loss": 1, "accuracy": 0.5, "lr": math.nan, "grad": math.inf, "worst": -math.inf, "done": True}
    point = metrics_point(logs, TAGS, time=9, step=4, epoch=2)
    assert (point.measurement, point.tags, point.time) == ("train_metrics", TAGS, 9)
    assert point.fields == {
        "loss": 1.0, "accuracy": 0.5, "done": 1.0, "nan_count": 1, "inf_count": 2, "step": 4, "epoch": 2
    }  # fmt: skip
    assert {name: type(value) for name, value in point.fields.items()} == dict.fromkeys(
        ("loss", "accuracy", "done"), float
    ) | dict.fromkeys(("nan_count", "inf_count", "step", "epoch"), int)


def test_a_loss_of_nan_alone_is_still_a_point():
    assert metrics_point({"loss": math.nan}, TAGS, 0, 4, 2).fields == {
        "nan_count": 1, "inf_count": 0, "step": 4, "epoch": 2
    }  # fmt: skip


@pytest.mark.parametrize(
    "number",
    [
        np.float16(1.5),
        np.float32(1.5),
        np.float64(1.5),
        np.longdouble(1.5),
        np.array(1.5),
        np.array([1.5], np.float32),
        np.array([[[1.5]]]),
        np.ma.masked_array([1.5]),
        np.array(1.5, object),
        ml_dtypes.bfloat16(1.5),
        np.array([1.5], ml_dtypes.float8_e4m3fn),
        Decimal("1.5"),
        fractions.Fraction(3, 2),
    ],
    ids=repr,
)
def test_numbers_of_numpy_and_of_the_standard_library_are_numbers(number):
    value = metrics_point({"x": number}, {}, 0, 0, 0).fields["x"]
    assert (value, type(value)) == (1.5, float)


@pytest.mark.parametrize("number", [7, np.int8(7), np.uint64(7), np.array([7]), 2**70, -(2**70)])
def test_whole_numbers_of_any_size_are_floats(number):
    value = metrics_point({"x": number}, {}, 0, 0, 0).fields["x"]
    assert (value, type(value)) == (float(number if isinstance(number, int) else 7), float)


def test_a_whole_number_beyond_a_float_counts_as_infinite():
    assert metrics_point({"x": 10**400}, {}, 0, 0, 0).fields["inf_count"] == 1


def test_tensors_of_torch_are_numbers_with_a_gradient_or_without():
    torch = pytest.importorskip("torch")
    loss = torch.tensor(3.0, requires_grad=True) / 2
    logs = {
        "loss": loss,
        "kept": loss.detach(),
        "one": torch.tensor([[1.5]]),
        "half": torch.tensor(1.5, dtype=torch.bfloat16),
        "quarter": torch.tensor(1.5, dtype=torch.float8_e4m3fn),
    }
    point = metrics_point({**logs, "many": torch.ones(2), "none": torch.ones(0), "z": torch.tensor(1j)}, {}, 0, 0, 0)
    assert {name: value for name, value in point.fields.items() if type(value) is float} == dict.fromkeys(logs, 1.5)
    assert metrics_point({"loss": loss * math.nan}, {}, 0, 0, 0).fields["nan_count"] == 1


class Moody:
    """Something of another library that cannot be looked at now."""

    def __array__(self, dtype=None, copy=None):
        raise AttributeError("symbolic")


@pytest.mark.parametrize(
    "value",
    [
        None, "1.5", b"1.5", [], [1.0, 2.0], [[1], [1, 2]], {}, {"a": 1}, 1j, np.array("1.5"), np.ones(2), np.ones(0),
        np.datetime64("2020-01-01T00:00", "ns"), np.timedelta64(1, "s"), object(), Moody(), len,
        np.array("1.5", object),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_is_not_one_number_is_left_out_and_the_rest_is_kept(value):
    assert metrics_point({"x": value}, {}, 0, 0, 0) is None
    assert metrics_point({"x": value, "loss": 1.0}, {}, 0, 0, 0).fields == {
        "loss": 1.0, "nan_count": 0, "inf_count": 0, "step": 0, "epoch": 0
    }  # fmt: skip


def test_nothing_logged_is_no_point():
    assert metrics_point({}, TAGS, 0, 0, 0) is None


numbers = (
    st.floats()
    | st.floats(width=32).map(np.float32)
    | st.integers()
    | st.booleans()
    | hnp.arrays(np.float32, st.sampled_from([(), (1,), (1, 1), (2,)]))
    | st.fractions()
    | st.none()
    | st.text(max_size=3)
)


@given(st.dictionaries(names | st.integers(), numbers, max_size=6))
@example(dict.fromkeys(HOSTILE, 1.0))
@example({"x": fractions.Fraction(1, 2)})
def test_whatever_is_logged_the_point_can_be_stored(metrics):
    point = metrics_point(metrics, TAGS, 1, 2, 3)
    if point is not None:
        assert point_problem(point) is None
        counts = ("nan_count", "inf_count", "step", "epoch")
        assert all(type(value) is (int if name in counts else float) for name, value in point.fields.items())


TAKEN = {"nan_count", "inf_count", "step", "epoch", *TAGS}


@given(st.dictionaries(names.filter(lambda name: clean_name(name) not in TAKEN), st.floats(), max_size=6))
def test_no_number_is_lost_uncounted(metrics):
    point = metrics_point(metrics, TAGS, 1, 2, 3)
    if not metrics:
        assert point is None
        return
    finite = {clean_name(name): value for name, value in metrics.items() if math.isfinite(value)}
    assert point.fields["nan_count"] == sum(map(math.isnan, metrics.values()))
    assert point.fields["inf_count"] == sum(map(math.isinf, metrics.values()))
    assert point.fields == {**finite, **{k: v for k, v in point.fields.items() if type(v) is int}}


def test_a_metric_named_as_what_the_point_has_itself_is_kept_beside_it():
    point = metrics_point({"step": 7.5, "run": 2.0, "loss": 1.0}, {"run": "r", "phase": "train"}, 1, 3, 0)
    assert point.fields == {
        "step_": 7.5,
        "run_": 2.0,
        "loss": 1.0,
        "nan_count": 0,
        "inf_count": 0,
        "step": 3,
        "epoch": 0,
    }


def test_what_is_no_number_is_named():
    logged = {"loss": 1.0, "note": "text", "rows": [1, 2], "nan": math.nan, "nothing": None, "count": np.int64(3)}
    assert no_numbers(logged) == ["note", "rows"]

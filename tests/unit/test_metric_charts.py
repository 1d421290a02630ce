"""What the charts of metrics show: constants on an axis of their size, and single values among many."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from gatewatch.jobs.findings.axis import Axis
from gatewatch.jobs.report.metric_section import metric_charts


def chart(name, values):
    """The chart of one metric, logged every step."""
    times = pd.date_range("2026-01-01", periods=len(values), freq="s", tz="UTC")
    frame = pd.DataFrame({"time": times, "phase": "train", "step": range(len(values)), name: values})
    (drawn,) = metric_charts(frame, pd.DataFrame(), [Axis(("train",))])
    return drawn["figure"]


@pytest.mark.parametrize(("value", "ends"), [(1e-3, (0.0, 0.002)), (-40.0, (-80.0, 0.0)), (1e6, (0.0, 2e6))])
def test_a_constant_is_drawn_on_an_axis_of_its_size(value, ends):
    assert chart("learning_rate", [value] * 50).layout.yaxis.range == pytest.approx(ends)


def test_a_constant_of_32_bits_is_one():
    rounded = [float(np.float32(1e-3)), 1e-3] * 20
    assert chart("learning_rate", rounded).layout.yaxis.range == pytest.approx((0.0, 0.002))


def test_a_metric_that_moves_has_the_axis_of_its_values():
    assert chart("equity", [10_000.0, 10_001.0] * 20).layout.yaxis.range is None


def test_a_single_value_among_many_is_drawn_at_its_step():
    values = np.full(100_000, 0.5)
    values[[43_210, 71_111]] = 17.0, -3.0
    (line,) = chart("loss", values).data
    assert len(line.y) <= 400
    shown = dict(zip(line.x.tolist(), line.y.tolist(), strict=True))
    assert (shown[43_210], shown[71_111]) == (17.0, -3.0)

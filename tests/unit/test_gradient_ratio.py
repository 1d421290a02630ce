"""A multiple of next to nothing has no meaning: a gradient that is as good as 0 does not explode."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from gatewatch.jobs.alerts import BUILT_IN
from gatewatch.jobs.alerts.series_state import RuleValues, SeriesState, update_series
from gatewatch.jobs.findings.axis import Axis
from gatewatch.jobs.findings.learning import learning_problems

EXPLODING = next(rule for rule in BUILT_IN if rule.name == "gradient_exploding")


def fires(norms):
    values = np.array(norms)
    number = np.arange(len(values))
    return update_series(EXPLODING, SeriesState(), RuleValues({}, number, number.astype(float), values)) is not None


@pytest.mark.parametrize(
    ("norms", "explodes"),
    [
        ([1e-3] * 20 + [1.0], True),
        ([1e-34] * 20 + [1.2e-9], False),  # 1.2e+25 times its median
        ([1e-34] * 20 + [1e-3], False),  # it learns again
        ([1e-3] * 20 + [1e-34] * 40 + [1e-3], False),  # after it had stopped
        ([1e-3] * 20 + [1e-34] * 40 + [1.0], True),
    ],
)
def test_an_alert_compares_with_gradients_that_move_something(norms, explodes):
    assert fires(norms) == explodes


@pytest.mark.parametrize(
    ("norms", "words"),
    [
        ([1e-34] * 50 + [1.2e-9] * 10, ["has vanished"]),
        ([1e-3] * 50 + [20.0] * 10, ["has exploded"]),
        ([1e-34] * 50 + [1e-5] * 10, []),
    ],
)
def test_a_report_does_not_say_of_one_parameter_that_it_exploded_and_vanished(norms, words):
    problems = learning_problems({"kernel": pd.DataFrame({"gradient_norm": norms})}, Axis(("train",)))
    assert [each.what.removeprefix("The gradient of the kernel ") for each in problems] == words

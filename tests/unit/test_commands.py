"""What the commands tell of a pass."""

from __future__ import annotations

import pytest

from gatewatch.jobs.commands.jobs import _too_short
from gatewatch.jobs.scoring.scoring_pass import Pass


@pytest.mark.parametrize(
    ("phases", "told"),
    [
        ({"train": 33}, []),
        ({"train": 32}, ["r train has 32"]),
        ({}, ["r has 0"]),
        ({"live": 20}, ["r live has 20"]),
        ({"backtest": 20, "live": 20}, ["r backtest has 20", "r live has 20"]),
        ({"backtest": 40, "live": 20}, []),  # live goes on from the backtest
    ],
)
def test_phases_without_scores_are_named(phases, told):
    assert list(_too_short([Pass("r", phases=phases)], 32)) == told

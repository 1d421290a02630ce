"""The soak of the service, at a small size; `make soak` runs it at full length."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.usefixtures("influxd")  # which says how to build it where it is missing
def test_kills_and_a_server_that_goes_away_lose_and_double_nothing():
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", "--kills", "3", "--outages", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counted = [
        (name.strip(), int(n.replace(",", ""))) for name, n in re.findall(r"^(.*?) {2,}([\d,]+)\b", done.stdout, re.M)
    ]
    assert ("services killed", 3) in counted
    assert ("servers stopped and started", 1) in counted
    points = [number for name, number in counted if name.startswith("points of gate")]
    assert min(points) > 1000
    wrong = [number for name, number in counted if name in ("missing", "too many", "fields with other values")]
    assert wrong == [0] * 6

"""The measurements of endurance, at small sizes; `make endurance` runs them at full length."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def endure(*arguments: str) -> dict[str, int]:
    """Run it, and give what it counted by the words before each number."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.endurance", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {
        name.strip(): int(n.replace(",", "")) for name, n in re.findall(r"^(.*?) {2,}([\d,]+)\b", done.stdout, re.M)
    }


@pytest.mark.usefixtures("influxd")  # which says how to build it where it is missing
def test_trainings_that_are_killed_lose_nothing_that_the_spool_had():
    counted = endure("kill", "--kills", "8")
    assert counted["kills"] == counted["trainings that had begun to write"] == 8
    assert counted["in InfluxDB in the end"] == counted["points accepted before a kill"] > 100
    assert counted["missing"] == counted["with other values"] == 0


@pytest.mark.usefixtures("influxd")
def test_an_outage_loses_nothing():
    counted = endure("outage", "--seconds", "8")
    assert counted["steps, each with a capture"] > 500
    assert counted["lost"] == 0

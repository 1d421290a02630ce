"""The wheel, built and installed into empty environments: each part runs with what it asks for and no more."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT],
        check=True,
        capture_output=True,
    )
    return next(folder.glob("gatewatch-*.whl"))


def environment(wheel, extra, folder):
    """An environment with the wheel and one of its extras, at the locked versions; its folder of commands."""
    versions = re.sub(r" \\\n +--hash=\S+", "", (ROOT / "requirements/demo.txt").read_text())
    (folder / "versions.txt").write_text("\n".join(re.findall(r"^[a-z].*", versions, re.M)))
    venv.create(folder / "venv", with_pip=True)
    commands = folder / "venv" / "bin"
    subprocess.run(
        [commands / "python", "-m", "pip", "install", "-q", "-c", folder / "versions.txt", f"{wheel}{extra}"],
        check=True,
    )
    return commands


def python(commands, code, cwd):
    done = subprocess.run([commands / "python", "-c", code], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_holds_the_packages_the_example_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"collector", "jobs", "gatewatch-0.1.0.dist-info"}
    data = {"jobs/examples/keras_market_lstm.py", "jobs/report/template.html", "jobs/report/page.css"}
    assert data | {f"jobs/queries/{path.name}" for path in (ROOT / "jobs/queries").glob("*.flux")} <= set(names)


def test_the_collector_alone(wheel, tmp_path):
    commands = environment(wheel, "", tmp_path)
    said = python(
        commands,
        """
import importlib.util as util, sys
for name in ("sklearn", "plotly", "apscheduler", "matplotlib", "jinja2", "keras", "tensorflow", "torch"):
    assert util.find_spec(name) is None, name
import gatewatch.collector
assert "pandas" not in sys.modules and "influxdb_client" not in sys.modules
from gatewatch.collector.schema import Point
store = collector.open_store()
assert "pandas" not in sys.modules
store.write([Point("runs", {"run": "a", "phase": "train"}, {"event": "started", "step": 0}, 1)])
print(store.runs()["run"].tolist())
""",
        tmp_path,
    )
    assert said == "['a']\n"
    done = subprocess.run([commands / "gatewatch", "query"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "worst-layers" in done.stdout
    needing = ((["jobs", "--once"], "jobs"), (["report"], "jobs"), (["grafana", "push"], "jobs"), (["demo"], "demo"))
    for command, extra in needing:
        done = subprocess.run(
            [commands / "gatewatch", *command], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert f"pip install 'gatewatch[{extra}]'" in done.stderr
        assert done.stderr.count("\n") == 1


def test_the_jobs_without_a_deep_learning_framework(wheel, tmp_path):
    commands = environment(wheel, "[jobs]", tmp_path)
    python(
        commands,
        """
import importlib.util as util
for name in ("keras", "tensorflow", "torch"):
    assert util.find_spec(name) is None, name
import numpy as np
from gatewatch import open_store
from gatewatch.collector.capture import gate_points
from gatewatch.collector.schema import Point
from gatewatch import TemporalGraph, render_gate_heatmap
class Captured:
    mask = None
    gates = {"forget": np.full((1, 2, 3), 0.5, "float32")}
store = open_store()
tags = {"run": "a", "phase": "train"}
store.write([Point("runs", tags, {"event": "completed", "step": 40}, 1)])
for k in range(40):
    store.write(gate_points({"lstm": Captured}, tags, k + 1, k, 0))
import gatewatch.jobs.grafana.push
from gatewatch.jobs.grafana.artifacts import wanted
assert {"dashboard", "rule", "policy"} <= {thing.kind for thing in wanted(None, {"GATEWATCH_ALERT_TO": "a@b.c"})}
""",
        tmp_path,
    )
    for command, shown in ((["jobs", "--once"], "a "), (["runs"], "completed"), (["report"], "gatewatch-a.html")):
        done = subprocess.run(
            [commands / "gatewatch", *command], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert shown in done.stdout

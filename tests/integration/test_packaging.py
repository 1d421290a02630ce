"""The package in empty environments: installed editable, from a wheel, and from a wheel built from the sdist."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = {"gatewatch": "", "collector": "collector/", "jobs": "jobs/"}
VARIABLES = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

USERS_PROJECT = {
    "collector.py": "PRICES: list[float] = [101.5, 102.25]\n",
    "jobs/__init__.py": "",
    "jobs/nightly.py": 'NAME: str = "the user\'s own"\n',
    "main.py": """\
import collector
from jobs import nightly

from gatewatch import open_store
from gatewatch.collector.schema import Point

store = open_store("sqlite:///points.db")
store.write([Point("runs", {"run": "a", "phase": "train"}, {"event": "started", "step": 0}, 1)])
print(collector.PRICES, nightly.NAME, store.runs()["run"].tolist())
""",
    "test_strategy.py": """\
import collector
from gatewatch import open_store
from gatewatch.collector.errors import ConfigError
from jobs import nightly

import pytest


def test_the_strategy():
    assert (collector.PRICES, nightly.NAME) == ([101.5, 102.25], "the user's own")
    with pytest.raises(ConfigError):
        open_store("ftp://host")
""",
    "typed.py": """\
from typing import assert_type

import collector
from jobs import nightly

from gatewatch import AnomalyDetector, StateAnalyzer, open_store
from gatewatch.collector.schema import Point
from gatewatch.collector.store import Store

assert_type(open_store(), Store)
assert_type(AnomalyDetector(contamination=0.1), AnomalyDetector)
assert_type(StateAnalyzer.calculate_gradient_magnitude([]), float)
assert_type(Point("runs", {}, {}, 1).time, int)
assert_type(collector.PRICES, list[float])
assert_type(nightly.NAME, str)
""",
    "mistaken.py": """\
from gatewatch import AlertManager, GateMonitor, gates, open_store
from gatewatch.torch import GateMonitor as TorchMonitor

monitors = GateMonitor(log_dir=3), TorchMonitor(None, log_dir=3)
recipients = AlertManager(recipients=["a@b.c"], thresholds=0.5)
store: int = open_store()
layers: int = gates(None, None)
""",
}
MISTAKEN_LINES = [4, 5, 6, 7]


def run(*command: str | Path, cwd: Path, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=cwd, env=VARIABLES, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done


def uv(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "uv", "--quiet", *arguments], check=True)


class Environment:
    """A virtual environment that begins empty; whatever is installed comes at the locked versions."""

    def __init__(self, folder: Path) -> None:
        uv("venv", "--python", sys.executable, folder)
        self.python = folder / "bin" / "python"
        self.gatewatch = folder / "bin" / "gatewatch"
        # As constraints, which have no hashes.
        pinned = re.findall(r"^([a-z][^ \n]*==[^ \n]+)( ;[^\\\n]*)?", (ROOT / "requirements/dev.txt").read_text(), re.M)
        self._versions = folder / "versions.txt"
        self._versions.write_text("\n".join(map("".join, pinned)))

    def install(self, *what: str | Path) -> None:
        versions = ["--constraints", self._versions, "--build-constraints", self._versions]
        uv("pip", "install", "--python", self.python, *versions, *what)
        self._take_compiled()

    def _take_compiled(self) -> None:
        """Copy what Python has compiled of the same packages for the tests, which takes it ten seconds."""
        [theirs] = self.python.parents[1].glob("lib/python*/site-packages")
        for folder, folders, _ in os.walk(theirs):
            compiled = Path(sysconfig.get_path("purelib"), Path(folder).relative_to(theirs), "__pycache__")
            if "__pycache__" not in folders and compiled.is_dir():
                shutil.copytree(compiled, Path(folder, "__pycache__"))

    def run(self, code: str, cwd: Path) -> str:
        """What Python prints."""
        return run(self.python, "-c", code, cwd=cwd).stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """What was built, by name: `wheel`, `sdist`, and the wheel that was built `from sdist`."""
    build = [sys.executable, "-m", "build", "--no-isolation", ROOT, "--outdir"]
    first, second = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("sdist")
    subprocess.run([*build, first, "--wheel"], check=True, capture_output=True)
    subprocess.run([*build, second], check=True, capture_output=True)  # the sdist, and from it the wheel
    [wheel], [from_sdist], [sdist] = first.glob("*.whl"), second.glob("*.whl"), second.glob("*.tar.gz")
    return {"wheel": wheel, "sdist": sdist, "from sdist": from_sdist}


@pytest.fixture(scope="module")
def with_jobs(built, tmp_path_factory):
    """An environment with all that gatewatch[jobs] asks for, and pytest."""
    environment = Environment(tmp_path_factory.mktemp("with-jobs"))
    environment.install(f"{built['wheel']}[jobs]", "pytest")
    return environment


@pytest.fixture(scope="module", params=["editable", "wheel", "from sdist"])
def installed(request, built, with_jobs):
    """The environment, with gatewatch installed in each of the ways."""
    what = ["--editable", ROOT] if request.param == "editable" else [built[request.param]]
    with_jobs.install("--no-deps", "--reinstall", *what)
    return with_jobs


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A user's project: modules of its own beside the script, named collector and jobs."""
    folder = tmp_path_factory.mktemp("project")
    for name, text in USERS_PROJECT.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def namesakes(installed, tmp_path):
    """Other people's distributions, named collector and jobs, in the same site-packages."""
    for name in ("collector", "jobs"):
        information = f"{name}-1.0.dist-info"
        with zipfile.ZipFile(tmp_path / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}/__init__.py", "OWNER = 'somebody else'")
            wheel.writestr(f"{information}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            wheel.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{information}/RECORD", "")
    installed.install(*tmp_path.glob("*.whl"))
    yield
    uv("pip", "uninstall", "--python", installed.python, "collector", "jobs")


def modules_of_the_checkout() -> set[str]:
    """Paths relative to gatewatch/ as it is installed."""
    return {
        place + path.relative_to(ROOT / folder).as_posix()
        for folder, place in SOURCES.items()
        for path in (ROOT / folder).rglob("*.py")
        if folder != "gatewatch" or path.parent == ROOT / folder
    }


def data_of_the_checkout() -> set[str]:
    kinds = ("*.flux", "*.html", "*.css", "*.js")
    return {
        f"jobs/{path.relative_to(ROOT / 'jobs').as_posix()}" for kind in kinds for path in (ROOT / "jobs").rglob(kind)
    }


def test_the_wheel_is_one_import_package_with_all_modules_and_data(built):
    for name in ("wheel", "from sdist"):
        names = set(zipfile.ZipFile(built[name]).namelist())
        assert {each.split("/")[0] for each in names} == {"gatewatch", "gatewatch-0.1.0.dist-info"}
        inside = {each.removeprefix("gatewatch/") for each in names if each.startswith("gatewatch/")}
        example = "jobs/examples/keras_market_lstm.py"
        assert {each for each in inside if each.endswith(".py")} == modules_of_the_checkout() | {example}
        assert data_of_the_checkout() | {"py.typed", "jobs/grafana/dashboards/runs.json"} <= inside


def test_the_sdist_has_every_file_of_the_packages(built):
    with tarfile.open(built["sdist"]) as sdist:
        files = {each.name.partition("/")[2] for each in sdist if each.isfile()}
        assert not [each.name for each in sdist if each.issym()]
    of_checkout = {
        path.relative_to(ROOT).as_posix()
        for folder in ("collector", "jobs", "gatewatch", "grafana", "examples")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {each for each in files if "/" in each} == of_checkout | {"docs/runbook.md"}
    assert {"pyproject.toml", "README.md", "LICENSE"} <= files


def test_every_module_is_imported_once_and_under_gatewatch(installed, tmp_path):
    printed = installed.run(
        """
import importlib, os, pickle, pkgutil, sys
import gatewatch
absent = set()
for found in pkgutil.walk_packages(gatewatch.__path__, "gatewatch.", onerror=lambda name: None):
    if found.name.endswith("__main__") or ".examples" in found.name:
        continue
    try:
        importlib.import_module(found.name)
    except ModuleNotFoundError as error:
        absent.add(error.name.split(".")[0])
modules_of_extras = {"keras", "torch", "stable_baselines3", "sb3_contrib", "gymnasium", "distributed", "pyarrow"}
assert absent <= modules_of_extras, absent
assert not {"collector", "jobs"} & set(sys.modules)
ours = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "gatewatch"}
files = [os.path.realpath(module.__file__) for module in ours.values()]
assert len(set(files)) == len(files) > 150
from gatewatch.collector.schema import Point
from gatewatch.collector.errors import WriteUnavailable
for each in (Point("runs", {}, {}, 1), WriteUnavailable("away")):
    pickled = pickle.dumps(each)
    assert b"gatewatch.collector." in pickled
    assert repr(pickle.loads(pickled)) == repr(each)
for name in ("collector", "jobs"):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        print("no", name)
""",
        tmp_path,
    )
    assert printed == "no collector\nno jobs\n"


def test_no_module_of_the_checkout_is_imported_twice():
    code = """
import importlib, os, pkgutil, sys
sys.modules["triton"] = None  # as in tests/conftest.py
import gatewatch, grafana.source, grafana.emulator
for package in (gatewatch, grafana.source, grafana.emulator):
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
roots = ("gatewatch", "grafana", "collector", "jobs")
ours = {name: module for name, module in sys.modules.items() if name.split(".")[0] in roots and module.__file__}
assert not {"collector", "jobs"} & {name.split(".")[0] for name in ours}
files = [os.path.realpath(module.__file__) for module in ours.values()]
assert len(set(files)) == len(files) > 200
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_commands_run(installed, tmp_path):
    for command in ([installed.gatewatch], [installed.python, "-m", "gatewatch"]):
        done = run(*command, "runs", "--store", "sqlite:///none.db", cwd=tmp_path, status=2)
        assert done.stderr.startswith("gatewatch: sqlite:///none.db does not exist; ")
    done = run(installed.python, "-m", "gatewatch.jobs.stack.health_check", cwd=tmp_path, status=1)
    assert done.stderr.startswith("gatewatch: no service has written jobs_health into sqlite:///")
    kinds = installed.run(
        """
from gatewatch.jobs.grafana.artifacts import wanted
print(*sorted({one.kind for one in wanted(None, {"GATEWATCH_ALERT_TO": "a@b.c"})}))
""",
        tmp_path,
    )
    assert {"dashboard", "rule", "policy"} <= set(kinds.split())


def test_a_users_own_collector_and_jobs_stay_his(installed, project):
    assert run(installed.python, "main.py", cwd=project).stdout == "[101.5, 102.25] the user's own ['a']\n"
    assert "1 passed" in run(installed.python, "-m", "pytest", "-p", "no:cacheprovider", cwd=project).stdout


def test_distributions_of_the_same_names_stay_theirs(installed, project, namesakes, tmp_path):
    code = "import collector, jobs, gatewatch.jobs.cli; print(collector.OWNER, jobs.OWNER, gatewatch.jobs.__name__)"
    assert installed.run(code, tmp_path) == "somebody else somebody else gatewatch.jobs\n"
    assert run(installed.python, "main.py", cwd=project).stdout == "[101.5, 102.25] the user's own ['a']\n"


def test_mypy_strict_sees_the_types(installed, project, tmp_path_factory):
    cache = tmp_path_factory.getbasetemp() / "mypy-cache"
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", installed.python, "--cache-dir", cache]
    printed = run(*mypy, "typed.py", "mistaken.py", cwd=project, status=1).stdout
    errors = {(file, int(line)) for file, line in re.findall(r"^(.+\.py):(\d+): error", printed, re.M)}
    assert errors == {("mistaken.py", line) for line in MISTAKEN_LINES}
    assert re.search(r"\(checked 2 source files\)$", printed)


def test_pyright_sees_the_types(installed, project):
    pyright = [sys.executable, "-m", "basedpyright", "--pythonpath", installed.python, "--outputjson"]
    (project / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
    printed = json.loads(run(*pyright, "--level", "error", "typed.py", "mistaken.py", cwd=project, status=1).stdout)
    found = {(Path(each["file"]).name, each["range"]["start"]["line"] + 1) for each in printed["generalDiagnostics"]}
    assert found == {("mistaken.py", line) for line in MISTAKEN_LINES}
    assert printed["summary"]["filesAnalyzed"] == 2


def test_the_collector_asks_for_no_more_than_it_needs(built, tmp_path):
    environment = Environment(tmp_path / "alone")
    environment.install(built["wheel"])
    printed = environment.run(
        """
import importlib.util as util, sys
for name in ("sklearn", "plotly", "matplotlib", "jinja2", "keras", "tensorflow", "torch"):
    assert util.find_spec(name) is None, name
import gatewatch.collector
assert "pandas" not in sys.modules and "influxdb_client" not in sys.modules
from gatewatch import open_store
from gatewatch.collector.schema import Point
store = open_store()
assert "pandas" not in sys.modules
store.write([Point("runs", {"run": "a", "phase": "train"}, {"event": "started", "step": 0}, 1)])
print(store.runs()["run"].tolist())
""",
        tmp_path,
    )
    assert printed == "['a']\n"
    assert "worst-layers" in run(environment.gatewatch, "query", cwd=tmp_path).stdout
    needing = ((["jobs", "--once"], "jobs"), (["report"], "jobs"), (["grafana", "push"], "jobs"), (["demo"], "demo"))
    for command, extra in needing:
        done = run(environment.gatewatch, *command, cwd=tmp_path, status=2)
        assert f"pip install 'gatewatch[{extra}]'" in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("installed", ["from sdist"], indirect=True)
def test_the_jobs_need_no_deep_learning_framework(installed, tmp_path):
    installed.run(
        """
import importlib.util as util
for name in ("keras", "tensorflow", "torch"):
    assert util.find_spec(name) is None, name
import numpy as np
from gatewatch import TemporalGraph, open_store, render_gate_heatmap
from gatewatch.collector.capture import gate_points
from gatewatch.collector.schema import Point
class Captured:
    mask = None
    gates = {"forget": np.full((1, 2, 3), 0.5, "float32")}
store = open_store()
tags = {"run": "a", "phase": "train"}
store.write([Point("runs", tags, {"event": "completed", "step": 40}, 1)])
for k in range(40):
    store.write(gate_points({"lstm": Captured}, tags, k + 1, k, 0))
""",
        tmp_path,
    )
    for command, shown in ((["jobs", "--once"], "a "), (["runs"], "completed"), (["report"], "gatewatch-a.html")):
        assert shown in run(installed.gatewatch, *command, cwd=tmp_path).stdout

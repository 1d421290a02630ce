"""Workers of a Dask cluster that have another Gatewatch, another library, or none: real ones, beside a right one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from distributed import Client, LocalCluster

from gatewatch.collector.store import open_store
from gatewatch.jobs.scoring.scoring_pass import run_pass
from tests.conftest import ROOT
from tests.soak import captures, covered, service, until, wrong

OURS = r"\(here 0\.1\.0\+\w{8}\)"


def other_constants(site):
    """The same version by its number, whose scores would be others without a word."""
    copied(site)
    residuals = site / "gatewatch/jobs/scoring/residuals.py"
    residuals.write_text(re.sub(r"^(WARM_UP: Final) = \d+", r"\1 = 5", residuals.read_text(), flags=re.MULTILINE))
    return rf"gatewatch 0\.1\.0\+\w{{8}} {OURS}"


def an_old_one(site):
    """It does not have what it is asked for."""
    copied(site)
    (site / "gatewatch/jobs/service/versions.py").unlink()
    (site / "gatewatch/jobs/service/tasks.py").write_text("a_name_that_is_not_there\n")
    distribution(site, "gatewatch", "0.0.9")
    return rf"gatewatch 0\.0\.9 {OURS}"


def none(site):
    """All packages but Gatewatch; see `worker`."""
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if "gatewatch" not in path.name and path.suffix != ".pth":
            (site / path.name).symlink_to(path)
    return rf"gatewatch none {OURS}"


def another_numpy(site):
    distribution(site, "numpy", "0.9")
    return rf"numpy 0\.9 \(here {re.escape(np.__version__)}\)"


OTHERS = {each.__name__: each for each in (other_constants, an_old_one, none, another_numpy)}


def copied(site):
    shutil.copytree(ROOT / "gatewatch", site / "gatewatch", ignore=shutil.ignore_patterns("__pycache__"))


def distribution(site, name, version):
    about = site / f"{name}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@contextmanager
def worker(address, site, *options):
    """A worker that looks for packages in a folder first, or with `-S` there alone; it is up in the block."""
    command = [sys.executable, *options, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1"]
    with (
        Client(address, set_as_default=False) as client,
        subprocess.Popen(
            [*command, "--no-nanny", "--no-dashboard", "--local-directory", site.parent],
            env=os.environ | {"PYTHONPATH": str(site)},
            cwd=site,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process,
    ):
        before = set(client.nthreads())
        try:
            until(lambda: client.nthreads().keys() - before, "the worker is there")
            (own,) = client.nthreads().keys() - before
            yield own
        finally:
            process.kill()


@pytest.fixture
def cluster():
    options = {"threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": None, "memory_limit": 0}
    with LocalCluster(n_workers=0, silence_logs=50, **options) as cluster:
        yield cluster


@pytest.fixture
def store(tmp_path):
    store = open_store(f"sqlite:///{tmp_path / 'g.db'}")
    for run in ("a", "b"):
        store.write(point for capture in captures(run, 40) for point in capture)
    return store


@pytest.mark.parametrize("other", OTHERS)
def test_a_worker_of_other_versions_is_refused_and_the_others_do_the_work(store, cluster, tmp_path, other):
    cluster.scale(1)
    cluster.wait_for_workers(1)
    (tmp_path / "site").mkdir()
    has = OTHERS[other](tmp_path / "site")
    options = ["-S"] if other == "none" else []
    name = cluster.scheduler_address.replace("tcp", "dask")
    arguments = ("--store", store.url, "--executor", name)
    with (
        worker(cluster.scheduler_address, tmp_path / "site", *options) as address,
        service(tmp_path / "s", *arguments) as running,
    ):
        until(lambda: covered(store, "a", 40) and covered(store, "b", 40), "all is scored")
        store.write(point for capture in captures("a", 8, 40) for point in capture)
        until(lambda: covered(store, "a", 48), "what is new is scored")
        assert running.end() == 0
    (line,) = running.warned.splitlines()
    refused = rf"\S+ executor {name}: worker {address} is refused: it has {has}; install there what this machine has"
    assert re.fullmatch(refused, line), line
    run_pass(store)
    assert wrong(store, tmp_path) == {}


def test_where_all_workers_are_refused_the_turn_waits_for_one_that_is_right(store, cluster, tmp_path):
    (tmp_path / "site").mkdir()
    other_constants(tmp_path / "site")
    name = cluster.scheduler_address.replace("tcp", "dask")
    with (
        worker(cluster.scheduler_address, tmp_path / "site") as address,
        service(tmp_path / "s", "--store", store.url, "--executor", name) as running,
    ):
        until(lambda: len(running.warned.splitlines()) == 2, "it says what is wrong")
        assert not covered(store, "a", 40)
        cluster.scale(1)
        until(lambda: len(running.warned.splitlines()) == 3, "a worker that came later has done it")
        assert covered(store, "a", 40)
        assert covered(store, "b", 40)
        assert running.end() == 0
    refused, failed, works = running.warned.splitlines()
    assert f"worker {address} is refused" in refused
    assert failed.endswith(f"score failed: executor {name}: no worker has the versions of this machine: {address}")
    assert "score works again after" in works

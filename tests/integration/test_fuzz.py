"""A short run of the fuzzer, and that it finds what it looks for; `make fuzz` runs thousands of cases."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gatewatch.collector.errors import ConfigError
from tests.conftest import ROOT
from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS

ENOUGH = 400 * 2**20


class IllegibleError(ConfigError):
    """An error that goes past what makes the text of every other one legible."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return self.text


class Sabotage(Target):
    """A target each of whose seeds breaks one promise."""

    name = "sabotage"
    seconds = 0.5
    held: bytes = b""

    def sound(self) -> str:
        return "sound"

    def make(self, random: object) -> str:
        return "made"

    def place(self, case: str, folder: Path) -> None:
        (folder / "other").write_text("sound")

    def run(self, case: str, folder: Path) -> None:
        wrong = os.environ.get("SABOTAGE", "")
        if case == "sound":
            return
        if wrong == "raises":
            raise KeyError("x")
        if wrong == "hangs":
            while True:
                try:
                    time.sleep(60)
                except Exception:  # as a broad handler of the product might
                    continue
        if wrong == "leaks":
            Sabotage.held = b"x" * ENOUGH
        if wrong == "peaks":
            assert len(b"x" * ENOUGH)
        if wrong == "changes":
            (folder / "other").write_text("changed")
        if wrong == "dies":
            os.kill(os.getpid(), 11)
        with self.allowed():
            texts = {"long": "x" * 10_000, "control": "a\x1b[31m", "lines": "a\nb", "one line": "mend it"}
            raise IllegibleError(texts.get(wrong, "mend it"))

    def others(self, folder: Path) -> dict[str, object]:
        return {"file": (folder / "other").read_text()}


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ("raises", "KeyError at test_fuzz.py"),
        ("hangs", "Hang at test_fuzz.py"),
        ("leaks", "MB more memory"),
        ("peaks", "MB more memory"),
        ("changes", "changes another run's file"),
        ("dies", "the process ended with status -11"),
        ("long", "a line of 10000 characters"),
        ("control", "the control character '\\x1b'"),
        ("lines", "the control character '\\n'"),
        ("one line", ""),
    ],
)
def test_what_breaks_a_promise_is_found_and_its_seed_is_kept(tmp_path, monkeypatch, capsys, wrong, found):
    from tests.fuzz import __main__ as fuzz

    kept = tmp_path / "seeds.txt"
    imports = "from tests.fuzz import loop; from tests.integration.test_fuzz import Sabotage"
    code = f"{imports}; loop.main({{'sabotage': Sabotage}})"
    start = subprocess.Popen

    def begin(command: list[str], **options: object) -> subprocess.Popen[str]:
        return start([command[0], "-c", code, *command[3:]], **options)

    monkeypatch.setenv("SABOTAGE", wrong)
    monkeypatch.setattr(fuzz, "TARGETS", {"sabotage": Sabotage})
    monkeypatch.setattr(fuzz.subprocess, "Popen", begin)
    monkeypatch.setattr(sys, "argv", ["fuzz", "--target", "sabotage", "--cases", "2", "--kept", str(kept)])
    status = fuzz.main()
    said = capsys.readouterr().out
    assert found in said
    assert status == bool(found)
    assert kept.read_text().split() == (["sabotage", "0", "sabotage", "1"] if found else [])


@pytest.mark.parametrize("target", TARGETS)
def test_a_short_run_finds_nothing(target):
    command = [sys.executable, "-m", "tests.fuzz", "--target", target, "--cases", "5"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed 0" in done.stdout


def test_a_seed_makes_the_same_case_each_time(tmp_path):
    code = (
        "import json, sys; from pathlib import Path; from random import Random\n"
        "from tests.fuzz.targets import TARGETS\n"
        "target = TARGETS['detectors'](Path(sys.argv[1]))\n"
        "print(json.dumps([repr(target.make(Random(f'detectors {seed}'))) for seed in range(5)]))"
    )
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / name)], cwd=ROOT, capture_output=True, check=True
        )
        made.append(json.loads(done.stdout))
    assert made[0] == made[1]

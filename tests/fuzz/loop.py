"""Runs cases of one target in this process, and judges each; what it finds goes to standard output as lines of JSON.

    python -m tests.fuzz.loop FOLDER TARGET SEED…

A case that hangs is interrupted; where that does not help, the process ends with a traceback, as it does at a crash.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import logging
import os
import resource
import shutil
import signal
import sys
import threading
import time
import traceback
import unicodedata
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

from tests.conftest import ROOT
from tests.fuzz.target import STATUSES, Target

LONGEST_LINE = 2_000
"""Characters of a text that a user sees."""
MOST_BYTES = 300 * 2**20
"""Of memory, over what the process had before the first case."""
GRACE_S = 20.0
"""How long after its time a case may take to be interrupted."""
SOUND = -1
"""The seed of the case with nothing wrong in it."""
_BIDIRECTIONAL = {chr(c) for c in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}


class Hang(BaseException):
    """A case takes too long. No `except Exception` may catch it."""


def text_problem(text: str) -> str | None:
    """Return what is wrong with a line that a user sees; None where nothing is."""
    if len(text) > LONGEST_LINE:
        return f"a line of {len(text)} characters: {text[:80]!r}"
    for c in text:
        if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in _BIDIRECTIONAL:
            return f"the control character {c!r} in {text[:300]!r}"
    if "Traceback" in text or "this is a bug" in text:
        return f"a bug is shown: {text[:300]!r}"
    return None


def command_problems(arguments: list[str], status: int | None, out: str, err: str) -> Iterator[str]:
    """Yield what is wrong with a command's exit status and what it printed."""
    shown = f"gatewatch {' '.join(arguments)[:200]!r}"
    if status not in STATUSES:
        yield f"{shown}: exit status {status}"
    for line in err.removesuffix("\n").split("\n"):
        if problem := text_problem(line):
            yield f"{shown}: {problem}"
        elif line and not line.startswith(("gatewatch", "usage: ", "  ")):
            yield f"{shown}: an error of more than one line: {line[:200]!r}"
    if "--csv" in arguments or "--show" in arguments:  # for programs
        return
    for line in out.replace("\x7f", "" if "--json" in arguments else "\x7f").split("\n"):  # JSON escapes all others
        if problem := text_problem(line[:LONGEST_LINE]):
            yield f"{shown}: {problem}"


def resident() -> int:
    """Return the bytes of memory that the process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def reset_peak() -> None:
    """Let the highest memory be counted from now on."""
    Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """Return the most bytes of memory that the process has had since `reset_peak`."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def describe(error: BaseException) -> str:
    """Return an exception with the innermost place in the product, by which findings are told apart."""
    frames = traceback.extract_tb(error.__traceback__)
    frames = [frame for frame in frames if str(ROOT) in frame.filename and frame.filename != __file__]
    own = [
        frame for frame in frames if "/tests/" not in frame.filename and "site-packages" not in frame.filename
    ] or frames
    place = f"{Path(own[-1].filename).name}:{own[-1].lineno} {own[-1].name}" if own else "?"
    return f"{type(error).__name__} at {place}: {str(error)[:200]!r}"


class _Kept(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())
        if record.exc_info:
            self.texts.append("Traceback in the log")


class Judge:
    """Runs the cases of a target, and says what is wrong with each.

    Args:
        target: that makes the cases.
        folder: where each case gets a folder, for as long as it runs.
    """

    def __init__(self, target: Target, folder: Path) -> None:
        self._target, self._folder = target, folder
        self._log = _Kept()
        self._beside: list[str] = []
        self._begin = 0
        logging.getLogger().addHandler(self._log)
        threading.excepthook = lambda args: self._beside.append(
            f"in a thread: {describe(args.exc_value or args.exc_type())}"
        )
        sys.unraisablehook = lambda args: self._beside.append(f"ignored: {describe(args.exc_value or Exception())}")

    def case(self, seed: int) -> dict[str, Any]:
        """Run the case of a seed, or the sound one, and return what was found: seconds, peak and problems."""
        target, problems = self._target, list[str]()
        case = target.sound() if seed == SOUND else target.make(Random(f"{target.name} {seed}"))
        for kept in (self._log.texts, self._beside, target.said, target.commands):
            kept.clear()
        folder = self._folder / "case"
        folder.mkdir()
        os.chdir(folder)
        target.place(case, folder)
        before = target.others(folder)
        reset_peak()
        began = time.monotonic()
        try:
            with _limited(target.seconds):
                target.run(case, folder)
        except BaseException as error:
            problems.append(describe(error))
        seconds = time.monotonic() - began
        grown = peak() - self._begin if self._begin else 0
        problems += self._beside
        problems += filter(None, map(text_problem, [*target.said, *self._log.texts]))
        problems += [problem for each in target.commands for problem in command_problems(*each)]
        if grown > MOST_BYTES:
            problems.append(f"takes {grown / 2**20:.0f} MB more memory")
        after = target.others(folder)
        problems += [f"changes another run's {name}" for name in before if before[name] != after.get(name)]
        if seed == SOUND:
            problems += [f"says {text!r} of a sound case" for text in [*target.said, *self._log.texts]]
            problems += [
                f"{arguments} has status {status} in a sound case: {err}"
                for arguments, status, _, err in target.commands
                if status
            ]
        os.chdir(self._folder)
        shutil.rmtree(folder)
        if not self._begin:
            gc.collect()
            self._begin = resident()
        return {"seed": seed, "seconds": seconds, "peak": grown, "problems": problems, "case": _short(case)}


def _short(case: object) -> str:
    shown = repr(case)
    return shown if len(shown) <= 1_000 else f"{shown[:1_000]}…"


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Interrupt the block after so many seconds, again and again; end the process where that does not help."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise Hang(f"takes longer than {seconds:g} s")

    signal.signal(signal.SIGALRM, interrupt)
    faulthandler.dump_traceback_later(seconds + GRACE_S, exit=True)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()


def main(targets: Mapping[str, type[Target]]) -> None:
    """Run the cases of the command line."""
    folder, name, seeds = Path(sys.argv[1]), sys.argv[2], [SOUND, *map(int, sys.argv[3:])]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    faulthandler.enable()
    for category in (UserWarning, RuntimeWarning):
        warnings.filterwarnings("error", category=category, module=r"gatewatch\.")
    limit = 16 * 2**30  # so that a claim of terabytes fails here as it would on a small machine
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for each in ("target", "cases", "home"):
        (folder / each).mkdir(parents=True)
    for variable in [name for name in os.environ if name.startswith(("GATEWATCH_", "INFLUXDB_", "GRAFANA_", "XDG_"))]:
        del os.environ[variable]
    os.environ |= {"HOME": str(folder / "home"), "GATEWATCH_TRACEBACK": "1"}
    judge = Judge(targets[name](folder / "target"), folder / "cases")
    for seed in seeds:
        print(json.dumps({"begun": seed}), file=answers, flush=True)
        print(json.dumps(judge.case(seed)), file=answers, flush=True)


if __name__ == "__main__":
    from tests.fuzz.targets import TARGETS

    main(TARGETS)

"""What a capture costs, and the share of it that goes to more than the gates, gradients and updates themselves.

    python -m bench.capture_parts torch
    python -m bench.capture_parts keras
    python -m bench.capture_parts sb3

The trainings are those of `bench.torch_training`, `bench.keras_training` and `bench.sb3_training`, with a capture every
10th step, or every rollout. Counted is the CPU time of the training's own thread in all that the monitor charges to its
budget, between captures too. A share is relative to what is left without the parts that are listed.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final

from bench.rounds import place

COUNTED: Final = ("gatewatch.collector.run_session", "RunSession", "charged")
PARTS: Final[Mapping[str, tuple[tuple[str, str, str], ...]]] = {
    "what is fed": (
        ("gatewatch.collector.feed.recorder", "FeedRecorder", "see"),
        ("gatewatch.collector.feed.recorder", "FeedRecorder", "give"),
        ("gatewatch.collector.feed.recorder", "FeedRecorder", "want"),
        ("gatewatch.collector.feed.recorder", "FeedRecorder", "take"),
    ),
    "travel of the weights, facts of the optimizer": (
        ("gatewatch.collector.{framework}.updates", "{Framework}Updates", "_travel"),
    ),
    "rounded weights": (
        ("gatewatch.collector.precision", "RoundedBefore", "note"),
        ("gatewatch.collector.updates", "", "rounded_share"),
    ),
    "states of sequences": (
        ("gatewatch.collector.state_recorder", "StateRecorder", "note"),
        ("gatewatch.collector.{framework}.states", "{Framework}States", "begin"),
        ("gatewatch.collector.{framework}.states", "{Framework}States", "end"),
    ),
    "log-probabilities of the rollout": (
        ("gatewatch.collector.sb3.callback", "GateMonitorCallback", "_check_rollout"),
    ),
}
"""What is listed: module, class (none for a function of the module) and the functions that do it."""


class Clock:
    """CPU time of one thread by part. What a part calls counts as this part, whatever it is."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._running: list[str] = []

    @contextmanager
    def counting(self, part: str) -> Iterator[None]:
        """Count what runs inside, unless the part, or another one than "all", is counted already."""
        if part in self._running or any(one != "all" for one in self._running):
            yield
            return
        self._running.append(part)
        begin = time.thread_time()
        try:
            yield
        finally:
            self.seconds[part] += time.thread_time() - begin
            self._running.pop()

    def wrap(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function whose time is counted."""

        @functools.wraps(function)
        def counted(*arguments: Any, **named: Any) -> Any:
            # What a monitor does outside of what it charges, such as counting steps, belongs to it all the same.
            with self.counting("all"), self.counting(part):
                return function(*arguments, **named)

        return counted


def count_parts(clock: Clock, framework: str) -> None:
    """Let the functions of all parts be counted, as far as a framework has them."""
    module = import_module(COUNTED[0])
    charged = getattr(getattr(module, COUNTED[1]), COUNTED[2])

    @contextmanager
    def counted(session: Any, kind: str) -> Iterator[None]:
        with charged(session, kind), clock.counting("all"):
            yield

    setattr(getattr(module, COUNTED[1]), COUNTED[2], counted)
    own = "torch" if framework == "sb3" else framework
    for part, functions in PARTS.items():
        for path, owner, name in functions:
            if "sb3" in path and framework != "sb3":
                continue
            holder: Any = import_module(path.format(framework=own))
            if owner:
                holder = getattr(holder, owner.format(Framework=own.capitalize()), None)
            if hasattr(holder, name):
                setattr(holder, name, clock.wrap(part, getattr(holder, name)))


def train(framework: str, here: Any) -> None:
    """Train as the measurement of the overhead does, with a capture every 10th step or every rollout."""
    if framework == "sb3":
        training = import_module("bench.sb3_training")
        callback = import_module("gatewatch.sb3").GateMonitorCallback(
            **here.options(), every=training.ENVS * training.ROLLOUT
        )
        training.train(10, callback)
        return
    training = import_module(f"bench.{framework}_training")
    if framework == "torch":
        import_module("torch").set_num_threads(1)
        training.Training(training.STEPS, 2).watched(here, every=10)
        return
    one = training.Training(training.STEPS)
    monitor = import_module("gatewatch").GateMonitor(probe=one.x[: training.PROBE], **here.options(), every=10)
    data = import_module("tensorflow").data.Dataset.from_tensor_slices((one.x, one.y)).batch(training.BATCH)
    one.model.fit(monitor.feed(data), epochs=2, callbacks=[monitor], verbose=0)


def main() -> None:
    """Train once, and print the cost of a capture and the shares of the parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("framework", choices=("torch", "keras", "sb3"))
    framework = parser.parse_args().framework
    import_module(f"bench.{framework}_training")  # first: it decides which other frameworks may be imported
    clock = Clock()
    captures = Counter[str]()
    with place() as here:
        count_parts(clock, framework)
        session = import_module(COUNTED[0]).RunSession
        capture = session.capture

        def counted(self: Any, *arguments: Any, **named: Any) -> Any:
            captures["made"] += 1
            return capture(self, *arguments, **named)

        session.capture = counted
        train(framework, here)
    parts = {name: clock.seconds[name] for name in PARTS if clock.seconds[name]}
    rest = clock.seconds["all"] - sum(parts.values())
    print(f"{framework}, {captures['made']} captures: {1000 * clock.seconds['all'] / captures['made']:.1f} ms for each")
    for name, seconds in {**parts, "all of these": sum(parts.values())}.items():
        print(f"{name:50}{1000 * seconds / captures['made']:8.2f} ms{seconds / rest:8.1%}")


if __name__ == "__main__":
    sys.exit(main())

"""What Gatewatch costs and what it reaches, beside what people use otherwise: every ratio within one run.

    python -m bench.collector            # about half an hour; the machine should do nothing else
    python -m bench.collector --quick    # under a minute: that everything runs

The parts take their turns one after the other, each in a process of its own, since TensorFlow and torch's triton cannot
share one. In a part, the variants take turns in alternating order; a ratio is taken to the first variant of the same
round, and its median, lowest and highest over the rounds are printed. Below 1, a rate's ratio is slower; above 1, that
of CPU time is dearer.
"""

from __future__ import annotations

import os
import subprocess
import sys

from bench.rounds import extent

PARTS = ("keras_training", "torch_training", "sb3_training", "shipping", "encoder")


def main() -> int:
    """Measure and print; 1 where a part has failed."""
    asked = extent(__doc__)
    options = ["--rounds", str(asked.rounds), *(["--quick"] if asked.quick else [])]
    failed = [part for part in PARTS if _run(part, options) != 0]
    if failed:
        print(f"bench: {', '.join(failed)} failed", file=sys.stderr)
    return 1 if failed else 0


def _run(part: str, options: list[str]) -> int:
    command = [sys.executable, "-m", f"bench.{part}", *options]
    return subprocess.run(command, env=os.environ | {"PYTHONWARNINGS": "ignore"}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())

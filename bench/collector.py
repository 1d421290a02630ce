"""What Gatewatch costs and what it reaches, beside what people use otherwise: every ratio within one run.

    python -m bench.collector            # about half an hour; the machine should do nothing else
    python -m bench.collector --quick    # under a minute: that everything runs

The parts take their turns one after the other, each in a process of its own, since TensorFlow and torch's triton cannot
share one. In a part, the variants take turns in alternating order; a ratio is taken to the first variant of the same
round, and its median, lowest and highest over the rounds are printed. Below 1, a rate's ratio is slower; above 1, that
of CPU time is dearer.
"""

from __future__ import annotations

import sys

from bench.rounds import in_turn

PARTS = ("keras_training", "torch_training", "sb3_training", "shipping", "encoder")

if __name__ == "__main__":
    sys.exit(in_turn(__doc__, "bench", PARTS))

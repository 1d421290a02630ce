"""Thresholds on gradients and updates, each with its source; scores, alerts and pages take them from here."""

from __future__ import annotations

from typing import Final

ALARM_CAPTURES: Final = 2
ALARM_WITHIN: Final = 5
"""A series whose score is above 1 in so many of so many captures in a row alarms; fewer may be chance. With these
`bench.faults` counts a fault as found."""

GRADIENT_VANISHED: Final = 1e-7
"""Norm of a gradient below which it moves nothing in single precision, whose relative spacing is 1.2e-7 (IEEE 754)."""

GRADIENT_EXPLODES: Final = 10.0
"""Multiple of its median over the captures before from which `gradient_state` is 1. Pascanu, Mikolov and Bengio 2013,
"On the difficulty of training recurrent neural networks", clip gradients at half to ten times their average norm."""
GRADIENT_EXPLODED_ALARM: Final = 100.0
"""The same multiple for alarms, the detector `rules` and the alert `gradient_exploding`. Set by hand a decade higher:
an alarm must be rarer than a state that is only shown."""
GRADIENT_EXPLODED_RUN: Final = 1000.0
"""Multiple of its median over a whole run from which a report calls a gradient exploded. Set by hand: that median spans
all of the training, whose gradients shrink as it goes on, so it is compared with a decade more room."""

UPDATE_SLOW: Final = 1e-5
"""Norm of an update / norm of the weights below which a parameter hardly learns."""
UPDATE_HEALTHY: Final = (1e-4, 1e-2)
"""A tenth to ten times the usual ratio, 1e-3 (Karpathy, CS231n, "Neural Networks Part 3", ratio of weights:updates)."""
UPDATE_FAST: Final = 1e-1
"""Ratio above which a step overwrites what was learned. It is two decades above the usual one, `UPDATE_SLOW` two
below."""

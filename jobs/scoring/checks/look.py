"""Checks of the reference look: what a network does with a fixed probe, while a backtest looks at its windows.

Where nothing learns, the same weights, the same probe and the same initial states give the same gates. So a look that
differs from the one before means that the network is another; and where it does not, what moves in the windows comes
from the data.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from gatewatch.collector.probe_loss import PROBE_LOSS
from gatewatch.collector.replay.rounding import REPLAY_TOLERANCE
from gatewatch.jobs.scoring.captures import Array, Captures, Pair
from gatewatch.jobs.scoring.checks.base import WINDOW, Check, any_before, any_of_late, just_begun, verdicts
from gatewatch.jobs.scoring.signals import MODEL

SAME: Final = 1e-5
"""A look may differ by so much from the one before, relative to its largest number or 1, where the kernels are known to
add in a fixed order: a look in the last `KNOWN` captures was that of the one before it, bit for bit. The
numbers are means and percentiles of float32 values of an epsilon of 1.2e-7. Another alignment in memory may change the
order of some sums of n products, which moves them by about √n epsilons (Higham and Mary 2019): 4e-6 for 1,000 inputs
and units."""
UNKNOWN_ORDER: Final = REPLAY_TOLERANCE
"""The same as long as no look was: kernels of a GPU may add in another order each time, as a replay does."""
GAP: Final = 8
"""The most captures back at which the look before may be."""
KNOWN: Final = 16
"""Earlier captures in which an optimizer's step, or a look that was the same, counts."""
VARIES: Final = 3
"""Looks in a row that differ from the one before: then it is no single change."""


def look_moves(captures: Captures) -> dict[Pair, Array]:
    """Return series → (n,), by how many times its limit each look differs from the one before.

    NaN where there is no look now, or none in the `GAP` captures before, or where an optimizer was seen to make a step
    in the last `KNOWN` captures: a live phase may learn. The loss of the probe is a series like a gate's look. What is
    finite in one of both looks alone makes them differ without bound.
    """
    tables = dict(captures.reference_look)
    if not tables:
        return {}
    if (loss := captures.metrics.get(PROBE_LOSS)) is not None:
        is_looked_at = np.any([np.isfinite(table).any(axis=1) for table in tables.values()], axis=0)
        tables[MODEL, PROBE_LOSS] = np.where(is_looked_at, loss, np.nan)[:, None]
    learns = np.zeros(len(captures.time), dtype=bool)
    for series in captures.updates:
        learns |= np.isfinite(captures.update(series, "update_norm"))
    learns = any_of_late(learns, KNOWN)
    moves = {series: np.where(learns, np.nan, _moves(table)) for series, table in tables.items()}
    return {series: values for series, values in moves.items() if not np.isnan(values).all()}


def _moves(table: Array) -> Array:
    """Return (n,), by how many times its limit each row differs from the latest row before it that has a number."""
    apart = np.full(len(table), np.nan)
    looks = np.flatnonzero(np.isfinite(table).any(axis=1))
    near = np.diff(looks) <= GAP
    before, now = looks[:-1][near], looks[1:][near]
    apart[now] = _apart(table[before], table[now])
    moves: Array = apart / np.where(any_before(apart == 0, KNOWN), SAME, UNKNOWN_ORDER)
    return moves


def _apart(before: Array, now: Array) -> Array:
    """Return (n,), the largest difference of two rows each, relative to their largest number or 1."""
    has, had = np.isfinite(now), np.isfinite(before)
    one, other = np.where(has, now, 0.0), np.where(had, before, 0.0)
    largest = np.maximum(1.0, np.abs([one, other]).max(axis=(0, 2)))
    apart: Array = np.where((has == had).all(axis=1), np.abs(one - other).max(axis=1) / largest, np.inf)
    return apart


def network_changed(captures: Captures) -> dict[Pair, Array]:
    """Judge whether the network is still the one that it was, by its gates for the fixed probe, and the probe's loss.

    Nothing learns in a backtest, so the weights are the same from capture to capture, and with them the look: exactly,
    but for rounding (`SAME`). What moves it: weights that were loaded, edited or trained, another module in their
    place, dropout or noise that is drawn in inference too, a state or a normaliser that the module keeps. A look that
    goes on to differ is said by `probe_varies`; so only the first difference within 41 captures counts here, as in a
    backtest that trains its network again and again on its way.
    """
    scores = {}
    for series, moves in look_moves(captures).items():
        known = ~np.isnan(moves)
        scores[series] = verdicts(just_begun(known & (moves > 1), WINDOW - GAP - KNOWN), known)
    return scores


def probe_varies(captures: Captures) -> dict[Pair, Array]:
    """Judge whether the network gives other gates for the same probe at each look.

    The looks of `VARIES` captures in a row differ from those before. A network that was changed once differs once.
    """
    scores = {}
    for series, moves in look_moves(captures).items():
        differs = moves > 1
        varies = differs.copy()
        for back in range(1, VARIES):
            varies[back:] &= differs[:-back]
            varies[:back] = False
        scores[series] = verdicts(just_begun(varies, WINDOW - GAP - KNOWN - VARIES + 1), ~np.isnan(moves))
    return scores


def is_same_network(captures: Captures, back: int) -> NDArray[np.bool_]:
    """Return (n,), whether all looks of a capture and of the `back` ones before it were those of the one before.

    False where a capture has no look to compare, and at captures before which there are fewer than one.
    """
    moves = list(look_moves(captures).values())
    if not moves:
        return np.zeros(len(captures.time), dtype=bool)
    is_same = np.any([values <= 1 for values in moves], axis=0)
    has_moved = np.any([values > 1 for values in moves], axis=0)
    same: NDArray[np.bool_] = is_same & ~any_of_late(has_moved, back)
    return same


_NEEDS: Final = "a backtest or a live phase whose steps bring windows, a probe, and that no optimizer makes a step"
CHECKS: Final = (
    Check(
        name="network_changed",
        sentence="a fixed probe has other gates than before, so the network changed: was something loaded or edited?",
        source="network",
        errors="never where nothing but the weights decides what the network does",
        needs=_NEEDS,
        judge=network_changed,
        look_back=WINDOW,
    ),
    Check(
        name="probe_varies",
        sentence="a fixed probe has other gates at each look: dropout left on, noise, or a state that is kept?",
        source="network",
        errors="never where nothing is drawn and no step of an optimizer is missed",
        needs=_NEEDS,
        judge=probe_varies,
        look_back=WINDOW,
    ),
)

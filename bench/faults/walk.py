"""A backtest, whatever the framework: a few stretches of the market side by side, episode after episode.

By the case's seed the market is walked from end to end, an episode in ten calls, or whole episodes that begin anywhere
are walked, each in one call. A call is a capture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.faults.cases import Case
from bench.faults.controls import CONTROLS
from bench.faults.fault import Batch, Fault, Indices, Network
from bench.faults.faults import FAULTS
from bench.faults.market import TREND, Array, Market, Windows, market, windows
from bench.faults.shapes import CAPTURES

STRETCHES: Final = 4
"""Walked side by side."""
EPISODE: Final = 40
"""Bars of an episode that is walked in several calls; the state is reset where one begins."""
CALL: Final = 4
"""Bars of such a call."""
WHOLE: Final = 24
"""Bars of an episode that is one call; it begins anywhere, as an environment's do."""
MEMORY_BIAS: Final = 3.0
"""Of the gate that keeps the state, at first: a memory of some twenty bars, which an episode is to begin without."""
TRAINING_STEPS: Final = 60
TRAINING_BATCH: Final = 32
LEARNT: Final = "-learnt"
"""Ends the name of the run in which the policy was trained; the backtest names it as its reference."""
LEARNT_EVERY: Final = 2
"""Steps between two captures of that run."""
_LEARNT: Final = 0.5
_BEGINS: Final = 1_600_000_000 * 10**9
_BAR: Final = 3_600 * 10**9
"""Nanoseconds: bars are called an hour apart, since stretches that lie apart are walked side by side."""


@dataclass(frozen=True)
class Call:
    """What the policy is given at once.

    Attributes:
        x: (STRETCHES, bars, features).
        starts: whether an episode starts with it.
        resets: whether the state is reset before it: where an episode starts, unless the fault has it otherwise.
        time: of its last bar, nanoseconds since the epoch.
        profit: of a bar for who is long, the mean of the stretches.
    """

    x: Array
    starts: bool
    resets: bool
    time: int
    profit: float


class Walk:
    """The calls of one backtest, counted from 1.

    Attributes:
        bars: of a call.
        strikes_at: the first call that the fault touches.
        learnt: the bars that the policy is trained on.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        market_ = market(case.symbol)
        self._market, split = market_, int(len(market_) * _LEARNT)
        known, raw, following, volatility = market_.known, market_.raw, market_.following, market_.volatility
        self.learnt = Market(known[:split], raw[:split], following[:split], volatility[:split])
        self.fault: Fault | None = FAULTS[case.fault](case.seed) if case.fault else None
        resets = "at each start" if self.fault is None else self.fault.resets
        whole = case.seed % 3 > 0 and resets != "a call late"  # which needs calls within an episode
        self._says_starts = not whole or case.seed % 3 == 1
        self.bars, self._calls = (WHOLE, 1) if whole else (CALL, EPISODE // CALL)
        self.strikes_at = round(CAPTURES * case.strike) + 1
        if resets != "at each start":  # it touches nothing before an episode begins
            self.strikes_at += -(self.strikes_at - 1) % self._calls
        self._at = self._episodes(split) if whole else self._end_to_end(split)

    def __len__(self) -> int:
        return CAPTURES

    def struck(self, number: int) -> Fault | None:
        """The fault, where it has struck by this call."""
        return self.fault if number >= self.strikes_at else None

    def bars_of(self, number: int) -> Indices:
        """(STRETCHES, bars), which bars of the market a call is of."""
        return self._at[:, number - 1]

    def call(self, number: int) -> Call:
        """The call of a number; to be asked for in order."""
        at, fault = self.bars_of(number), self.struck(number)
        x, following = self._market.known[at], self._market.following[at]
        starts = (number - 1) % self._calls == 0
        resets = starts
        if fault is not None:
            ones = np.ones(len(at), "float32")
            x = fault.batch(Batch(x, self._market.raw[at], following[:, -1:], ones)).x
            late = (number - 2) % self._calls == 0
            resets = {"at each start": starts, "never": False, "a call late": late}[fault.resets]
        return Call(x, starts, resets, _BEGINS + number * self.bars * _BAR, float(following.mean()))

    @property
    def probe(self) -> Windows:
        """What the monitor looks at besides: STRETCHES windows of a call's length, from all over what was learnt."""
        known = windows(self.learnt, self.bars)
        return known.part(np.linspace(0, len(known) - 1, STRETCHES).astype(np.int64))

    def starts(self, call: Call) -> NDArray[np.bool_] | None:
        """(STRETCHES,), whether an episode starts with the call; None where the loop does not say, as many do not."""
        return np.full(STRETCHES, call.starts) if self._says_starts else None

    def strike(self, number: int, network: Network) -> None:
        """What the fault does to the network before a call."""
        if (fault := self.struck(number)) is not None:
            fault.strike(network, number - self.strikes_at)
        elif self.fault is not None:
            self.fault.watch(network)

    @property
    def _regimes(self) -> tuple[int, bool] | None:
        """Calls before the regime changes, and whether the first is the wild or the rising one."""
        if self.case.data != "changing":
            return None
        return round(CAPTURES * self.case.strike), self._order in ("wild-to-calm", "rising-to-falling")

    @property
    def _order(self) -> str:
        return CONTROLS[self.case.control].setup.order if self.case.control else "random"

    @property
    def _measure(self) -> Array:
        """(bars,), by which regimes are told apart."""
        return self._market.known[:, TREND] if "rising" in self._order else self._market.volatility

    def _episodes(self, split: int) -> Indices:
        """(STRETCHES, CAPTURES, bars), the bars of episodes drawn from what follows the split, or from each regime."""
        random = np.random.default_rng(self.case.seed)
        starts = np.arange(split, len(self._market) - self.bars)
        drawn = random.choice(starts, (STRETCHES, CAPTURES))
        if (regimes := self._regimes) is not None:
            before, high_first = regimes
            ranked = starts[np.argsort(self._measure[starts + self.bars // 2], kind="stable")]
            third = len(ranked) // 3
            low, high = random.choice(ranked[:third], drawn.shape), random.choice(ranked[-third:], drawn.shape)
            drawn = np.where((np.arange(CAPTURES) < before) == high_first, high, low)
        return drawn[..., None] + np.arange(self.bars)

    def _end_to_end(self, split: int) -> Indices:
        """(STRETCHES, CAPTURES, bars), stretches that follow the split, or what was calmest beside what was wildest."""
        length = CAPTURES * self.bars
        first = np.linspace(split, len(self._market) - length, STRETCHES).astype(np.int64)
        walked = first[:, None] + np.arange(length)
        if (regimes := self._regimes) is not None:
            before, high_first = regimes
            one = self._extreme(before * self.bars, high_first)
            other = self._extreme((CAPTURES - before) * self.bars, not high_first)
            walked = np.concatenate([one, other], axis=1)
        return walked.reshape(STRETCHES, CAPTURES, self.bars)

    def _extreme(self, length: int, high: bool) -> Indices:
        """The stretch of a length with the most or the least of the measure, and others that begin a few bars later."""
        sums = np.cumsum(np.concatenate([[0.0], self._measure]))
        means = sums[length:] - sums[:-length]
        first = min(int(np.argmax(means) if high else np.argmin(means)), len(self._market) - length - 3 * STRETCHES)
        return (first + 3 * np.arange(STRETCHES))[:, None] + np.arange(length)

"""Train an LSTM trading policy with PyTorch, and watch its gates and its gradients before and after clipping.

Three lines of the loop are for Gatewatch, marked 1 to 3. Nothing else changes: the module, the optimizer and
`clip_grad_norm_` are those of torch.

    python examples/torch_loop.py --symbol BTCUSD
"""

from __future__ import annotations

import argparse
import shlex
import sys
import warnings

warnings.filterwarnings("ignore", module="backtesting")

import pandas as pd
import torch
from backtesting import test as prices
from torch import Tensor, nn

from gatewatch.collector.errors import GatewatchError
from gatewatch.torch import GateMonitor

WINDOW = 24
COST = 0.01  # percent of what is bought or sold
SPANS = (1, 5, 20)


def market(symbol: str) -> tuple[Tensor, Tensor]:
    """Return windows (samples, WINDOW, 3) of features at each close, and the next change of the price in percent."""
    change = 100 * getattr(prices, symbol)["Close"].pct_change()
    scaled = change / change.ewm(halflife=20).std()
    known = pd.concat([scaled.ewm(span=span).mean() for span in SPANS], axis=1)
    known, following = (torch.tensor(part.to_numpy("float32")) for part in (known[2:-1], change[3:]))
    return known.unfold(0, WINDOW, 1).transpose(1, 2), following.unfold(0, WINDOW, 1)


class Policy(nn.Module):
    """Map features to a position between −1 and 1 for each bar, with an LSTM."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.memory = nn.LSTM(len(SPANS), units, batch_first=True)
        self.position = nn.Linear(units, 1)

    def forward(self, known: Tensor) -> Tensor:
        """Map (batch, bars, features) to (batch, bars)."""
        return torch.tanh(self.position(self.memory(known)[0])).squeeze(-1)


def negative_profit(position: Tensor, following: Tensor) -> Tensor:
    """Return the loss of each bar: minus the position times the next change, plus the cost of trading."""
    traded = position - nn.functional.pad(position[:, :-1], (1, 0))
    return -(position * following - COST * traded.abs()).mean()


def train(arguments: argparse.Namespace) -> str:
    """Train the policy and return the name of its run."""
    torch.manual_seed(arguments.seed)
    x, y = market(arguments.symbol)
    split = int(len(x) * 0.75)
    unseen_x, unseen_y = x[split + WINDOW :], y[split + WINDOW :]  # no bar of these is in a window before `split`
    policy = Policy(arguments.units)
    optimizer = torch.optim.Adam(policy.parameters(), lr=3e-3)
    monitor = GateMonitor(  # <-- 1
        policy,
        probe=x[split - 16 : split],
        run=arguments.run,
        store=arguments.store,
        every=arguments.every,
        tags={"symbol": arguments.symbol},
    )
    with monitor:
        for _ in range(arguments.epochs):
            for _ in range(arguments.batches):
                batch = torch.randint(split, (32,))
                loss = negative_profit(policy(x[batch]), y[batch])
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(policy.parameters(), arguments.clip)
                optimizer.step()
                monitor.step(metrics={"loss": loss})  # <-- 2
            with torch.no_grad():
                val_loss = negative_profit(policy(unseen_x), unseen_y)
            monitor.end_epoch({"val_loss": val_loss})  # <-- 3
    return monitor.run


def main() -> int:
    """Train by the arguments, and print what to type next."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", help="name of the run (default: a new one)")
    parser.add_argument("--symbol", choices=["GOOG", "EURUSD", "BTCUSD"], default="GOOG", help="prices to trade")
    parser.add_argument("--store", help="where the points go: sqlite:///file.db or http://host:8086")
    parser.add_argument("--units", type=int, default=16, help="units of the LSTM (default: 16)")
    parser.add_argument("--epochs", type=int, default=8, help="epochs to train (default: 8)")
    parser.add_argument("--batches", type=int, default=25, help="batches in an epoch (default: 25)")
    parser.add_argument("--every", type=int, default=2, help="batches between two captures (default: 2)")
    parser.add_argument("--clip", type=float, default=0.1, help="the largest norm of all gradients (default: 0.1)")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    try:
        run = train(arguments)
    except GatewatchError as error:
        print(f"torch_loop: {error}", file=sys.stderr)
        return 2
    store = f" --store {shlex.quote(arguments.store)}" if arguments.store else ""
    commands = ("runs", "jobs --once", f"report {shlex.quote(run)}")
    print("Next  ", "\n       ".join(f"gatewatch {command}{store}" for command in commands))
    return 0


if __name__ == "__main__":
    sys.exit(main())

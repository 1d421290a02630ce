"""The runs of PyTorch: a training loop of one's own, and a backtest whose state the loop carries."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from bench.faults.cases import Case
from bench.faults.market import FEATURES, windows
from bench.faults.program import Program, Setup
from bench.faults.shapes import RISK_AVERSION, SHAPES, Shape
from bench.faults.torch_network import TorchNetwork
from bench.faults.walk import MEMORY_BIAS, STRETCHES, TRAINING_BATCH, TRAINING_STEPS, Walk
from gatewatch.torch import GateMonitor


class Policy(nn.Module):
    """Recurrent layers and a position between −1 and 1 at the last bar."""

    def __init__(self, shape: Shape, setup: Setup) -> None:
        super().__init__()
        kind = nn.LSTM if shape.cell == "LSTM" else nn.GRU
        self.norm = nn.LayerNorm(FEATURES) if setup.norm == "layer" else None
        self.batch_norm = nn.BatchNorm1d(FEATURES) if setup.norm == "batch" else None
        self.dropout = nn.Dropout(setup.dropout)
        self.memory = kind(FEATURES, shape.units[0], len(shape.units), batch_first=True)
        self.position = nn.Linear(shape.units[-1], 1)

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """(batch, bars, features) to (batch, 1), and the state after it."""
        if self.norm is not None:
            x = self.norm(x)
        if self.batch_norm is not None:
            x = self.batch_norm(x.transpose(1, 2)).transpose(1, 2)
        hidden, state = self.memory(self.dropout(x), state)
        return torch.tanh(self.position(hidden[:, -1])), state


def run(case: Case, run: str, store: str) -> int:
    """Make the run of a case; the first step that its fault touches, if it has one."""
    torch.set_num_threads(1)
    torch.manual_seed(case.seed)
    return _backtest(case, run, store) if case.kind == "backtest" else _train(case, run, store)


def loss_of(shape: Shape, position: Tensor, following: Tensor, weight: Tensor) -> Tensor:
    """What a sample loses by the negative utility of its profit, or by the squared error; weighted."""
    profit = position * following
    lost = RISK_AVERSION * profit.square() - profit if shape.loss == "utility" else (position - following).square()
    return (lost.squeeze(-1) * weight).mean()


def optimizer_of(setup: Setup, module: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of a setup."""
    parameters, rate = module.parameters(), setup.rate
    if setup.optimizer == "sgd":
        return torch.optim.SGD(parameters, rate, momentum=0.9)
    kinds: dict[str, Any] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "rmsprop": torch.optim.RMSprop}
    made: torch.optim.Optimizer = kinds[setup.optimizer](parameters, rate)
    return made


def _train(case: Case, run: str, store: str) -> int:
    program = Program(case)
    shape, setup = program.shape, program.setup
    policy = Policy(shape, setup)
    optimizer = optimizer_of(setup, policy)
    network = TorchNetwork(policy, policy.position, optimizer)
    unseen, ones = program.unseen, torch.ones(len(program.unseen))
    best, best_weights = float("inf"), copy.deepcopy(policy.state_dict())
    logs_rate = setup.schedule is not None or case.seed % 2 == 0
    monitor = GateMonitor(
        policy,
        log_dir=None,
        probe=torch.from_numpy(program.probe.x),
        run=run,
        store=store,
        every=shape.every,
        tags={"symbol": case.symbol},
    )
    with monitor:
        for step in range(1, program.last + 1):
            batch = program.batch(step)
            rate = optimizer.param_groups[0]["lr"] = program.rate(step)
            program.strike(step, network)
            x, y, weight = map(torch.from_numpy, (batch.x, batch.y, batch.weight))
            loss = loss_of(shape, policy(x)[0], y, weight)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch is typed in part
            if setup.clip is not None:
                nn.utils.clip_grad_norm_(policy.parameters(), setup.clip)
            optimizer.step()
            monitor.step(metrics={"loss": loss} | ({"learning_rate": rate} if logs_rate else {}))
            if step % program.epoch_steps == 0:
                policy.eval()
                with torch.no_grad():
                    position = policy(torch.from_numpy(unseen.x))[0]
                    val_loss = float(loss_of(shape, position, torch.from_numpy(unseen.y), ones))
                policy.train()
                monitor.end_epoch({"val_loss": val_loss})
                if val_loss < best:
                    best, best_weights = val_loss, copy.deepcopy(policy.state_dict())
        if setup.stops < 1:
            policy.load_state_dict(best_weights)
    return program.strikes_at


def _backtest(case: Case, run: str, store: str) -> int:
    walk, shape, setup = Walk(case), SHAPES[case.shape], Setup()
    policy = Policy(shape, setup)
    network = TorchNetwork(policy, policy.position)
    for layer in range(len(network)):
        network.set_memory_bias(layer, MEMORY_BIAS)
    _learn(policy, walk, shape)
    state = _no_state(policy)
    watch: dict[str, Any] = {"run": run, "store": store, "every": 1, "tags": {"symbol": case.symbol}}
    equity = 0.0
    with GateMonitor(policy, log_dir=None, phase="backtest", **watch) as monitor, torch.no_grad():
        for number in range(1, len(walk) + 1):
            walk.strike(number, network)
            call = walk.call(number)
            x, before = torch.from_numpy(call.x), _no_state(policy) if call.starts else state
            position, state = policy(x, before)
            equity += float(position.mean()) * call.profit
            told = {"position": float(position.mean()), "equity": equity}
            monitor.step(x, state=before, time=call.time, metrics=told)
    return walk.strikes_at


def _learn(policy: Policy, walk: Walk, shape: Shape) -> None:
    known, optimizer = windows(walk.learnt, shape.length), torch.optim.Adam(policy.parameters(), 2e-3)
    for _ in range(TRAINING_STEPS):
        batch = torch.randint(len(known), (TRAINING_BATCH,)).numpy()
        x, y = torch.from_numpy(known.x[batch]), torch.from_numpy(known.y[batch])
        loss = loss_of(shape, policy(x)[0], y, torch.ones(TRAINING_BATCH))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch is typed in part
        optimizer.step()


def _no_state(policy: Policy) -> Any:
    zeros = torch.zeros(policy.memory.num_layers, STRETCHES, policy.memory.hidden_size)
    return (zeros, zeros) if isinstance(policy.memory, nn.LSTM) else zeros

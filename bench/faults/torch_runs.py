"""The runs of PyTorch: a training loop of one's own, and a backtest whose state the loop carries."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.faults.cases import Case
from bench.faults.fault import Batch
from bench.faults.market import FEATURES, windows
from bench.faults.program import PROBE, Program
from bench.faults.setups import Optimizer, Setup
from bench.faults.shapes import RISK_AVERSION, SHAPES, Shape
from bench.faults.torch_network import TorchNetwork
from bench.faults.walk import LEARNT, LEARNT_EVERY, MEMORY_BIAS, STRETCHES, TRAINING_BATCH, TRAINING_STEPS, Walk
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


def _probe_loss(shape: Shape, outputs: tuple[Tensor, Any], following: Tensor) -> Tensor:
    return loss_of(shape, outputs[0], following, torch.ones(len(following)))


def optimizer_of(kind: Optimizer, rate: float, module: nn.Module) -> torch.optim.Optimizer:
    """An optimizer of the module."""
    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        "adam": (torch.optim.Adam, {}),
        "adamw": (torch.optim.AdamW, {}),
        "amsgrad": (torch.optim.Adam, {"amsgrad": True}),
        "nadam": (torch.optim.NAdam, {}),
        "rmsprop": (torch.optim.RMSprop, {}),
        "adagrad": (torch.optim.Adagrad, {}),
        "sgd": (torch.optim.SGD, {"momentum": 0.9}),
    }
    made, more = kinds[kind]
    optimizer: torch.optim.Optimizer = made(module.parameters(), rate, **more)
    return optimizer


def _train(case: Case, run: str, store: str) -> int:
    program = Program(case)
    shape, setup = program.shape, program.setup
    policy = Policy(shape, setup)
    optimizer = optimizer_of(program.optimizer, setup.rate, policy)
    network = TorchNetwork(policy, policy.position, optimizer, partial(_trained, program))
    unseen, ones = program.unseen, torch.ones(len(program.unseen))
    best, best_weights = float("inf"), copy.deepcopy(policy.state_dict())
    logs_rate = setup.schedule is not None or case.seed % 2 == 0
    monitor = GateMonitor(
        policy,
        log_dir=None,
        probe=torch.from_numpy(program.probe.x),
        probe_targets=torch.from_numpy(program.probe.y),
        loss=partial(_probe_loss, shape),
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
            loss = _step(policy, optimizer, shape, batch, setup.clip)
            logs = {"loss": loss} | ({"learning_rate": rate} if logs_rate else {})
            # What it is fed is seen in the module's own call too: every second loop leaves it at that.
            monitor.step(batch=batch.x if case.seed % 2 == 0 else None, targets=batch.y, metrics=logs)
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


def _step(
    policy: Policy, optimizer: torch.optim.Optimizer, shape: Shape, batch: Batch, clip: float | None = None
) -> Tensor:
    x, y, weight = map(torch.from_numpy, (batch.x, batch.y, batch.weight))
    loss = loss_of(shape, policy(x)[0], y, weight)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]  # torch is typed in part
    if clip is not None:
        nn.utils.clip_grad_norm_(policy.parameters(), clip)
    optimizer.step()
    return loss


def _trained(program: Program) -> Policy:
    """Train another network, unwatched, for as long as the one of the program has been when its fault strikes."""
    other = program.another_run
    policy = Policy(other.shape, other.setup)
    optimizer = optimizer_of(other.optimizer, other.setup.rate, policy)
    for step in range(1, other.strikes_at):
        _step(policy, optimizer, other.shape, other.batch(step))
    return policy


def _backtest(case: Case, run: str, store: str) -> int:
    walk, shape = Walk(case), SHAPES[case.shape]
    policy = Policy(shape, Setup())
    network = TorchNetwork(policy, policy.position)
    for layer in range(len(network)):
        network.set_memory_bias(layer, MEMORY_BIAS)
    tags = {"symbol": case.symbol}
    learnt = GateMonitor(
        policy,
        log_dir=None,
        probe=torch.from_numpy(windows(walk.learnt, shape.length).x[:PROBE]),
        run=f"{run}{LEARNT}",
        store=store,
        every=LEARNT_EVERY,
        tags=tags,
    )
    with learnt:
        _learn(policy, walk, shape, learnt)
    state = _no_state(policy)
    watch: dict[str, Any] = {"run": run, "store": store, "every": 1, "tags": tags, "reference": f"{run}{LEARNT}"}
    watch |= {"probe": torch.from_numpy(walk.probe.x), "probe_targets": torch.from_numpy(walk.probe.y)}
    watch["loss"] = partial(_probe_loss, shape)
    equity = 0.0
    with GateMonitor(policy, log_dir=None, phase="backtest", **watch) as monitor, torch.no_grad():
        for number in range(1, len(walk) + 1):
            walk.strike(number, network)
            call = walk.call(number)
            x, before = torch.from_numpy(call.x), _no_state(policy) if call.resets else state
            position, state = policy(x, before)
            equity += float(position.mean()) * call.profit
            logs = {"position": float(position.mean()), "equity": equity}
            monitor.step(x, state=before, starts=walk.starts(call), time=call.time, metrics=logs)
    return walk.strikes_at


def _learn(policy: Policy, walk: Walk, shape: Shape, monitor: GateMonitor) -> None:
    known = windows(walk.learnt, shape.length)
    optimizer = optimizer_of(shape.optimizer, Setup.rate, policy)
    for _ in range(TRAINING_STEPS):
        chosen = torch.randint(len(known), (TRAINING_BATCH,)).numpy()
        batch = Batch(known.x[chosen], known.raw[chosen], known.y[chosen], np.ones(TRAINING_BATCH, "float32"))
        loss = _step(policy, optimizer, shape, batch)
        monitor.step(batch=batch.x, targets=batch.y, metrics={"loss": loss})


def _no_state(policy: Policy) -> Any:
    zeros = torch.zeros(policy.memory.num_layers, STRETCHES, policy.memory.hidden_size)
    return (zeros, zeros) if isinstance(policy.memory, nn.LSTM) else zeros

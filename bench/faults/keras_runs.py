"""The runs of Keras: a training by `fit`, and a backtest with a stateful layer."""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf  # type: ignore[import-untyped]

from bench.faults.cases import Case
from bench.faults.keras_network import KerasNetwork
from bench.faults.market import FEATURES, Array, windows
from bench.faults.program import PROBE, Program
from bench.faults.setups import Optimizer, Setup
from bench.faults.shapes import RISK_AVERSION, SHAPES, Shape
from bench.faults.walk import LEARNT, LEARNT_EVERY, MEMORY_BIAS, STRETCHES, TRAINING_BATCH, TRAINING_STEPS, Walk
from gatewatch import GateMonitor
from gatewatch.collector.keras.layers import recurrent_layers


def negative_utility(following: Any, position: Any) -> Any:
    """Of each sample's profit."""
    profit = keras.ops.squeeze(position * following, -1)
    return RISK_AVERSION * keras.ops.square(profit) - profit


def policy(shape: Shape, setup: Setup, length: int | None = None, stateful: bool = False) -> keras.Model:
    """Recurrent layers and a position between −1 and 1, at the last bar."""
    kind = keras.layers.LSTM if shape.cell == "LSTM" else keras.layers.GRU
    layers = [keras.Input((length or shape.length, FEATURES), batch_size=STRETCHES if stateful else None)]
    if setup.norm is not None:
        layers.append(keras.layers.LayerNormalization() if setup.norm == "layer" else keras.layers.BatchNormalization())
    for k, units in enumerate(shape.units):
        inner = k + 1 < len(shape.units)
        layer = kind(units, return_sequences=inner, stateful=stateful, dropout=setup.dropout, name=f"memory_{k}")
        layers.append(keras.layers.Bidirectional(layer, name=f"both_{k}") if shape.bidirectional else layer)
    return keras.Sequential([*layers, keras.layers.Dense(1, activation="tanh", name="position")], name="policy")


class Conduct(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """Before each step of `fit`: its learning rate, and its fault. It logs the rate, as Keras's schedulers do."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self._program, self._step = program, 0

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Set both."""
        self._step += 1
        self.model.optimizer.learning_rate = self._program.rate(self._step)
        self._program.strike(self._step, KerasNetwork(self.model, partial(_trained, self._program)))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Log the rate where a schedule changes it."""
        if logs is not None and (self._program.setup.schedule is not None or self._program.case.seed % 2 == 0):
            logs["learning_rate"] = float(self.model.optimizer.learning_rate)


def run(case: Case, run: str, store: str) -> int:
    """Make the run of a case; the first step that its fault touches, if it has one."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    keras.backend.clear_session()
    keras.utils.set_random_seed(case.seed)
    return _backtest(case, run, store) if case.kind == "backtest" else _train(case, run, store)


def optimizer_of(kind: Optimizer, rate: float, clip: float | None = None) -> keras.optimizers.Optimizer:
    """An optimizer."""
    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        "adam": (keras.optimizers.Adam, {}),
        "adamw": (keras.optimizers.AdamW, {}),
        "amsgrad": (keras.optimizers.Adam, {"amsgrad": True}),
        "nadam": (keras.optimizers.Nadam, {}),
        "rmsprop": (keras.optimizers.RMSprop, {}),
        "adagrad": (keras.optimizers.Adagrad, {}),
        "sgd": (keras.optimizers.SGD, {"momentum": 0.9}),
    }
    made, more = kinds[kind]
    return made(rate, global_clipnorm=clip, **more)


def _loss(shape: Shape) -> Any:
    return negative_utility if shape.loss == "utility" else "mse"


def _train(case: Case, run: str, store: str) -> int:
    program = Program(case)
    shape, setup, unseen = program.shape, program.setup, program.unseen
    model = policy(shape, setup)
    model.compile(optimizer_of(program.optimizer, setup.rate, setup.clip), loss=_loss(shape))

    def batches() -> Iterator[tuple[Array, Array, Array]]:
        for step in itertools.count(1):  # Keras asks for a few more than it trains on
            batch = program.batch(step)
            yield batch.x, batch.y, batch.weight

    epochs = program.last // program.epoch_steps
    callbacks: list[Any] = [Conduct(program)]
    if setup.stops < 1:
        callbacks.append(
            keras.callbacks.EarlyStopping("val_loss", patience=epochs, restore_best_weights=True, start_from_epoch=0)
        )
    monitor = GateMonitor(
        log_dir=None,
        probe=program.probe.x,
        probe_targets=program.probe.y,
        run=run,
        store=store,
        every=shape.every,
        tags={"symbol": case.symbol},
    )
    model.fit(
        monitor.feed(batches()),
        steps_per_epoch=program.epoch_steps,
        epochs=epochs,
        validation_data=(unseen.x, unseen.y),
        validation_batch_size=len(unseen),
        callbacks=[*callbacks, monitor],
        verbose=0,
    )
    return program.strikes_at


def _backtest(case: Case, run: str, store: str) -> int:
    walk, shape = Walk(case), SHAPES[case.shape]
    model = policy(shape, Setup(), walk.bars, stateful=True)
    network = KerasNetwork(model)
    watch: dict[str, Any] = {"store": store, "tags": {"symbol": case.symbol}}
    model.set_weights(_learnt(walk, shape, {**watch, "run": f"{run}{LEARNT}", "every": LEARNT_EVERY}))
    watch |= {"run": run, "every": 1, "reference": f"{run}{LEARNT}"}
    watch |= {"probe": walk.probe.x, "probe_targets": walk.probe.y, "loss": _loss(shape)}
    layers = recurrent_layers(model)
    equity = 0.0
    with GateMonitor(model, log_dir=None, phase="backtest", **watch) as monitor:
        for number in range(1, len(walk) + 1):
            walk.strike(number, network)
            call = walk.call(number)
            if call.resets:
                for layer in layers.values():
                    layer.reset_states()
            state = {path: [keras.ops.copy(part) for part in layer.states] for path, layer in layers.items()}
            position = float(keras.ops.mean(model(call.x)))
            equity += position * call.profit
            logs = {"position": position, "equity": equity}
            monitor.step(call.x, state=state, starts=walk.starts(call), time=call.time, metrics=logs)
    return walk.strikes_at


def _learnt(walk: Walk, shape: Shape, watch: dict[str, Any]) -> list[Array]:
    """Train the policy, and return its weights."""
    model, known = policy(shape, Setup()), windows(walk.learnt, shape.length)
    network = KerasNetwork(model)
    for layer in range(len(network)):
        network.set_memory_bias(layer, MEMORY_BIAS)
    model.compile(optimizer_of(shape.optimizer, Setup.rate), loss=_loss(shape))
    random = np.random.default_rng(walk.case.seed)

    def batches() -> Iterator[tuple[Array, Array]]:
        while True:
            chosen = random.integers(0, len(known), TRAINING_BATCH)
            yield known.x[chosen], known.y[chosen]

    monitor = GateMonitor(log_dir=None, probe=known.x[:PROBE], **watch)
    model.fit(monitor.feed(batches()), steps_per_epoch=TRAINING_STEPS, callbacks=[monitor], verbose=0)
    weights: list[Array] = model.get_weights()
    return weights


def _trained(program: Program) -> keras.Model:
    """Train another network, unwatched, for as long as the one of the program has been when its fault strikes."""
    other = program.another_run
    model = policy(other.shape, other.setup)
    model.compile(optimizer_of(other.optimizer, other.setup.rate), loss=_loss(other.shape))
    for step in range(1, other.strikes_at):
        batch = other.batch(step)
        model.train_on_batch(batch.x, batch.y)
    return model

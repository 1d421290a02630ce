"""A training with a monitor ends exactly as one without, whatever the model's forward does."""

from __future__ import annotations

import gc
import logging
import os
import queue
import random
import threading
from contextlib import closing, nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.optim.swa_utils import AveragedModel

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.store import open_store
from gatewatch.collector.torch import gates
from gatewatch.collector.torch.random_draws import OPERATIONS
from gatewatch.collector.torch.twin import twin_of
from gatewatch.torch import GateMonitor
from tests.zoo.open_files import open_files
from tests.zoo.torch_modules import MISCHIEF, Base, WholeZoo
from tests.zoo.traces import assert_equal, seed_all, traces
from tests.zoo.two_ranks import two_ranks

STEPS = 4
PROBE = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def single_threaded():
    """Threads that share such small networks take ten times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def without_global_hooks():
    """Some modules of the zoo leave some."""
    yield
    nn.modules.module._global_forward_hooks.clear()


def plain_step(module, optimizer, x, y, number):
    loss = (module(x) - y).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def accumulating_step(module, optimizer, x, y, number):
    (module(x) - y).square().mean().backward()
    if number % 3 == 0:
        optimizer.step()
        optimizer.zero_grad()


def closure_step(module, optimizer, x, y, number):
    def closure():
        optimizer.zero_grad()
        loss = (module(x) - y).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)


def half_precision_step(module, optimizer, x, y, number):
    with torch.autocast("cpu", torch.bfloat16):
        loss = (module(x) - y).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def scaling_step(module, optimizer, x, y, number, scaler=torch.amp.GradScaler("cpu", 16.0)):  # noqa: B008 - one for all
    with torch.autocast("cpu", torch.bfloat16):
        loss = (module(x) - y).square().mean()
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(module.parameters(), 0.1)
    scaler.step(optimizer)
    scaler.update()


WAYS = {
    "plain": {},
    "accumulating": {"step": accumulating_step},
    "closure": {"step": closure_step},
    "half precision": {"step": half_precision_step},
    "scaled gradients": {"step": scaling_step},
    "DataParallel": {"wrap": nn.DataParallel},
}
WRAP = {
    "DataParallel": nn.DataParallel,
    "compiled": lambda module: torch.compile(module, backend="eager"),
    "averaged": lambda module: AveragedModel(module).train(),
}


def train(make, monitor, step=plain_step, wrap=lambda module: module):
    """Train, with a monitor or without, and return what a look could have left a trace in."""
    gc.collect()
    files = open_files()
    seed_all()
    inner = make()
    module = wrap(inner)
    optimizer = torch.optim.Adam(module.parameters(), 0.05)
    batches = torch.randn(STEPS, 4, 6, 3).unbind()
    with monitor(module) or nullcontext() as watching:
        for number, x in enumerate(batches, 1):
            step(module, optimizer, x, torch.tanh(x[:, -1, :2]), number)
            if watching:
                watching.step()
    with torch.no_grad():
        output = module(batches[0])
    return {
        **traces(inner, optimizer),
        **{f"batch {number}": x for number, x in enumerate(batches)},
        "output": output,
        "opened files": open_files() - files,
    }


def monitor_of(tmp_path, **options):
    store = f"sqlite:///{tmp_path}/g.db"

    def monitor(module):
        return GateMonitor(module, None, run="r", store=store, probe=PROBE, every=1, **options)

    return monitor, store


def read(store, measurement):
    with closing(open_store(store)) as opened:
        return opened.read(measurement, run="r")


def check(tmp_path, caplog, make, **options):
    """Train bare and monitored; return the captures of the LSTM."""
    monitor, store = monitor_of(tmp_path)
    bare = train(make, lambda module: None, **options)
    with caplog.at_level(logging.WARNING, "gatewatch"):
        assert_equal(bare, train(make, monitor, **options))
    assert [record.message for record in caplog.records if record.name == "gatewatch"] == []
    rows = read(store, "gate_stats")
    assert set(rows["step"]) == set(range(1, STEPS + 1))
    return rows


@pytest.mark.parametrize("name", MISCHIEF)
def test_a_forward_that_changes_things_changes_them_once(name, tmp_path, caplog):
    check(tmp_path, caplog, MISCHIEF[name])


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_train(way, tmp_path, caplog):
    rows = check(tmp_path, caplog, WholeZoo, **WAYS[way])
    assert set(rows["layer"]) == {f"all.{name}.lstm/l0" for name in MISCHIEF}


@pytest.mark.parametrize("wrapper", WRAP)
def test_what_wraps_a_module_neither_changes_nor_names_anything(wrapper, tmp_path, caplog):
    rows = check(tmp_path, caplog, MISCHIEF["Normalised"], wrap=WRAP[wrapper])
    assert set(rows["layer"]) == {"lstm/l0"}
    monitor, store = monitor_of(tmp_path / "again")
    (tmp_path / "again").mkdir()
    train(MISCHIEF["Normalised"], monitor, wrap=WRAP[wrapper])
    updates = read(store, "layer_updates")
    assert {"lstm/l0", "head"} == set(updates["layer"])
    assert read(store, "runs")["model"].dropna().tolist() == ["Normalised"]


def test_the_method_of_a_wrapped_module_is_called(tmp_path, caplog):
    monitor, store = monitor_of(tmp_path, method="change_all")
    with caplog.at_level(logging.WARNING, "gatewatch"), monitor(nn.DataParallel(Agent())) as watching:
        watching.step()
    assert set(read(store, "gate_stats")["layer"]) == {"lstm/l0"}


def test_a_look_begins_with_what_the_module_holds_at_that_moment():
    module = MISCHIEF["Attributes"]()
    x = torch.randn(4, 6, 3)
    seen = []
    Base.change, before = (lambda self, hidden: seen.append(1) or 0.0), Base.change
    try:
        module(x)
        gates(module, x)
    finally:
        Base.change = before
    assert module.calls == 1


class Agent(Base):
    def change_all(self, x):
        return self.lstm(x)


class Generator(Base):
    def begin(self):
        self.noise = (random.random() for _ in iter(int, 1))

    def change(self, hidden):
        return next(self.noise)


class Endless(Base):
    def begin(self):
        self.trainer = [[[number]] for number in range(60_000)]


def test_what_cannot_be_looked_at_without_a_trace_is_not(tmp_path):
    monitor, _ = monitor_of(tmp_path)
    with (
        pytest.raises(ConfigError, match=r"Generator\.noise is a generator, which cannot be copied"),
        monitor(Generator()),
    ):
        pass
    with pytest.raises(ConfigError, match=r"Endless\.trainer leads to more than 100,000 objects"), monitor(Endless()):
        pass


def test_a_module_that_grows_too_large_is_walked_once(tmp_path, caplog):
    walks = []

    class Walked:
        def __reduce_ex__(self, protocol):
            walks.append(1)
            return object, ()

    monitor, _ = monitor_of(tmp_path)
    module = Base()
    module.first = Walked()
    with caplog.at_level(logging.WARNING, "gatewatch"), monitor(module) as watching:
        watching.step()
        walks.clear()
        module.history = [[number] for number in range(100_000)]
        for _ in range(3):
            watching.step()
    assert walks == [1]
    assert [message for message in caplog.messages if "too many to copy" in message] == caplog.messages


class Chain(Base):
    def begin(self):
        self.chain = None
        for _ in range(3000):
            self.chain = [self.chain]


class Recursive(Base):
    def change(self, hidden):
        return self.change(hidden)


def test_nesting_without_an_end_is_named_for_what_it_is():
    with pytest.raises(ConfigError, match=r"Chain cannot be looked at: to copy Chain\.chain takes more nested calls"):
        gates(Chain(), PROBE)
    with pytest.raises(RecursionError):
        gates(Recursive(), PROBE)


class OwnMemory(nn.LSTM):
    def forward(self, x):
        return super().forward(x)


class Closing(Base):
    def begin(self):
        self.lstm = OwnMemory(3, 5, batch_first=True)

    def __del__(self):
        pass


def test_looks_leave_no_classes_behind():
    """Circles of classes stay for as long as a training keeps the garbage collector off."""
    module = Closing()
    gates(module, PROBE)
    gc.collect()
    gc.disable()
    try:
        before = count_classes()
        for _ in range(20):
            gates(module, PROBE)
        assert count_classes() == before
    finally:
        gc.enable()


def count_classes():
    return sum(isinstance(one, type) for one in gc.get_objects())


def test_what_is_sharded_is_not_looked_at(tmp_path):
    monitor, _ = monitor_of(tmp_path)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        sharded = FullyShardedDataParallel(Base(), device_id=torch.device("cpu"))
        with pytest.raises(ConfigError, match="the module is a FullyShardedDataParallel"), monitor(sharded):
            pass
        split = fully_shard(Base(), mesh=init_device_mesh("cpu", (1,)))
        with (
            pytest.raises(ConfigError, match="is a DTensor, of which this process may hold a part only"),
            monitor(split),
        ):
            pass
    finally:
        torch.distributed.destroy_process_group()


class Watched(Base):
    def begin(self):
        self.monitor = None

    def change(self, hidden):
        return 0.0 if self.monitor is None else 0.1


def test_a_module_may_hold_its_monitor(tmp_path, caplog):
    monitor, store = monitor_of(tmp_path)
    module = Watched()
    with caplog.at_level(logging.WARNING, "gatewatch"), monitor(module) as module.monitor:
        module.monitor.step()
    assert caplog.messages == []
    assert len(set(read(store, "runs")["run"])) == 1


class Writer(Base):
    def begin(self):
        self.file, self.prices = Path(os.devnull).open("w"), np.zeros(9_000_000)  # noqa: SIM115 - kept open
        self.lock = threading.RLock()

    def change(self, hidden):
        with self.lock:
            self.file.write("called\n")
        return float(self.prices[0])


def test_what_is_used_as_it_is_is_said_once(tmp_path, caplog):
    monitor, store = monitor_of(tmp_path)
    with caplog.at_level(logging.WARNING, "gatewatch"):
        train(Writer, monitor)
    assert [message.split(":")[1].split(" cannot")[0] for message in caplog.messages] == [
        " Writer.file",
        " Writer.prices",
    ]
    assert "it has 69 MiB" in caplog.text
    assert len(set(read(store, "gate_stats")["step"])) == STEPS


def test_a_look_at_one_rank_of_a_distributed_training_waits_for_no_other(tmp_path):
    """Each rank compares what the monitored training has left with that of one without a monitor."""
    store, ((_, said), _) = two_ranks(tmp_path, "zoo")
    assert "gatewatch" not in said
    rows = read(store, "gate_stats")
    assert set(rows["layer"]) == {f"all.{name}.lstm/l0" for name in MISCHIEF} - {"all.Optimizer.lstm/l0"}
    assert set(rows["step"]) == {2, 4, 6, 8}


def test_a_forward_that_waits_for_other_ranks_is_not_looked_at(tmp_path):
    _, ((_, said), _) = two_ranks(tmp_path, "collective")
    assert "its forward calls allreduce_" in said
    assert "it cannot be looked at in a distributed training" in said


class Worker(Base):
    """Its forward asks a thread, and waits for the answer."""

    def begin(self):
        self.asked, self.answers, self.lock = queue.Queue(), queue.Queue(), threading.Lock()
        threading.Thread(target=self.work, args=(self.asked, self.answers), daemon=True).start()

    @staticmethod
    def work(asked, answers):
        while True:
            answers.put(asked.get() * 2)

    def change(self, hidden):
        with self.lock:
            self.asked.put(0.5)
            return self.answers.get(timeout=60)


def test_a_forward_that_waits_for_a_thread_is_answered(tmp_path, caplog):
    monitor, store = monitor_of(tmp_path)
    with caplog.at_level(logging.WARNING, "gatewatch"):
        assert_equal(train(Worker, lambda module: None), train(Worker, monitor))
    assert [message.split(" cannot")[0] for message in caplog.messages] == [
        "gatewatch: Worker.asked",
        "gatewatch: Worker.answers",
    ]
    assert len(set(read(store, "gate_stats")["step"])) == STEPS


LOOKING, DRAWN = threading.Semaphore(0), threading.Semaphore(0)


def let_draw():
    """Go on when another thread has drawn."""
    LOOKING.release()
    DRAWN.acquire(timeout=10)


class Waiting(Base):
    def change(self, hidden):
        if not self.training:  # it is a look
            let_draw()
        return 0.0


DRAWS = {
    "python": lambda: torch.tensor([random.random() for _ in range(72)]).view(4, 6, 3),
    "numpy": lambda: torch.from_numpy(np.random.rand(4, 6, 3).astype("float32")),
    "torch": lambda: torch.rand(4, 6, 3),
}


@pytest.mark.parametrize("draw", [pytest.param(draw, id=name) for name, draw in DRAWS.items()])
def test_what_another_thread_draws_during_a_look_is_not_drawn_again(draw, tmp_path):
    def trained(monitor):
        seed_all()
        module, batches = Waiting(), []
        optimizer = torch.optim.Adam(module.parameters(), 0.05)

        def prefetch():
            for _ in range(STEPS + 1):
                LOOKING.acquire()
                batches.append(draw())
                DRAWN.release()

        threading.Thread(target=prefetch, daemon=True).start()
        with monitor(module) or nullcontext() as watching:
            for number in range(1, STEPS + 1):
                if not watching:
                    let_draw()
                x = batches[-1] + draw()
                plain_step(module, optimizer, x, torch.tanh(x[:, -1, :2]), number)
                if watching:
                    watching.step()
        if not watching:
            let_draw()
        return traces(module, optimizer)

    bare = trained(lambda module: None)
    monitor, store = monitor_of(tmp_path)
    assert_equal(bare, trained(monitor))
    assert set(read(store, "gate_stats")["step"]) == set(range(1, STEPS + 1))


SOURCE = "random.random() + np.random.rand() + float(torch.rand(()))"


class DrawnUnseen(Base):
    """Draws by code that nobody can read beforehand."""

    def change(self, hidden):
        return 0.1 * eval(SOURCE)


def test_what_no_code_shows_is_put_back_where_no_other_thread_runs(tmp_path, monkeypatch):
    def trained(monitor):
        seed_all()
        module = DrawnUnseen()
        optimizer = torch.optim.Adam(module.parameters(), 0.05)
        with monitor(module) or nullcontext() as watching:
            for number in range(1, STEPS + 1):
                x = torch.randn(4, 6, 3)
                plain_step(module, optimizer, x, torch.tanh(x[:, -1, :2]), number)
                if watching:
                    watching.step()
        return traces(module, optimizer)

    own = threading.current_thread()
    others = [one for one in threading.enumerate() if one is not own]  # those of other tests
    running = threading.enumerate
    monkeypatch.setattr(threading, "enumerate", lambda: [one for one in running() if one not in others])
    bare = trained(lambda module: None)
    monitor, store = monitor_of(tmp_path)
    assert_equal(bare, trained(monitor))
    assert set(read(store, "gate_stats")["step"]) == set(range(1, STEPS + 1))


class Drawing(Waiting):
    def change(self, hidden):
        return super().change(hidden) + torch.rand(())


def test_what_another_thread_draws_from_what_the_forward_draws_from_is_drawn_again():
    seed_all()
    module, drawn = Drawing(), []

    def draw():
        LOOKING.acquire()
        drawn.append(torch.rand(()).item())
        DRAWN.release()

    thread = threading.Thread(target=draw, daemon=True)
    thread.start()
    gates(module, PROBE)
    thread.join()
    assert torch.rand(()).item() == drawn[0]


NOT_IN_A_LOOK = {"lstm", "gru", "rnn_tanh", "rnn_relu", "miopen_rnn", "random"}
"""Operations of torch that draw in training mode only; `aten::random` has no name in Python."""


def test_every_operation_of_torch_that_draws_is_known():
    drawing = set()
    for schema in torch._C._jit_get_all_schemas():  # not torch.ops, which remembers what it was asked for
        found = torch._C._get_operation_overload(schema.name, schema.overload_name)
        if schema.name.startswith("aten::") and found and torch.Tag.nondeterministic_seeded in found[2]:
            drawing.add(schema.name.removeprefix("aten::"))
    assert "rand" in drawing
    named = {name for name in drawing if not name.startswith("_") and not name.endswith("_functional")}
    assert named - NOT_IN_A_LOOK - OPERATIONS == set()


class Settings(Base):
    def change(self, hidden):
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        return 0.0


def test_torchs_defaults_that_a_forward_sets_are_as_before_the_look():
    try:
        gates(Settings(), PROBE)
        assert (torch.get_default_dtype(), torch.get_default_device()) == (torch.float32, torch.device("cpu"))
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)


class Window(Base):
    def begin(self):
        self.window = torch.zeros(30_000_000)[:5]

    def change(self, hidden):
        self.window += 0.1
        return self.window


def test_a_small_part_of_much_memory_is_copied_alone(tmp_path, caplog):
    check(tmp_path, caplog, Window)
    with twin_of(Window()) as twin:
        assert twin.module.window.untyped_storage().nbytes() == 20


class Counting(list):
    """A list that cannot append before it has its attributes."""

    def __init__(self):
        super().__init__()
        self.total = 0

    def append(self, value):
        self.total += 1
        super().append(value)


class OwnList(Base):
    def begin(self):
        self.seen = Counting()

    def change(self, hidden):
        self.seen.append(1)
        return 0.1 * self.seen.total


def test_a_list_of_the_users_own_class_is_copied(tmp_path, caplog):
    check(tmp_path, caplog, OwnList)


class EvolutionStep(torch.optim.Optimizer):
    def __init__(self, parameters):
        super().__init__(parameters, {"lr": 0.1})

    def step(self, module, x):
        for parameter in module.parameters():
            parameter.grad.mul_(0.5)
            parameter.data.sub_(parameter.grad)
        return module(x)


def test_an_optimizer_that_is_given_the_module_is_given_the_module(tmp_path):
    monitor, store = monitor_of(tmp_path)
    module, x = Base(), torch.randn(4, 6, 3)
    optimizer = EvolutionStep(module.parameters())
    with monitor(module) as watching:
        for _ in range(3):
            module(x).square().mean().backward()
            assert optimizer.step(module, x).shape == (4, 2)
            watching.step()
    assert set(read(store, "layer_updates")["step"]) == {1, 2, 3}

"""A training on two processes with DistributedDataParallel, batch normalisation included, which broadcasts buffers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
import torch
from torch import distributed, nn
from gatewatch.torch import GateMonitor
from tests.zoo.open_files import open_files
from tests.zoo.torch_modules import MISCHIEF, WholeZoo
from tests.zoo.traces import assert_equal, seed_all, traces

torch.set_num_threads(1)
NOT_HERE = {"Optimizer"}  # whose parameters DDP has a part in
STEPS = 8 if sys.argv[4] == "zoo" else 20
rank, file, store, kind, every, both = int(sys.argv[1]), *sys.argv[2:5], int(sys.argv[5]), sys.argv[6] == "True"
distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.lstm, self.head = nn.BatchNorm1d(3), nn.LSTM(3, 5, batch_first=True), nn.Linear(5, 1)

    def forward(self, x):
        x = self.norm(x.transpose(1, 2)).transpose(1, 2)
        hidden = self.lstm(x)[0][:, -1]
        if kind == "collective":
            distributed.all_reduce(hidden.detach().clone())
        return self.head(hidden)


def train(monitored, steps):
    seed_all(0)
    inner = WholeZoo(set(MISCHIEF) - NOT_HERE) if kind == "zoo" else Net()
    module = nn.parallel.DistributedDataParallel(inner, find_unused_parameters=kind == "zoo")
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    probe = torch.randn(4, 6, 3)
    seed_all(rank)
    files, watch = open_files(), None
    if monitored:
        watch = GateMonitor(module, None, run="r", store=store, probe=probe, every=every)
        watch.__enter__()
    for step in range(steps):
        optimizer.zero_grad()
        module(torch.randn(4, 6, 3)).square().mean().backward()
        optimizer.step()
        if watch:
            watch.step()
    if watch:
        watch.close()
    return inner, {**traces(inner, optimizer), "opened files": open_files() - files}


if kind != "collective":
    _, bare = train(False, STEPS)
module, left = train(rank == 0 or both, STEPS)
if kind != "collective":
    assert_equal(bare, left)
buffers = [module.norm.num_batches_tracked.item()] if kind != "zoo" else []
print(sum(float(p.sum()) for p in module.parameters()), *buffers)
distributed.destroy_process_group()
"""


def two_ranks(folder: Path, kind: str, *, every: int = 2, both: bool = False) -> tuple[str, list[tuple[str, str]]]:
    """Run it, and return the URL of its store and what each rank printed, on stdout and on stderr.

    Args:
        folder: for the store, and for the ranks to meet.
        kind: "plain" or "zoo", which are trained without a monitor first, and then must have left the same; or
            "collective" for a forward that waits for the other rank itself.
        every: the steps between two captures.
        both: whether the script makes a monitor on both ranks, or on rank 0 alone.
    """
    store = f"sqlite:///{folder}/{kind}.db"
    common = [str(folder / f"meet-{kind}"), store, kind, str(every), str(both)]
    commands = [[sys.executable, "-c", SCRIPT, rank, *common] for rank in "01"]
    ranks = [subprocess.Popen(c, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for c in commands]
    try:
        printed = [rank.communicate(timeout=120) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], printed
    return store, printed

"""What watching costs in torch: CPU time of the same training bare, watched, and with TensorBoard's SummaryWriter.

    python -m bench.torch_training

Two LSTM layers (128 and 64 units), batches of 64 sequences of 64 steps, 100 steps an epoch; the probe holds 32
sequences. CPU time is that of the whole process, all threads, so work that is moved to another thread counts too.
torch computes in one thread: several spin while they wait for each other, and CPU time then tells what else the machine
is doing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

# TensorBoard imports TensorFlow where it is, and torch's triton cannot follow it: each brings an LLVM.
sys.modules["tensorflow"] = None  # type: ignore[assignment]  # which makes its import fail

import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from bench.rounds import Place, cpu_rounds, extent, place, show
from gatewatch.collector.capture_schedule import Every
from gatewatch.torch import GateMonitor

BATCH, LENGTH, FEATURES, PROBE = 64, 64, 8, 32
STEPS, EPOCHS = 100, 3
QUICK_STEPS = 10


class Network(nn.Module):
    """Two LSTM layers and what makes one number of them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.LSTM(FEATURES, 128, batch_first=True)
        self.second = nn.LSTM(128, 64, batch_first=True)
        self.head = nn.Linear(64, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, features) to (batch, 1)."""
        return self.head(self.second(self.first(x)[0])[0][:, -1])


class Training:
    """A network from the same seed each time, and its data.

    Args:
        steps: of an epoch.
        epochs: of a training.
    """

    def __init__(self, steps: int, epochs: int) -> None:
        torch.manual_seed(0)
        self.x = torch.randn(steps * BATCH, LENGTH, FEATURES)
        self.y = torch.randn(steps * BATCH, 1)
        self.epochs = epochs

    def run(
        self,
        network: Network,
        after_step: Callable[[int, Tensor], object] = lambda step, loss: None,
        after_epoch: Callable[[], object] = lambda: None,
    ) -> None:
        """Train the network."""
        optimizer = torch.optim.Adam(network.parameters())
        step = 0
        for _ in range(self.epochs):
            for x, y in zip(self.x.split(BATCH), self.y.split(BATCH), strict=True):
                optimizer.zero_grad()
                loss = nn.functional.mse_loss(network(x), y)
                loss.backward()
                optimizer.step()
                step += 1
                after_step(step, loss)
            after_epoch()

    def bare(self) -> None:
        """Nobody looks."""
        self.run(_network())

    def watched(self, place: Place, every: Every = "auto") -> None:
        """With the monitor."""
        network = _network()
        with GateMonitor(network, probe=self.x[:PROBE], **place.options(), every=every) as monitor:
            self.run(network, lambda _, loss: monitor.step(metrics={"loss": loss}), monitor.end_epoch)

    def summarised(self, place: Place, every: int) -> None:
        """The loss at each step, and the histograms of weights and gradients every so many."""
        network = _network()
        with SummaryWriter(str(place.fresh())) as writer:

            def write(step: int, loss: Tensor) -> None:
                writer.add_scalar("loss", loss, step)
                if step % every == 0:
                    for name, parameter in network.named_parameters():
                        writer.add_histogram(name, parameter, step)
                        writer.add_histogram(f"{name}.grad", parameter.grad, step)

            self.run(network, write)


def _network() -> Network:
    torch.manual_seed(1)
    return Network()


def main() -> None:
    """Measure and print."""
    asked = extent(__doc__)
    torch.set_num_threads(1)
    steps, epochs = (QUICK_STEPS, 1) if asked.quick else (STEPS, EPOCHS)
    training = Training(steps, epochs)
    with place() as here:
        variants = {
            "bare": training.bare,
            "GateMonitor, defaults": lambda: training.watched(here),
            "GateMonitor, every 10th step": lambda: training.watched(here, every=10),
            "SummaryWriter, histograms every 100th step, each scalar": lambda: training.summarised(here, 100),
            "SummaryWriter, histograms every 10th step, each scalar": lambda: training.summarised(here, 10),
        }
        Training(2, 1).bare()  # the first steps prepare what all the others use
        title = f"torch {torch.__version__}: CPU time of {epochs * steps} steps"
        show(title, "CPU s", cpu_rounds(variants, asked.rounds))


if __name__ == "__main__":
    main()

"""Train with Lightning's checkpoints: started again after a crash, the script goes on with its training and its run.

    python examples/lightning_resume.py    # kill it, and start it again

The checkpoint holds where the run was, since the callback's state is in it.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

warnings.filterwarnings("ignore", module="backtesting")
# Lightning imports TensorBoard, and that TensorFlow where it is, which takes seconds.
sys.modules.setdefault("tensorflow", None)

import lightning.pytorch as pl
import torch
from backtesting.test import GOOG
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from gatewatch.lightning import GateMonitorCallback

WINDOW = 24


class Forecast(pl.LightningModule):
    """Forecast the next change of the price from those before it."""

    def __init__(self) -> None:
        super().__init__()
        self.memory, self.change = nn.LSTM(1, 8, batch_first=True), nn.Linear(8, 1)

    def forward(self, known: Tensor) -> Tensor:
        """Map (batch, WINDOW, 1) to (batch, 1)."""
        return self.change(self.memory(known)[0][:, -1])

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        loss = nn.functional.mse_loss(self(batch[0]), batch[1])
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss

    def on_train_epoch_start(self) -> None:
        """Say which epoch begins."""
        print(f"Epoch {self.current_epoch + 1}", flush=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.Adam(self.parameters(), 1e-3)


def main() -> None:
    """Train, or go on."""
    changes = torch.tensor(100 * GOOG["Close"].pct_change().to_numpy("float32")[1:])
    windows = changes.unfold(0, WINDOW + 1, 1)
    x, y = windows[:, :WINDOW, None], windows[:, WINDOW:]
    pl.seed_everything(1, verbose=False)
    callbacks = [
        GateMonitorCallback(run="lightning-resume", probe=x[:32], every=5, resume=True),
        ModelCheckpoint("lightning-models", save_last=True),
    ]
    trainer = pl.Trainer(max_epochs=6, accelerator="cpu", callbacks=callbacks, logger=False, enable_progress_bar=False)
    last = Path("lightning-models/last.ckpt")
    batches = DataLoader(TensorDataset(x, y), batch_size=128, shuffle=True)
    trainer.fit(Forecast(), batches, ckpt_path=last if last.exists() else None)


if __name__ == "__main__":
    main()

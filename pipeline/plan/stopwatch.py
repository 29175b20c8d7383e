"""Times the parts of a real training, and ends it when it has taken long enough."""

import time
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch

from pipeline.input.batches import Batch


@dataclass
class Epoch:
    """Times in s, of one clock. Where training was cut short it has fewer images than the split."""

    start: float
    first_end: float = 0.0  # of the first batch
    train_end: float = 0.0
    end: float = 0.0  # of the validation
    first_images: int = 0
    later_images: int = 0  # in all batches but the first


class Stopwatch(pl.Callback):
    """The epochs of one training; after `seconds` the one under way is the last, from its second batch on."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.epochs: list[Epoch] = []
        self.parameters = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._deadline = time.monotonic() + self._seconds
        self.parameters = sum(parameter.numel() for parameter in pl_module.parameters())

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.epochs.append(Epoch(time.monotonic()))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        epoch, images = self.epochs[-1], len(batch[1])
        if batch_idx == 0:
            epoch.first_images, epoch.first_end = images, _now(pl_module)
        else:
            epoch.later_images += images
        if time.monotonic() > self._deadline and (batch_idx or trainer.num_training_batches == 1):
            trainer.should_stop = True

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.epochs[-1].train_end = _now(pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.epochs[-1].end = _now(pl_module)


def _now(module: pl.LightningModule) -> float:
    """When the device is done with what it was given."""
    if module.device.type == "cuda":
        torch.cuda.synchronize(module.device)
    return time.monotonic()

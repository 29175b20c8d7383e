"""The Lightning module and data module of one run."""

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from pipeline.data.store import Store
from pipeline.input.batches import Batch, one_crop, train_loader, view_loader
from pipeline.models.build import build
from pipeline.params import Settings
from pipeline.training.optimiser import optimiser

VALIDATION_BATCH = 500
CHECK_LOSS_STEPS = 50  # on an accelerator, where reading the loss makes the processor wait


class Diverged(Exception):
    """The loss is no longer a number. gradient_norm is the last step's that could be taken."""

    def __init__(self, step: int, lr: float, gradient_norm: float) -> None:
        super().__init__(f"the loss is not finite at step {step} (lr {lr:g}, last gradient norm {gradient_norm:.3g})")
        self.step, self.lr, self.gradient_norm = step, lr, gradient_norm


def derived_seed(*parts: int) -> int:
    """A 32-bit seed from several numbers, alike ones giving unlike seeds."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def seed_dropout(device: torch.device, seed: int) -> None:
    """Seed the generator of one device. torch.manual_seed is no call for each step: where there is no accelerator it
    keeps every call, with its stack, for one that might appear."""
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.get_device_module(device).manual_seed(seed)


class Tally:
    """Sums over the batches of an epoch, on the device they came from."""

    def __init__(self) -> None:
        self._images = 0
        self._sums: Tensor | float = 0.0  # loss, top-1 errors, top-5 errors

    @torch.no_grad()
    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """loss: mean over the batch. A true label that is not ahead of the others counts as an error."""
        behind = (logits < logits.gather(1, labels[:, None])).sum(1)
        errors = [(behind < logits.shape[1] - k).sum() for k in (1, 5)]
        self._sums = self._sums + torch.stack([loss.float() * len(labels), *errors])
        self._images += len(labels)

    def means(self) -> dict[str, float]:
        """loss in nats, error_top1 and error_top5 in percent."""
        assert isinstance(self._sums, Tensor)
        loss, top1, top5 = (self._sums / self._images).tolist()
        return {"loss": loss, "error_top1": 100 * top1, "error_top5": 100 * top5}


class Classifier(pl.LightningModule):
    """The net under its recipe. Logs `val_loss` (nats), `val_error_top1` and `val_error_top5` (%)."""

    def __init__(self, settings: Settings, classes: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(derived_seed(seed))
        self.net = build(settings, classes).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._settings, self._seed = settings, seed
        self.train_tally, self.val_tally = Tally(), Tally()

    def on_train_epoch_start(self) -> None:
        self.train_tally = Tally()

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        seed_dropout(self.device, derived_seed(self._seed, self.current_epoch, batch_index))
        x, labels = batch
        logits = self.net(x)
        loss = F.cross_entropy(logits, labels)
        if self.device.type == "cpu" or self.global_step % CHECK_LOSS_STEPS == 0:
            self._stop_if_diverged(loss)
        self.train_tally.add(loss, logits, labels)
        return loss

    def on_validation_epoch_start(self) -> None:
        self.val_tally = Tally()

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        x, labels = batch
        logits = self.net(x)
        self.val_tally.add(F.cross_entropy(logits, labels), logits, labels)

    def on_validation_epoch_end(self) -> None:
        self.log_dict({f"val_{name}": value for name, value in self.val_tally.means().items()})

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return optimiser(self.net, self._settings)

    def _stop_if_diverged(self, loss: Tensor) -> None:
        if torch.isfinite(loss):
            return
        gradients = [p.grad for p in self.net.parameters() if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients)) if gradients else float("nan")
        lr = self.optimizers().param_groups[0]["lr"]  # type: ignore[union-attr]
        raise Diverged(self.global_step, lr, norm)


class Images(pl.LightningDataModule):
    """Training batches as the recipe draws them; validation images through the centre crop."""

    def __init__(self, store: Store, settings: Settings, seed: int) -> None:
        super().__init__()
        self._store, self._settings, self._seed = store, settings, seed

    def train_dataloader(self) -> DataLoader[Batch]:
        return train_loader(self._store, self._settings, self._seed)

    def val_dataloader(self) -> DataLoader[Batch]:
        crop_px = self._settings.net.crop_px
        (view,) = one_crop(self._store.meta.canvas_px, crop_px)
        return view_loader(self._store, "val", crop_px, VALIDATION_BATCH, view)

"""The Lightning module and data module of one run."""

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from pipeline.data.batches import Batch, one_crop, train_loader, view_loader
from pipeline.data.store import Store
from pipeline.models.alexnet import alexnet
from pipeline.params import Settings
from pipeline.training.optimiser import PaperSGD, paper_sgd

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


class Classifier(pl.LightningModule):
    """AlexNet under the paper's recipe. Logs `val_loss` (nats), `val_error_top1` and `val_error_top5` (%)."""

    def __init__(self, settings: Settings, classes: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(derived_seed(seed))
        self.net = alexnet(settings, classes).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._settings, self._seed = settings, seed
        self._train_loss = MeanMetric(nan_strategy="ignore")
        self._train_top1 = MulticlassAccuracy(classes, average="micro")
        self._val_loss = MeanMetric(nan_strategy="ignore")
        self._val_top1 = MulticlassAccuracy(classes, average="micro")
        self._val_top5 = MulticlassAccuracy(classes, top_k=min(5, classes), average="micro")

    def on_train_epoch_start(self) -> None:
        self._train_loss.reset()
        self._train_top1.reset()

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        torch.manual_seed(derived_seed(self._seed, self.current_epoch, batch_index))  # for dropout's mask
        x, labels = batch
        logits = self.net(x)
        loss = F.cross_entropy(logits, labels)
        if self.device.type == "cpu" or self.global_step % CHECK_LOSS_STEPS == 0:
            self._stop_if_diverged(loss)
        self._train_loss.update(loss.detach(), len(labels))
        self._train_top1.update(logits.detach(), labels)
        return loss

    def train_metrics(self) -> dict[str, float]:
        """Running means over the epoch, in training mode: augmented images, dropout on."""
        return {
            "train_loss": float(self._train_loss.compute()),
            "train_error_top1": 100 - 100 * float(self._train_top1.compute()),
        }

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        x, labels = batch
        logits = self.net(x)
        self._val_loss.update(F.cross_entropy(logits, labels), len(labels))
        self._val_top1.update(logits, labels)
        self._val_top5.update(logits, labels)

    def on_validation_epoch_end(self) -> None:
        self.log("val_loss", self._val_loss.compute())
        self.log("val_error_top1", 100 - 100 * self._val_top1.compute())
        self.log("val_error_top5", 100 - 100 * self._val_top5.compute())
        for metric in (self._val_loss, self._val_top1, self._val_top5):
            metric.reset()

    def configure_optimizers(self) -> PaperSGD:
        return paper_sgd(self.net, self._settings)

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

"""The Lightning module and data module of one run."""

from contextlib import suppress

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from pipeline.data.loader import Batch, Preprocess, RawBatch, Shard, one_crop, train_loader, view_loader
from pipeline.data.store import Store
from pipeline.models.alexnet import Dropout
from pipeline.models.build import build
from pipeline.params import Settings
from pipeline.runtime.hardware import CPU
from pipeline.runtime.random_streams import seed_of
from pipeline.training import distributed
from pipeline.training.optimizer import optimizer

VALIDATION_BATCH = 500
AUXILIARY_WEIGHT = 0.3  # of GoogLeNet's auxiliary classifiers in its loss (Szegedy et al. 2014, section 5)
CHECK_LOSS_STEPS = 50  # on an accelerator, where reading the loss makes the processor wait


class Diverged(Exception):
    """The loss or a weight is no longer a number. gradient_norm is the last step's that could be taken."""

    def __init__(self, what: str, step: int, lr: float, gradient_norm: float) -> None:
        super().__init__(f"the {what} is not finite at step {step} (lr {lr:g}, last gradient norm {gradient_norm:.3g})")
        self.step, self.lr, self.gradient_norm = step, lr, gradient_norm


def seed_dropout(device: torch.device, seed: int) -> None:
    """Seed the generator of one device. torch.manual_seed is no call for each step: where there is no accelerator it
    keeps every call, with its stack, for one that might appear."""
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.get_device_module(device).manual_seed(seed)


class RunningMetrics:
    """Sums over the batches of an epoch, or over this process' share of them, on the device they came from."""

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
        """loss in nats, error_top1 and error_top5 in percent, over all processes: each has to ask."""
        assert isinstance(self._sums, Tensor)
        loss, top1, top5 = (distributed.total(self._sums) / distributed.total(torch.tensor(self._images))).tolist()
        return {"loss": loss, "error_top1": 100 * top1, "error_top5": 100 * top5}


class SharedDropout(Dropout):
    """Section 4.2's, for a process that has a share of the batch: it draws all masks and takes the rows of its own."""

    batch_images: int  # in the whole batch
    rows: slice

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        drawn = torch.rand((self.batch_images, *x.shape[1:]), dtype=x.dtype, device=x.device)
        return x * (drawn[self.rows] >= self.p)


class Classifier(pl.LightningModule):
    """The net under its recipe.

    `validation` has the last epoch's `val_loss` (nats), `val_error_top1` and `val_error_top5` (%). They are not logged:
    what Lightning does with a logged number takes longer than all that is done here with three.
    """

    validation: dict[str, float]

    def __init__(self, settings: Settings, classes: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed_of("initialization", seed))
        self.net = build(settings, classes).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._settings, self._seed = settings, seed
        self.train_metrics, self.val_metrics = RunningMetrics(), RunningMetrics()
        self._dropouts: list[SharedDropout] = []
        if distributed.size() > 1:
            self._share_dropout()

    def _share_dropout(self) -> None:
        for name, layer in list(self.net.named_modules()):
            if isinstance(layer, Dropout):
                self._dropouts.append(SharedDropout(layer.p))
                self.net.set_submodule(name, self._dropouts[-1])

    def compile_net(self, device: torch.device) -> None:
        """Compile the net for `device`, for each size of batch by itself. A GPU replays its kernels as a CUDA graph."""
        torch._inductor.config.fallback_random = True  # dropout draws the masks that it draws uncompiled
        self.net.compile(dynamic=False, mode="reduce-overhead" if device.type == "cuda" else "default")

    def on_train_epoch_start(self) -> None:
        self.train_metrics = RunningMetrics()

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        seed_dropout(self.device, seed_of("dropout", self._seed, self.current_epoch, batch_index))
        x, labels = batch
        share = self._share_of_batch(batch_index, len(labels)) if distributed.size() > 1 else 1.0
        answers = self.net(x)
        logits, *auxiliary = answers if isinstance(answers, tuple) else (answers,)
        own = loss = F.cross_entropy(logits, labels) if share else logits.sum()
        for others in auxiliary:
            loss = loss + AUXILIARY_WEIGHT * (F.cross_entropy(others, labels) if share else others.sum())
        if self.device.type == "cpu" or self.global_step % CHECK_LOSS_STEPS == 0:
            self._stop_unless_finite(loss, "loss")
        self.train_metrics.add(own, logits, labels)
        return loss if distributed.size() == 1 else loss * (share * distributed.size())

    def _share_of_batch(self, batch_index: int, images: int) -> float:
        """That of this process, which its gradient has by its weight in the mean over the whole batch."""
        assert self.trainer.train_dataloader is not None
        epochs = self.trainer.train_dataloader.sampler
        whole: int = epochs.images_of(batch_index)
        for layer in self._dropouts:
            layer.batch_images, layer.rows = whole, epochs.share.rows(whole)
        return images / whole

    def on_validation_epoch_start(self) -> None:
        self.val_metrics = RunningMetrics()

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        x, labels = batch
        logits = self.net(x)
        loss = F.cross_entropy(logits, labels) if len(labels) else logits.sum()
        self.val_metrics.add(loss, logits, labels)

    def on_validation_epoch_end(self) -> None:
        """Keep the means. An epoch whose losses are not all finite is not kept: on an accelerator few are looked at."""
        self._stop_unless_finite(torch.tensor(self.train_metrics.means()["loss"]), "loss")
        self.validation = {f"val_{name}": value for name, value in self.val_metrics.means().items()}
        self._stop_unless_finite(torch.tensor(self.validation["val_loss"]), "validation loss")

    def stop_unless_weights_finite(self) -> None:
        """Raise Diverged where a weight is not a number, as the last update of a run can leave it."""
        finite = torch.stack([torch.isfinite(weight).all() for weight in self.net.state_dict().values()]).all()
        self._stop_unless_finite(torch.where(finite, 0.0, torch.nan), "net")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return optimizer(self.net, self._settings)

    def _stop_unless_finite(self, value: Tensor, what: str) -> None:
        if not distributed.total((~torch.isfinite(value)).float()):
            return
        norm, gradients = float("nan"), [p.grad for p in self.net.parameters() if p.grad is not None]
        with suppress(RuntimeError):  # a CUDA graph's next forward pass may have taken their memory
            if gradients:
                norm = float(torch.nn.utils.get_total_norm(gradients))
        lr = self.trainer.optimizers[0].param_groups[0]["lr"]
        raise Diverged(what, self.global_step, lr, norm)


class Images(pl.LightningDataModule):
    """Training batches as the recipe draws them; validation images through the center crop."""

    def __init__(self, store: Store, settings: Settings, seed: int, device: torch.device = CPU) -> None:
        super().__init__()
        self._store, self._settings, self._seed, self._device = store, settings, seed, device
        self._share = Shard(distributed.rank(), distributed.size())
        self._finish = Preprocess(store.mean_image, settings.net.crop_px)

    def train_dataloader(self) -> DataLoader[RawBatch]:
        return train_loader(self._store, self._settings, self._seed, self._share, self._device)

    def val_dataloader(self) -> DataLoader[RawBatch]:
        crop_px = self._settings.net.crop_px
        (view,) = one_crop(self._store.meta.image_size, crop_px)
        return view_loader(self._store, "val", crop_px, VALIDATION_BATCH, view, self._share, self._device)

    def on_after_batch_transfer(self, batch: RawBatch, dataloader_idx: int) -> Batch:
        return self._finish(batch)

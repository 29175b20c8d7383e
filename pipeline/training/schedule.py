"""When the learning rate falls and when training ends."""

from typing import Any

import pytorch_lightning as pl
from torch.optim.lr_scheduler import ReduceLROnPlateau

from pipeline.data.loader import BatchSampler
from pipeline.paper import recipe as paper
from pipeline.params import Settings
from pipeline.training.module import Classifier


class Warmup(pl.Callback):
    """Raises the rate batch by batch until `warmup_epochs` have passed (Goyal et al. 2017, section 2.2)."""

    def __init__(self, settings: Settings) -> None:
        self._epochs, self._lr = settings.train.warmup_epochs, settings.train.lr
        self._bias_lr = self._lr * paper.item(settings.recipe, "bias_rule").lr_factor

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.current_epoch >= self._epochs:
            return
        done = (trainer.current_epoch + (batch_idx + 1) / trainer.num_training_batches) / self._epochs
        *weights, biases = trainer.optimizers[0].param_groups
        for group in weights:
            group["lr"] = done * self._lr
        biases["lr"] = done * self._bias_lr


def rate_schedule(settings: Settings) -> "PlateauSchedule | FixedSchedule":
    """Return the callback that lowers the learning rate in the way that `train.schedule` names."""
    return PlateauSchedule(settings) if settings.train.schedule == "plateau" else FixedSchedule(settings)


class FixedSchedule(pl.Callback):
    """Divides the rate by 10 after given shares of the epochs (`train.drop_at`)."""

    stopped = False  # only the budget ends training

    def __init__(self, settings: Settings) -> None:
        train, bias = settings.train, paper.item(settings.recipe, "bias_rule")
        self._lr, self._bias_lr, self._bias_drops = train.lr, train.lr * bias.lr_factor, bias.drops
        self._ends = [round(share * train.epochs) for share in train.drop_at[: train.lr_drops]]
        self.drops: list[int] = []  # epochs (from 1) after which the rate was lower

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.drops = [end for end in self._ends if end <= trainer.current_epoch]
        divisor = paper.LR_DROP_FACTOR ** len(self.drops)
        *weights, biases = trainer.optimizers[0].param_groups
        for group in weights:
            group["lr"] = self._lr / divisor
        biases["lr"] = self._bias_lr / divisor if self._bias_drops else self._bias_lr

    def state_dict(self) -> dict[str, Any]:
        return {"drops": list(self.drops)}  # a run whose epochs are all done starts none any more

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.drops = state_dict["drops"]


class PlateauSchedule(pl.Callback):
    """Divides the rate by 10 on each of the first plateaus of `val_error_top1` (three in section 5); one more ends it.

    It acts when an epoch's training and validation are over, before the checkpoint is written, so that a resumed
    run continues with the rate, the best error and the patience that the interrupted one had.
    """

    def __init__(self, settings: Settings) -> None:
        self._patience, self._drops = settings.train.patience_epochs, settings.train.lr_drops
        self._warmup_epochs = settings.train.warmup_epochs
        bias = paper.item(settings.recipe, "bias_rule")
        self._least_bias_lr = 0.0 if bias.drops else settings.train.lr * bias.lr_factor
        self._state: dict[str, Any] | None = None
        self.drops: list[int] = []  # epochs (from 1) after which the rate was lower
        self.stopped = False

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop |= self.stopped  # already by the epochs of the checkpoint

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        optimizer = trainer.optimizers[0]
        held = [0.0] * (len(optimizer.param_groups) - 1) + [self._least_bias_lr]
        self._plateau = ReduceLROnPlateau(
            optimizer, factor=1 / paper.LR_DROP_FACTOR, patience=self._patience, threshold=0, min_lr=held, eps=0
        )
        if self._state is not None:
            self._plateau.load_state_dict(self._state)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        batches = trainer.train_dataloader.sampler  # type: ignore[union-attr]
        if isinstance(batches, BatchSampler):
            batches.lr_drops = len(self.drops)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._drops == 0 or trainer.current_epoch < self._warmup_epochs:
            return
        group = trainer.optimizers[0].param_groups[0]
        lr = group["lr"]
        assert isinstance(pl_module, Classifier)
        self._plateau.step(pl_module.validation["val_error_top1"])
        self._state = self._plateau.state_dict()
        if group["lr"] == lr:
            return
        if len(self.drops) == self._drops:
            self.stopped = trainer.should_stop = True
        else:
            self.drops.append(trainer.current_epoch + 1)

    def state_dict(self) -> dict[str, Any]:
        return {"plateau": self._state, "drops": list(self.drops), "stopped": self.stopped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._state, self.drops, self.stopped = state_dict["plateau"], state_dict["drops"], state_dict["stopped"]


class StopAtTrainError(pl.Callback):
    """Ends training after the first epoch whose training error is no more than a given one (Figure 1)."""

    def __init__(self, settings: Settings) -> None:
        self._error = settings.train.stop_at_train_error
        self.reached = False

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop |= self.reached  # already by the epochs of the checkpoint

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        if self._error is not None and pl_module.train_metrics.means()["error_top1"] <= self._error:
            self.reached = trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        return {"reached": self.reached}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.reached = state_dict["reached"]

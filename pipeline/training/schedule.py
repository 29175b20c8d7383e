"""The learning rate's schedule (section 5): divided by 10 when validation error stops improving, three times."""

from typing import Any

import pytorch_lightning as pl
from torch.optim.lr_scheduler import ReduceLROnPlateau

from pipeline.paper import recipe as paper
from pipeline.params import Settings


class PlateauSchedule(pl.Callback):
    """Drops the rate on each of the first three plateaus of `val_error_top1`, and stops on the fourth.

    It acts when an epoch's training and validation are over, before the checkpoint is written, so that a resumed
    run continues with the rate, the best error and the patience that the interrupted one had.
    """

    def __init__(self, settings: Settings) -> None:
        self._patience = settings.train.patience_epochs
        self._biases_drop = paper.item(settings.recipe, "bias_rule").drops
        self._state: dict[str, Any] | None = None
        self.drops: list[int] = []  # epochs (from 1) after which the rate was lower
        self.stopped = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        optimiser = trainer.optimizers[0]
        held = [
            0.0 if self._biases_drop or index == 0 else group["lr"]
            for index, group in enumerate(optimiser.param_groups)
        ]
        self._plateau = ReduceLROnPlateau(
            optimiser, factor=1 / paper.LR_DROP_FACTOR, patience=self._patience, threshold=0, min_lr=held, eps=0
        )
        if self._state is not None:
            self._plateau.load_state_dict(self._state)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        group = trainer.optimizers[0].param_groups[0]
        lr = group["lr"]
        self._plateau.step(trainer.callback_metrics["val_error_top1"])
        self._state = self._plateau.state_dict()
        if group["lr"] == lr:
            return
        if len(self.drops) == paper.LR_DROPS:
            self.stopped = trainer.should_stop = True
        else:
            self.drops.append(trainer.current_epoch + 1)

    def state_dict(self) -> dict[str, Any]:
        return {"plateau": self._state, "drops": self.drops, "stopped": self.stopped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._state, self.drops, self.stopped = state_dict["plateau"], state_dict["drops"], state_dict["stopped"]

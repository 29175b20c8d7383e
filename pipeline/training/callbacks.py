"""What a run keeps, shows and heeds while it trains: history, checkpoint, a bar with the time left, a wish to stop."""

import copy
import csv
import io
import json
import time
from pathlib import Path
from typing import Any, TextIO

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import AsyncCheckpointIO, TorchCheckpointIO
from tqdm import tqdm

from pipeline.files import write_bytes, write_text
from pipeline.training import world
from pipeline.training.module import Classifier

TENSORS = ("state_dict", "optimizer_states")  # of a checkpoint, which the next batch overwrites
CHECKPOINT_SECONDS = 3.0  # a kill costs no more than these and the current epoch

Row = dict[str, float]
COLUMNS = (
    *("epoch", "lr", "train_loss", "train_error_top1", "val_loss", "val_error_top1", "val_error_top5"),
    *("seconds", "time_ms"),
)


class History(pl.Callback):
    """One row for each epoch, in the checkpoint and in `history.csv`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[Row] = []
        self._written = False

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._started = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        train = {f"train_{name}": value for name, value in pl_module.train_tally.means().items()}
        self.rows.append(
            {
                "epoch": trainer.current_epoch + 1,
                "lr": trainer.optimizers[0].param_groups[0]["lr"],  # before the schedule looks at this epoch
                **{name: round(value, 4) for name, value in (train | pl_module.validation).items()},
                "seconds": round(time.monotonic() - self._started, 3),
                "time_ms": int(time.time() * 1000),
            }
        )
        if not world.first():
            return
        if self._written:
            with self.path.open("a", newline="") as file:
                _writer(file).writerow(self.rows[-1])
        else:  # in place of what an interrupted run may have left
            self.write()

    def write(self) -> None:
        text = io.StringIO()
        writer = _writer(text)
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.path, text.getvalue())
        self._written = True

    def state_dict(self) -> dict[str, Any]:
        return {"rows": json.dumps(self.rows)}  # text costs nothing to copy, and a copy is made after each epoch

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = json.loads(state_dict["rows"])


def _writer(file: TextIO) -> "csv.DictWriter[str]":
    return csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")


class ProgressBar(pl.Callback):
    """The epochs of the run, with the last validation error and the time left."""

    def __init__(self, title: str) -> None:
        self._title = title

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        done = trainer.current_epoch
        self._bar = tqdm(
            total=trainer.max_epochs,
            initial=done,
            desc=self._title,
            unit="epoch",
            mininterval=1,
            disable=not world.first(),
        )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        self._bar.set_postfix_str(f"validation error {pl_module.validation['val_error_top1']:.1f} %", False)
        self._bar.update()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if hasattr(self, "_bar"):
            self._bar.close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.teardown(trainer, pl_module, "fit")  # so that a message starts on a line of its own


class WholeCheckpoints(TorchCheckpointIO):
    """A checkpoint appears whole or not at all. Lightning's own is copied over the last one if /tmp is another disk."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_bytes(Path(path), content.getbuffer())


class SpacedCheckpoints(AsyncCheckpointIO):
    """Writes at most one checkpoint in CHECKPOINT_SECONDS, in the background.

    One that comes sooner waits in memory for its turn, for a later one or for the end of training, however it ends.
    """

    def __init__(self) -> None:
        super().__init__(WholeCheckpoints())
        self._waiting: tuple[Any, Any] | None = None
        self._written = time.monotonic()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        # The rest is new in each checkpoint; a deep copy of it would take as long as the tensors'.
        self._waiting = (checkpoint | {name: copy.deepcopy(checkpoint[name]) for name in TENSORS}, path)
        if time.monotonic() - self._written >= CHECKPOINT_SECONDS:
            self._write()

    def teardown(self) -> None:
        if self._waiting is not None:
            self._write()
        super().teardown()

    def _write(self) -> None:
        assert self._waiting is not None
        (checkpoint, path), self._waiting = self._waiting, None
        self._written = time.monotonic()
        super().save_checkpoint(checkpoint, path)


class Stop(pl.Callback):
    """Where the stage is to end, it does so before the next batch, in all processes that train together."""

    def on_train_batch_start(self, *_: Any) -> None:
        world.check()

    def on_validation_batch_start(self, *_: Any, **__: Any) -> None:
        world.check()

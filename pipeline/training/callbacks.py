"""What a run keeps, shows and heeds while it trains: history, checkpoint, a bar with the time left, a wish to stop."""

import copy
import csv
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import AsyncCheckpointIO, TorchCheckpointIO

from pipeline.runtime.files import write_bytes, write_text
from pipeline.training import distributed
from pipeline.training.module import Classifier

TENSORS = ("state_dict", "optimizer_states")  # of a checkpoint, which the next batch overwrites
KEPT = ".kept"  # a file beside the run's folder: how many epochs the checkpoint holds, for who shows them
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
        train = {f"train_{name}": value for name, value in pl_module.train_metrics.means().items()}
        self.rows.append(
            {
                "epoch": trainer.current_epoch + 1,
                "lr": trainer.optimizers[0].param_groups[0]["lr"],  # before the schedule looks at this epoch
                **{name: round(value, 4) for name, value in (train | pl_module.validation).items()},
                "seconds": round(time.monotonic() - self._started, 3),
                "time_ms": int(time.time() * 1000),
            }
        )
        if not distributed.is_global_zero():
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


class Progress(pl.Callback):
    """Tells of each epoch that is done; at first of those that an interrupted run had done."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell = tell

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._tell(trainer.current_epoch)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._tell(1)


class WholeCheckpoints(TorchCheckpointIO):
    """A checkpoint appears whole or not at all. Lightning's own is copied over the last one if /tmp is another disk."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_bytes(Path(path), content.getbuffer())
        rows = json.loads(checkpoint["callbacks"][History.__qualname__]["rows"])
        write_text(Path(path).parent.with_suffix(KEPT), str(len(rows)))


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
        distributed.check()

    def on_validation_batch_start(self, *_: Any, **__: Any) -> None:
        distributed.check()

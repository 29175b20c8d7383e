"""The trial behind the widths of the scale `lineage`: can each of its nets learn the training images by heart?

It measures no speed of ours. A net too narrow for that would lose by its width, not by its architecture. Each trains
with all that keeps it from overfitting taken away: no dropout, no weight decay, no crops, mirror images or noise.
A net that still errs in more than a tenth of the training images gets four times the epochs at its best rate, which
tells too few passes from too few weights. `python -m benchmarks.widths` writes reports/widths.csv, with the errors of
the last epoch for each net and learning rate, in %. No test image is read. docs/lineage.md says what came out.
"""

import os
import tempfile
from functools import partial
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import pytorch_lightning as pl

from benchmarks.setups import params, store
from pipeline.models.alexnet import Dropout
from pipeline.params import Hardware
from pipeline.runtime.files import write_text
from pipeline.training.pool import Task, Tell, run_tasks
from pipeline.training.run import HISTORY, Run, train
from pipeline.training.runs import bytes_of

TABLE, SCALE = Path("reports/widths.csv"), "lineage"
RATES = (0.005, 0.02, 0.08)
BY_HEART, TIMES = 10, 4  # % of training images; as many epochs
HARDWARE = Hardware(accelerator="cpu", threads=1)
UNBOUND = {"weight_decay": 0.0, "random_crop": False, "hflip": False, "pca_jitter_std": 0.0}


class NoDropout(pl.Callback):
    """Lets every unit through, where a net's own paper has dropout."""

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        for layer in module.modules():
            if isinstance(layer, Dropout):
                layer.p = 0.0


def measured(run: Run, tell: Tell) -> dict[str, object]:
    """Train, and return the errors of the last epoch."""
    last = pd.read_csv(train(run, [NoDropout()], tell) / HISTORY).iloc[-1]
    errors = {name: round(float(last[name]), 2) for name in ("train_error_top1", "val_error_top1")}
    return {"net": run.variant, "lr": run.settings.train.lr, "epochs": int(last["epoch"]), **errors}


def trained(asked: list[tuple[str, float, int]]) -> pd.DataFrame:
    """What `measured` returns of each (net, rate, epochs), trained side by side."""
    scale, images = params(SCALE), store(SCALE)
    runs = [
        Run(
            "widths",
            net,
            "1",
            0,
            scale.settings(net, {"train": {"lr": lr, "epochs": epochs, **UNBOUND}}),
            images,
            HARDWARE,
        )
        for net, lr, epochs in asked
    ]
    tasks = [
        Task(f"{run} at {run.settings.train.lr:g}", partial(measured, run), run.settings.train.epochs) for run in runs
    ]
    with tempfile.TemporaryDirectory() as state, patch.dict(os.environ, ALEXNET_STATE=state):
        return pd.DataFrame(run_tasks(tasks, HARDWARE, max(bytes_of(run.settings) for run in runs), "widths", "epoch"))


def best(found: pd.DataFrame) -> pd.DataFrame:
    """Each net's row of least training error."""
    return found.sort_values("train_error_top1").drop_duplicates("net")


def longer(found: pd.DataFrame) -> pd.DataFrame:
    """The same runs of the nets that have not learned the images by heart, with more epochs."""
    left = best(found).query(f"train_error_top1 > {BY_HEART}")
    asked = [(str(row.net), float(row.lr), TIMES * int(row.epochs)) for row in left.itertuples()]
    return trained(asked) if asked else left


def main() -> None:
    scale = params(SCALE)
    found = trained([(net, lr, scale.train.epochs) for net in scale.studies for lr in RATES])
    found = pd.concat([found, longer(found)])
    write_text(TABLE, found.to_csv(index=False, lineterminator="\n"))
    print(best(found).to_string(index=False))


if __name__ == "__main__":
    main()

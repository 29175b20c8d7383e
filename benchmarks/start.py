"""The study behind the slow start of the printed net: which item decides when it begins to learn?

It measures no speed of ours. Each arm is the printed net of the scale `tiny_imagenet` with one item changed. A run ends
as soon as its training loss has left that of guessing, or after 2,000 steps; no test image is read.
`python -m benchmarks.start [data.folder=…] [ARM…]` adds rows to reports/start.csv: for each arm and seed the step at
which learning began (empty: not yet). reports/start_ratios.csv has how many times the steps of each arm the printed net
takes, reports/start_signal.csv how large each layer's activities are before any training, and how much of them depends
on the image. It takes a quarter of an hour on one core; docs/tiny_imagenet.md tells what came out.
"""

import math
import os
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pandas as pd
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from benchmarks.setups import CONF
from pipeline import paths
from pipeline.claims.effects import paired_effect
from pipeline.data.loader import one_crop, view_batches
from pipeline.data.prepare import prepare
from pipeline.data.store import Store
from pipeline.models.build import build
from pipeline.params import Hardware, Params, Settings, validate
from pipeline.runtime.files import write_text
from pipeline.runtime.random_streams import seed_of
from pipeline.tools.compose import composed
from pipeline.training.pool import Task, Tell, run_tasks
from pipeline.training.run import Run, train
from pipeline.training.runs import bytes_of

TABLE, RATIOS, SIGNAL = (Path(f"reports/start{what}.csv") for what in ("", "_ratios", "_signal"))
SCALE = "tiny_imagenet"
SEEDS = range(3)
MOST_STEPS = 2_000
WINDOW = 50  # batches, whose mean loss is looked at
BELOW_NATS = 0.1  # below the loss of a guess, ln(classes): learning has begun
LOOKED_AT = 500  # validation images, before any training
HARDWARE = Hardware(accelerator="cpu", threads=1)
CODED_STD = {"recipe": {"weight_std": "coded"}}
ARMS: dict[str, tuple[str, dict[str, Any]]] = {  # a variant, and what else is changed
    "printed": ("baseline", {}),
    "weight_std_as_coded": ("baseline", CODED_STD),
    "biases_zero": ("biases_zero", {}),
    "no_response_norm": ("no_response_norm", {}),
    "rate_doubled": ("baseline", {"train": {"lr": 0.02}}),
    "unit_variance_inputs": ("baseline", {"net": {"input_divisor": 64.0}}),
    "as_coded": ("as_coded", CODED_STD),
    "no_dropout": ("no_dropout", {}),
    "no_dropout_weight_std_as_coded": ("no_dropout", CODED_STD),
}


class Start(pl.Callback):
    """Ends the training once the mean loss of WINDOW batches lies below `goal`, in nats, or after MOST_STEPS."""

    def __init__(self, goal: float) -> None:
        self.goal, self.step = goal, None
        self._losses: deque[float] = deque(maxlen=WINDOW)

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, *_: Any) -> None:
        self._losses.append(float(outputs["loss"]))
        if len(self._losses) == WINDOW and sum(self._losses) / WINDOW < self.goal:
            self.step = trainer.global_step
        trainer.should_stop = self.step is not None or trainer.global_step >= MOST_STEPS


def settings_of(params: Params, arm: str) -> Settings:
    """Return the settings of an arm. The scale's own baseline has its weights as coded; here they are as printed."""
    variant, change = ARMS[arm]
    train = {"lr_drops": 0, **change.get("train", {})}
    return params.settings(variant, {"recipe": {"weight_std": "printed"}, **change, "train": train})


@torch.no_grad()
def signals(net: nn.Sequential, x: Tensor) -> Iterator[dict[str, object]]:
    """Yield for each hidden layer the activities' root mean square, and the share of it that tells images apart.

    x: (N, 3, crop, crop). The share is the variance over the N images, in % of the mean square.
    """
    for name, module in net.eval().named_children():
        x = module(x)
        if name.endswith("_act"):
            square = x.square().mean(0).sum()
            share, rms = 100 * x.var(0, correction=0).sum() / square, (square / x[0].numel()).sqrt()
            yield {"layer": name.removesuffix("_act"), "rms": f"{rms:.3g}", "share_percent": f"{share:.3g}"}


def write_signals(params: Params, store: Store) -> None:
    crop_px, rows = params.net.crop_px, []
    view = one_crop(store.meta.image_size, crop_px)[0]
    x, _ = next(iter(view_batches(store, "val", crop_px, LOOKED_AT, view, torch.device("cpu"))))
    for arm in ARMS:
        for seed in SEEDS:
            torch.manual_seed(seed_of("initialization", seed))
            net = build(settings_of(params, arm), len(store.meta.classes))
            rows += [{"arm": arm, "seed": seed, **found} for found in signals(net, x)]
    write_text(SIGNAL, pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))


def measured(arm: str, run: Run, tell: Tell) -> dict[str, object]:
    """Train until learning begins; the steps that it took, or None after MOST_STEPS."""
    start = Start(math.log(len(run.store.meta.classes)) - BELOW_NATS)
    train(run, [start], tell)
    return {"arm": arm, "seed": run.seed, "steps": start.step}


def main() -> None:
    given = [argument for argument in sys.argv[1:] if "=" in argument]
    params = validate(composed(CONF, f"scale={SCALE}", *given), SCALE)
    folder = paths.state() / "benchmarks" / SCALE
    if not (folder / "meta.json").exists():
        prepare(params.data, folder)
    store = Store.open(folder)
    write_signals(params, store)
    for arm in [argument for argument in sys.argv[1:] if "=" not in argument] or ARMS:
        settings = settings_of(params, arm)
        with tempfile.TemporaryDirectory() as state, patch.dict(os.environ, ALEXNET_STATE=state):  # runs that end early
            runs = [Run("start", arm, "5", seed, settings, store, HARDWARE) for seed in SEEDS]
            tasks = [Task(str(run), partial(measured, arm, run)) for run in runs]
            table = pd.DataFrame(run_tasks(tasks, HARDWARE, bytes_of(settings), "start", "run"))
        if TABLE.exists():
            before = pd.read_csv(TABLE)
            table = pd.concat([before[before["arm"] != arm], table])
        write_text(TABLE, table.astype({"steps": "Int64"}).to_csv(index=False, lineterminator="\n"))
    write_text(RATIOS, ratios(table).to_csv(index=False, lineterminator="\n"))


def ratios(table: pd.DataFrame) -> pd.DataFrame:
    """For each arm whose seeds all began: how many times its steps the printed net takes, with the 95 % interval."""
    steps = table.pivot_table("steps", "seed", "arm", dropna=False).astype(float)
    rows = []
    for arm in steps.columns.drop("printed"):
        if steps[[arm, "printed"]].notna().all(axis=None):
            ratio = paired_effect(steps[arm], steps["printed"], ratio=True).interval
            assert ratio.low is not None
            assert ratio.high is not None
            differs = "no difference seen" if ratio.low <= 1 <= ratio.high else "differs"
            numbers = {"effect": ratio.mean, "low": ratio.low, "high": ratio.high}
            rows.append({"id": arm, "unit": "ratio", **numbers, "seeds": ratio.n, "verdict": differs})
    return pd.DataFrame(rows).round(4)


if __name__ == "__main__":
    main()

"""`alexnet plan`: how long a configuration takes on this machine, and what it needs, before it starts.

Each net of the configuration is trained for some seconds by the code that will train it, on synthetic images, in as
many processes side by side as there will be. The rest is multiplication.
"""

import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import psutil
from pytorch_lightning.callbacks import Timer
from tabulate import tabulate
from tqdm import tqdm

from pipeline.data import sources
from pipeline.data.prepare import split_rows
from pipeline.data.sources import Contents
from pipeline.data.sources.imagenet import CONTESTS
from pipeline.data.store import SplitName, store_bytes, write_noise
from pipeline.params import Data, Params, Settings
from pipeline.runtime.cores import usable_cores, usable_memory
from pipeline.training.pool import Task, Tell, run_tasks, worker_count
from pipeline.training.run import RUN, Run, train
from pipeline.training.runs import bytes_of

SYNTHETIC_BYTES = 64 << 20  # of training images; of a larger data set only a part is trained on
ENDLESS = {"train": {"epochs": 1_000_000, "lr": 1e-9, "lr_drops": 0, "stop_at_train_error": None, "warmup_epochs": 0}}
COSTLESS = {"train": {"weight_decay", "momentum", "schedule", "drop_at", "patience_epochs", *ENDLESS["train"]}}
IMAGES_PER_CORE_SECOND = 400  # of ImageNet's size that `prepare` decodes
FORWARD_SHARE = 0.4  # of a training step's time, at most: what an image costs that is only evaluated
REPORT_SECONDS, START_SECONDS = 20, 6  # a report's figures; a stage's imports
PREDICTION_BYTES = 42  # of each image, seed and variant
BUSY_PERCENT = 20
PAPER_DAYS = 5.5  # section 5, on two GTX 580


class Cost(NamedTuple):
    """What one net costs on this machine, beside as many others as will run with it."""

    epoch_s: float  # training and validation
    start_s: float  # of a run
    parameters: int


Counts = Mapping[SplitName, int]  # images of each split
Costs = Mapping[str, Cost]  # by `cost_key`


class Line(NamedTuple):
    """One row of the plan."""

    stage: str
    what: str
    runs: int
    seconds: float  # of one worker


def plan(params: Params, price: float | None, seconds: float = 60) -> str:
    """Return the plan as Markdown, after so many seconds of measurements. `price`: of an hour on this machine."""
    busy = psutil.cpu_percent(interval=1)
    source = sources.contents(params.data)
    counts = counts_of(params.data, source)
    workers = worker_count(params.hardware, max(bytes_of(params.settings(name)) for name in params.variants))
    costs = measured_costs(params, source, counts, workers, seconds)
    return text_of(params, source, counts, costs, workers, busy, price)


def counts_of(data: Data, source: Contents) -> Counts:
    """Return the number of images in each split, as `prepare` makes them."""
    train, test = (np.arange(images) % source.classes for images in (source.train, source.test))
    return {split: len(rows) for split, rows in split_rows(data, train, test).items()}


def cost_key(settings: Settings) -> str:
    """Return a text that is equal for settings under which an epoch takes equally long."""
    return settings.model_dump_json(exclude=COSTLESS)


def measured_costs(params: Params, source: Contents, counts: Counts, workers: int, seconds: float) -> Costs:
    """Train each net for its share of the seconds. Returns the costs by `cost_key`."""
    nets = {cost_key(params.settings(name)): name for name in reversed(params.variants)}
    batches = math.ceil(SYNTHETIC_BYTES / (params.data.image_size**2 * source.channels) / params.train.batch_images)
    train = min(counts["train"], max(2, batches) * params.train.batch_images)
    part = train / counts["train"]
    made: Counts = {"train": train, "val": max(1, round(part * counts["val"])), "test": 1}
    costs = {}
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, ALEXNET_STATE=f"{folder}/state"):
        store = write_noise(Path(folder, "images"), made, params.data.image_size, source.channels, source.classes)
        for key, name in tqdm(nets.items(), desc="measuring", unit="net", disable=None):
            settings, hardware = params.settings(name, ENDLESS), params.hardware
            runs = [Run("plan", name, "", seed, settings, store, hardware) for seed in range(workers)]
            tasks = [Task(f"plan {name}", partial(_measure, run, seconds / len(nets))) for run in runs]
            found: list[Cost] = run_tasks(tasks, hardware, bytes_of(settings), f"plan {name}", "run")
            epoch_s, start_s, parameters = (sum(values) / workers for values in zip(*found, strict=True))
            costs[key] = Cost(epoch_s / part, start_s, int(parameters))
    return costs


def _measure(run: Run, seconds: float, tell: Tell) -> Cost:
    started = time.monotonic()
    folder = train(run, [Timer(timedelta(seconds=seconds), interval="epoch", verbose=False)])
    facts = json.loads((folder / RUN).read_text())
    start_s = max(0.0, time.monotonic() - started - facts["seconds"])
    return Cost(facts["seconds"] / facts["epochs"], start_s, facts["parameters"])


def lines_of(params: Params, counts: Counts, costs: Costs) -> list[Line]:
    """Return what there is to do, at most: every run takes all its epochs."""
    images = sum(counts.values())
    prepare = [Line("prepare", f"{images:,} images", 1, images / IMAGES_PER_CORE_SECOND)]
    tune, evaluate = [], []
    train: dict[tuple[str, str], Line] = {}  # variants of equal settings share their runs
    for study in params.studies if params.tune.trials else []:
        cost = costs[cost_key(params.settings(study))]
        trial_s = cost.start_s + params.tune.epochs * cost.epoch_s
        tune.append(Line("tune", study, params.tune.trials, params.tune.trials * trial_s))
    for name, variant in params.variants.items():
        settings = params.settings(name)
        cost, seeds = costs[cost_key(settings)], len(params.seeds_of(name))
        own = name if params.tune.trials and variant.study is not None else ""  # whose rate nobody else has
        run_s = cost.start_s + settings.train.epochs * cost.epoch_s
        train.setdefault((own, settings.model_dump_json()), Line("train", name, seeds, seeds * run_s))
        looks = images + (10 * counts["test"] if name in params.evaluate.ten_crop else 0)
        looks += counts["train"] + 15_000 if name in params.evaluate.analyses else 0
        image_s = FORWARD_SHARE * cost.epoch_s / (counts["train"] + counts["val"])
        evaluate.append(Line("evaluate", name, seeds, seeds * looks * image_s))
    return [*prepare, *tune, *train.values(), *evaluate, Line("report", "", 1, REPORT_SECONDS)]


def wall_seconds(lines: list[Line], workers: int) -> float:
    """Return the time of all stages one after another. The workers share the runs of a stage."""
    total = 0.0
    for stage in {line.stage for line in lines}:
        own = [line for line in lines if line.stage == stage]
        sides = {"prepare": usable_cores(), "report": 1}.get(stage, min(workers, sum(line.runs for line in own)))
        total += START_SECONDS + sum(line.seconds for line in own) / sides
    return total


def text_of(
    params: Params,
    source: Contents,
    counts: Counts,
    costs: Costs,
    workers: int,
    busy: float,
    price: float | None,
) -> str:
    """Return the plan's page."""
    size = partial(tqdm.format_sizeof, suffix="B")
    baseline, lines = params.settings("baseline"), lines_of(params, counts, costs)
    cost, total = costs[cost_key(baseline)], wall_seconds(lines, workers)
    one = cost.start_s + baseline.train.epochs * cost.epoch_s
    rows = [[line.stage, line.what, line.runs, duration(line.seconds)] for line in lines]
    table = tabulate(rows, ["stage", "what", "runs", "time"], "pipe", colalign=["left", "left", "right", "right"])
    items = []
    for what, seconds in (("One run of the baseline takes", one), ("All stages take", total)):
        priced = "" if price is None else f" ({seconds / 3600 * price:,.2f} at {price:g} an hour)"
        items.append(f"{what} {duration(seconds)}{priced}.")
    if params.data.dataset in CONTESTS and baseline.net.width == 1:
        times = PAPER_DAYS * 86_400 / one
        items.append(f"The paper's run took 5 to 6 days (section 5), {times:.2g} times as long.")
    runs = {name: len(params.seeds_of(name)) for name in params.variants}
    images = sum(counts.values())
    weights = sum(4 * count * costs[cost_key(params.settings(name))].parameters for name, count in runs.items())
    disk = {
        "images, and their copy in DVC's cache": 2 * store_bytes(images, params.data.image_size, source.channels),
        "weights, and their copy in DVC's cache": 2 * weights,
        "predictions, twice": 2 * PREDICTION_BYTES * sum(runs.values()) * images,
    }
    memory = workers * max(bytes_of(params.settings(name)) for name in params.variants)
    items += [f"Disk, {what}: {size(count)}." for what, count in disk.items()]
    items += [
        f"Disk in all: {size(sum(disk.values()))}; free here: {size(shutil.disk_usage(Path()).free)}.",
        f"Memory for {workers} runs: {size(memory)}; free here: {size(usable_memory())}.",
        "This is an upper bound: every run takes all its epochs, and nothing is finished yet. Downloads and the time "
        "of DVC itself are not in it.",
    ]
    others = f"**Other programs use {busy:.0f} % of this machine: without them it is faster.**\n\n"
    title = f"# `{params.scale}` takes about {duration(total)} here, at most\n\n{others if busy > BUSY_PERCENT else ''}"
    told = f"{params.title}. {workers} runs side by side. The times below are those of one worker."
    return f"{title}{told}\n\n{table}\n\n" + "\n".join(f"- {item}" for item in items)


def duration(seconds: float) -> str:
    """Return the time in the largest unit of which there is one."""
    for length, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.1f} s"

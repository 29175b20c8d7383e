"""`python -m pipeline plan`: how long a configuration takes on this machine, and what it needs, before it starts.

Each net of the configuration is trained for some seconds by the code that will train it, on synthetic images, as many
side by side as there will be. The rest is multiplication.
"""

import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import pytorch_lightning as pl
from tabulate import tabulate
from tqdm import tqdm

from pipeline.data import sources
from pipeline.data.sources.contests import CONTESTS
from pipeline.data.split import split_rows
from pipeline.data.store import SplitName, store_bytes
from pipeline.data.synthetic import write_noise
from pipeline.params import Data, Params, Settings
from pipeline.runtime.cores import usable_cores, usable_memory
from pipeline.training.pool import Task, Tell, run_tasks, worker_count
from pipeline.training.run import RUN, Run, train
from pipeline.training.runs import bytes_of

SECONDS = 60.0  # for all measurements together
SYNTHETIC_BYTES = 64 << 20  # of training images; of larger data sets a part is trained on
ENDLESS = {"train": {"epochs": 1_000_000, "lr": 1e-9, "lr_drops": 0, "stop_at_train_error": None, "warmup_epochs": 0}}
COSTLESS = {"train": {"lr", "weight_decay", "momentum", "epochs", "patience_epochs", "lr_drops", "stop_at_train_error"}}
IMAGES_PER_CORE_SECOND = 400  # of ImageNet's size that `prepare` decodes
FORWARD_SHARE = 0.4  # of a training step's time, at most: what an image costs that is only looked at
REPORT_SECONDS, START_SECONDS = 20, 6  # a report's figures; a stage's imports
BUSY_PERCENT = 20
PAPER_DAYS = (5, 6)  # section 5, on two GTX 580
CONTEST_CLASSES = 1000


class Source(NamedTuple):
    """What a data set holds, before images are set apart for validation."""

    train: int
    test: int
    classes: int
    channels: int


PUBLISHED = {
    "fashion_mnist": Source(60_000, 10_000, 10, 1),
    "cifar10": Source(50_000, 10_000, 10, 3),
    **{
        name: Source(contest.images["train"], contest.images[contest.test], CONTEST_CLASSES, 3)
        for name, contest in CONTESTS.items()
    },
}


@dataclass(frozen=True)
class Cost:
    """Of one net on this machine, beside as many others as will run with it."""

    epoch_s: float  # training and validation
    start_s: float  # of a run
    parameters: int


@dataclass(frozen=True)
class Line:
    stage: str
    what: str
    runs: int
    seconds: float  # of one worker


def plan(params: Params, price: float | None, seconds: float = SECONDS) -> str:
    """The plan as Markdown. Writes to a temporary folder alone. `price`: of an hour on this machine."""
    busy = psutil.cpu_percent(interval=1)
    source = source_of(params.data)
    counts = counts_of(params.data, source)
    workers = worker_count(params.hardware, max(bytes_of(params.settings(name)) for name in params.variants))
    costs = _measured(params, source, counts, workers, seconds)
    lines = lines_of(params, counts, costs)
    return text_of(params, source, counts, costs, lines, workers, busy, price)


def source_of(data: Data) -> Source:
    """What is published of a data set, or what a folder of images holds."""
    if data.folder is None or data.dataset in CONTESTS:
        return PUBLISHED[data.dataset]
    raw = sources.load(data)
    return Source(len(raw.train.labels), len(raw.test.labels), len(raw.classes), raw.channels)


def counts_of(data: Data, source: Source) -> dict[SplitName, int]:
    """Images of each split, as `prepare` makes them."""
    train, test = (np.arange(images) % source.classes for images in (source.train, source.test))
    return {split: len(rows) for split, rows in split_rows(data, train, test).items()}


def cost_key(settings: Settings) -> str:
    """Equal for settings under which an epoch takes equally long."""
    return settings.model_dump_json(exclude=COSTLESS)


def identity(params: Params, variant: str) -> str:
    """Equal for variants that share their runs."""
    tuned = params.tune.trials > 0 and params.variants[variant].study is not None
    return f"{variant if tuned else ''} {params.settings(variant).model_dump_json()}"


def lines_of(params: Params, counts: Mapping[SplitName, int], costs: Mapping[str, Cost]) -> list[Line]:
    """What there is to do, at most: every run takes all its epochs."""
    seeds, images = len(params.seeds), sum(counts.values())
    lines = [Line("prepare", f"{images:,} images", 1, images / IMAGES_PER_CORE_SECOND)]
    for study in params.tune.studies if params.tune.trials else []:
        cost = costs[cost_key(params.settings(study))]
        trial_s = cost.start_s + params.tune.epochs * cost.epoch_s
        lines.append(Line("tune", study, params.tune.trials, params.tune.trials * trial_s))
    trained = set()
    for name in params.variants:
        settings = params.settings(name)
        cost = costs[cost_key(settings)]
        run_s = cost.start_s + settings.train.epochs * cost.epoch_s
        if identity(params, name) not in trained:
            lines.append(Line("train", name, seeds, seeds * run_s))
        trained.add(identity(params, name))
    for name in params.variants:
        image_s = FORWARD_SHARE * costs[cost_key(params.settings(name))].epoch_s / (counts["train"] + counts["val"])
        looks = images + (10 * counts["test"] if name in params.evaluate.ten_crop else 0)
        looks += counts["train"] + 15_000 if name in params.evaluate.analyses else 0
        lines.append(Line("evaluate", name, seeds, seeds * looks * image_s))
    return [*lines, Line("report", "", 1, REPORT_SECONDS)]


def wall_seconds(lines: list[Line], workers: int) -> float:
    """All stages one after another; what has several runs is shared by the workers."""
    stages = {line.stage for line in lines}
    shared = {stage: sum(line.seconds for line in lines if line.stage == stage) for stage in stages}
    runs = {stage: sum(line.runs for line in lines if line.stage == stage) for stage in stages}
    sides = {stage: min(workers, runs[stage]) for stage in stages} | {"prepare": usable_cores(), "report": 1}
    return sum(START_SECONDS + shared[stage] / max(1, sides[stage]) for stage in stages)


def disk_bytes(
    params: Params, source: Source, counts: Mapping[SplitName, int], costs: Mapping[str, Cost]
) -> dict[str, int]:
    """By what they are for, at most; DVC's cache counts as a copy of every out."""
    store = store_bytes(sum(counts.values()), params.data.image_size, source.channels)
    weights = sum(4 * costs[cost_key(params.settings(name))].parameters for name in params.variants)
    return {
        "images, and their copy in DVC's cache": 2 * store,
        "weights, and their copy in DVC's cache": 2 * weights * len(params.seeds),
        "predictions, twice": 2 * 42 * len(params.seeds) * len(params.variants) * sum(counts.values()),
    }


def text_of(
    params: Params,
    source: Source,
    counts: Mapping[SplitName, int],
    costs: Mapping[str, Cost],
    lines: list[Line],
    workers: int,
    busy_percent: float,
    price: float | None,
) -> str:
    total, baseline = wall_seconds(lines, workers), params.settings("baseline")
    cost = costs[cost_key(baseline)]
    one = cost.start_s + baseline.train.epochs * cost.epoch_s
    rows = [[line.stage, line.what, line.runs, duration(line.seconds)] for line in lines]
    parts = [
        f"# `{params.scale}` takes about {duration(total)} here, at most",
        f"{params.title}. {workers} runs side by side. The times below are those of one worker.",
        str(tabulate(rows, ["stage", "what", "runs", "time"], "pipe", colalign=["left", "left", "right", "right"])),
        f"- One run of the baseline takes {duration(one)}{priced(one, price)}.",
        f"- All stages take {duration(total)}{priced(total, price)}.",
    ]
    if busy_percent > BUSY_PERCENT:
        parts.insert(1, f"**Other programs use {busy_percent:.0f} % of this machine: without them it is faster.**")
    if params.data.dataset in CONTESTS and baseline.net.width == 1:
        ratio = sum(PAPER_DAYS) / 2 * 86_400 / one
        parts.append(
            f"- The paper's run took {PAPER_DAYS[0]} to {PAPER_DAYS[1]} days (section 5), {ratio:.2g} times as long."
        )
    disk = disk_bytes(params, source, counts, costs)
    free = shutil.disk_usage(Path()).free
    parts += [f"- Disk, {what}: {size(count)}." for what, count in disk.items()]
    memory = workers * max(bytes_of(params.settings(name)) for name in params.variants)
    parts += [
        f"- Disk in all: {size(sum(disk.values()))}; free here: {size(free)}.",
        f"- Memory for {workers} runs: {size(memory)}; free here: {size(usable_memory())}.",
        "- This is an upper bound: every run takes all its epochs, and nothing is finished yet. Downloads and the time "
        "of DVC itself are not in it.",
    ]
    return "\n".join([f"{part}\n" if not part.startswith("- ") else part for part in parts])


def duration(seconds: float) -> str:
    """In the largest unit of which there is one."""
    for length, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.1f} s"


def size(count: float) -> str:
    return str(tqdm.format_sizeof(count, "B"))


def priced(seconds: float, price: float | None) -> str:
    return "" if price is None else f" ({seconds / 3600 * price:,.2f} at {price:g} an hour)"


def _measured(
    params: Params, source: Source, counts: Mapping[SplitName, int], workers: int, seconds: float
) -> dict[str, Cost]:
    """The cost of each net, by `cost_key`."""
    nets = {cost_key(params.settings(name)): name for name in reversed(params.variants)}
    part = min(1.0, SYNTHETIC_BYTES / (counts["train"] * params.data.image_size**2 * source.channels))
    costs = {}
    with tempfile.TemporaryDirectory() as folder, _state(Path(folder, "state")):
        made = _part_of(counts, part, params.train.batch_images)
        store = write_noise(Path(folder, "images"), made, params.data.image_size, source.channels, source.classes)
        part = made["train"] / counts["train"]
        for key, name in tqdm(nets.items(), desc="measuring", unit="net", disable=None):
            run = Run("plan", name, "", 0, params.settings(name, ENDLESS), store, params.hardware)
            runs = [replace(run, seed=seed) for seed in range(workers)]
            tasks = [Task(f"plan {name}", partial(_measure, one, seconds / len(nets))) for one in runs]
            found = run_tasks(tasks, params.hardware, bytes_of(run.settings), f"plan {name}", "run")
            epoch_s, start_s = (sum(times) / len(found) for times in list(zip(*found, strict=True))[:2])
            costs[key] = Cost(epoch_s / part, start_s, found[0][2])
    return costs


def _part_of(counts: Mapping[SplitName, int], part: float, batch_images: int) -> dict[SplitName, int]:
    """All images or whole batches of them, and as large a part of the validation images."""
    whole = max(2, math.ceil(part * counts["train"] / batch_images)) * batch_images
    train = counts["train"] if part == 1 else whole
    return {"train": train, "val": max(1, round(train / counts["train"] * counts["val"])), "test": 1}


def _measure(run: Run, seconds: float, tell: Tell) -> tuple[float, float, int]:
    """Train for so long. Returns an epoch's seconds, those of the start, and the number of parameters."""
    started = time.monotonic()
    folder = train(run, [_Deadline(started + seconds)])
    whole_s = time.monotonic() - started
    times = np.loadtxt(folder / "history.csv", delimiter=",", skiprows=1, ndmin=2)[:, 7]
    epoch_s = float(np.median(times[1:] if len(times) > 1 else times))
    return epoch_s, max(0.0, whole_s - float(times.sum())), json.loads((folder / RUN).read_text())["parameters"]


class _Deadline(pl.Callback):
    """Ends training with the first epoch that is over after a moment."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = time.monotonic() > self._deadline


@contextmanager
def _state(folder: Path) -> Any:
    """In this block runs grow in a folder that goes away."""
    before = os.environ.get("ALEXNET_STATE")
    os.environ["ALEXNET_STATE"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("ALEXNET_STATE")
        if before is not None:
            os.environ["ALEXNET_STATE"] = before

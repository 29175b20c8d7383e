"""The measurement: the code that will do the work, on images that are none, for about a minute."""

import contextlib
import hashlib
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from pipeline import hardware
from pipeline.cores import usable_cores
from pipeline.data.statistics import Sums
from pipeline.data.store import Store
from pipeline.evaluation import neighbours, thinned
from pipeline.evaluation.predict import prediction_table
from pipeline.models.alexnet import Dropout
from pipeline.models.build import build
from pipeline.params import Settings
from pipeline.plan import made_up
from pipeline.plan.sizes import Counts, Source
from pipeline.plan.stopwatch import Epoch, Stopwatch
from pipeline.plan.work import STAGES, Machine, NetCost, Work, cost_key, rate
from pipeline.training.run import Run, train

SECONDS = 60.0  # for all measurements together, about
LEAST_SECONDS, SHARE = 0.5, 0.7  # for a net's steps, of the time that falls to it; the rest begins and ends its run
STORE_BYTES = 256 << 20  # of made-up training images; where the real ones are no more, there are as many
# Training that changes little and goes on: noise with the real rate may diverge.
ENDLESS = {"train": {"epochs": 1_000_000, "lr": 1e-9, "lr_drops": 0, "stop_at_train_error": None}}
REPEAT_S = 0.5
HASHED_BYTES, TABLE_IMAGES, POINTS = 32 << 20, 1000, 50


def measure(work: Work, source: Source, seconds: float = SECONDS) -> tuple[Machine, dict[str, NetCost]]:
    """The machine, and the nets of the configuration by `cost_key`. Writes to a temporary folder alone."""
    deadline = time.monotonic() + seconds
    variants: dict[str, list[str]] = {}
    for name in work.params.variants:
        variants.setdefault(cost_key(work.params.settings(name)), []).append(name)
    with tqdm(total=len(STAGES) + 1 + len(variants), desc="measuring", disable=None) as progress:
        start_s = {}
        for stage in STAGES:
            start_s[stage] = _start_s(stage)
            progress.update()
        machine = _machine(work, source, start_s)
        progress.update()
        store = made_up.store(_made_up_counts(work), work.params.data.canvas_px, source)
        costs: dict[str, NetCost] = {}
        for key, names in variants.items():
            share_s = (deadline - time.monotonic()) / (len(variants) - len(costs))
            analysed = any(name in work.params.evaluate.analyses for name in names)
            costs[key] = _net_cost(work, store, names[0], max(LEAST_SECONDS, SHARE * share_s), analysed)
            progress.update()
    return machine, costs


def _start_s(stage: str) -> float:
    """A stage's process from its start until it misses params.yaml: everything is imported then."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with tempfile.TemporaryDirectory() as empty:
        command = [sys.executable, "-m", f"stages.{stage}", *([] if stage in ("prepare", "report") else ["baseline"])]
        started = time.monotonic()
        subprocess.run(command, cwd=empty, env=environment, capture_output=True)
        return time.monotonic() - started


def _machine(work: Work, source: Source, start_s: dict[str, float]) -> Machine:
    canvas_px = work.params.data.canvas_px
    probabilities = torch.rand(TABLE_IMAGES, work.classes)
    labels, content = torch.zeros(TABLE_IMAGES, dtype=torch.int64), bytes(HASHED_BYTES)
    with tempfile.TemporaryDirectory() as place:
        images = made_up.raw_images(source, Path(place))

        def one_image() -> None:
            pixels = images.load(0, canvas_px).pixels
            assert pixels is not None
            Sums.of(pixels[np.newaxis])

        return Machine(
            workers=work.params.hardware.threads or usable_cores(),
            start_s=start_s,
            source_image_s=_seconds(one_image),
            hash_byte_s=_seconds(lambda: hashlib.sha256(content).digest()) / HASHED_BYTES,
            table_image_s=_seconds(lambda: prediction_table(probabilities, labels)) / TABLE_IMAGES,
        )


def _seconds(work: Callable[[], object]) -> float:
    """Mean over as many repetitions as fit REPEAT_S, after a first one that counts for nothing."""
    work()
    started, times = time.monotonic(), 0
    while (passed := time.monotonic() - started) < REPEAT_S or not times:
        work()
        times += 1
    return passed / times


def _made_up_counts(work: Work) -> Counts:
    """The configuration's own, or a few whole batches and one to validate on where these are too large."""
    fitting = STORE_BYTES // work.image_bytes
    if work.counts["train"] <= fitting:
        return {"train": work.counts["train"], "val": work.counts["val"], "test": 1}
    batch = work.params.train.batch_images
    return {"train": max(2, fitting // batch) * batch, "val": min(batch, work.counts["val"]), "test": 1}


def _net_cost(work: Work, store: Store, variant: str, seconds: float, analysed: bool) -> NetCost:
    settings = work.params.settings(variant, ENDLESS)
    watch = Stopwatch(seconds)
    with _temporary_state(), contextlib.redirect_stderr(io.StringIO()):  # its progress bar
        started = time.monotonic()
        train(Run("plan", variant, "", 0, settings, store, work.params.hardware), [watch])
        whole_s = time.monotonic() - started
    thinned_s, pair_s = _analyses_s(work, settings) if analysed else (0.0, 0.0)
    return cost(watch.epochs, store.meta.counts, whole_s, watch.parameters, thinned_s, pair_s)


@contextlib.contextmanager
def _temporary_state() -> Iterator[None]:
    before = os.environ.get("ALEXNET_STATE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ALEXNET_STATE"] = folder
        try:
            yield
        finally:
            os.environ.pop("ALEXNET_STATE")
            if before is not None:
                os.environ["ALEXNET_STATE"] = before


def cost(
    epochs: list[Epoch], counts: Counts, whole_s: float, parameters: int, thinned_s: float = 0.0, pair_s: float = 0.0
) -> NetCost:
    """What one training's times come to. What starts up in the first batch, or the first epoch, is the run's."""
    usual = epochs[1:-1] or epochs  # the last one may have been cut short
    later = sum(epoch.later_images for epoch in usual)
    if later:
        image_s = sum(epoch.train_end - epoch.first_end for epoch in usual) / later
    else:
        image_s = sum(epoch.train_end - epoch.start for epoch in usual) / sum(epoch.first_images for epoch in usual)
    validation_s = sum(epoch.end - epoch.train_end for epoch in usual) / (len(usual) * counts["val"])

    def images_s(epoch: Epoch) -> float:
        return (epoch.first_images + epoch.later_images) * image_s + counts["val"] * validation_s

    follow = list(zip(usual, epochs[epochs.index(usual[0]) + 1 :], strict=False))
    beside = sum(after.start - epoch.start - images_s(epoch) for epoch, after in follow)
    epoch_s = max(0.0, beside / len(follow)) if follow else 0.0
    run_s = max(0.0, whole_s - sum(images_s(epoch) + epoch_s for epoch in epochs))
    images = sum(epoch.first_images + epoch.later_images for epoch in epochs)
    text = f"{rate(image_s)}, over {images:,}"
    return NetCost(text, image_s, validation_s, epoch_s, run_s, parameters, thinned_s, pair_s)


@torch.inference_mode()
def _analyses_s(work: Work, settings: Settings) -> tuple[float, float]:
    """One thinned net on all its queries, and one distance; seconds."""
    device = hardware.device(work.params.hardware)
    net = build(settings, work.classes).eval().to(device)
    side = settings.net.crop_px
    image = torch.zeros(1, work.channels, side, side, device=device)
    layers = list(net)
    features = next(layer.in_features for layer in reversed(layers) if isinstance(layer, nn.Linear))
    queries = min(work.counts["test"], neighbours.QUERIES)
    nearest = neighbours.Nearest(torch.rand(queries, image.numel() + features, device=device))
    points = torch.rand(POINTS, image.numel() + features, device=device)

    def distances() -> None:
        nearest.show(points)
        nearest.indices.cpu()  # waits for the device

    pair_s = _seconds(distances) / (queries * POINTS)
    first = next((place for place, layer in enumerate(layers) if isinstance(layer, Dropout)), None)
    if first is None:
        return 0.0, pair_s
    width = nn.Sequential(*layers[:first])(image).shape[1]
    images = min(work.counts["test"], thinned.IMAGES)
    mean = thinned.LogMean(nn.Sequential(*layers[first:]), torch.rand(images, width, device=device))
    return _seconds(lambda: mean.add(lambda layer, units: torch.rand(units) >= layer.p)), pair_s

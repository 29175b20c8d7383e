"""A GPU's training speeds: the full net in bf16, compiled, beside plain PyTorch and its own input; a normalization
beside copies of its bytes; small runs, one alone and eight at once.

Each rate is of images that lie in the GPU's memory and are cut there; plain PyTorch's steps have one batch that lies
ready. The rows are named gpu_…, and `make gpu` measures them; on a CPU only their dry run makes sense.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from math import ceil
from tempfile import TemporaryDirectory

import pandas as pd
import torch

from benchmarks import ours
from benchmarks.harness import Contender, Kind, Row, ratio, rounds_of
from benchmarks.plain import plain_steps
from benchmarks.setups import DEVICE, params, store
from pipeline.models.response_norm import ResponseNorm
from pipeline.paper.net import shapes
from pipeline.params import Hardware, Settings
from pipeline.training.pool import Task, Tell, run_tasks
from pipeline.training.run import HISTORY, Run, train
from pipeline.training.runs import bytes_of

REPETITIONS = 20  # of a normalization, at each call
ON_GPU = DEVICE.type == "cuda"


def contender(kind: str, size: str, images: int, epochs: int) -> Callable[[], None]:
    """kind: ours, plain, input, host input, norm or copies. images: in a batch."""
    change = {"epochs": epochs, "batch_images": images, "precision": "bf16-mixed" if ON_GPU else "32-true"}
    settings, data = params(size).settings("baseline", {"train": change}), store(size)
    steps = ceil(data.meta.counts["train"] / images)
    if kind == "ours":
        return ours.bare_loop(data, settings, steps, compiled=ON_GPU)
    if kind == "plain":
        return plain_steps(data, settings, epochs * steps)
    if kind in ("input", "host input"):
        return ours.training_input(data, settings, on_device=kind == "input")
    return _normalization(kind, settings)


def _normalization(kind: str, settings: Settings) -> Callable[[], None]:
    """Conv1's, forward and backward; or copies that move its bytes: forward it reads and writes, backward it reads its
    input and a gradient and writes another."""
    conv1 = shapes(settings.net, 10)[0]
    size = (settings.train.batch_images, conv1.maps, conv1.side, conv1.side)
    x = torch.randn(size, device=DEVICE, dtype=torch.bfloat16).to(memory_format=torch.channels_last).requires_grad_()
    gradient, norm = torch.randn_like(x), ResponseNorm(5, 2.0, 1e-4)
    source = torch.zeros(5 * x.numel() // 2, device=DEVICE, dtype=x.dtype)
    target = torch.empty_like(source)
    if ON_GPU:
        norm.compile(dynamic=False)

    def work() -> None:
        for _ in range(REPETITIONS):
            if kind == "copies":
                target.copy_(source)
            else:
                norm(x).backward(gradient)
                x.grad = None

    return work


def side_by_side(size: str, count: int, epochs: int) -> Callable[[], float]:
    """So many runs at once, each in a process of its own; what counts is an epoch's time, the median over all."""
    settings = params(size).settings("baseline", {"train": {"epochs": epochs}})
    hardware, data = Hardware(threads=1, workers=count), store(size)

    def work() -> float:
        with TemporaryDirectory() as state:
            os.environ["ALEXNET_STATE"] = state
            runs = [Run(size, "baseline", "-", seed, settings, data, hardware) for seed in range(count)]
            tasks = [Task(str(run), partial(_epoch_seconds, run), epochs) for run in runs]
            found = run_tasks(tasks, hardware, bytes_of(settings), "runs", "epoch")
        return float(pd.concat(found).median())

    return work


def _epoch_seconds(run: Run, tell: Tell) -> "pd.Series[float]":
    return pd.read_csv(train(run, tell=tell) / HISTORY)["seconds"]


def rows(
    full: str = "full",
    small: str = "embedded",
    batches: tuple[int, int] = (128, 1024),
    epochs: int = 8,
    workers: int = 8,
    rounds: int = 3,
) -> Iterator[Row]:
    """full, small: sizes of setups.py. epochs: of the full net at each call; a small run has all of its own."""
    usual, large = batches
    kinds = [("ours", usual), ("ours", large), *((kind, usual) for kind in ("plain", "input", "host input"))]
    kinds += [("norm", usual), ("copies", usual)]
    images = epochs * store(full).meta.counts["train"]
    with ExitStack() as stack:
        target = "benchmarks.speeds:contender"
        found = [Contender(target, kind=kind, size=full, images=n, epochs=epochs).start() for kind, n in kinds]
        contenders = [stack.enter_context(one) for one in found]
        times = dict(zip(kinds, zip(*rounds_of(contenders, rounds), strict=True), strict=True))
    for n in batches:
        yield ratio(f"gpu_full_{n}", "rate", "the bounds below", [images / s for s in times["ours", n]])
    comparisons: tuple[tuple[str, Kind, str, tuple[str, str]], ...] = (
        ("gpu_full_plain", "speedup", "plain PyTorch in bf16, without input", ("plain", "ours")),
        ("gpu_input", "speedup", "the loop, against its input alone", ("ours", "input")),
        ("gpu_input_host", "speedup", "the loop, against input cut by processes", ("ours", "host input")),
        ("gpu_norm_bound", "share", "copies of as many bytes", ("copies", "norm")),
    )
    for name, kind, whose, of_which in comparisons:
        above, below = (times[part, usual] for part in of_which)
        yield ratio(name, kind, whose, [one / other for one, other in zip(above, below, strict=True)])
    yield from _small(small, workers, rounds)


def _small(size: str, workers: int, rounds: int) -> Iterator[Row]:
    images, epochs = store(size).meta.counts["train"], params(size).train.epochs
    with ExitStack() as stack:
        contenders = [
            stack.enter_context(Contender("benchmarks.speeds:side_by_side", size=size, count=count, epochs=epochs))
            for count in (1, workers)
        ]
        alone, together = zip(*rounds_of(contenders, rounds), strict=True)
    bounds = "the bounds below"
    yield ratio("gpu_small_alone", "rate", bounds, [images / s for s in alone])
    yield ratio(f"gpu_small_{workers}", "rate", bounds, [workers * images / s for s in together])
    ratios = [workers * one / many for one, many in zip(alone, together, strict=True)]
    yield ratio("gpu_side_by_side", "speedup", "as many runs one after another", ratios)

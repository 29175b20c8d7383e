"""The project's own training, taken apart: the whole loop, its steps without Lightning, its input, its arithmetic."""

import json
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from itertools import chain, islice
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import record_function

from benchmarks.setups import DEVICE, HARDWARE
from pipeline.data.loader import Batch, RawBatch
from pipeline.data.store import Store
from pipeline.models.alexnet import FirstConv
from pipeline.params import Settings
from pipeline.runtime.hardware import set_arithmetic, set_threads
from pipeline.runtime.random_streams import seed_of
from pipeline.training.module import Classifier, Images, RunningMetrics, seed_dropout
from pipeline.training.run import RUN, Run, train

FINISHING = "finishing a batch"  # by this name the profile knows it


def lightning_loop(store: Store, settings: Settings) -> Callable[[], float]:
    """A run as the train stage makes it, with its checkpoints and its history; timed is Lightning's `fit`."""
    run = Run("benchmark", "baseline", "-", 0, settings, store, HARDWARE)

    def work() -> float:
        shutil.rmtree(run.folder, ignore_errors=True)
        return float(json.loads((train(run) / RUN).read_text())["seconds"])

    return work


def bare_loop(store: Store, settings: Settings, steps: int | None = None, compiled: bool = False) -> Callable[[], None]:
    """The same steps in a bare loop; or the first `steps` of each epoch, without validation."""
    set_threads(HARDWARE.thread_count)
    as_a_run_does()
    module = Classifier(settings, len(store.meta.classes), seed=0).to(DEVICE)
    if compiled:
        module.compile_net(DEVICE)
    mixed = set_arithmetic(settings.train.precision) == "bf16-mixed"
    optimizer = module.configure_optimizers()
    images = Images(store, settings, 0, DEVICE)
    batches, validation = images.train_dataloader(), images.val_dataloader()

    def work() -> None:
        for epoch in range(settings.train.epochs):
            batches.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
            tally = RunningMetrics()
            module.train()
            for index, cut in enumerate(islice(batches, steps)):
                seed_dropout(DEVICE, seed_of("dropout", 0, epoch, index))
                with record_function(FINISHING):
                    x, labels = _finished(images, cut)
                with torch.autocast(DEVICE.type, torch.bfloat16, enabled=mixed):
                    logits = module.net(x)
                    loss = F.cross_entropy(logits, labels)
                    tally.add(loss, logits, labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            tally.means()
            if steps is None:
                _validate(module, (_finished(images, cut) for cut in validation))

    return work


def as_a_run_does() -> None:
    """Prefer deterministic kernels, as Lightning has a run do; cuBLAS asks for the variable."""
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.use_deterministic_algorithms(True, warn_only=True)


def _finished(images: Images, cut: RawBatch) -> Batch:
    """As Lightning has it made, on the device."""
    return images.on_after_batch_transfer(cut.to(DEVICE), 0)


@torch.inference_mode()
def _validate(module: nn.Module, batches: Iterable[Batch]) -> None:
    tally = RunningMetrics()
    module.eval()
    for x, labels in batches:
        logits = module.net(x)
        tally.add(F.cross_entropy(logits, labels), logits, labels)
    tally.means()


def repeated_batch(store: Store, settings: Settings) -> Callable[[], None]:
    """As many steps and validation batches, of a net without normalization, on one batch that is always the same."""
    set_threads(HARDWARE.thread_count)
    settings = settings.model_copy(update={"net": settings.net.model_copy(update={"norm_layers": []})})
    module = Classifier(settings, len(store.meta.classes), seed=0).to(DEVICE)
    optimizer = module.configure_optimizers()
    images = Images(store, settings, 0, DEVICE)
    batch, validation = next(iter(images.train_dataloader())), next(iter(images.val_dataloader()))
    x, labels = _finished(images, batch)
    views, _ = _finished(images, validation)

    def work() -> None:
        for _ in range(settings.train.epochs):
            module.train()
            for _ in range(len(images.train_dataloader())):
                optimizer.zero_grad()
                F.cross_entropy(module.net(x), labels).backward()
                optimizer.step()
            module.eval()
            with torch.inference_mode():
                for _ in range(len(images.val_dataloader())):
                    module.net(views).argmax(1)

    return work


def training_input(store: Store, settings: Settings, on_device: bool) -> Callable[[], None]:
    """An epoch's batches without a net; on a GPU cut there, or by other processes as where its memory is too small."""
    set_threads(HARDWARE.thread_count)
    with nullcontext() if on_device else patch("pipeline.data.loader.resident", return_value=False):
        images = Images(store, settings, 0, DEVICE)
        batches = images.train_dataloader()

    def work() -> None:
        for epoch in range(settings.train.epochs):
            batches.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
            for cut in batches:
                _finished(images, cut)

    return work


def input_alone(store: Store, settings: Settings) -> Callable[[], None]:
    set_threads(HARDWARE.thread_count)
    images = Images(store, settings, 0, DEVICE)
    batches, validation = images.train_dataloader(), images.val_dataloader()

    def work() -> None:
        for epoch in range(settings.train.epochs):
            batches.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
            for cut in chain(batches, validation):
                _finished(images, cut)

    return work


def arithmetic(store: Store, settings: Settings) -> Callable[[], None]:
    """The bare convolutions and matrix products of one step, forward and backward, each on inputs that lie ready."""
    set_threads(HARDWARE.thread_count)
    module = Classifier(settings, len(store.meta.classes), seed=0).to(DEVICE)
    images = Images(store, settings, 0, DEVICE)
    x, _ = _finished(images, next(iter(images.train_dataloader())))
    parts: list[tuple[nn.Module, Tensor, Tensor]] = []
    with torch.no_grad():
        for layer in module.net:
            y = layer(x)
            if isinstance(layer, nn.Conv2d | nn.Linear):
                needs = not isinstance(layer, FirstConv)
                parts.append((layer, x.clone().requires_grad_(needs), torch.randn_like(y)))
            x = y

    def work() -> None:
        for layer, x, gradient in parts:
            layer(x).backward(gradient)
            x.grad = None
            layer.zero_grad()

    return work

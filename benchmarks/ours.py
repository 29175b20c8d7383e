"""The project's own training, taken apart: the whole loop, its steps without Lightning, its input, its arithmetic."""

import shutil
from collections.abc import Callable
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.setups import DEVICE, HARDWARE
from pipeline.data.store import Store
from pipeline.hardware import set_threads
from pipeline.models.alexnet import FirstConv
from pipeline.params import Settings
from pipeline.stage_times import worked_s
from pipeline.training.module import Classifier, Images, Tally, derived_seed, seed_dropout
from pipeline.training.run import Run, train


def lightning_loop(store: Store, settings: Settings) -> Callable[[], float]:
    """A run as the train stage makes it, with its checkpoints and its history; timed is Lightning's `fit`."""
    run = Run("benchmark", "baseline", "-", 0, settings, store, HARDWARE)

    def work() -> float:
        shutil.rmtree(run.folder, ignore_errors=True)
        before = worked_s()
        train(run)
        return worked_s() - before

    return work


def bare_loop(store: Store, settings: Settings, steps: int | None = None) -> Callable[[], None]:
    """The same steps in a bare loop; or the first `steps` of one epoch, without validation."""
    set_threads(HARDWARE)
    module = Classifier(settings, len(store.meta.classes), seed=0).to(DEVICE)
    optimiser = module.configure_optimizers()
    images = Images(store, settings, seed=0)
    batches, validation = images.train_dataloader(), images.val_dataloader()

    def work() -> None:
        for epoch in range(settings.train.epochs):
            batches.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
            tally = Tally()
            module.train()
            for index, (x, labels) in enumerate(islice(batches, steps)):
                seed_dropout(DEVICE, derived_seed(0, epoch, index))
                logits = module.net(x.to(DEVICE))
                labels = labels.to(DEVICE)
                loss = F.cross_entropy(logits, labels)
                tally.add(loss, logits, labels)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            tally.means()
            if steps is None:
                _validate(module, validation)

    return work


@torch.inference_mode()
def _validate(module: nn.Module, batches: Any) -> None:
    tally = Tally()
    module.eval()
    for x, labels in batches:
        logits = module.net(x.to(DEVICE))
        labels = labels.to(DEVICE)
        tally.add(F.cross_entropy(logits, labels), logits, labels)
    tally.means()


def repeated_batch(store: Store, settings: Settings) -> Callable[[], None]:
    """As many steps and validation batches, of a net without normalisation, on one batch that is always the same."""
    set_threads(HARDWARE)
    settings = settings.model_copy(update={"net": settings.net.model_copy(update={"norm_layers": []})})
    module = Classifier(settings, len(store.meta.classes), seed=0).to(DEVICE)
    optimiser = module.configure_optimizers()
    images = Images(store, settings, seed=0)
    batch, validation = next(iter(images.train_dataloader())), next(iter(images.val_dataloader()))
    x, labels = (tensor.to(DEVICE) for tensor in batch)
    views, _ = validation
    views = views.to(DEVICE)

    def work() -> None:
        for _ in range(settings.train.epochs):
            module.train()
            for _ in range(len(images.train_dataloader())):
                optimiser.zero_grad()
                F.cross_entropy(module.net(x), labels).backward()
                optimiser.step()
            module.eval()
            with torch.inference_mode():
                for _ in range(len(images.val_dataloader())):
                    module.net(views).argmax(1)

    return work


def input_alone(store: Store, settings: Settings) -> Callable[[], None]:
    set_threads(HARDWARE)
    images = Images(store, settings, seed=0)
    batches, validation = images.train_dataloader(), images.val_dataloader()

    def work() -> None:
        for epoch in range(settings.train.epochs):
            batches.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
            for x, labels in (*batches, *validation):
                x.to(DEVICE), labels.to(DEVICE)

    return work


def arithmetic(store: Store, settings: Settings) -> Callable[[], None]:
    """The bare convolutions and matrix products of one step, forward and backward, each on inputs that lie ready."""
    set_threads(HARDWARE)
    module = Classifier(settings, len(store.meta.classes), seed=0).to(DEVICE)
    x, _ = next(iter(Images(store, settings, seed=0).train_dataloader()))
    parts: list[tuple[nn.Module, Tensor, Tensor]] = []
    x = x.to(DEVICE)
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

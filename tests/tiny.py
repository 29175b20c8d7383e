"""An image store that a small net learns in seconds, and settings and runs to go with it."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from pipeline.data.store import ARRAYS, SPLITS, Meta, SplitName, Store, write_noise
from pipeline.models.build import build
from pipeline.params import Hardware, Settings
from pipeline.runtime.files import sha256, write_json
from pipeline.training.run import CHECKPOINT, HISTORY, Run, train

IMAGE_SIZE, CROP_PX, CLASSES = 76, 67, 4
COUNTS: dict[SplitName, int] = {"train": 48, "val": 20, "test": 28}
LABELS: dict[SplitName, tuple[int, ...]] = {  # repeated: what is measured on another split is another number
    "train": (0, 1, 2, 3),
    "val": (0, 1, 2, 3, 0),
    "test": (0, 1, 2, 3, 3, 3, 1),
}
CPU = Hardware(accelerator="cpu", threads=1)
NUMBERS = ["epoch", "lr", "train_loss", "train_error_top1", "val_loss", "val_error_top1", "val_error_top5"]
ODD = "a b%20c#d?e+f@g{h}[i]&j=k;l:m'n\"o$p\\q~ü桜%"  # a folder's name


def make_store(folder: Path, channels: int = 1, **counts: int) -> Store:
    """Classes differ in which quarter of the picture's height is bright: mirroring leaves that as it is."""
    write_noise(folder, {**COUNTS, **counts}, IMAGE_SIZE, channels, CLASSES)
    for split in SPLITS:
        images = np.load(folder / split / "images.npy") // 4
        labels = np.resize(LABELS[split], len(images))
        np.save(folder / split / "labels.npy", labels)
        for image, label in zip(images, labels, strict=True):
            image[label * IMAGE_SIZE // CLASSES : (label + 1) * IMAGE_SIZE // CLASSES] += 150
        np.save(folder / split / "images.npy", images)
    np.save(folder / "mean_image.npy", np.load(folder / "train/images.npy").mean(0).astype(np.float32))
    meta = Meta.model_validate_json((folder / "meta.json").read_text()).model_dump()
    names = [f"class {label}" for label in range(CLASSES)]
    sums = {name: sha256(folder / name) for name in ARRAYS}
    write_json(folder / "meta.json", meta | {"dataset": "fashion_mnist", "classes": names, "sha256": sums})
    return Store.open(folder)


def settings(**changes: dict[str, Any]) -> Settings:
    """The paper's, on a net of 1/16 of its width; `changes` by block."""
    blocks: dict[str, dict[str, Any]] = {
        "net": {"crop_px": CROP_PX, "width": 1 / 16},
        "recipe": {},
        "train": {"epochs": 3, "batch_images": 16},
    }
    return Settings.model_validate({name: block | changes.get(name, {}) for name, block in blocks.items()})


def a_run(store: Store, seed: int = 0, hardware: Hardware = CPU, **changes: dict[str, Any]) -> Run:
    """The baseline's run with `changes` to blocks of its settings."""
    return Run("smoke", "baseline", "3", seed, settings(**changes), store, hardware)


def unlike_net(seed: int, store: Store) -> nn.Sequential:
    """A net that is sure of most images, often wrongly, and that sees another crop or another seed's net otherwise."""
    generator = torch.Generator().manual_seed(seed)
    net = build(settings(), CLASSES).eval()
    middle = slice((IMAGE_SIZE - CROP_PX) // 2, (IMAGE_SIZE + CROP_PX) // 2)
    pixels = store.split("train").images[:, middle, middle].astype(np.float32)
    with torch.no_grad():
        for parameter in net.parameters():
            spread = 3 / np.sqrt(parameter[0].numel()) if parameter.ndim > 1 else 0.3
            parameter.normal_(0, spread, generator=generator)
        logits = net(torch.from_numpy(pixels - pixels.mean(0)).permute(0, 3, 1, 2))
        scale = 3 / logits.std(0)
        net.fc8.weight.mul_(scale[:, None])
        net.fc8.bias.sub_(logits.mean(0)).mul_(scale)
    return net


def numbers(folder: Path) -> pd.DataFrame:
    """What a run measured, without its times."""
    return pd.read_csv(folder / HISTORY)[NUMBERS]


def damage(path: Path, how: str) -> None:
    """Cut a file short in its middle, or flip a bit there."""
    content = bytearray(path.read_bytes())
    if how == "truncated":
        del content[len(content) // 2 :]
    else:
        content[len(content) // 2] ^= 1
    path.write_bytes(content)


def interrupt_after_an_epoch(run: Run) -> None:
    """Train until the second epoch begins, and leave the checkpoint of the first."""
    import pytorch_lightning as pl

    class Interruption(Exception):
        pass

    class Interrupt(pl.Callback):
        def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            if trainer.current_epoch == 1:
                raise Interruption

    with pytest.raises(Interruption):
        train(run, [Interrupt()])
    assert (run.folder / CHECKPOINT).exists()

"""A made-up image store that a small net learns in seconds, and settings to go with it."""

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.store import ARRAYS, Meta, Store
from pipeline.params import Hardware, Settings
from pipeline.runtime.files import sha256, write_json

IMAGE_SIZE, CROP_PX, CLASSES = 76, 67, 4
CPU = Hardware(accelerator="cpu", threads=1)


def make_store(folder: Path, train: int = 48, val: int = 16, test: int = 16, channels: int = 1) -> Store:
    """Classes differ in which quarter of the picture's height is bright: mirroring leaves that as it is."""
    rng = np.random.default_rng(0)
    for split, count in {"train": train, "val": val, "test": test}.items():
        labels = np.arange(count) % CLASSES
        images = rng.integers(0, 60, (count, IMAGE_SIZE, IMAGE_SIZE, channels))
        quarter = IMAGE_SIZE // 4
        for image, label in zip(images, labels, strict=True):
            image[label * quarter : (label + 1) * quarter] += 150
        (folder / split).mkdir(parents=True)
        np.save(folder / split / "images.npy", images.astype(np.uint8))
        np.save(folder / split / "labels.npy", labels.astype(np.int64))
    pixels = np.load(folder / "train/images.npy")
    np.save(folder / "mean_image.npy", pixels.mean(0).astype(np.float32))
    meta = Meta(
        dataset="fashion_mnist",
        image_size=IMAGE_SIZE,
        channels=channels,
        classes=[f"class {label}" for label in range(CLASSES)],
        counts={"train": train, "val": val, "test": test},
        sources={},
        rgb_eigenvectors=np.eye(3).tolist(),
        rgb_std=[60.0, 20.0, 5.0],
        skipped=[],
        sha256={name: sha256(folder / name) for name in ARRAYS},
    )
    write_json(folder / "meta.json", meta.model_dump())
    return Store.open(folder)


def settings(**changes: dict[str, Any]) -> Settings:
    """The paper's, on a net of 1/16 of its width; `changes` by block."""
    blocks: dict[str, dict[str, Any]] = {
        "net": {"crop_px": CROP_PX, "width": 1 / 16},
        "recipe": {},
        "train": {"epochs": 3, "batch_images": 16},
    }
    return Settings.model_validate({name: block | changes.get(name, {}) for name, block in blocks.items()})

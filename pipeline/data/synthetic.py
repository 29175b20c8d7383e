"""A store of noise: for timing, where only the number and the size of images matter."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipeline.data.store import ARRAYS, Meta, SplitName, Store, checksum
from pipeline.runtime.files import write_json


def write_noise(folder: Path, counts: Mapping[SplitName, int], image_size: int, channels: int, classes: int) -> Store:
    """Write and open a store of so many images of each split, whose labels take turns. channels: 1 or 3."""
    rng = np.random.default_rng(0)
    for split, count in counts.items():
        (folder / split).mkdir(parents=True, exist_ok=True)
        images = rng.integers(0, 256, (count, image_size, image_size, channels), np.uint8)
        np.save(folder / split / "images.npy", images)
        np.save(folder / split / "labels.npy", np.arange(count) % classes)
    np.save(folder / "mean_image.npy", np.full((image_size, image_size, channels), 127.5, np.float32))
    meta = Meta(
        dataset="synthetic",
        image_size=image_size,
        channels=1 if channels == 1 else 3,
        classes=[str(label) for label in range(classes)],
        counts=dict(counts),
        sources={},
        rgb_eigenvectors=np.eye(3).tolist(),
        rgb_std=[60.0, 20.0, 5.0],
        skipped=[],
        sha256={array: checksum(folder / array) for array in ARRAYS},
    )
    write_json(folder / "meta.json", meta.model_dump())
    return Store.open(folder)
